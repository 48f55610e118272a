from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from capwasm.capability import Interface
from capwasm.engine.compile import Compiler
from capwasm.engine.engine import PluginEngine
from capwasm.engine.link import Linked, link
from capwasm.isolation.server import ShimServer
from capwasm.limits import DEFAULTS
from tests.kit import ListServed

from .scripted import Scripted

Enter = Callable[..., Scripted]


@pytest.fixture(scope="session")
def forker() -> Iterator[ShimServer]:
    """One fork server for all processes."""
    if not sys.platform.startswith("linux"):
        pytest.skip("processes of their own need Linux")
    with ShimServer() as server:
        yield server


@pytest.fixture(scope="session")
def own_engine() -> Iterator[PluginEngine]:
    engine = PluginEngine()
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def linked(own_engine: PluginEngine) -> Callable[..., Linked]:
    """A component, compiled once, with its sealed code kept."""
    compiler = Compiler(own_engine, None)
    kept: dict[bytes, Any] = {}

    def make(code: bytes, *served: Interface) -> Linked:
        if code not in kept:
            kept[code] = compiler.compile(code, keep=True)
        return link(own_engine, kept[code], served, owners={}, unserved=lambda _: None)

    return make


@pytest.fixture
def enter(forker: ShimServer, linked: Callable[..., Linked]) -> Iterator[Enter]:
    """A process that serves a component, and has greeted."""
    with ExitStack() as each:

        def make(code: bytes, *served: Interface, lanes: int = 1, **limits: int) -> Scripted:
            made = Scripted(
                forker,
                linked(code, *served),
                replace(DEFAULTS, **limits),
                ListServed(served),
                lanes,
            )
            return each.enter_context(made).started()

        yield make
