"""Guests share the process's descriptors, and leave some to the host."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from capwasm.caps.net.resolve import is_own_address
from capwasm.caps.net.url import parse_host
from capwasm.errors import CapError

from .fs.tools import clause, mounted
from .net.servers import Place

LIMIT = 128  # so a quarter, 32, is the host's


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    with place.origin, place.bench:
        yield place


@contextmanager
def few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def full_table() -> Iterator[None]:
    held: list[int] = []
    try:
        with few_descriptors():
            with suppress(OSError):
                while True:
                    held.append(os.dup(0))
            yield
    finally:
        for fd in held:
            os.close(fd)


@pytest.mark.case("RES-14")
def test_refuses_a_guest_the_last_descriptors_of_the_process(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(b"hello")
    held = []
    with mounted(tmp_path, clause(root)) as bench, few_descriptors():
        with suppress(CapError):
            while True:
                held.append(bench.root.open_file("file", read=True))
        assert held
        for act in (
            lambda: bench.root.open_file("new", write=True, create=True),
            lambda: bench.root.open_file("file", write=True, truncate=True),
            lambda: bench.root.open_dir("."),
            bench.root.entries,
        ):
            with pytest.raises(CapError, match="unavailable"):
                act()
        spare = [os.dup(0) for _ in range(LIMIT // 4 - 2)]  # the host goes on
        for fd in spare:
            os.close(fd)
        assert bench.root.stat_at("file").size == 5  # nothing was emptied, and looking is free
        assert not (root / "new").exists()
        held.pop().close()
        bench.root.open_file("file", read=True).close()
        for file in held:
            file.close()


@pytest.mark.case("RES-14")
def test_refuses_a_connection_for_the_last_descriptors(place: Place) -> None:
    with few_descriptors():
        held = [os.dup(0)]
        while held[-1] < LIMIT * 3 // 4 - 1:
            held.append(os.dup(0))
        assert place.refused() == "unavailable"
        assert place.bench.reasons[-1] == "busy"
        for fd in held:
            os.close(fd)
        assert place.fetch()[1] == b"hello"


@pytest.mark.case("RES-14", "NET-06")
def test_refuses_in_the_guests_words_when_no_descriptor_is_left(place: Place) -> None:
    with full_table():
        assert place.refused() == "unavailable"
        with pytest.raises(CapError, match="unavailable"):
            is_own_address(parse_host("8.8.8.8"))  # type: ignore[arg-type]  it is an address
