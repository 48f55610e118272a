"""`python -m bench`: one table, from one run."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from . import goals, machine
from .cases import Alone, Case, Level, all_cases
from .kept import Workshop
from .measure import Effort, Figures, WrongValue
from .plots import write_plots
from .report import COLUMNS, Row, as_json, find, scaling, show, table
from .run import Plan, measure
from .subject import Subject, Unavailable
from .subjects import NAMES, open_subject

PLANS = {
    Level.QUICK: Plan(Level.QUICK, Effort(0.004, 5, 0.1), processes=2, colds=1),
    Level.USUAL: Plan(Level.USUAL, Effort(0.015, 15, 1.2), processes=3, colds=1),
    Level.FULL: Plan(Level.FULL, Effort(0.02, 21, 2.5), processes=5, colds=3),
}


def main() -> int:
    """Measure and print; exit code 1 if a subject's answer was wrong."""
    parser = _parser()
    options = parser.parse_args()
    if options.write and (options.quick or options.only or options.json or options.cpu):
        parser.error("--write is for the whole table")
    if options.quick and options.full:
        parser.error("--quick or --full?")
    if unknown := set(options.without) - set(NAMES[1:]):
        parser.error(f"no such subject: {', '.join(unknown)}; there are: {', '.join(NAMES[1:])}")
    plan = _plan(options)
    chosen = _chosen(options, plan)
    if options.list:
        print("\n".join(f"{group}: {name}" for case in chosen for group, name in case.rows))
        return 0
    if not chosen:
        parser.error(f"no case has {' or '.join(options.only)} in its name")
    about, started = machine.describe(), time.monotonic()
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        subjects = _open(stack, options, missing)
        try:
            rows = list(measure(chosen, subjects, plan))
        except WrongValue as exc:
            print(f"wrong: {exc}", file=sys.stderr)
            return 1
    seconds = round(time.monotonic() - started, 1)
    verdicts = goals.judge(rows)[1]
    if options.json:
        print(json.dumps(as_json(about, rows, seconds=seconds, missing=missing), indent=1))
    else:
        _tell(options, about, [n for n in NAMES if n in subjects], rows, seconds)
    return 1 if options.strict and not all(v.met for v in verdicts) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="capwasm beside raw wasmtime-py, Extism, and a host in Rust.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer and shorter samples; builds nothing")
    add("--full", action="store_true", help="more samples, 10,000 instances, a million calls")
    add("--goals", action="store_true", help="only what the goals ask for, and how they stand")
    add("--strict", action="store_true", help="exit code 1 unless every goal is met")
    add("--json", action="store_true", help="every sample, in seconds")
    add("--cpu", action="store_true", help="a table of processor time, not of time that passed")
    add("--only", action="append", metavar="WORD", help="cases whose group or name has it")
    add("--without", action="append", metavar="SUBJECT", default=[], help="leave it out")
    add("--write", action="store_true", help="also into bench/README.md and bench/plots")
    add("--list", action="store_true", help="only list the cases")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    if options.quick:
        return PLANS[Level.QUICK]
    if options.full:
        return PLANS[Level.FULL]
    usual = PLANS[Level.USUAL]
    # A goal may be about what is too long for every day.
    return replace(usual, level=Level.FULL) if options.goals or options.strict else usual


def _chosen(options: argparse.Namespace, plan: Plan) -> list[Case | Alone]:
    chosen = [case for case in all_cases() if case.level <= plan.level]
    if options.only:
        chosen = [
            c for c in chosen if any(w in f"{g}: {n}" for g, n in c.rows for w in options.only)
        ]
    elif (options.goals or options.strict) and not options.write:
        wanted = goals.needed()
        chosen = [c for c in chosen if wanted & set(c.rows)]
    return chosen


def _open(
    stack: ExitStack, options: argparse.Namespace, missing: dict[str, str]
) -> dict[str, Subject]:
    subjects: dict[str, Subject] = {}
    workshop = Workshop(builds=not options.quick)
    for name in NAMES:
        if name in options.without or (name.startswith("Rust ") and "Rust" not in subjects):
            continue
        try:
            subjects[name] = open_subject(name, workshop)
        except Unavailable as exc:
            missing[name] = str(exc)
            print(f"{name} is left out: {exc}", file=sys.stderr)
        else:
            stack.callback(subjects[name].close)
    return subjects


def _tell(
    options: argparse.Namespace,
    about: dict[str, str | int | float],
    names: Sequence[str],
    rows: Sequence[Row],
    seconds: float,
) -> None:
    parts = [_about(about)]
    if options.goals or options.strict or options.write:
        parts.append(goals.view(rows))
    if not options.goals or options.write:
        shown = [_of_cpu(row) for row in rows if _has_cpu(row)] if options.cpu else rows
        parts += [table(names, shown), _notes(seconds)]
        if not options.cpu:
            parts += _scaling(names, rows) + _unguarded(rows)
    print("\n\n".join(parts))
    if options.write:
        write_plots(rows)
        _write("\n\n".join(parts))


def _has_cpu(row: Row) -> bool:
    return any(figures.cpu for figures in row.figures.values())


def _of_cpu(row: Row) -> Row:
    figures = {n: Figures(f.cpu, f.runs, f.cpu) for n, f in row.figures.items()}
    return replace(row, figures=figures)


def _about(about: dict[str, str | int | float]) -> str:
    return (
        f"{about['cpu']}, {about['cores']} cores, {about['system']}, Python {about['python']}; "
        f"capwasm {about['capwasm']}, wasmtime {about['wasmtime']}, extism {about['extism']} "
        f"(runtime {about['extism-sys']}); {about['date']}, load {about['load']} at the start"
    )


def _notes(seconds: float) -> str:
    return (
        "Medians over rounds in which the subjects take turns; ± is half the distance of the\n"
        "quartiles, and missing where there was one sample. A ratio is the median over pairs of one\n"
        f"round. {seconds:.0f} s in all."
    )


def _scaling(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    found = []
    for what, title in (("a million rounds", "a long loop"), ("a short call", "short calls")):
        for name in (n for n in COLUMNS if n in names):
            times = scaling(rows, what, name)
            if len(times) > 1:
                each = ", ".join(f"{v:.2f}× with {t}" for t, v in sorted(times.items()) if t > 1)
                found.append(f"- {title}, {name}: {each}")
    head = "Work done in the same time by several threads, beside one:"
    return ["\n".join([head, "", *found])] if found else []


def _unguarded(rows: Sequence[Row]) -> list[str]:
    """What fuel, deadline and limits cost the host in Rust."""
    found = []
    for group, name in (("call", "scalar"), ("string", "1 kB"), ("bytes", "100 kB")):
        row = find(rows, group, name)
        if row is not None and {"Rust", "Rust plain"} <= row.figures.keys():
            plain, guarded = row.figures["Rust plain"].median, row.figures["Rust"].median
            what = f"{group}, {name}" if group != "call" else name
            found.append(f"{what} {show(plain)} in place of {show(guarded)}")
    return [f"Rust without fuel, deadline and limits: {'; '.join(found)}."] if found else []


def _write(text: str) -> None:
    page = Path(__file__).with_name("README.md")
    head, begin, rest = page.read_text(encoding="utf-8").partition("<!-- made: table -->\n")
    _, end, tail = rest.partition("<!-- end -->")
    page.write_text(f"{head}{begin}\n{text}\n\n{end}{tail}", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
