"""Tests of plugins in this process, run again with each plugin in a process of its own.

They say nothing of where a guest runs, and must not have to: it is the same plugin to its core.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import World

__all__ = [name for name in globals() if name.startswith("test_")]


class Apart(World):
    """A world whose policy wants a process of its own for everybody."""

    def policy(self, text: str) -> None:
        super().policy(text + '[isolation]\nprocess = ["*"]\n')


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = Apart(tmp_path)
    yield made
    made.close()
    assert not made.events("load") or all(
        "process" in e["details"] for e in made.events("load") if e["verdict"] == "allowed"
    )
