"""Table devices: changes follow the table in distribution, pulse by pulse, inside the grid."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from scipy import stats
from torch import Tensor

from devicemodels import Chance, PulseEvents, load
from devicemodels.devices.table import TableArray, TableParameters
from devicemodels.errors import InputError
from devicemodels.library import parse
from devicemodels.quantities import shown
from devicemodels.synapses.bipolar import SingleBipolar
from mcatrain.cli import main

#: Rows differ in spacing, columns too; the last column moves less.
PLAIN: dict[str, Any] = {
    "granularity": 0.1,
    "states": [-1.0, 0.0, 0.5, 1.0],
    "fractions": [0.0, 0.2, 1.0],
    "change_up": [[[0.0, 0.02, 0.0, -0.02], [0.1, 0.06, 0.04, 0.0], [0.3, 0.2, 0.1, 0.02]]],
    "change_down": [[[-0.1, -0.2, -0.3, -0.4], [-0.05, -0.1, -0.1, -0.2], [0.0, 0.0, 0.0, 0.0]]],
}


def sure(up: list[float], down: list[float]) -> dict[str, Any]:
    """Return a table without chance, of these changes at -1 and 1."""
    both = {"change_up": [[up, up]], "change_down": [[down, down]]}
    return {"granularity": 0.1, "states": [-1.0, 1.0], "fractions": [0.0, 1.0], **both}


def build(size: int, values: dict[str, Any] = PLAIN, seed: int = 1) -> TableArray:
    return TableArray(size, TableParameters(**values), Chance(seed, "table"))


def pulse(devices: TableArray, count: int) -> None:
    index = torch.arange(devices.weight.numel())
    devices.pulse(index, torch.full_like(index, count))


def as_file(values: dict[str, Any] = PLAIN, **changes: dict[str, Any]) -> str:
    """Return a parameter file of these values; changes: of entries, by name."""
    limits = {"granularity": (0, 1e3), "states": (-1, 1), "fractions": (0, 1)}
    device = {}
    for name, value in values.items():
        device[name] = {
            "value" if name == "granularity" else "values": value,
            "unit": "1" if name == "fractions" else "weight",
            "range": list(limits.get(name, (-2, 2))),
            "status": "assumed",
            "source": "a test",
            **changes.get(name, {}),
        }
    head = {"device_type": "table", "title": "a table", "publication": "none", "note": "a test"}
    return tomli_w.dumps(head | {"device": device})


@pytest.mark.parametrize(("sign", "name"), [(1, "change_up"), (-1, "change_down")])
@pytest.mark.parametrize("start", [-0.7, -0.3, 0.5, 0.65])
def test_one_pulse_follows_the_table(sign: int, name: str, start: float) -> None:
    """20,000 devices, seed 1: Kolmogorov-Smirnov against the quantiles, interpolated in float64.

    False-alarm rate 1e-4 each of 8. The ends cut none of these changes.
    """
    devices = build(20_000)
    devices.write(torch.full((20_000,), start))
    pulse(devices, sign)
    change = (devices.weight.double() - start).numpy()
    table = torch.tensor(PLAIN[name][0], dtype=torch.float64).numpy()
    quantiles = [float(x) for x in _at(table, PLAIN["states"], start)]

    def cdf(x: Any) -> Any:
        return np.interp(x, quantiles, PLAIN["fractions"])

    assert stats.kstest(change, cdf).pvalue > 1e-4


def _at(table: Any, grid: list[float], x: float) -> list[float]:
    return [float(np.interp(x, grid, row)) for row in table]


def test_ends_of_the_grid_bound_the_state() -> None:
    devices = build(2_000)
    devices.write(torch.linspace(-3, 3, 2_000))
    assert (devices.weight.min(), devices.weight.max()) == (-1, 1)
    for count in (40, -40):
        pulse(devices, count)
        assert devices.weight.abs().max() <= 1
    assert (devices.weight < -0.5).float().mean() > 0.9


def test_pulses_follow_one_another() -> None:
    """Each from the state that the one before left: w' = 1 - 0.9 (1 - w), without chance."""
    devices = build(3, sure([0.2, 0.0], [0.0, -0.4]))
    index, count = torch.tensor([2, 0]), torch.tensor([4, -3])
    devices.pulse(index, count)
    expected = torch.tensor([-1 + 0.8**3, 0.0, 1 - 0.9**4])
    torch.testing.assert_close(devices.weight, expected)


def test_every_device_keeps_one_table() -> None:
    """3,000 devices, three tables, seed 2: a third each within 5 standard errors."""
    one = sure([0.1, 0.1], [-0.1, -0.1])
    three = one | {
        name: [[[k * x for x in row] for row in one[name][0]] for k in (1, 2, 3)]
        for name in ("change_up", "change_down")
    }
    devices = build(3_000, three, seed=2)
    pulse(devices, 1)
    first = (devices.weight / 0.1).round().long()
    assert ((torch.bincount(first, minlength=4)[1:] - 1_000).abs() < 5 * 26).all()
    assert torch.equal(first - 1, devices.which)
    pulse(devices, -2)
    torch.testing.assert_close(devices.weight, -0.1 * first)
    assert devices.physics.mean_step == pytest.approx(0.2)


