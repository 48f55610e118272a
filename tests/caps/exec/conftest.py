"""One fork server for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.caps.exec import Spawner
from capwasm.isolation.commands import Commands
from capwasm.isolation.server import ShimServer

from .desk import ATTACKER, Desk


@pytest.fixture(scope="package")
def spawner() -> Iterator[Commands]:
    with ShimServer() as server:
        yield Commands(server)


@pytest.fixture(scope="package")
def attacker(spawner: Spawner, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A Python that may do all that a command may."""
    return Desk(spawner, Path(tmp_path_factory.mktemp("attacker")), ATTACKER)
