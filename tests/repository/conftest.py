"""A repository to attack, and its client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .simulator import Desk, desk


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as made:
        yield made
