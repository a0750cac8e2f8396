"""Read what a run or a comparison left in its folder, and check it: for report and frames."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from devicemodels import parse_changes
from devicemodels.errors import InputError
from devicemodels.library import DeviceModel, parse

_REBUILD = "restore the file or train again"


@dataclass(frozen=True)
class Run:
    """One training, as its folder tells it.

    history: evaluations in the order of their steps; spent: what the ledger held at them. pulse:
    weight change of a pulse by layer. model: the device with the run's ``without`` and ``vary``
    applied; None for float32.
    result: None while the run is not finished. outcome: the final numbers (of the last evaluation
    while the run is not finished). images: PNG of what a generator makes; written: what a
    language model wrote; evaluation: what mcatrain evaluate found; None where there is none.
    """

    folder: Path
    config: dict[str, Any]
    history: tuple[dict[str, Any], ...]
    histograms: dict[str, dict[str, Any]]
    pulse: dict[str, float]
    model: DeviceModel | None
    result: dict[str, Any] | None
    outcome: dict[str, Any]
    images: bytes | None
    written: str | None
    evaluation: dict[str, Any] | None = None
    spent: tuple[dict[str, Any], ...] = ()

    @property
    def rule(self) -> str:
        return str(self.config["rule"])

    @property
    def device(self) -> str | None:
        """The name or file the device model was asked for by; None for float32."""
        return None if self.rule == "fp32" else str(self.config.get("device_model", "unknown"))

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @property
    def without(self) -> tuple[str, ...]:
        return _without(self.config)

    @property
    def vary(self) -> dict[str, float]:
        return parse_changes(_vary(self.config))


@dataclass(frozen=True)
class Results:
    """What a report is about: one run, the runs of a comparison, or the chips of one training.

    table: comparison.json; of chips their result.json, {} until all have finished; else None.
    chips: how many there will be; 0 for other results.
    """

    folder: Path
    runs: tuple[Run, ...]
    table: dict[str, Any] | None
    chips: int = 0

    @property
    def is_comparison(self) -> bool:
        return self.table is not None

    def about(self, key: str) -> Any:
        """Return ``key`` of comparison.json, or else of the first run's result or options."""
        first = self.runs[0]
        for source in (self.table or {}, first.result or {}, first.config):
            if source.get(key) is not None:
                return source[key]
        return None


def load_results(folder: Path) -> Results:
    """Read a run folder or a comparison folder. Raises InputError for anything unusable."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder: give one that mcatrain train or compare made")
    if not (folder / "comparison.json").exists():
        if not (folder / "config.toml").exists():
            raise InputError(
                f"{folder}: neither config.toml nor comparison.json is in it: "
                "give a folder that mcatrain train or compare made"
            )
        config = _read_config(folder / "config.toml")
        if config.get("chips"):
            return _load_chips(folder, config)
        return Results(folder, (load_run(folder),), None)
    path = folder / "comparison.json"
    table = _object(_read_json(path), path)
    entries = table.get("entries")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: it lists no entries: run mcatrain compare again")
    runs = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("run"), str):
            raise InputError(f"{path}: an entry names no run folder: run mcatrain compare again")
        runs.append(load_run(folder / entry["run"], entry))
    return Results(folder, tuple(runs), table)


def _load_chips(folder: Path, config: dict[str, Any]) -> Results:
    """Read the chips that were begun, each under the device model that the training was given."""
    begun = [folder / "chips" / str(chip) for chip in range(config["chips"])]
    runs = [load_run(path) for path in begun if (path / "config.toml").exists()]
    if not runs:
        raise InputError(f"{folder}: no chip was begun: train again with --resume")
    model = _read_model(folder / "device.toml", config, finished=True)
    given = {"device_model": config["device_model"]}
    same = [replace(run, model=model, config=run.config | given) for run in runs]
    path = folder / "result.json"
    result = _object(_read_json(path), path) if path.exists() else {}
    return Results(folder, tuple(same), result, config["chips"])


def load_run(folder: Path, entry: dict[str, Any] | None = None) -> Run:
    """Read one run folder; ``entry`` is what comparison.json says of it, if anything does."""
    config = _read_config(folder / "config.toml")
    result_path = folder / "result.json"
    result = _object(_read_json(result_path), result_path) if result_path.exists() else None
    finished = result is not None
    history = _read_history(folder / "metrics.jsonl", finished)
    outcome = _outcome(history, result, entry)
    if not isinstance(outcome["metrics"], dict):
        raise InputError(f"{result_path}: metrics is not a table of numbers: {_REBUILD}")
    model = _read_model(folder / "device.toml", config, finished)
    histograms, pulse = _read_histograms(folder / "histograms.json")
    written, told = folder / "sample.txt", folder / "evaluation.json"
    ledger = folder / "ledger.jsonl"  # not in runs of older versions
    return Run(
        folder=folder,
        config=config,
        history=history,
        histograms=histograms,
        pulse=pulse,
        model=model,
        result=result,
        outcome=outcome,
        images=_read_png(folder / "samples.png"),
        written=_read_text(written) if written.exists() else None,
        evaluation=_object(_read_json(told), told) if told.exists() else None,
        spent=_read_history(ledger, finished) if ledger.exists() else (),
    )


def find_runs(folder: Path) -> tuple[Run, ...]:
    """Read every run in a folder or below it: alone, of comparisons, of chips, by their paths.

    Raises InputError where there is none, or a file of one is missing or broken.
    """
    found = []
    for path in sorted(folder.rglob("config.toml")):
        if not _read_config(path).get("chips"):  # the folder of chips, which are below it
            found.append(load_run(path.parent))
    if not found:
        raise InputError(
            f"{folder}: no run is in it or below: give a folder that mcatrain train or compare made"
        )
    return tuple(found)


def load_ledger(run: Run) -> tuple[dict[str, Any], ...]:
    """Read the rows of a run's ledger.jsonl, () where an older version wrote none."""
    path = run.folder / "ledger.jsonl"
    return _read_history(path, finished=run.result is not None) if path.exists() else ()


