"""No test reads or writes the home directory of whoever runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builds import CACHE


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of the test's own, not made yet."""
    home = tmp_path / "capwasm-home"
    monkeypatch.setenv("CAPWASM_HOME", str(home))
    # What was compiled is kept between tests, and between runs of them.
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE / "cli"))
    return home
