"""What every test of the data sets needs."""

from pathlib import Path

import pooch
import pytest


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache, environment and proxy out of every test."""
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("MCATRAIN_DATA", raising=False)
    monkeypatch.delenv("MCATRAIN_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
