"""The device models of a report: who used them, their response, their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from devicemodels import DeviceModel
from devicemodels.devices.pcm import PCMParameters
from devicemodels.quantities import shown
from mcatrain.report.pictures import Figure
from mcatrain.report.plots import Painter
from mcatrain.report.response import set_response, up_down_response
from mcatrain.report.summary import Group
from mcatrain.run.records import Run


@dataclass(frozen=True)
class DeviceSection:
    """A device model, who used it and how it was changed, its response, its parameters.

    id: of its heading on the page. groups: labels of those who used it. changes: what was
    switched off or given another value, as (what was done, to what).
    """

    id: str
    model: DeviceModel
    users: str
    groups: tuple[str, ...]
    changes: tuple[tuple[str, str], ...]
    figure: Figure
    parameters: tuple[dict[str, Any], ...] = ()

    @property
    def unsure(self) -> int:
        """Number of values that are recalled or assumed rather than verified."""
        return sum(q.status in ("recalled", "assumed") for q in self.model.quantities)


def device_sections(painter: Painter, groups: Sequence[Group]) -> list[DeviceSection]:
    """Return one section for each distinct device: the same file with the same changes."""
    found: dict[tuple[Any, ...], tuple[Run, DeviceModel, list[Group]]] = {}
    for group in groups:
        run = next((run for run in group.runs if run.model is not None), None)
        if run is not None and run.model is not None:
            key = (run.model.text, run.without, tuple(sorted(run.vary.items())), _beta(run))
            found.setdefault(key, (run, run.model, []))[2].append(group)
    return [
        DeviceSection(
            f"device-{place}",
            model,
            ", ".join(group.rule_name for group in users),
            tuple(group.label for group in users),
            _changes(run),
            _response(painter, model),
            _rows(run, model),
        )
        for place, (run, model, users) in enumerate(found.values(), start=1)
    ]


def _beta(run: Run) -> str:
    """Return the option beta where it replaces the pair's own: a conductance, or 'Nsd'."""
    has_pair = run.model is not None and run.model.synapse is not None
    given = str(run.config.get("beta", "file"))
    return given if has_pair and given != "file" else ""


def _changes(run: Run) -> tuple[tuple[str, str], ...]:
    varied = ", ".join(f"{name} = {value:g}" for name, value in run.vary.items())
    deviations = _beta(run).removesuffix("sd")
    layers = (
        f"β is such that devices reach the refresh threshold at {deviations} standard deviations "
        "of a layer's initial weights"
    )
    said = (
        ("Switched off:", ", ".join(run.without)),
        ("Changed:", varied),
        ("By layer:", layers if _beta(run).endswith("sd") else ""),
    )
    return tuple((what, text.replace("-", "−") if what == "Changed:" else text)
                 for what, text in said if text)  # fmt: skip


def _response(painter: Painter, model: DeviceModel) -> Figure:
    if isinstance(model.device, PCMParameters):
        response = set_response(model.device)
        end, noisy = response.values[-1].mean(), response.values[-1].std() > 0.05
        mark = ("refresh above", model.synapse.refresh_above) if model.synapse else None
        picture = painter.response(
            response,
            "SET pulses since RESET",
            "conductance [µS]",
            f"SET response of {model.name}: mean conductance {end:.3g} µS after 20 pulses",
            mark,
        )
        return Figure(
            "SET response",
            f"Conductance [µS] of {response.values.shape[1]:,} simulated devices after 0 to 20 "
            f"SET pulses from RESET, as stated {model.device.t0_s:g} s after programming and "
            "without read noise" + (": no two pulses do the same." if noisy else "."),
            (picture,),
        )
    response = up_down_response(model)
    picture = painter.response(
        response,
        "pulse number",
        "weight",
        f"Up and down pulse response of {model.name}: highest mean weight "
        f"{response.values.mean(axis=1).max():.3g}",
    )
    return Figure(
        "Up and down response",
        f"Weight (no unit) held by {response.values.shape[1]:,} simulated devices under "
        f"{response.pulse[-1] / 2:,.0f} up pulses and then as many down pulses, from 0.",
        (picture,),
    )


def _rows(run: Run, model: DeviceModel) -> tuple[dict[str, Any], ...]:
    """Return the parameter table; ``here`` is the value where the run changed the file's."""
    given = _beta(run)
    rows = []
    for q in model.quantities:
        used = getattr(model.device, q.name, getattr(model.synapse, q.name, q.value))
        here = None if used == q.value else shown(used)
        if q.name == "beta" and given:
            here = "one a layer" if given.endswith("sd") else f"{float(given):g}"
        rows.append(
            {
                "name": q.name,
                "value": shown(q.value).replace("-", "−"),
                "here": here and here.replace("-", "−"),
                "unit": "–" if q.unit == "1" else q.unit,
                "about": q.about,
                "status": q.status,
                "source": q.source,
            }
        )
    return tuple(rows)
