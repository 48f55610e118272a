"""The cases, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from functools import cache
from typing import Any, Literal, cast

from .plugins import LANGUAGES, Language
from .subject import SETTING, Sample, Skipped, Subject, Timer

__all__ = [
    "APART",
    "IDLE",
    "SIZES",
    "THREADS",
    "Alone",
    "Case",
    "Level",
    "Phase",
    "all_cases",
    "counted",
]

APART = "in a process of its own"
HOST_CALLS = 200
SPINS = 1_000_000
SHORT_CALLS = 2_000
THREADS = (1, 2, 4, 8)
IDLE = (1, 100, 1_000, 10_000)
MILLION = 1_000_000
SIZES = (
    (10, "10 B"),
    (1_000, "1 kB"),
    (10_000, "10 kB"),
    (100_000, "100 kB"),
    (1_000_000, "1 MB"),
    (10_000_000, "10 MB"),
)


class Level(IntEnum):
    """How much is measured; a case has the least at which it is."""

    QUICK = 0
    USUAL = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class Case:
    """One row, of work that is done again and again in the harness's own processes.

    Attributes:
        expected: what each run gives, as plain Python.
        make: sets the work up for a subject; not timed.
        operations: how many operations one run does; times are for one.
        main: run on the main thread.
        exact: one run a sample, since each leaves its traces.
        together: cases with the same word are measured in one comparison, so that they can be held
            against each other.
        without: subjects that are left out, and why.
    """

    group: str
    name: str
    expected: Any
    make: Callable[[Subject], Timer]
    operations: int = 1
    level: Level = Level.QUICK
    main: bool = False
    exact: bool = False
    together: str = ""
    without: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Group and name of each row that it gives."""
        return [(self.group, self.name)]


@dataclass(frozen=True, slots=True)
class Phase:
    """One figure of a process, and the row that shows it."""

    key: str
    group: str
    name: str
    unit: Literal["s", "KiB"] = "s"


@dataclass(frozen=True, slots=True)
class Alone:
    """Rows of what needs a process of its own.

    Attributes:
        task, spec: what `Subject.alone` is told.
        phases: the figures that each process gives.
        once: one process for each subject, unless everything is measured.
    """

    task: str
    spec: Mapping[str, Any]
    phases: tuple[Phase, ...]
    once: bool = False
    level: Level = Level.QUICK

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Group and name of each row that it gives."""
        return [(phase.group, phase.name) for phase in self.phases]


def all_cases() -> Iterator[Case | Alone]:
    """All of them."""
    yield Case("call", "scalar", 42, _call("add", "kept"))
    yield Case("call", "scalar, any instance", 42, _call("add", "pooled"))
    yield Case("call", "scalar, main thread", 42, _call("add", "kept"), main=True)
    yield from _strings()
    yield from _bytes()
    yield from _values()
    yield from _host_calls()
    yield from _instances()
    yield from _apart()
    for language in LANGUAGES:
        yield from _plugin(language)
    yield from _threads()
    yield from map(_idle, IDLE)
    yield _many_calls()


def _strings() -> Iterator[Case]:
    for size, name in SIZES:
        yield _string(size, name)
    for size, name in ((1_000, "1 kB"), (100_000, "100 kB")):
        yield _string(size, name, copy=True)
    yield _string(100_000, "100 kB", wide=True)


def _string(size: int, name: str, *, copy: bool = False, wide: bool = False) -> Case:
    piece = "abcdefgh\N{GREEK SMALL LETTER LAMDA}" if wide else "abcdefghij"  # ten bytes
    how = ", copied in the guest" if copy else ", not all ASCII" if wide else ""
    text = piece * (size // 10)
    level = Level.USUAL if size > 1_000_000 else Level.QUICK
    return Case("string", f"{name}{how}", text, _call("string", text, copy=copy), level=level)


def _bytes() -> Iterator[Case]:
    for size, name in SIZES:
        data = (bytes(range(256)) * (size // 256 + 1))[:size]
        yield Case(
            "bytes",
            name,
            data,
            _call("data", data),
            level=Level.USUAL if size > 10_000 else Level.QUICK,
            without={"wasmtime-py": "18 s a call"} if size > 1_000_000 else {},
        )


def _values() -> Iterator[Case]:
    one = Sample(7, 0.25, "a name of some length", live=True)
    many = [Sample(i, i / 8, f"name {i}", live=i % 2 == 0) for i in range(100)]
    dicts = [asdict(x) for x in many]
    whole = [i * 4_000_001 for i in range(1_000)]
    parts = [i / 7 for i in range(1_000)]
    yield Case("values", "record of 4 fields", asdict(one), _call("record", one))
    yield Case("values", "list of 100 records", dicts, _call("records", many))
    yield Case("values", "list<u32> of 1,000", whole, _call("u32s", whole))
    yield Case("values", "list<f64> of 1,000", parts, _call("f64s", parts))


def _host_calls() -> Iterator[Case]:
    def host(name: str, gives: int, what: str, *more: int, calls: int = HOST_CALLS) -> Case:
        level = Level.QUICK if calls == HOST_CALLS else Level.USUAL
        make = _call(what, calls, *more)
        return Case("host call", name, calls * gives, make, operations=calls, level=level)

    yield host("a number (clock)", 1, "times")
    yield host("text for text (setting)", len(SETTING), "texts")
    yield host("1 kB of a store", 1_000, "values", 1_000)
    yield host("100 kB of a store", 100_000, "values", 100_000, calls=5)


def _instances() -> Iterator[Case]:
    yield Case("instance", "fresh, to its first call", 42, _call("fresh", "compiled"))
    again = "the same; Extism: Plugin(wasm)"
    yield Case("instance", f"{again}, cached", 42, _call("fresh", "cached"))
    yield Case("instance", again, 42, _call("fresh", "bytes"), level=Level.USUAL)
    yield Case("instance", "Rust plugin, start and end", expected=True, make=_call("start"))
    again = "100 kB of code, again in a running host"
    yield Case("instance", again, expected=True, make=_call("load"), exact=True)


def _apart() -> Iterator[Case]:
    """Nobody else puts a wall around a plugin's process, so there is nothing to compare with."""
    text, kilobyte, large = "abcdefghij" * 100, b"\1" * 1_000, b"\1" * 100_000_000

    def row(name: str, gives: Any, how: str, *what: Any, **more: Any) -> Case:
        return Case(APART, name, gives, _if_it_can(how, *what), **more)

    yield row("scalar call", 42, "apart", "add", "kept")
    yield row("string, 1 kB", text, "apart", "string", text)
    yield row("bytes, 1 kB", kilobyte, "apart", "data", kilobyte)
    yield row("host call, a number (clock)", 200, "apart", "times", 200, operations=200)
    yield row("one call with one host call", 1, "apart", "times", 1)
    yield row("fresh, to its first call", 42, "apart", "fresh")
    yield row("native: bytes, 1 kB", kilobyte, "native", "data", kilobyte)
    yield row(
        "native: bytes, 100 MB", large, "native", "data", large, level=Level.USUAL, exact=True
    )
    yield row("native: host call, a number (clock)", 200, "native", "times", 200, operations=200)
    yield row("native: start, to its first call", b"x", "native", "start")


