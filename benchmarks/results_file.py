"""The dated files that the suite writes: figures for programs, and the tables of a day."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.part import Part, Table

RESULTS = Path(__file__).parent / "results"


def keep(name: str, part: Part, setting: dict[str, Any], folder: Path) -> Path:
    """Write a part into the files of its day, in place of what it found before on that day.

    Parts may come from runs of their own, each under its own setting. Returns the Markdown file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"speed-{setting['date']}"
    figures = stem.with_suffix(".json")
    parts = json.loads(figures.read_text()) if figures.exists() else {}
    parts[name] = {"setting": setting, **asdict(part)}
    figures.write_text(json.dumps(parts, indent=1) + "\n")
    text = stem.with_suffix(".md")
    blocks = [f"# Speed, {setting['date']}", *(_section(found) for found in parts.values())]
    text.write_text("\n\n".join(blocks) + "\n")
    return text


def _section(found: dict[str, Any]) -> str:
    told = {k: v for k, v in found["setting"].items() if k not in ("date", "command")}
    blocks = [
        f"## {found['title']}",
        f"`{found['setting']['command']}`",
        "; ".join(f"{name} {value}" for name, value in told.items()),
        *(Table(**table).markdown() for table in found["tables"]),
    ]
    return "\n\n".join(blocks)
