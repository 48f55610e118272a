"""What is compared: each subject offers the same work in its own idiom."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal, Protocol

__all__ = ["SETTING", "Job", "Sample", "Skipped", "Subject", "Timed", "Timer", "Unavailable"]

SETTING = "guten Tag, Welt"
"""What the host answers to `greeting`."""


class Unavailable(Exception):
    """The subject isn't installed here; the text says what would change that."""


class Skipped(Exception):
    """The subject has nothing like that; the text says why, if that needs saying."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One sample: what some runs took together.

    Attributes:
        wall: seconds that passed.
        cpu: seconds of processor time, with all threads and child processes.
        value: what the last run gave.
    """

    wall: float
    cpu: float
    value: Any


class Timer(Protocol):
    """Work that can be timed."""

    def timed(self, runs: int) -> Timed:
        """Do it that many times."""

    def plain(self, value: Any) -> Any:
        """What a run gave as plain Python, to be compared with what is expected; not timed."""


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of work in this process.

    Attributes:
        run: does it once and returns what came of it, as the subject's own API gives it.
        as_plain: see `Timer.plain`.
    """

    run: Callable[[], Any]
    as_plain: Callable[[Any], Any] = lambda value: value

    def timed(self, runs: int) -> Timed:
        """Do it that many times, with the garbage collector off."""
        run, value = self.run, None
        with _no_gc():
            cpu, start = _processor(), time.perf_counter()
            for _ in repeat(None, runs):
                value = run()
            return Timed(time.perf_counter() - start, _processor() - cpu, value)

    def plain(self, value: Any) -> Any:
        """As `as_plain` has it."""
        return self.as_plain(value)


def _processor() -> float:
    """Processor seconds of this process, and of those that it started and that have ended."""
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


@contextmanager
def _no_gc() -> Iterator[None]:
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@dataclass(frozen=True, slots=True)
class Sample:
    """The record that crosses."""

    id: int
    ratio: float
    name: str
    live: bool


class Subject(Protocol):
    """One way to run guests.  Closed once; every job is used before that.

    Each method but `close` may raise `Skipped`.
    """

    name: str

    def add(self, how: Literal["kept", "pooled"]) -> Timer:
        """2 + 40.  `how`: `kept` (one instance of one's own), `pooled` (the plugin itself)."""

    def string(self, text: str, *, copy: bool) -> Timer:
        """The text, there and back; `copy`: through a copy inside the guest."""

    def data(self, data: bytes) -> Timer:
        """Bytes, there and back."""

    def u32s(self, numbers: list[int]) -> Timer:
        """A `list<u32>`, there and back."""

    def f64s(self, numbers: list[float]) -> Timer:
        """A `list<f64>`, there and back."""

    def record(self, sample: Sample) -> Timer:
        """One record, there and back; `plain` gives a dict."""

    def records(self, samples: list[Sample]) -> Timer:
        """A list of records, there and back; `plain` gives dicts."""

    def times(self, count: int) -> Timer:
        """That many host calls for a number, in one call of the guest; gives `count`."""

    def texts(self, count: int) -> Timer:
        """That many host calls, text for text, in one call of the guest; gives their length."""

    def values(self, count: int, size: int) -> Timer:
        """That many host calls for a stored value of `size` bytes; gives their length."""

    def fresh(self, how: Literal["compiled", "cached", "bytes"]) -> Timer:
        """A new instance with all it may be granted, and 2 + 40 as its first call.

        `how`: from a compiled form that is kept, from bytes by way of a compile cache, or from
        bytes without one.
        """

    def start(self) -> Timer:
        """A new instance of the real Rust plugin, and its end; gives True."""

    def load(self) -> Timer:
        """100 kB of code that this process has loaded before, from bytes to a started plugin."""

    def apart(self, what: str, *args: Any) -> Timer:
        """The same in a process of its own: `add`, `string`, `data`, `times`, `fresh`; see there."""

    def native(self, what: Literal["data", "times", "start"], *args: Any) -> Timer:
        """A native plugin, in a process of its own; `start`: to the end of its first call."""

    def spin(self, rounds: int, threads: int) -> Timer:
        """A loop in that many guests at once; gives the list of what each computed."""

    def short(self, calls: int, threads: int) -> Timer:
        """That many times 2 + 40 on each of some threads; gives the list of their last answers."""

    def alone(self, task: str, **spec: Any) -> Callable[[], Mapping[str, float]]:
        """A task of `alone.TASKS`, set up now; each call does it in a new process."""

    def close(self) -> None:
        """Let go of everything."""
