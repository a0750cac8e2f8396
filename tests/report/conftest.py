"""Synthetic run and comparison folders: the report reads files, so no training is needed."""

from __future__ import annotations

import json
import math
import random
import re
import struct
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from mcatrain.report import build_report

_FINAL = {"fp32": 0.98, "mca": 0.97, "rpu": 0.85}
_LAYERS = {"hidden": 250 * 785, "output": 2510}
METRIC = {
    "mlp": "test_accuracy", "cnn": "test_accuracy", "lstm": "bits_per_character",
    "gan": "frechet_distance",
}  # fmt: skip


def png(seed: int, noise: int = 0) -> bytes:
    """Return a PNG image of 8 x 8 grey pixels that differs by seed, with bytes of a comment."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes((20 * k + seed) % 256 for k in range(8)) for _ in range(8))
    comment = chunk(b"tEXt", b"Comment\0" + random.Random(seed).randbytes(noise)) if noise else b""
    parts = chunk(b"IHDR", header) + comment + chunk(b"IDAT", zlib.compress(rows))
    parts += chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def write_run(
    folder: Path,
    rule: str = "mca",
    device: str = "nandakumar2018",
    *,
    seed: int = 0,
    epochs: int = 5,
    accuracy: float | None = None,
    finished: bool = True,
    remarks: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    options: dict[str, Any] | None = None,
    layers: dict[str, int] = _LAYERS,
    images: bool = False,
    sheet_bytes: int = 0,
    written: str = "",
) -> dict[str, Any]:
    """Write a run folder as mcatrain train leaves it and return its result.

    The metric is that of the task in ``options``.
    """
    folder.mkdir(parents=True)
    final = _FINAL[rule] if accuracy is None else accuracy
    chance = random.Random(f"{rule} {device} {seed}")
    config = {
        "task": "mlp", "rule": rule, "device_model": device, "data": "digits", "epochs": epochs,
        "batch_size": 1, "lr": 0.4, "seed": seed, "hidden": [250], "loss": "mse",
        "periphery": "mca2020", "refresh_every": 100, "without": list(without),
    } | (options or {})  # fmt: skip
    metric = METRIC[config["task"]]
    toml = "".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items())
    (folder / "config.toml").write_text(toml)
    history = [
        _evaluation(rule, device, e, final, chance)
        for e in range(0, (epochs if finished else epochs // 2) + 1)
    ]
    for row in history:  # losses of any task will do for the accuracy that fell out
        row[metric] = row.pop("test_accuracy") * (1 if metric == "test_accuracy" else 40)
    if images:
        (folder / "samples.png").write_bytes(png(seed, sheet_bytes))
    if written:
        (folder / "sample.txt").write_text(written)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in history))
    if rule != "fp32":
        source = resources.files("devicemodels") / "parameters" / f"{device}.toml"
        (folder / "device.toml").write_text(source.read_text())
    if not finished:
        return {}
    (folder / "histograms.json").write_text(json.dumps(_histograms(rule, device, layers)))
    last = history[-1]
    names = ("train_loss", "test_loss", metric)
    result = {
        "task": config["task"], "rule": rule, "device": None if rule == "fp32" else device,
        "data": "digits", "seed": seed, "epochs": epochs,
        "metrics": {name: last[name] for name in names},
        "set_pulses": last["set_pulses"], "reset_pulses": last["reset_pulses"],
        "refreshes": last["refreshes"], "seconds": last["seconds"], "examples": 1500 * epochs,
        "command": f"mcatrain train --task mlp --rule {rule} --seed {seed} --out 'runs/<x> & y'",
        "remarks": list(remarks),
        "versions": {"python": "3.11.2", "torch": "2.13.0", "mcatrain": "0.1.0"},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return result


def _evaluation(
    rule: str, device: str, epoch: int, final: float, chance: random.Random
) -> dict[str, Any]:
    accuracy = final - (final - 0.1) * math.exp(-1.6 * epoch)
    noise = 0.003 * chance.gauss(0, 1) if epoch else 0.0
    paired = device == "nandakumar2018"
    pulses = 0 if rule == "fp32" else int(7000 * (1 - math.exp(-epoch)) * (30 - 29 * paired))
    return {
        "step": 1500 * epoch, "epoch": epoch, "seconds": 3.1 * epoch,
        "train_loss": 0.9 * (1 - accuracy) + 0.001, "test_loss": 1 - accuracy + noise / 10,
        "test_accuracy": accuracy + noise if epoch else accuracy,
        "set_pulses": pulses, "reset_pulses": pulses // (10 if paired else 1),
        "refreshes": pulses // 20 if paired else 0,
    }  # fmt: skip


def _histograms(rule: str, device: str, sizes: dict[str, int]) -> dict[str, Any]:
    def bell(low: float, high: float, centre: float, width: float, total: int) -> dict[str, Any]:
        edges = [low + (high - low) * k / 50 for k in range(51)]
        share = [math.exp(-(((e - centre) / width) ** 2) / 2) for e in edges[:-1]]
        return {"edges": edges, "counts": [round(total * s / sum(share)) for s in share]}

    layers: dict[str, Any] = {}
    for name, size in sizes.items():
        layers[name] = {"weight": bell(-1.2, 1.2, 0, 0.25, size)}
        if rule == "fp32":
            continue
        if device == "nandakumar2018":
            layers[name] |= {"G+": bell(0, 12, 2.5, 1.5, size), "G-": bell(0, 12, 3, 1.8, size)}
        else:
            layers[name]["w"] = bell(-0.6, 0.6, 0.05, 0.15, size)
        if rule == "mca":
            layers[name]["chi"] = bell(-0.1, 0.1, 0, 0.05, size)
    return {"layers": layers, "pulse": {} if rule == "fp32" else dict.fromkeys(layers, 0.037)}


def write_comparison(
    folder: Path, rules: tuple[tuple[str, str], ...], seeds: tuple[int, ...], **options: Any
) -> dict[str, Any]:
    """Write a comparison folder of (rule, device) pairs as mcatrain compare leaves it."""
    entries = []
    for rule, device in rules:
        for seed in seeds:
            place = f"runs/{rule}-{device}-{seed}"
            final = _FINAL[rule] + 0.002 * seed - (0 if device == "nandakumar2018" else 0.02)
            result = write_run(
                folder / place, rule, device, seed=seed, accuracy=final, **options
            )  # fmt: skip
            entry = {
                "rule": rule, "device_model": None if rule == "fp32" else device, "seed": seed,
                "metrics": result["metrics"], "run": place,
                "pulses": result["set_pulses"] + result["reset_pulses"],
            }  # fmt: skip
            kept = ("set_pulses", "reset_pulses", "refreshes", "seconds")
            entries.append(entry | {name: result[name] for name in kept})
    table = {
        "command": "mcatrain compare --task mlp --seeds " + ",".join(map(str, seeds)),
        "task": (options.get("options") or {}).get("task", "mlp"), "data": "digits",
        "rules": [rule for rule, _ in rules],
        "seeds": list(seeds), "entries": entries,
    }  # fmt: skip
    (folder / "comparison.json").write_text(json.dumps(table))
    return table


@pytest.fixture
def make_run(tmp_path: Path) -> Any:
    """Return a function that writes a run folder and returns its path."""

    def make(*args: Any, **options: Any) -> Path:
        write_run(tmp_path / "run", *args, **options)
        return tmp_path / "run"

    return make


@pytest.fixture
def make_comparison(tmp_path: Path) -> Any:
    """Return a function that writes a comparison folder and returns its path."""

    def make(*args: Any, **options: Any) -> Path:
        write_comparison(tmp_path / "comparison", *args, **options)
        return tmp_path / "comparison"

    return make


def _accounts() -> dict[str, Any]:
    """Return ledger, wear and energy of a finished run, of 1000 examples."""
    layer = {"weights": 196250, "devices": 392500, "forward_reads": 1000, "backward_reads": 0,
             "forward_adc": 250000, "forward_dac": 785000, "set_pulses": 5000, "reset_pulses": 300,
             "chi_accumulations": 196250000, "chi_entries": 5300, "refreshes": 150}  # fmt: skip
    layers = {"hidden": layer, "output": layer | {"weights": 2510, "set_pulses": 12345}}
    worn = {"devices": 392500, "mean": 0.0135, "most": 28, "share_above": 0.00125}
    parts = {"forward converters": 8e-6, "backward array": 2e-6, "update": 6e-6, "pulses": 4e-9}
    whole = sum(parts.values())
    return {
        "ledger": {"layers": layers, "wear": {"endurance": 20.0, "layers": {"hidden": worn}}},
        "energy": {
            "model": "nandakumar2020", "parts": parts, "total": whole, "per_example": whole / 1000,
            "per_epoch": whole / 5, "seconds_per_example": 4e-7, "ratio": 50.0,
            "digital": {"total": 50 * whole, "per_example": whole / 20},
        },
    }  # fmt: skip


def _read_later() -> dict[str, Any]:
    """Return an evaluation at three times, on two kinds of devices, of two chips."""
    entries = [
        {
            "device": device, "programming": way, "time_s": time_s, "compensation": kind,
            "chips": 2, "mean": 30.0 + at, "sd": 0.5, "values": [29.5 + at, 30.5 + at],
        }
        for device, way in (("nandakumar2018", "own"), ("joshi2020", "write-verify"))
        for at, time_s in enumerate((1.0, 3600.0, 31536000.0))
        for kind in ("none", "column")
    ]  # fmt: skip
    return {
        "metric": "frechet_distance", "end_of_training": 31.0, "chips": 2, "programming": [],
        "times_s": [1.0, 3600.0, 31536000.0], "entries": entries,
    }  # fmt: skip


def _enrich(folder: Path) -> None:
    path = folder / "result.json"
    result = json.loads(path.read_text())
    if result["rule"] != "fp32":
        path.write_text(json.dumps(result | _accounts()))
    if result["rule"] == "mca":
        (folder / "evaluation.json").write_text(json.dumps(_read_later()))


@pytest.fixture(scope="session")
def full_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a comparison that has every section, of six runs."""
    folder = tmp_path_factory.mktemp("full") / "comparison"
    rules = (("fp32", ""), ("mca", "nandakumar2018"), ("rpu", "gokmen2016"))
    options = {"task": "gan", "data": "mnist", "note": 'a "quoted", option'}
    write_comparison(folder, rules, (0, 1), options=options, images=True, written="some text\n")
    for run in folder.glob("runs/*"):
        _enrich(run)
    return build_report(folder)


