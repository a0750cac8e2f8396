"""Energy and time of a training: what the operations of a ledger cost, and a digital design's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from devicemodels.errors import reject_unknown
from devicemodels.library import read_section
from devicemodels.parameter_files import read_file, read_table, shipped
from devicemodels.quantities import Parameters, Quantity, quantity
from mcatrain.ledger import Counts, total

_HEADER = ("title", "publication", "note")
#: Parts of a training's energy, in the order in which they are shown.
PARTS = (
    "forward converters", "forward array", "backward converters", "backward array",
    "update", "pulses", "refresh",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Operations(Parameters):
    """Energy and time of one operation."""

    dac_pj: float = quantity("pJ", 0, 1e6, "conversion of one input line")
    adc_pj: float = quantity("pJ", 0, 1e6, "conversion of one output")
    pcm_read_fj: float = quantity("fJ", 0, 1e9, "one PCM device in one read of its array")
    step_read_fj: float = quantity("fJ", 0, 1e9, "one bipolar device in one read of its array")
    check_fj: float = quantity("fJ", 0, 1e9, "comparison of a device with the refresh threshold")
    set_pj: float = quantity("pJ", 0, 1e9, "SET pulse of a PCM device")
    reset_pj: float = quantity("pJ", 0, 1e9, "RESET pulse of a PCM device")
    step_pj: float = quantity("pJ", 0, 1e9, "up or down pulse of a bipolar device")
    slot_pj: float = quantity("pJ", 0, 1e9, "one slot of a bit stream on one line")
    outer_mac_pj: float = quantity("pJ", 0, 1e6, "one product of the outer product d x^T")
    chi_pj: float = quantity("pJ", 0, 1e6, "adding to one entry of chi and comparing it")
    chi_accesses: float = quantity("1", 0, 100, "32-bit memory accesses an entry of chi")
    mac32_pj: float = quantity("pJ", 0, 1e6, "32-bit multiply-add")
    sram32_pj: float = quantity("pJ", 0, 1e6, "access to 32 bits of SRAM")
    dram32_pj: float = quantity("pJ", 0, 1e9, "access to 32 bits of DRAM")
    sram_mb: float = quantity("MB", 0, 1e9, "SRAM: what is larger lies in DRAM")
    read_ns: float = quantity("ns", 1e-6, 1e9, "read of an array")
    set_ns: float = quantity("ns", 0, 1e9, "SET pulse")
    reset_ns: float = quantity("ns", 0, 1e9, "RESET pulse")
    slot_ns: float = quantity("ns", 0, 1e9, "slot of a bit stream")
    digital_per_ns: float = quantity("1/ns", 1e-9, 1e12, "digital operations at a time")


@dataclass(frozen=True)
class EnergyModel:
    """A parameter file of energies and times: what an operation costs, with sources."""

    name: str
    title: str
    publication: str
    note: str
    operations: Operations
    quantities: tuple[Quantity, ...]

    def training(self, work: Mapping[str, int], *, bipolar: bool) -> dict[str, float]:
        """Return the energy [J] of a training by `PARTS`.

        work: counts as `ledger.counts` has them, of a tile or summed. bipolar: whether a weight
        is one step device, whose pulses and reads cost less than a PCM pair's.
        """
        o = self.operations
        word = self._word_pj(work["weights"])
        found = {}
        for way in ("forward", "backward"):
            dac, adc = work[f"{way}_dac"] * o.dac_pj, work[f"{way}_adc"] * o.adc_pj
            device_fj = o.step_read_fj if bipolar else o.pcm_read_fj
            found[f"{way} converters"] = dac + adc
            found[f"{way} array"] = work[f"{way}_device_reads"] * device_fj * 1e-3
        chi = work["chi_accumulations"]
        # RPU makes its products on the array, where the streams meet.
        outer = work["update_macs"] * o.outer_mac_pj if chi else 0.0
        found["update"] = (
            outer + chi * (o.chi_pj + o.chi_accesses * word) + work["line_slots"] * o.slot_pj
        )
        rewritten = work["refresh_set_pulses"]
        ups, downs = work["set_pulses"] - rewritten, work["reset_pulses"]
        refresh = work["refresh_checks"] * o.check_fj * 1e-3
        if bipolar:
            found["pulses"] = (ups + downs) * o.step_pj
        else:  # only refresh sends RESETs to a PCM pair
            found["pulses"] = ups * o.set_pj
            refresh += rewritten * o.set_pj + downs * o.reset_pj
        found["refresh"] = refresh
        return {name: found[name] * 1e-12 for name in PARTS}

    def digital(self, work: Mapping[str, int]) -> dict[str, float]:
        """Return the energy [J] of a 32-bit digital design that does the same training.

        Products and memory accesses to weights; of these each is moved once a training step and
        pass, which favours the digital design. Activations, norms and control are left out here
        as they are in `training`.
        """
        o = self.operations
        moved = work["weight_accesses"] * self._word_pj(work["weights"])
        found = {f"{way} products": work[f"{way}_macs"] * o.mac32_pj for way in _WAYS}
        return {name: pj * 1e-12 for name, pj in {**found, "memory": moved}.items()}

    def seconds(self, work: Mapping[str, int], *, bipolar: bool) -> dict[str, float]:
        """Return the time [s] on hardware: layers and pulses of PCM one after the other.

        Pulses of bipolar devices happen within the slots of their streams.
        """
        o = self.operations
        digital = work["chi_accumulations"] and work["update_macs"] + work["chi_accumulations"]
        ups, downs = work["set_pulses"], work["reset_pulses"]
        pulses = 0.0 if bipolar else ups * o.set_ns + downs * o.reset_ns
        found = {
            "reads": (work["forward_reads"] + work["backward_reads"]) * o.read_ns,
            "update": digital / o.digital_per_ns + work["slots"] * o.slot_ns,
            "pulses": pulses,
        }
        return {name: ns * 1e-9 for name, ns in found.items()}

    def digital_seconds(self, work: Mapping[str, int]) -> float:
        """Return the time [s] of the digital design's products, so many at a time."""
        return sum(work[f"{way}_macs"] for way in _WAYS) / self.operations.digital_per_ns * 1e-9

    def operations_per_second(self, devices: int) -> float:
        """Return a multiply and an add a device and read time [1/s]: 2 devices / 80 ns."""
        return 2 * devices / (self.operations.read_ns * 1e-9)

    def _word_pj(self, weights: int) -> float:
        o = self.operations
        return o.sram32_pj if 4e-6 * weights <= o.sram_mb else o.dram32_pj


