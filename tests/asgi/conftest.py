"""The responder, loaded in process and in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capwasm.plugin import Plugin
from tests.kit import World, guest

POLICY = '[plugins."test.guest".clock]\n[plugins."test.guest".log]\n'
WIDE = {"net-bytes": 10**9, "fuel": 10**11, "host-calls": 10**7, "wall-ms": 60_000}

Load = Callable[..., Plugin]
BOTH = ["in-process", "process"]


@pytest.fixture(params=BOTH)
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Load]:
    """Load the responder with these limits."""
    with loader(tmp_path, request.param) as load:
        yield load


@pytest.fixture(params=BOTH, scope="module")
def plugin(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plugin]:
    """The responder with limits as they are, for all tests that leave it whole."""
    with loader(tmp_path_factory.mktemp("asgi"), request.param) as load:
        yield load()


@contextmanager
def loader(place: Path, isolation: str) -> Iterator[Load]:
    world = World(place)
    way = '[isolation]\nprocess = ["test.*"]\n' if isolation == "process" else ""

    def load(limits: dict[str, int] | None = None, code: str = "responder") -> Plugin:
        rows = "".join(f"{name} = {value}\n" for name, value in (limits or {}).items())
        table = f'[plugins."test.guest".limits]\n{rows}' if rows else ""
        world.policy(POLICY + table + way)
        return world.load(guest(code), f"[clock]\n[log]\n{'[limits]' if rows else ''}\n{rows}")

    load.world = world  # type: ignore[attr-defined]
    try:
        yield load
    finally:
        world.close()
