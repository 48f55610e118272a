"""What a component's own process is given: the code as it is mapped here, the terms, room for them."""

from __future__ import annotations

import os
import weakref
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest

from capwasm.engine.compile import Compiler
from capwasm.engine.engine import PluginEngine
from capwasm.engine.link import link
from capwasm.errors import InternalError
from capwasm.isolation.parcel import Parcel, budget, code_of
from capwasm.limits import CEILING, DEFAULTS
from tests.kit import guest

from .conftest import Enter


def inode(fd: int) -> str:
    return str(os.fstat(fd).st_ino)


def mapped() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/maps").read_text().splitlines()}


def test_the_code_is_handed_on_as_it_is_mapped_here(own_engine: PluginEngine) -> None:
    compiled = Compiler(own_engine, None).compile(guest("hostile"), keep=True)
    assert inode(code_of(compiled)) in mapped()


def test_the_code_stays_open_for_those_who_want_it_alone(
    own_engine: PluginEngine, tmp_path: Path
) -> None:
    compiler = Compiler(own_engine, tmp_path / "cache")
    plain = compiler.compile(guest("hostile"))
    with pytest.raises(InternalError, match="without its code"):
        code_of(plain)
    kept = compiler.compile(guest("hostile"), keep=True)
    fd = code_of(kept)
    # Whoever comes next shares it, and takes it from nobody.
    assert compiler.compile(guest("hostile")) is kept
    assert compiler.compile(guest("hostile"), keep=True) is kept
    assert code_of(kept) == fd
    sealed = weakref.ref(kept.sealed)
    del kept
    assert sealed() is None  # and so its descriptor is closed
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)


def test_the_terms_cross_as_plain_data(own_engine: PluginEngine) -> None:
    compiled = Compiler(own_engine, None).compile(guest("hostile"), keep=True)
    linked = link(own_engine, compiled, [], owners={}, unserved=lambda _: None)
    parcel = Parcel.of(linked, "test.guest@1.0.0", replace(DEFAULTS, fuel=7))
    assert Parcel.from_load(msgpack.unpackb(msgpack.packb(parcel.to_load()))) == parcel


@pytest.mark.parametrize("missing", ["plugin", "limits", "served", "laned", "types"])
def test_refuses_terms_that_are_incomplete(own_engine: PluginEngine, missing: str) -> None:
    compiled = Compiler(own_engine, None).compile(guest("hostile"), keep=True)
    linked = link(own_engine, compiled, [], owners={}, unserved=lambda _: None)
    load = Parcel.of(linked, "test.guest@1.0.0", DEFAULTS).to_load()
    for wrong in ({**load, missing: None}, {k: v for k, v in load.items() if k != missing}):
        if (missing, len(wrong)) in {("plugin", 5), ("laned", 5)}:
            continue  # any value is one
        with pytest.raises(ValueError, match="not a"):
            Parcel.from_load(wrong)


def test_each_instance_may_have_all_its_memory_at_once(enter: Enter) -> None:
    pages = 64
    process = enter(guest("hostile"), lanes=3, memory=pages << 16, value_bytes=1 << 20)
    for lane in range(3):
        if lane:
            process.open(lane)
        assert process.call("grow-memory", pages - 1, lane=lane) == 1
        process.call("fill", 1, lane=lane)
    # Lists as large as may be cross all the same.
    for lane in range(3):
        assert process.call("size", bytes(1 << 20), lane=lane) == 1 << 20


@pytest.mark.parametrize("lanes", [1, 32])
def test_a_budget_is_bounded_and_holds_its_parts(lanes: int) -> None:
    small, large = budget(DEFAULTS, lanes), budget(CEILING, lanes)
    assert lanes * DEFAULTS.memory < small.memory < large.memory < 2**50
    assert small.threads == lanes + 2