def _if_it_can(how: str, *what: Any) -> Callable[[Subject], Timer]:
    def make(subject: Subject) -> Timer:
        if not hasattr(subject, how):
            raise Skipped
        return cast("Timer", getattr(subject, how)(*what))

    return make


def _plugin(language: Language) -> Iterator[Alone]:
    group = "100 kB of code" if language == "WAT" else f"{language} plugin"
    small = language in {"WAT", "Rust"}
    spec = {"language": language, "calls": 200, "instances": 50}
    cold = (Phase("start", group, "cold load"),)
    warm: tuple[Phase, ...] = (
        Phase("start", group, "warm start in a new process"),
        Phase("first-call", group, "its first call"),
        Phase("call", group, "a later call"),
        Phase("second-instance", group, "second instance"),
        Phase("instance", group, "a later instance"),
    )
    if language == "WAT":
        warm = (*warm, Phase("import", "process", "import of the library"))
    level = Level.USUAL if small else Level.FULL
    yield Alone("start", {**spec, "cold": True}, cold, once=True, level=level)
    level = Level.QUICK if small else Level.USUAL
    yield Alone("start", {**spec, "cold": False}, warm, level=level)


def _threads() -> Iterator[Case]:
    for threads in THREADS:
        yield Case(
            "threads",
            f"a million rounds, {counted(threads, 'thread')}",
            [_xorshift(SPINS)] * threads,
            _call("spin", SPINS, threads),
            operations=threads,
            together="spin",
        )
    for threads in THREADS:
        yield Case(
            "threads",
            f"a short call, {counted(threads, 'thread')}",
            [42] * threads,
            _call("short", SHORT_CALLS, threads),
            operations=threads * SHORT_CALLS,
            together="short",
            level=Level.USUAL,
        )


def _idle(count: int) -> Alone:
    what = counted(count, "idle instance")
    phases = (
        Phase("seconds", "memory", f"{what}: to make one"),
        Phase("kib", "memory", f"{what}: resident each", unit="KiB"),
    )
    level = {100: Level.QUICK, 10_000: Level.FULL}.get(count, Level.USUAL)
    return Alone("idle", {"count": count}, phases, level=level)


def _many_calls() -> Alone:
    phases = (
        Phase("grown-kib", "memory", "a million calls: grown by", unit="KiB"),
        Phase("seconds", "memory", "a million calls: each"),
    )
    return Alone("calls", {"count": MILLION}, phases, once=True, level=Level.FULL)


def counted(count: int, what: str) -> str:
    """`1 thing`, `1,000 things`."""
    return f"{count:,} {what}{'s' * (count > 1)}"


def _call(what: str, *args: Any, **kwargs: Any) -> Callable[[Subject], Timer]:
    """`lambda s: s.what(…)`, bound now."""
    return lambda subject: cast("Timer", getattr(subject, what)(*args, **kwargs))


@cache
def _xorshift(rounds: int) -> int:
    x = 1
    for _ in range(rounds):
        x ^= x << 13 & 0xFFFFFFFF
        x ^= x >> 17
        x ^= x << 5 & 0xFFFFFFFF
    return x
