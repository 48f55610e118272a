"""From cases and subjects to rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from .cases import Alone, Case, Level, Phase
from .measure import Effort, Figures, Work, compare, in_turns
from .report import Row
from .subject import Skipped, Subject

__all__ = ["Plan", "measure"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        level: cases above it are left out.
        effort: of a comparison.
        processes: how many of each kind are started for a subject.
        colds: the same where one takes long.
    """

    level: Level
    effort: Effort
    processes: int
    colds: int


def measure(
    cases: Sequence[Case | Alone], subjects: Mapping[str, Subject], plan: Plan
) -> Iterator[Row]:
    """The rows of these cases, in their order.

    Raises:
        WrongValue: a subject's answer was wrong.
    """
    for _, some in groupby(enumerate(cases), key=lambda at: _batch(*at)):
        batch = [case for _, case in some]
        if sys.stderr.isatty():
            where = ": ".join(batch[0].rows[0])
            print(f"\r\033[K{where}", end="\r", file=sys.stderr, flush=True)
        if isinstance(batch[0], Alone):
            yield from _alone(batch[0], subjects, plan)
        else:
            yield from _together([c for c in batch if isinstance(c, Case)], subjects, plan.effort)


def _batch(index: int, case: Case | Alone) -> str | int:
    return (case.together if isinstance(case, Case) else "") or index


def _together(
    batch: Sequence[Case], subjects: Mapping[str, Subject], effort: Effort
) -> Iterable[Row]:
    work: dict[tuple[str, int], Work] = {}
    skipped: list[dict[str, str]] = [dict(case.without) for case in batch]
    for at, case in enumerate(batch):
        for name, subject in subjects.items():
            if name in case.without:
                continue
            try:
                timer = case.make(subject)
            except Skipped as exc:
                skipped[at][name] = str(exc)
            else:
                work[name, at] = Work(timer, case.expected, case.operations, case.exact)
    budget = effort.budget_seconds * len(batch)
    figures = compare(
        work, Effort(effort.sample_seconds, effort.rounds, budget), main=batch[0].main
    )
    for at, case in enumerate(batch):
        mine = {name: found for (name, where), found in figures.items() if where == at}
        yield Row(case.group, case.name, mine, skipped[at])


def _alone(case: Alone, subjects: Mapping[str, Subject], plan: Plan) -> Iterator[Row]:
    skipped: dict[str, str] = {}
    each: dict[str, Callable[[], Mapping[str, float] | None]] = {}
    for name, subject in subjects.items():
        try:
            run = subject.alone(case.task, **case.spec)
        except Skipped as exc:
            skipped[name] = str(exc)
        else:
            each[name] = _unless_skipped(run, skipped, name)
    found = in_turns(each, plan.colds if case.once else plan.processes)
    for phase in case.phases:
        yield _row(phase, found, skipped)


def _unless_skipped(
    run: Callable[[], Mapping[str, float]], skipped: dict[str, str], name: str
) -> Callable[[], Mapping[str, float] | None]:
    def once() -> Mapping[str, float] | None:
        if name not in skipped:
            try:
                return run()
            except Skipped as exc:
                skipped[name] = str(exc)
        return None

    return once


def _row(
    phase: Phase,
    found: Mapping[str, Sequence[Mapping[str, float] | None]],
    skipped: Mapping[str, str],
) -> Row:
    figures = {}
    for name, dicts in found.items():
        if name in skipped:
            continue
        samples = tuple(d[phase.key] for d in dicts if d is not None and phase.key in d)
        if samples:
            figures[name] = Figures(samples, len(samples))
    return Row(phase.group, phase.name, figures, dict(skipped), unit=phase.unit)