_WAYS = ("forward", "backward", "update")


def available() -> list[str]:
    """Return the names of the energy models that ship with the package."""
    return shipped("mcatrain")


def load(name: str) -> EnergyModel:
    """Load a shipped energy model by name, or any by path (a name with '/' or '.toml').

    Raises InputError, naming file, key and remedy, for what is missing, unknown or impossible.
    """
    file = read_file(name, "mcatrain", "energy model")
    where = file.where
    table = read_table(file.text, _HEADER, where)
    reject_unknown(table, (*_HEADER, "operations"), where, "section")
    built, found = read_section(table.get("operations"), Operations, "operations", where)
    assert isinstance(built, Operations)
    about = {key: table[key] for key in _HEADER}
    return EnergyModel(name=file.name, **about, operations=built, quantities=tuple(found))


def mlp_image(widths: tuple[int, ...], pulses: int, examples: int, refresh_every: int) -> Counts:
    """Return the work of MCA on PCM pairs with ``examples`` vectors through a perceptron, batch 1.

    The counts that a ledger would have for layers of these widths with biases, ``pulses`` SET
    pulses in all and no pair to rewrite; the paper's network is (784, 250, 10).
    """
    layers: list[Counts] = []
    for k, (fan_in, out) in enumerate(pairwise(widths)):
        inputs, back = fan_in + 1, int(k > 0)  # the data needs no gradient
        weights, n = (fan_in + 1) * out, examples
        layers.append({
            "weights": weights, "devices": 2 * weights, "set_pulses": 0,
            "reset_pulses": 0, "refreshes": 0, "refresh_set_pulses": 0,
            "refresh_checks": 2 * weights * (n // refresh_every if refresh_every else 0),
            "forward_reads": n, "forward_dac": n * inputs, "forward_adc": n * out,
            "forward_device_reads": 2 * n * weights, "forward_macs": n * weights,
            "backward_reads": n * back, "backward_dac": n * back * out,
            "backward_adc": n * back * inputs,
            "backward_device_reads": 2 * n * back * weights, "backward_macs": n * back * weights,
            "update_macs": n * weights, "chi_accumulations": n * weights, "slots": 0,
            "line_slots": 0,
            "weight_accesses": (3 + back) * n * weights,
        })  # fmt: skip
    return total(layers) | {"set_pulses": pulses}
