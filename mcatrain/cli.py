"""The command line: mcatrain train | compare | fit | evaluate | devices | energy | report."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar

from devicemodels.errors import InputError, closest
from mcatrain.run.loop import Interrupted

_USAGE = """mcatrain: train neural networks on simulated phase-change memory

  mcatrain train    --rule mca --data digits --out DIR     one run; --chips K: of K chips
  mcatrain compare  --rules fp32,mca,rpu --out DIR         the same task by several rules
  mcatrain fit      TABLE.csv --model NAME --out P.toml    a device model from measured reads
  mcatrain evaluate RUN --times 1s,1h,1d,30d,1y            accuracy against time after training
  mcatrain devices  [NAME]                                 device parameter files, their sources
  mcatrain energy   [DIR]                                  energy and time by part, their sources
  mcatrain report   DIR                                    rebuild DIR/report.html

'mcatrain COMMAND --help' lists the options."""

C = TypeVar("C")


def main(argv: list[str] | None = None) -> int:
    """Run one command; return 0 done, 1 failure, 2 bad usage or input (one line on stderr)."""
    command = ["mcatrain", *(sys.argv[1:] if argv is None else argv)]
    if len(command) < 2 or command[1] in ("-h", "--help", "help"):
        print(_USAGE)
        return 0 if len(command) > 1 else 2
    try:
        return _command(command[1])(command)
    except InputError as error:
        print(f"mcatrain: {_one_line(str(error))}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as stop:
        print(f"mcatrain: {str(stop) or 'interrupted: go on with --resume'}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a listing went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _train(command: list[str]) -> int:
    from mcatrain.report import build_report
    from mcatrain.report.chips import spread_in_words
    from mcatrain.report.metrics import in_words
    from mcatrain.run.chips import train_chips
    from mcatrain.run.config import TrainConfig
    from mcatrain.run.loop import train

    config = _parse(TrainConfig, command)
    if config.jobs > 1:
        signal.signal(signal.SIGTERM, _interrupt)  # several processes end as a whole
    result = train_chips(config, command) if config.chips else train(config, command)
    for remark in result["remarks"]:
        print(remark)
    print(in_words(result["metrics"]))
    for line in spread_in_words(result):
        print(line)
    if (written := Path(config.out) / "sample.txt").exists() and config.sample:
        print(written.read_text(encoding="utf-8"))
    print(f"report: {build_report(Path(config.out))}")
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _compare(command: list[str]) -> int:
    from mcatrain.report import build_report
    from mcatrain.report.energy import bought
    from mcatrain.report.metrics import in_words
    from mcatrain.run.compare import CompareConfig, compare

    signal.signal(signal.SIGTERM, _interrupt)  # a comparison of several processes ends as a whole
    config = _parse(CompareConfig, command)
    body = compare(config, command)
    for entry in body["entries"]:
        name = entry["rule"] + (f"@{entry['device_model']}" if entry["device_model"] else "")
        print(f"{name:24} seed {entry['seed']}  {in_words(entry['metrics'])}{bought(entry)}")
    print(f"report: {build_report(Path(config.out))}")
    return 0


def _evaluate(command: list[str]) -> int:
    from mcatrain.report import build_report
    from mcatrain.report.evaluation import evaluation_in_words
    from mcatrain.run.evaluate import evaluate
    from mcatrain.run.evaluate_options import EvaluateConfig

    config = _parse(EvaluateConfig, command)
    try:
        body = evaluate(config, command)
    except KeyboardInterrupt:
        raise Interrupted("interrupted: nothing was written; evaluate again") from None
    for line in evaluation_in_words(body):
        print(line)
    print(f"report: {build_report(Path(config.run))}")
    return 0


def _devices(command: list[str]) -> int:
    import devicemodels
    from devicemodels.quantities import shown

    name = _parse_one(command, "[NAME]", required=False)
    if not name:
        for known in devicemodels.available():
            print(f"{known:16} {devicemodels.load(known).title}")
        return 0
    model = devicemodels.load(name)
    print(f"{model.name}: {model.title} ({model.device_type})")
    print(f"publication: {model.publication}\nnote: {model.note}\n")
    for q in model.quantities:
        print(f"{q.name:16} {shown(q.value):>10} {q.unit:10} {q.status:9} {q.about}")
        print(f"{'':38} {q.source}; valid {q.low:g} to {q.high:g}")
    return 0


def _energy(command: list[str]) -> int:
    from mcatrain.report.energy import paper_in_words, results_in_words

    folder = _parse_one(command, "[DIR]", required=False)
    print("\n".join(results_in_words(Path(folder)) if folder else paper_in_words()))
    return 0


def _report(command: list[str]) -> int:
    from mcatrain.report import build_report

    print(f"report: {build_report(Path(_parse_one(command, 'DIR', required=True)))}")
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "compare": _compare,
    "evaluate": _evaluate,
    "devices": _devices,
    "energy": _energy,
    "report": _report,
}


def _command(name: str) -> Callable[[list[str]], int]:
    """Return a command of ours, or one that a package beside this one brings (calibration)."""
    if name in _COMMANDS:
        return _COMMANDS[name]
    others = entry_points(group="mcatrain.commands")
    if name not in others.names:
        raise InputError(f"no command {name!r}: {closest(name, [*_COMMANDS, *others.names])}")
    found: Callable[[list[str]], int] = others[name].load()
    return found


def _parse_one(command: list[str], name: str, *, required: bool) -> str:
    """Read the only argument of a command that has no options."""
    usage = f"usage: mcatrain {command[1]} {name}"
    rest = command[2:]
    if "-h" in rest or "--help" in rest:
        print(usage)
        raise SystemExit(0)
    if len(rest) > 1 or (required and not rest) or any(part.startswith("-") for part in rest):
        raise InputError(f"{' '.join(rest) or 'no argument'}: {usage}")
    return rest[0] if rest else ""


def _parse(kind: type[C], command: list[str]) -> C:
    """Build the options from the command line; what is wrong comes as an InputError."""
    import tyro

    said = io.StringIO()
    columns = os.environ.get("COLUMNS")
    if not {"-h", "--help"} & set(command):
        os.environ["COLUMNS"] = "100000"  # an error is taken out of the frame in one line
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=command[2:], prog=f"mcatrain {command[1]}")
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_explain(said.getvalue(), command[1])) from None
    finally:
        os.environ.pop("COLUMNS", None)
        if columns is not None:
            os.environ["COLUMNS"] = columns


def _explain(box: str, command: str) -> str:
    """Make one line of the parser's framed message: its first block without title and help."""
    lines = [line.strip(" |│") for line in box.splitlines()]
    lines = [line for line in lines if line and not re.fullmatch(r"[-─╭╮╰╯┌┐└┘ ]+", line)]
    kept: list[str] = []
    for line in lines[1:]:
        if line.startswith(("Got errors", "Argument helptext", "For full helptext")):
            break
        kept.append(line)
    text = re.sub(r"^Error parsing \w+Config: ", "", " ".join(kept))
    return f"{text or 'the options cannot be read'}; see mcatrain {command} --help"


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
