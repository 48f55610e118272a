"""`python -m bench`: one table, from one run."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from . import machine, memory
from .cases import Case, cases
from .measure import Effort, Figures, WrongValue, compare
from .report import Row, as_json, table
from .subject import Job, Skipped, Subject, Unavailable
from .subjects import NAMES, open_subject

FULL = Effort(sample_seconds=0.02, rounds=15, budget_seconds=1.5)
QUICK = Effort(sample_seconds=0.005, rounds=5, budget_seconds=0.1)
INSTANCES = 200


def main() -> int:
    """Measure and print; exit code 1 if a subject's answer was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="capwasm beside raw wasmtime-py and Extism."
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples")
    parser.add_argument("--json", action="store_true", help="every sample, in seconds")
    parser.add_argument(
        "--cpu", action="store_true", help="a table of processor time, not of time that passed"
    )
    parser.add_argument(
        "--only", action="append", metavar="WORD", help="cases whose group or name has it"
    )
    parser.add_argument("--write", action="store_true", help="put the table into bench/README.md")
    parser.add_argument("--list", action="store_true", help="only list the cases")
    options = parser.parse_args()
    if options.write and (options.quick or options.only or options.json or options.cpu):
        parser.error("--write is for the whole table")
    chosen = [c for c in cases() if _wanted(c.group, c.name, options.only)]
    if options.quick:
        chosen = [c for c in chosen if not c.heavy]
    with_memory = _wanted("memory", _MEMORY, options.only)
    if options.list:
        print("\n".join([*(f"{c.group}: {c.name}" for c in chosen), f"memory: {_MEMORY}"]))
        return 0
    if not chosen and not with_memory:
        parser.error(f"no case has {' or '.join(options.only)} in its name")
    about, started = machine.describe(), time.monotonic()
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        subjects: dict[str, Subject] = {}
        for name in NAMES:
            try:
                subjects[name] = open_subject(name)
            except Unavailable as exc:
                missing[name] = str(exc)
                print(f"{name} is left out: {exc}", file=sys.stderr)
            else:
                stack.callback(subjects[name].close)
        try:
            rows = [_measure(c, subjects, QUICK if options.quick else FULL) for c in chosen]
        except WrongValue as exc:
            print(f"wrong: {exc}", file=sys.stderr)
            return 1
        names = [n for n in NAMES if n in subjects]
    if with_memory:
        rows.append(_memory(names, *((50, 1) if options.quick else (INSTANCES, 3))))
    seconds = round(time.monotonic() - started, 1)
    if options.json:
        print(json.dumps(as_json(about, rows, seconds=seconds, missing=missing), indent=1))
        return 0
    shown = [_of_cpu(row) for row in rows if row.unit == "s"] if options.cpu else rows
    parts = [_about(about), table(names, shown), _notes(seconds)]
    if not options.cpu:
        parts += _scaling(rows)
    print("\n\n".join(parts))
    if options.write:
        _write("\n\n".join(parts))
    return 0


def _wanted(group: str, name: str, words: list[str] | None) -> bool:
    return not words or any(word in f"{group}: {name}" for word in words)


def _measure(case: Case, subjects: dict[str, Subject], effort: Effort) -> Row:
    jobs: dict[str, Job] = {}
    skipped: dict[str, str] = {}
    for name, subject in subjects.items():
        try:
            jobs[name] = case.make(subject)
        except Skipped as exc:
            skipped[name] = str(exc)
    if case.exact:
        effort = replace(effort, sample_seconds=0.0)
    figures = compare(jobs, case.expected, effort, operations=case.operations, main=case.main)
    return Row(case.group, case.name, figures, skipped)


def _of_cpu(row: Row) -> Row:
    figures = {n: Figures(f.cpu, f.runs, f.cpu) for n, f in row.figures.items()}
    return replace(row, figures=figures)


_MEMORY = "resident, an idle instance"


def _memory(names: list[str], count: int, rounds: int) -> Row:
    found: dict[str, list[float]] = {name: [] for name in names}
    skipped = {}
    for _ in range(rounds):
        for name in names:
            try:
                found[name].append(memory.idle_kib(name, count))
            except subprocess.CalledProcessError as exc:
                skipped[name] = exc.stderr.strip().splitlines()[-1]
    figures = {n: Figures(tuple(v), count * len(v)) for n, v in found.items() if len(v) == rounds}
    return Row("memory", _MEMORY, figures, skipped, unit="KiB")


def _about(about: dict[str, str | int | float]) -> str:
    return (
        f"{about['cpu']}, {about['cores']} cores, {about['system']}, Python {about['python']}; "
        f"capwasm {about['capwasm']}, wasmtime {about['wasmtime']}, extism {about['extism']} "
        f"(runtime {about['extism-sys']}); {about['date']}, load {about['load']}"
    )


def _notes(seconds: float) -> str:
    return (
        "Medians over rounds in which the subjects take turns; ± is half the distance of the\n"
        "quartiles. The last columns: how many times more the other needs, the median over pairs of\n"
        f"one round; above 1 capwasm is ahead. {seconds} s in all."
    )


def _scaling(rows: list[Row]) -> list[str]:
    spins = [row for row in rows if row.group == "threads"]
    if len(spins) < 3:
        return []
    found = []
    for name in spins[0].figures:
        one, two, four = (row.figures[name].median for row in spins)
        found.append(f"{name} {one / two:.2f}× with 2 and {one / four:.2f}× with 4")
    return [f"Threads, work in the same time beside one thread: {'; '.join(found)}."]


def _write(text: str) -> None:
    page = Path(__file__).with_name("README.md")
    head, begin, rest = page.read_text(encoding="utf-8").partition("<!-- made: table -->\n")
    _, end, tail = rest.partition("<!-- end -->")
    page.write_text(f"{head}{begin}\n{text}\n\n{end}{tail}", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
