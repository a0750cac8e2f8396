"""The arrows of the house: imports run downward only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What each package may import of the others.
ALLOWED = {
    "devicemodels": set(),
    "mcatrain": {"devicemodels"},
    "calibration": {"devicemodels"},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_downward(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        forbidden = (imported(path) & ALLOWED.keys()) - ALLOWED[package] - {package}
        assert not forbidden, f"{path.relative_to(ROOT)} imports {forbidden}"


def test_physics_knows_nothing_of_training() -> None:
    """Devices must not see optimizers, tasks or files of a run."""
    for path in (ROOT / "devicemodels").rglob("*.py"):
        assert not imported(path) & {"tyro", "tqdm", "matplotlib", "jinja2", "sklearn"}
