"""Comparison of models: held-out densities are those of brute force, and the true model wins."""

from __future__ import annotations

import math
import warnings
from typing import Any

import arviz
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import devicemodels
from calibration import held_out, rivals
from calibration.fit import fit
from calibration.held_out import Devices, LastQuarter, Refit
from calibration.measurements import Measurements, table
from calibration.models import Drift, ReadNoise, Relaxation, SetResponse, StepResponse
from calibration.models.base import CalibrationModel
from calibration.ranking import BASELINE, Ranking, rank
from calibration.rivals import Candidate, chosen, gather, name_of
from calibration.synthetic import measure
from devicemodels.errors import InputError

pytestmark = pytest.mark.usefixtures("double")

LINEAR = {
    "step": 0.3, "up_down": 1.0, "slope_up": 0.9, "slope_down": 0.9, "cycle": 0.3, "read": 0.02,
    "step_spread": 0.1,
}  # fmt: skip


def linear(devices: int, pulses: int, seed: int = 0) -> Measurements:
    """Return reads of devices whose steps fall to a tenth at the ends of 10 to 30 uS."""
    steps = 2 * pulses + 1
    frame = pd.DataFrame(
        {
            "device": np.repeat(np.arange(devices), steps),
            "step": np.tile(np.arange(steps), devices),
            "pulse": np.tile(["read"] + ["up"] * pulses + ["down"] * pulses, devices),
            "conductance_us": 20.0,
        }
    )
    frame.loc[[0, 1], "conductance_us"] = [10.0, 30.0]  # the window, for the simulator alone
    model = StepResponse("linear")
    data = model.prepare(table(frame, "linear"))
    data.reads[:, 0] = 12.0
    values = {name: torch.tensor(value) for name, value in LINEAR.items()}
    found = model.replicate(values, data, torch.Generator().manual_seed(seed))
    return table(frame.assign(conductance_us=found.flatten().numpy()), "linear")


def drifting(devices: int, seed: int = 0) -> Measurements:
    chance, times = np.random.default_rng(seed), np.array([0.0, 1e2, 1e3, 1e4, 1e5])
    nu = 0.05 + 0.01 * chance.normal(size=(devices, 1))
    level = chance.uniform(5, 20, (devices, 1)) * (np.maximum(times, 38.6) / 38.6) ** -nu
    frame = pd.DataFrame(
        {
            "device": np.repeat(np.arange(devices), 5),
            "step": np.tile(np.arange(5), devices),
            "pulse": np.tile(["set", *["read"] * 4], devices),
            "time_s": np.tile(times, devices),
            "conductance_us": (level * (1 + 0.01 * chance.normal(size=level.shape))).ravel(),
        }
    )
    return table(frame, "drifting")


def candidate(model: CalibrationModel, measured: Measurements) -> Candidate:
    return Candidate(name_of(model), model, model.prepare(measured))


def ranked(measured: Measurements, *models: CalibrationModel, steps: int = 60) -> Ranking:
    found = [candidate(model, measured) for model in models]
    posterior = fit(models[0], found[0].data, steps=steps, draws=400)
    ranking = rank(found, posterior, steps=steps, draws=400)
    assert ranking is not None
    assert not ranking.remarks
    return ranking


def nats(ranking: Ranking) -> dict[str, float]:
    return {row.name: row.nats for row in ranking.rows}


def test_density_in_the_unit_of_the_table() -> None:
    """Twice the conductance, half the density of every read: drift works in logarithms."""
    measured, model = drifting(4), Drift()
    double = measured.frame.assign(conductance_us=2 * measured.frame["conductance_us"])
    values = {c.name: torch.tensor(0.05) for c in model.constants}
    one, two = (model.prepare(m) for m in (measured, table(double, "double")))
    change = model.log_density(values, two) - model.log_density(values, one)
    assert change.tolist() == pytest.approx([-5 * math.log(2)] * 4)
    assert model.log_likelihood(values, two).tolist() == pytest.approx(
        model.log_likelihood(values, one).tolist()
    )


