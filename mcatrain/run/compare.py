"""The same task by several rules and seeds, each a run of its own, and the table of them."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from devicemodels.errors import InputError, closest
from mcatrain.run.config import TrainConfig
from mcatrain.run.folder import write_json
from mcatrain.run.options import Options, shared
from mcatrain.run.processes import run_all

_RULES = ("fp32", "mca", "rpu")


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Options):
    """Train the same network by several rules and seeds, and compare."""

    out: str
    """Folder to write: comparison.json, report.html, runs/."""
    rules: str = "fp32,mca,rpu"
    """Rules, e.g. fp32,mca,rpu@gokmen2016; @ names a device model for that rule alone."""
    seeds: str = "0"
    """Seeds, e.g. 0,1,2."""
    rpu_lr: float | None = None
    """Learning rate of the RPU runs, if not --lr: a fair one differs by rule."""
    resume: bool = False
    """Go on with a comparison that was stopped; finished runs are kept."""
    jobs: int = 1
    """Runs at a time, each a process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.jobs < 1:
            raise InputError(f"--jobs {self.jobs}: give at least 1")
        runs = self.runs()
        if len({run.out for run in runs}) != len(runs):
            raise InputError(
                f"--rules {self.rules} --seeds {self.seeds}: give each rule, device model (by the "
                "name of its file) and seed once"
            )

    def runs(self) -> list[TrainConfig]:
        """Return the runs, rule by rule and seed by seed."""
        seeds = self.seed_numbers  # bad seeds are named before bad rules
        return [self._run(rule, seed) for rule in self.rule_names for seed in seeds]

    @property
    def seed_numbers(self) -> list[int]:
        """The seeds of --seeds."""
        try:
            return [int(part) for part in self.seeds.split(",")]
        except ValueError:
            raise InputError(f"--seeds {self.seeds!r}: give whole numbers such as 0,1,2") from None

    @property
    def rule_names(self) -> list[str]:
        """The rules of --rules, each with its device model if it names one."""
        rules = [part.strip() for part in self.rules.split(",") if part.strip()]
        if not rules:
            raise InputError(f"--rules {self.rules!r}: give at least one, e.g. fp32,mca")
        return rules

    def _run(self, text: str, seed: int) -> TrainConfig:
        rule, at, device_model = text.partition("@")
        if rule not in _RULES or (at and (rule == "fp32" or not device_model)):
            raise InputError(
                f"--rules {text!r}: {closest(rule, _RULES)}; RULE@DEVICE_MODEL for mca and rpu"
            )
        options = shared(self)
        options["device_model"] = device_model or self.device_model
        if rule == "fp32":  # what is asked of devices is asked of the others
            options |= {"wear": False, "endurance": None, "pulse_log": False}
        if rule == "rpu":
            options["base_optimizer"] = "sgd"
            if self.rpu_lr is not None:
                options["lr"] = self.rpu_lr
        name = rule if rule == "fp32" else f"{rule}@{Path(options['device_model']).stem}"
        out = str(Path(self.out) / "runs" / f"{name}-seed{seed}")
        return TrainConfig(**options, rule=rule, seed=seed, out=out, resume=True)  # type: ignore[arg-type]


def compare(config: CompareConfig, command: list[str]) -> dict[str, Any]:
    """Make the runs, then write comparison.json; return what it holds.

    Raises InputError when --out holds another run or, without --resume, another comparison.
    """
    folder = Path(config.out)
    if (folder / "config.toml").exists():
        raise InputError(f"--out {folder}: holds a single run: choose another folder")
    if (folder / "runs").exists() and not config.resume:
        raise InputError(
            f"--out {folder}: holds another comparison: choose another folder, or add --resume "
            "to go on with it"
        )
    runs = config.runs()
    results = run_all(runs, config.jobs)
    entries = []
    for run, result in zip(runs, results, strict=True):
        pulses = {key: result[key] for key in ("set_pulses", "reset_pulses", "refreshes")}
        entries.append(
            {
                "rule": run.rule,
                "device_model": result["device"],
                "seed": run.seed,
                "metrics": result["metrics"],
                "pulses": pulses["set_pulses"] + pulses["reset_pulses"],
                **pulses,
                "seconds": result["seconds"],
                "energy": result["energy"],
                **({"budget": result["budget"]} if "budget" in result else {}),
                "run": str(Path(run.out).relative_to(folder)),
            }
        )
    body = {
        "command": shlex.join(["mcatrain", *command[1:]]),
        "task": config.task,
        "data": config.data,
        "rules": config.rule_names,
        "seeds": config.seed_numbers,
        "options": asdict(config),
        "entries": entries,
    }
    write_json(folder / "comparison.json", body)
    return body
