"""Time of a step against the size of the array, and of a step that changes no device."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import mcatrain
from benchmarks.cases import Case, mca, rpu
from benchmarks.part import Effort, Part, Table
from benchmarks.timing import Batch, Times, alternate
from mcatrain.kernels.reference import noise_product

Take = Callable[..., dict[str, Times]]
_SIDES = (316, 1000, 3162, 10000)
_ROUNDS = {316: 100, 1000: 50, 3162: 15, 10000: 5}
#: Bytes a weight while the largest array is made.
_MAKING = 100
_RULES = {
    "MCA, PCM pair": mca(device_model="nandakumar2018"),
    "MCA, PCM pair, factored": mca({"factored": True}, device_model="nandakumar2018"),
    "RPU, constant step": rpu(device_model="gokmen2016", periphery="rpu2016"),
}


def measure(effort: Effort) -> Part:
    """Time steps of one vector through one array and back, for every size that fits in memory."""
    grown: dict[int, dict[str, Times]] = {}
    idle: dict[int, dict[str, Times]] = {}
    for side in _SIDES[:1] if effort.smoke else _SIDES:
        if _MAKING * side**2 > _free():
            print(f"scaling: {side}^2 weights do not fit in memory: left out")
            continue
        rounds = effort.of(_ROUNDS[side])
        take = partial(alternate, warm_up=2, rounds=rounds, clock=effort.clock)
        grown[side] = {name: _time(make, side, take) for name, make in _RULES.items()}
        idle[side] = _time_idle(side, take)
    return Part(
        "Scaling",
        [_growth(grown), _rest(idle)],
        {
            "step": {s**2: {k: t.figures() for k, t in of.items()} for s, of in grown.items()},
            "no device": {s**2: {k: t.figures() for k, t in of.items()} for s, of in idle.items()},
        },
    )


def _free() -> float:
    with open("/proc/meminfo") as file:
        lines = dict(line.split(":", 1) for line in file)
    return 1024.0 * int(lines["MemAvailable"].split()[0])


def _network(side: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(side, side, bias=False))


def _draw(side: int, chance: torch.Generator) -> Batch:
    return torch.rand(1, side, generator=chance), torch.randn(1, side, generator=chance) / side


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Drive x through the array and d back through it, as a layer within a network is."""
    x, d = batch
    y = model(x.requires_grad_())
    optimizer.zero_grad()
    y.backward(d)
    optimizer.step()


def _time(make: Callable[[nn.Module], Case], side: int, take: Take) -> Times:
    gc.collect()
    chance = torch.Generator().manual_seed(side)
    case = {"": partial(_step, *make(_network(side)))}
    return take(case, partial(_draw, side, chance))[""]


def _time_idle(side: int, take: Take) -> dict[str, Times]:
    """Time a step whose chi stays below epsilon, and what it cannot do without."""
    gc.collect()
    model = mcatrain.convert(_network(side), "nandakumar2018", periphery="mca")
    optimizer = mcatrain.MCA(model, torch.optim.SGD, lr=1e-9, factored=True, refresh_every=0)
    (tile,) = mcatrain.tiles(model).values()
    pulses = tile.synapse.set_pulses
    weights, variance = tile.weights(), tile.synapse.read_variance(tile.now_s)
    assert variance is not None
    cases = {
        "MCA step, no device": partial(_step, model, optimizer),
        "products and chi": partial(_least, weights, variance, torch.zeros(side, side)),
    }
    chance = torch.Generator().manual_seed(side)
    times = take(cases, partial(_draw, side, chance))
    assert tile.synapse.set_pulses == pulses
    return times


@torch.no_grad()
def _least(weights: Tensor, variance: Tensor, chi: Tensor, batch: Batch) -> None:
    """W x, S x^2, W^T d, S^T d^2, and chi -= lr d x^T."""
    x, d = batch
    torch.mm(x, weights.T)
    noise_product(x.square().to(variance.dtype), variance)
    torch.mm(d, weights)
    noise_product(d.square().to(variance.dtype), variance.T)
    chi.addr_(d[0], x[0], alpha=-1e-9)


def _growth(grown: dict[int, dict[str, Times]]) -> Table:
    rows = []
    for name in _RULES:
        cells = [
            f"{of[name].median_ms:.2f} ms, {1e6 * of[name].median_ms / side**2:.2f} ns"
            for side, of in grown.items()
        ]
        rows.append([name, *cells])
    return Table(
        "One step of one example, by the size of the array",
        "Median of a step, and per weight: the same at every size would be exactly linear. Arrays "
        "that fit in a cache are faster. x is driven through the array and d back.",
        ["weights", *(f"{side**2:.2g}" for side in grown)],
        rows,
    )


def _rest(idle: dict[int, dict[str, Times]]) -> Table:
    rows = []
    for side, of in idle.items():
        step, least = of.values()
        cells = (f"{t.median_ms:.3f}" for t in (step, least))
        rows.append([f"{side**2:.2g}", *cells, f"{step.ratio_to(least):.2f}"])
    return Table(
        "A step that changes no device",
        "ms of an MCA step (factored) whose chi stays below epsilon, beside plain torch doing its "
        "four products and one pass over chi, in turn; median of the ratios.",
        ["weights", "step", "products and one pass over chi", "ratio"],
        rows,
    )