@pytest.mark.parametrize("model", [StepResponse("linear"), Drift(), Relaxation(), SetResponse()])
def test_first_reads(model: CalibrationModel) -> None:
    """What is cut off does not matter; a model that takes the first reads as given adds nothing."""
    pcm = devicemodels.load("nandakumar2018")
    measured: Any
    if isinstance(model, SetResponse):
        torch.set_default_dtype(torch.float32)
        measured = measure(pcm, 5, 6)
        torch.set_default_dtype(torch.float64)
    else:
        measured = linear(5, 8) if isinstance(model, StepResponse) else drifting(5)
    data = model.prepare(measured)
    values = model.start(data)
    part = data.until(torch.full_like(data.lengths, 3))
    assert part.reads.shape[1] == 3
    assert part.lengths.tolist() == [3] * 5
    data.reads[:, 3:] = 1.0
    assert torch.equal(
        model.log_density(values, part),
        model.log_density(values, data.until(torch.full_like(data.lengths, 3))),
    )
    first = model.log_density(values, data.until(torch.ones_like(data.lengths)))
    if isinstance(model, StepResponse | Relaxation):
        assert first.abs().max() < 1e-9
    else:
        assert (first.abs() > 1e-3).all()


def test_psis_is_arviz_where_first_reads_are_given() -> None:
    model = StepResponse("linear")
    data = model.prepare(linear(12, 10))
    posterior = fit(model, data, steps=60, draws=400)
    found, pareto = held_out._psis(model, data, posterior)
    reads = model.log_likelihood(posterior.flat(), data)
    whole = arviz.from_dict(
        posterior={name: draws.numpy() for name, draws in posterior.draws.items()},
        log_likelihood={"reads": reads[None].detach().numpy()},
    )
    with warnings.catch_warnings():  # it warns of Pareto k, which is compared below
        warnings.simplefilter("ignore")
        wanted = arviz.loo(whole, pointwise=True, reff=1.0)
    np.testing.assert_allclose(found.numpy(), wanted.loo_i.to_numpy(), rtol=1e-6)
    np.testing.assert_allclose(pareto.numpy(), wanted.pareto_k.to_numpy(), rtol=1e-6)


def test_psis_is_fits_without_each_device() -> None:
    """30 drifting devices, 400 draws: each within 0.25 nats, their sum within 0.6.

    The two differ where importance sampling or the normal approximation do; in-sample densities
    of these devices are 2 nats higher in all, which is what leaving out is for.
    """
    own = candidate(Drift(), drifting(30))
    task = Devices(own, Refit(0, 60, 400))
    posterior = fit(own.model, own.data, steps=60, draws=400)
    quick, pareto = held_out._psis(own.model, own.data, posterior)
    every = torch.arange(30)
    parts = [task._without(own.model, own.data, every[k : k + 1], posterior)[0] for k in every]
    sound = pareto < 0.7
    assert sound.sum() > 25
    difference = (quick - torch.cat(parts))[sound]
    assert difference.abs().max() < 0.25
    assert abs(difference.sum()) < 0.6
    same = held_out._densities(own.model, posterior, own.data)
    first = held_out._densities(own.model, posterior, held_out._first(own.data))
    inside = torch.logsumexp(same, 0) - torch.logsumexp(first, 0)
    assert float((inside - quick).sum()) > 1.0


@pytest.mark.parametrize(
    ("devices", "said"),
    [(14, "14 devices held out in turn, by Pareto"), (3, "by a fit to"), (1, "last quarter")],
)
def test_generating_response_wins(devices: int, said: str) -> None:
    """Steps that fall to a tenth, against constant ones: 60 pulses a device, one seed.

    More than three standard errors, which noise alone gives once in 700 such tests.
    """
    constant, line = StepResponse("constant"), StepResponse("linear")
    found = ranked(linear(devices, 60, seed=1), constant, line)
    assert said in found.how
    assert [row.name for row in found.rows] == [name_of(line), name_of(constant), BASELINE]
    best, second, last = found.rows
    assert (best.behind, best.behind_error) == (0, 0)
    assert second.behind > 3 * second.behind_error > 0
    assert last.behind > second.behind
    assert found.reads == (30 if devices == 1 else 120 * devices)