def number(value: Any) -> float | None:
    """Return ``value`` as a float; None if it is missing, not a number, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _outcome(
    history: tuple[dict[str, Any], ...], result: dict[str, Any] | None, entry: dict[str, Any] | None
) -> dict[str, Any]:
    last: dict[str, Any] = dict(history[-1]) if history else {}
    outcome = {"metrics": last, **last, **(result or {}), **(entry or {})}
    if outcome.get("pulses") is None:
        parts = [number(outcome.get(name)) for name in ("set_pulses", "reset_pulses")]
        known = [part for part in parts if part is not None]
        outcome["pulses"] = sum(known) if known else None
    return outcome


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: the file is missing: {_REBUILD}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"{path}: cannot be read ({reason}): {_REBUILD}") from None


def _parse_json(text: str) -> Any:
    # A diverged run writes NaN or Infinity, which Python's reader accepts: both mean "no number".
    return json.loads(text, parse_constant=lambda _: None)


def _read_json(path: Path) -> Any:
    try:
        return _parse_json(_read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: not valid JSON (line {error.lineno}: {error.msg}): {_REBUILD}"
        ) from None


def _object(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object: {_REBUILD}")
    return value


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}: {_REBUILD}") from None
    if not isinstance(config.get("rule"), str):
        raise InputError(f"{path}: rule is missing: {_REBUILD}")
    return config


def _read_history(path: Path, finished: bool) -> tuple[dict[str, Any], ...]:
    if not path.exists() and not finished:
        return ()
    lines = _read_text(path).splitlines()
    by_step: dict[Any, dict[str, Any]] = {}
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _parse_json(line)
        except json.JSONDecodeError as error:
            if place == len(lines) and not finished:
                break  # killed while writing its last line
            raise InputError(
                f"{path}: line {place} is not valid JSON ({error.msg}): {_REBUILD}"
            ) from None
        if not isinstance(record, dict) or number(record.get("epoch")) is None:
            raise InputError(f"{path}: line {place} has no epoch: {_REBUILD}")
        # A resumed run may evaluate a step again: the later record stands.
        by_step[record.get("step", record["epoch"])] = record
    return tuple(sorted(by_step.values(), key=lambda record: record["epoch"]))


def _read_model(path: Path, config: dict[str, Any], finished: bool) -> DeviceModel | None:
    if config["rule"] == "fp32" or not (path.exists() or finished):
        return None
    model = parse(_read_text(path), Path(str(config.get("device_model", "device"))).stem, str(path))
    option = "without"
    try:
        model = model.without(*_without(config))
        option = "vary"
        return model.vary(**parse_changes(_vary(config)))
    except InputError as error:
        raise InputError(f"{path.with_name('config.toml')}: {option}: {error}") from None


def _without(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the switched-off non-idealities: a list, or names with commas between."""
    names = config.get("without") or ()
    names = names.split(",") if isinstance(names, str) else names
    return tuple(name.strip() for name in names if name.strip())


def _vary(config: dict[str, Any]) -> str:
    return str(config.get("vary") or "")


def _read_png(path: Path) -> bytes | None:
    if not path.exists():
        return None
    content = path.read_bytes()
    # The page would show a broken picture.
    if not (content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")):
        raise InputError(f"{path}: not a whole PNG image: {_REBUILD}")
    return content


def _read_histograms(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Return the histograms and the weight change of a pulse, both by layer."""
    if not path.exists():
        return {}, {}
    body = _object(_read_json(path), path)
    layers, pulse = body.get("layers"), _object(body.get("pulse", {}), path)
    for layer, quantities in _object(layers, path).items():
        for name, histogram in _object(quantities, path).items():
            if not _is_histogram(histogram):
                raise InputError(
                    f"{path}: {name} of layer {layer!r} is not a histogram "
                    f"(rising edges, one more than counts): {_REBUILD}"
                )
    known = {layer: number(value) for layer, value in pulse.items()}
    return dict(_object(layers, path)), {k: v for k, v in known.items() if v is not None}


def _is_histogram(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    edges, counts = value.get("edges"), value.get("counts")
    if not (isinstance(edges, list) and isinstance(counts, list) and len(edges) > 1):
        return False
    if len(edges) != len(counts) + 1 or any(number(x) is None for x in (*edges, *counts)):
        return False
    return all(low < high for low, high in pairwise(edges))
