"""The cases, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from .subject import SETTING, Job, Sample, Subject

__all__ = ["Case", "cases"]

HOST_CALLS = 200
SPINS = 1_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """One row.

    Attributes:
        expected: what each run gives, as plain Python.
        make: sets the work up for a subject; not timed.
        operations: how many operations one run does; times are for one.
        main: run on the main thread.
        heavy: left out by `--quick`.
        exact: one run a sample, since each leaves its traces.
    """

    group: str
    name: str
    expected: Any
    make: Callable[[Subject], Job]
    operations: int = 1
    main: bool = False
    heavy: bool = False
    exact: bool = False


def cases() -> Iterator[Case]:
    """All of them."""
    yield Case("call", "scalar", 42, lambda s: s.add("kept"))
    yield Case("call", "scalar, any instance", 42, lambda s: s.add("pooled"))
    yield Case("call", "scalar, main thread", 42, lambda s: s.add("kept"), main=True)
    for size, name in _SIZES:
        yield _string(size, name)
    for size, name in _SIZES[1:3]:
        yield _string(size, name, copy=True)
    yield _string(100_000, "100 kB", wide=True)
    for size, name in _SIZES:
        yield _bytes(size, name)
    one = Sample(7, 0.25, "a name of some length", live=True)
    many = [Sample(i, i / 8, f"name {i}", live=i % 2 == 0) for i in range(100)]
    yield Case("values", "record of 4 fields", asdict(one), lambda s: s.record(one))
    yield Case(
        "values", "list of 100 records", [asdict(x) for x in many], lambda s: s.records(many)
    )
    yield Case(
        "host call",
        "a number (clock)",
        HOST_CALLS,
        lambda s: s.times(HOST_CALLS),
        operations=HOST_CALLS,
    )
    yield Case(
        "host call",
        "text for text (setting)",
        HOST_CALLS * len(SETTING),
        lambda s: s.texts(HOST_CALLS),
        operations=HOST_CALLS,
    )
    yield Case("instance", "fresh, to its first call", 42, lambda s: s.fresh(compiled=True))
    yield Case("instance", "the same; Extism: Plugin(wasm)", 42, lambda s: s.fresh(compiled=False))
    yield Case(
        "instance", "140 kB Rust plugin, start and end", expected=True, make=lambda s: s.start()
    )
    for which, name in (("large", "100 kB of code"), ("rust", "140 kB Rust plugin")):
        yield _load(which, name, warm=False)
        yield _load(which, name, warm=True)
    for threads in (1, 2, 4):
        yield _spin(threads)


_SIZES = ((10, "10 B"), (1_000, "1 kB"), (100_000, "100 kB"), (1_000_000, "1 MB"))


def _string(size: int, name: str, *, copy: bool = False, wide: bool = False) -> Case:
    piece = "abcdefgh\N{GREEK SMALL LETTER LAMDA}" if wide else "abcdefghij"  # ten bytes
    how = ", copied in the guest" if copy else ", not all ASCII" if wide else ""
    text = piece * (size // 10)
    return Case("string", f"{name}{how}", text, lambda s: s.string(text, copy=copy))


def _bytes(size: int, name: str) -> Case:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    return Case("bytes", name, data, lambda s: s.data(data), heavy=size > 10_000)


def _load(which: str, name: str, *, warm: bool) -> Case:
    return Case(
        "load",
        f"{name}, {'warm' if warm else 'cold'}",
        expected=True,
        make=lambda s: s.load(which, warm=warm),
        heavy=which == "rust",
        exact=True,
    )


def _spin(threads: int) -> Case:
    return Case(
        "threads",
        f"a million rounds, {threads} thread{'s' * (threads > 1)}",
        [_xorshift(SPINS)] * threads,
        lambda s: s.spin(SPINS, threads),
        operations=threads,
    )


@cache
def _xorshift(rounds: int) -> int:
    x = 1
    for _ in range(rounds):
        x ^= x << 13 & 0xFFFFFFFF
        x ^= x >> 17
        x ^= x << 5 & 0xFFFFFFFF
    return x