@pytest.fixture(scope="session")
def single_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of one run that has every section."""
    folder = tmp_path_factory.mktemp("single") / "run"
    write_run(folder, "mca", options={"task": "gan"}, images=True)
    _enrich(folder)
    return build_report(folder)


VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """A parsed report: visible text, tables as rows of cells, references, pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source, self.words = text, ""
        self.size = len(text.encode())
        self.tables: dict[str, list[list[str]]] = {}
        self.references: list[str] = []
        self.ids: list[str] = []
        self.alts: list[str] = []
        self.images: dict[str, str] = {}
        self.figures: list[str] = []
        self.open: list[str] = []
        self._rows: list[list[str]] | None = None
        self.feed(text)
        assert not self.open, f"unclosed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        self.references += [values[k] for k in ("src", "href", "action", "data") if k in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag == "svg":
            assert values["role"] == "img"
            self.alts.append(values["aria-label"])
        if tag == "img":
            self.images[values["alt"]] = values["src"]
        if tag == "figure":
            self.figures.append(values.get("class", ""))
        if tag == "table":
            self._rows = self.tables.setdefault(values["class"].split()[0], [])
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th") and self._rows is not None:
            self._rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "table":
            self._rows = None

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words += data
            if self._rows and {"td", "th"} & set(self.open):
                self._rows[-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", self.words)

    def row(self, table: str, first: str) -> list[str]:
        rows = [row for row in self.tables[table] if row[0].strip() == first]
        assert len(rows) == 1, f"{first!r} heads {len(rows)} rows"
        return [re.sub(r"\s+", " ", cell).strip() for cell in rows[0]]


@pytest.fixture
def report() -> Callable[[Path], Page]:
    """Return a function: build the report of a folder and check what holds for every report."""
    return _report


def _report(folder: Path) -> Page:
    path = build_report(folder)
    assert path == folder / "report.html"
    assert not list(folder.glob(".report*"))
    assert path.stat().st_size < 5e6
    page = Page(path.read_text(encoding="utf-8"))
    inner = [ref for ref in page.references if not ref.startswith("data:image/png;base64,")]
    assert all(ref.startswith("#") for ref in inner), "an outside reference"
    assert {ref[1:] for ref in inner} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids), "an id stands twice"
    source = re.sub(r'"data:image/png;base64,[^"]*"', "", page.source)  # any letters may be in it
    assert "http" not in source.replace("http-equiv", "")
    assert "@import" not in page.source
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b|\bundefined\b", page.text, re.I)
    assert all(alt.strip() for alt in [*page.alts, *page.images])
    assert "color-scheme: light dark" in page.source
    return page