def test_mean_step_is_that_of_many_pulses() -> None:
    """100,000 pulses up, as many down, states even over the grid, seed 3; 5 standard errors.

    Bounds cut nothing here: the mean is that of the table.
    """
    values = PLAIN | {"change_up": [[[0.0, 0.0, 0.0, -0.4], [0.1, 0.0, 0.0, -0.1],
                                     [0.3, 0.2, 0.1, 0.0]]],
                      "change_down": [[[0.0, -0.2, -0.3, -0.4], [0.0, -0.1, -0.1, -0.2],
                                       [0.1, 0.0, 0.0, 0.0]]]}  # fmt: skip
    devices = build(100_000, values, seed=3)
    start = torch.linspace(-1, 1, 100_000)
    moved = []
    for sign in (1, -1):
        devices.write(start)
        pulse(devices, sign)
        moved.append(sign * (devices.weight - start).double())
    both = torch.cat(moved)
    error = float(both.std()) / len(both) ** 0.5
    assert both.mean().item() == pytest.approx(devices.physics.mean_step, abs=5 * error)


def test_symmetry_point_and_zero_shift() -> None:
    """Up 0.2 (1 - w) / 2, down 0.1 (1 + w) / 2: equal at w = 1/3."""
    values = sure([0.2, 0.0], [0.0, -0.1])
    devices = build(50, values)
    torch.testing.assert_close(devices.symmetry_point(), torch.full((50,), 1 / 3))
    synapse = SingleBipolar((5, 10), devices, 0.1, Chance(1, "layer"))
    synapse.zero_shift(100)
    assert (synapse.reference - 1 / 3).abs().max() < 0.02  # type: ignore[operator]
    flat = build(5, sure([0.1, 0.1], [-0.1, -0.1]))
    with pytest.raises(InputError, match="no symmetry point"):
        flat.symmetry_point()


def test_state_returns_bit_for_bit() -> None:
    def moved(synapse: Any) -> Tensor:
        synapse.pulse(PulseEvents.from_counts(torch.arange(600).view(20, 30) % 7 - 3), 0.0)
        return synapse.weights(0.0).clone()

    model = parse(as_file(), "a", "a.toml")
    one, other = (model.build((20, 30), Chance(seed, "layer")) for seed in (1, 2))
    moved(one)
    other.load_state_dict(one.state_dict())
    assert torch.equal(moved(one), moved(other))
    assert one.state_dict()["devices.which"].dtype == torch.int64
    assert "devices.change" not in one.state_dict()


def test_file_loads_and_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(as_file())
    model = load(path)
    assert isinstance(model.device, TableParameters)
    assert model.device.states == (-1, 0, 0.5, 1)
    assert model.device == TableParameters(**PLAIN)
    assert model.build((2, 3), Chance(1, "layer")).granularity == 0.1
    assert main(["devices", str(path)]) == 0
    assert "1 x 3 x 4 values, -0.02 to 0.3" in capsys.readouterr().out
    assert shown(0.25) == "0.25"
    assert model.vary(granularity=0.2).build((2, 3), Chance(1, "layer")).granularity == 0.2
    with pytest.raises(InputError, match="states: must be finite numbers in 1 nested lists"):
        model.vary(states=1.0)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"states": {"values": [1.0, 0.0]}}, "states: give at least two values, each above"),
    ({"states": {"values": [0.0]}}, "states: give at least two values"),
    ({"states": {"values": [-2.0, 0.0, 0.5, 1.0]}}, "states = -2.0 weight is out of range"),
    ({"states": {"values": 3.0}}, "states: values: must be finite numbers in 1 nested lists"),
    ({"states": {"values": [-1.0, float("nan")]}}, "states: values: must be finite numbers"),
    ({"states": {"values": ["a", "b"]}}, "states: values: must be finite numbers"),
    ({"states": {"value": 1.0}}, "unknown key"),
    ({"states": {"unit": "uS"}}, "unit 'uS' is not allowed"),
    ({"fractions": {"values": [0.0, 0.5, 0.9]}}, "fractions: the first must be 0 and the last 1"),
    ({"change_up": {"values": [[0.0, 1.0], [2.0]]}}, "in 3 nested lists"),
    ({"change_up": {"values": [[[0.0] * 4] * 2]}}, "change_up: holds 1 x 2 x 4 values: 1 x 3 x 4"),
    ({"change_down": {"values": [[[0.0] * 4] * 3] * 2}}, "holds 2 x 3 x 4 values: 1 x 3 x 4"),
    ({"change_up": {"values": [[[0.1] * 4, [0.1] * 4, [0.0] * 4]]}}, "falls along the fractions"),
]


@pytest.mark.parametrize(("changes", "said"), BAD)
def test_bad_files(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(as_file(**changes), "bad", "bad.toml")
    assert str(caught.value).startswith("bad.toml: [device] ")
    assert "\n" not in str(caught.value)
    assert said.split(":")[0] in str(caught.value)
    assert said in str(caught.value) or said == "unknown key"


def test_a_missing_array_is_named() -> None:
    table = tomllib.loads(as_file())
    del table["device"]["change_up"]["values"]
    with pytest.raises(InputError, match=r"change_up: values is missing: write \{ values"):
        parse(tomli_w.dumps(table), "bad", "bad.toml")


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["mca", "rpu"])
def test_a_network_learns_on_a_table(rule: str, empty_desk: None, tmp_path: Path) -> None:
    """A table of small even steps with noise of their own size; 600 examples, 5 epochs, seed 0.

    Chance is 0.1; a device that ignored or exchanged its pulses would stay there.
    """
    steps = {
        "change_up": [[[-0.001] * 2, [0.005] * 2]],
        "change_down": [[[-0.005] * 2, [0.001] * 2]],
    }
    even = sure([0.0, 0.0], [0.0, 0.0]) | steps | {"granularity": 0.002}
    Path("even.toml").write_text(as_file(even))
    options = ["--task", "mlp", "--data", "digits", "--hidden", "30", "--train-limit", "600"]
    options += ["--epochs", "5", "--seed", "0", "--rule", rule, "--device-model", "even.toml"]
    assert main(["train", *options, "--out", "run"]) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert result["metrics"]["test_accuracy"] > 0.5
