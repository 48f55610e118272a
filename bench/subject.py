"""What is compared: each subject offers the same work in its own idiom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["SETTING", "Job", "Sample", "Skipped", "Subject", "Unavailable"]

SETTING = "guten Tag, Welt"
"""What the host answers to `greeting`."""


class Unavailable(Exception):
    """The subject isn't installed here; the text says what would change that."""


class Skipped(Exception):
    """The subject has nothing like that; the text says why."""


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of work.

    Attributes:
        run: does it once and returns what came of it, as the subject's own API gives it.
        plain: that value as plain Python, to be compared with what is expected; not timed.
    """

    run: Callable[[], Any]
    plain: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True, slots=True)
class Sample:
    """The record that crosses."""

    id: int
    ratio: float
    name: str
    live: bool


class Subject(Protocol):
    """One way to run guests from Python.  Closed once; every job is used before that."""

    name: str

    def add(self, how: str) -> Job:
        """2 + 40.  `how`: `kept` (one instance of one's own), `pooled` (the plugin itself)."""

    def string(self, text: str, *, copy: bool) -> Job:
        """The text, there and back; `copy`: through a copy inside the guest."""

    def data(self, data: bytes) -> Job:
        """Bytes, there and back."""

    def record(self, sample: Sample) -> Job:
        """One record, there and back; `plain` gives a dict."""

    def records(self, samples: list[Sample]) -> Job:
        """A list of records, there and back; `plain` gives dicts."""

    def times(self, count: int) -> Job:
        """That many host calls for a number, in one call of the guest; gives `count`."""

    def texts(self, count: int) -> Job:
        """That many host calls, text for text, in one call of the guest; gives their length."""

    def fresh(self, *, compiled: bool) -> Job:
        """A new instance with all it may be granted, and 2 + 40 as its first call."""

    def start(self) -> Job:
        """A new instance of the real Rust plugin, and its end; gives True."""

    def load(self, which: str, *, warm: bool) -> Job:
        """From bytes to a started plugin.  `which`: `large` or `rust`; gives True."""

    def spin(self, rounds: int, threads: int) -> Job:
        """A loop in that many guests at once; gives the list of what each computed."""

    def idle(self, count: int) -> Callable[[], None]:
        """Make `count` instances that have been called once, and keep them until closed."""

    def close(self) -> None:
        """Let go of everything."""
