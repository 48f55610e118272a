"""Registries to talk to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .servers import Registry, real_registry


@pytest.fixture
def registry() -> Iterator[Registry]:
    """One that tells the truth until it is told to lie."""
    with Registry() as made:
        yield made


@pytest.fixture
def pushed(registry: Registry) -> Registry:
    registry.push()
    registry.origin.got.clear()
    return registry


@pytest.fixture
def real(tmp_path: Path) -> Iterator[str]:
    with real_registry(tmp_path / "real") as authority:
        yield authority


@pytest.fixture
def real_with_login(tmp_path: Path) -> Iterator[str]:
    with real_registry(tmp_path / "real", auth=True) as authority:
        yield authority
