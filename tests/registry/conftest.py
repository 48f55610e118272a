"""A home of its own for each test of the registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ListRecorder
from tests.registry.shop import Shop


@pytest.fixture
def recorder() -> ListRecorder:
    return ListRecorder()


@pytest.fixture
def shop(tmp_path: Path, recorder: ListRecorder) -> Iterator[Shop]:
    shop = Shop(tmp_path / "home", recorder)
    yield shop
    shop.close()