def test_last_quarter_is_the_density_given_the_rest() -> None:
    own = candidate(StepResponse("linear"), linear(1, 20))
    task = LastQuarter(own, Refit(0, 60, 400))
    assert task.reads.tolist() == [2, 1, 1, 1, 2, 1, 1, 1]
    score = task.score(own, None)
    kept = own.data.until(torch.tensor([31]))
    draws = fit(own.model, kept, steps=60, draws=400).flat()

    def density(data: Any) -> Tensor:
        return own.model.log_likelihood(draws, data)[:, 0]

    wanted = torch.logsumexp(density(own.data) - density(kept), 0) - math.log(400)
    assert score.nats.sum().item() == pytest.approx(wanted.item(), abs=1e-6)


def test_order_of_the_table_does_not_matter() -> None:
    """Drift against relaxation, rows and devices shuffled: the same within 0.01 nats a read."""
    measured = drifting(12)
    frame = measured.frame.sort_values(["step", "device"], ascending=[True, False])
    models = Drift(), Relaxation()
    one, two = ranked(measured, *models), ranked(table(frame, "shuffled"), *models)
    assert nats(one).keys() == {"drift", "relaxation", BASELINE}
    assert one.rows[0].name == "drift"
    assert nats(two) == pytest.approx(nats(one), abs=0.01)
    lines = one.in_words()
    assert lines[0].startswith("compared on 48 reads, nats a read: each of 12 devices")
    assert [line.split()[0] for line in lines[1:3]] == ["drift", one.rows[1].name.split()[0]]
    assert "best" in lines[1]
    assert "behind by" in lines[2]


def test_nothing_to_hold_out() -> None:
    frame = pd.DataFrame({"device": "a", "step": range(3), "pulse": ["read", "up", "down"]})
    own = candidate(StepResponse(), table(frame.assign(conductance_us=[1.0, 2.0, 1.5]), "few"))
    assert rank([own], fit(own.model, own.data, steps=5, draws=20)) is None


def test_rivals() -> None:
    def names(model: CalibrationModel, measured: Measurements, compare: str = "auto") -> list[str]:
        own = candidate(model, measured)
        found, why = gather(own, measured, compare, {"t0_s": 1.0})
        assert bool(found) != bool(why)
        return [one.name for one in found]

    responses = {f"step-response:{way}" for way in ("constant", "soft-bounds", "exponential")}
    found = names(StepResponse("linear"), linear(3, 10))
    assert found[0] == "step-response:linear"
    assert set(found[1:]) >= responses
    assert names(Drift(), drifting(3)) == ["drift", "relaxation"]
    assert names(Drift(), drifting(3), "none") == []
    assert names(ReadNoise(), drifting(3), "all") == []
    step = names(StepResponse("linear"), linear(3, 10), "step-response")
    assert set(step) == {"step-response:linear"} | responses
    assert chosen("drift,drift") == ["drift"]
    for compare, said in (("drift", "other reads"), ("set-response", "other reads|step-response")):
        with pytest.raises(InputError, match=said):
            gather(candidate(StepResponse(), linear(3, 10)), linear(3, 10), compare, {})
    with pytest.raises(InputError, match="did you mean"):
        chosen("step-response:linar")


def test_large_tables_are_compared_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "MOST_READS", 10)
    own = candidate(Drift(), drifting(3))
    found, why = gather(own, drifting(3), "auto", {})
    assert not found
    assert "--compare all" in why
    assert len(gather(own, drifting(3), "all", {})[0]) == 2
