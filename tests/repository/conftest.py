"""A repository to attack, and its client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .shop import Shop, serving
from .simulator import Desk, desk


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as made:
        yield made


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "repo/public").mkdir(parents=True)
    with serving(tmp_path / "repo/public") as url:
        yield Shop(tmp_path, url)
