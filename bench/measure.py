"""Timing: the subjects take turns within each round, so that a noisy machine is noisy for all."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from .subject import Job

__all__ = ["Effort", "Figures", "WrongValue", "compare"]


_LONG = 0.05  # seconds


class WrongValue(Exception):
    """A subject's answer is not what the work gives; its time means nothing."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        sample_seconds: what one sample of one subject should take, by as many runs as that needs.
        rounds: how many rounds at most; at least two are made.
        budget_seconds: what one case may take, about.
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
    def spread(self) -> float:
        """The distance of the quartiles, in parts of the median."""
        if len(self.samples) < 3:
            return (max(self.samples) - min(self.samples)) / self.median
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / self.median

    def over(self, other: Figures) -> float:
        """How often `other` fits into this: the median over pairs of one round."""
        return statistics.median(a / b for a, b in zip(self.samples, other.samples, strict=True))


def compare(
    jobs: Mapping[str, Job], expected: Any, effort: Effort, *, operations: int, main: bool
) -> dict[str, Figures]:
    """Run the jobs in turns.

    Args:
        jobs: by the subject's name.
        expected: what each run gives, as plain Python; looked at after each sample.
        effort: how much.
        operations: how many one run does.
        main: on the main thread, where capwasm hands a call to a worker; else on a worker.

    Raises:
        WrongValue: a run gave something else.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="bench") as pool:

        def sample(name: str, runs: int) -> tuple[float, float]:
            job = jobs[name]
            if main:
                wall, cpu, value = _timed(job.run, runs)
            else:
                wall, cpu, value = pool.submit(_timed, job.run, runs).result()
            if (found := job.plain(value)) != expected:
                raise WrongValue(f"{name}: {found!r:.80} is not {expected!r:.80}")
            return wall / runs / operations, cpu / runs / operations

        runs, costs = {}, {}
        for name in jobs:  # warm-up, which also says how long one run takes
            once = sample(name, 1)[0] * operations
            if once < _LONG:  # the first run of a short job says little
                once = min(sample(name, 1)[0] for _ in range(3)) * operations
            runs[name] = max(1, round(effort.sample_seconds / once))
            costs[name] = once * runs[name]
        rounds = min(effort.rounds, int(effort.budget_seconds / sum(costs.values())))
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
        order = list(jobs)
        for _ in range(max(2, rounds)):
            for name in order:
                found[name].append(sample(name, runs[name]))
            order = order[1:] + order[:1]
    return {
        name: Figures(
            tuple(wall for wall, _ in samples),
            runs[name] * len(samples),
            tuple(cpu for _, cpu in samples),
        )
        for name, samples in found.items()
    }


def _timed(run: Callable[[], Any], runs: int) -> tuple[float, float, Any]:
    value = None
    with _no_gc():
        cpu, start = _processor(), time.perf_counter()
        for _ in repeat(None, runs):
            value = run()
        return time.perf_counter() - start, _processor() - cpu, value


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
