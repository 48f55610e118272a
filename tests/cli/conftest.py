"""No test reads or writes the home directory of whoever runs it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of the test's own, not made yet."""
    home = tmp_path / "capwasm-home"
    monkeypatch.setenv("CAPWASM_HOME", str(home))
    return home
