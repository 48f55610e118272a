"""Timing: the subjects take turns within each round, so that a noisy machine is noisy for all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from .subject import Timer

__all__ = ["Effort", "Figures", "Work", "WrongValue", "compare", "in_turns"]

K = TypeVar("K", bound=Hashable)

_LONG = 0.05  # seconds; the first run of a shorter job says little about the next


class WrongValue(Exception):
    """A subject's answer is not what the work gives; its time means nothing."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        sample_seconds: what one sample of one subject should take, by as many runs as that needs.
        rounds: how many rounds at most; at least two are made.
        budget_seconds: what one comparison may take, about.
    """

    sample_seconds: float
    rounds: int
    budget_seconds: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What one subject needed in one case.

    Attributes:
        samples: for one operation, one number a round: seconds, or KiB.
        runs: how often the work was done.
        cpu: seconds of processor time, with all threads and child processes: what a busy machine
            changes least, and what includes the writer of an audit log and a compile process.
    """

    samples: tuple[float, ...]
    runs: int
    cpu: tuple[float, ...] = ()

    @property
    def best(self) -> float:
        """The least."""
        return min(self.samples)

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float | None:
        """The distance of the quartiles, in parts of the median; none of one sample."""
        if len(self.samples) < 2 or not self.median:
            return None
        if len(self.samples) < 3:
            return (max(self.samples) - min(self.samples)) / self.median
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / self.median

    def over(self, other: Figures) -> float | None:
        """How often `other` fits into this: the median over pairs of one round."""
        pairs = zip(self.samples, other.samples, strict=True)
        ratios = [a / b for a, b in pairs if b > 0]
        return statistics.median(ratios) if ratios else None


@dataclass(frozen=True, slots=True)
class Work:
    """What one of those who take turns does.

    Attributes:
        timer: the work.
        expected: what each run gives, as plain Python; looked at after each sample.
        operations: how many one run does.
        exact: one run a sample, since each leaves its traces.
    """

    timer: Timer
    expected: Any
    operations: int = 1
    exact: bool = False


def compare(work: Mapping[K, Work], effort: Effort, *, main: bool = False) -> dict[K, Figures]:
    """Do the work in turns.

    Args:
        work: by who does it.
        effort: how much.
        main: on the main thread; else on a worker, as in an application with threads.

    Raises:
        WrongValue: a run gave something else.
    """
    if not work:
        return {}
    with ThreadPoolExecutor(1, thread_name_prefix="bench") as pool:

        def sample(key: K, runs: int) -> tuple[float, float]:
            item = work[key]
            timed = item.timer.timed(runs) if main else pool.submit(item.timer.timed, runs).result()
            if (found := item.timer.plain(timed.value)) != item.expected:
                raise WrongValue(f"{key}: {found!r:.80} is not {item.expected!r:.80}")
            count = runs * item.operations
            return timed.wall / count, timed.cpu / count

        runs, costs = {}, {}
        for key, item in work.items():  # warm-up, which also says how long one run takes
            once = sample(key, 1)[0] * item.operations
            if once < _LONG:
                once = min(sample(key, 1)[0] for _ in range(3)) * item.operations
            wanted = 1 if item.exact else round(effort.sample_seconds / max(once, 1e-9))
            runs[key] = max(1, wanted)
            costs[key] = once * runs[key]
        rounds = max(2, min(effort.rounds, int(effort.budget_seconds / sum(costs.values()))))
        found = in_turns({key: partial(sample, key, runs[key]) for key in work}, rounds)
    return {
        key: Figures(
            tuple(wall for wall, _ in samples),
            runs[key] * len(samples),
            tuple(cpu for _, cpu in samples),
        )
        for key, samples in found.items()
    }


T = TypeVar("T")


def in_turns(each: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """Everyone once a round, beginning with another in each."""
    found: dict[K, list[T]] = {key: [] for key in each}
    order = list(each)
    for _ in range(rounds):
        for key in order:
            found[key].append(each[key]())
        order = order[1:] + order[:1]
    return found
