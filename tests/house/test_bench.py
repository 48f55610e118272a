"""`python -m bench` does the work that it times, and says so in a form that others can read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from bench import goals, measure
from bench.alone import run_alone, run_here
from bench.cases import APART, IDLE, SIZES, Alone, Level, Phase, all_cases, counted
from bench.kept import Workshop
from bench.plots import plots
from bench.report import Row, find, scaling, table
from bench.run import Plan
from bench.run import measure as measure_cases
from bench.subject import Job, Skipped, Unavailable
from bench.subjects import open_subject

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "bench/README.md"
FEW = (
    "call: scalar", "string: 1 kB", "values: record", "host call: ", "fresh, to its first call",
    "own: scalar",
)  # fmt: skip


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def figures(*samples: float) -> measure.Figures:
    return measure.Figures(samples, len(samples))


# -- a run ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    done = bench("--quick", "--json", "--without=Rust", *(f"--only={word}" for word in FEW))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tells_of_each_case_that_was_asked_for(report: dict[str, Any]) -> None:
    wanted = {
        (group, name)
        for case in all_cases()
        for group, name in case.rows
        if case.level == Level.QUICK and any(word in f"{group}: {name}" for word in FEW)
    }

    assert {(r["group"], r["name"]) for r in report["results"]} == wanted
    assert len(wanted) > 5


def test_measures_every_subject_that_is_installed(report: dict[str, Any]) -> None:
    subjects = {"capwasm", "wasmtime-py"} | ({"Extism"} if find_spec("extism") else set())

    for result in report["results"]:
        # Nobody else has a process of its own for a plugin.
        here = {"capwasm"} if result["group"] == APART else subjects
        if result["name"].startswith("native") and not result["subjects"]:
            continue  # that plugin was never built here, and a quick run builds nothing
        assert set(result["subjects"]) == here, result["name"]
        assert set(result["ratios"]) == here - {"capwasm"}
        for found in result["subjects"].values():
            assert 0 < found["best"] <= found["median"]
            assert len(found["samples"]) >= 2
            assert found["runs"] >= len(found["samples"])
    assert set(report["missing"]) == {"Extism"} - subjects


def test_says_on_which_machine(report: dict[str, Any]) -> None:
    assert {"cpu", "cores", "python", "wasmtime", "date"} <= set(report["machine"])


@pytest.mark.toolchain("cargo")
def test_the_host_in_rust_does_the_same_work() -> None:
    workshop = Workshop(builds=False)
    try:
        rust = open_subject("Rust", workshop)
    except Unavailable as exc:
        pytest.skip(str(exc))
    text = "þrjú" * 100
    try:
        for job, expected in (
            (rust.add("kept"), 42),
            (rust.string(text, copy=True), text),
            (rust.data(b"\0\xff"), b"\0\xff"),
            (rust.u32s([1, 2**32 - 1]), [1, 2**32 - 1]),
            (rust.values(3, 1_000), 3_000),
            (rust.short(10, 2), [42, 42]),
        ):
            sample = job.timed(2)
            assert sample.wall > 0
            assert job.plain(sample.value) == expected
    finally:
        rust.close()


def test_refuses_a_time_for_work_that_was_not_done() -> None:
    work = {"right": measure.Work(Job(lambda: 42), 42), "lazy": measure.Work(Job(lambda: 41), 42)}
    effort = measure.Effort(0.0001, 2, 0.01)

    with pytest.raises(measure.WrongValue, match="lazy: 41 is not 42"):
        measure.compare(work, effort, main=True)


def test_everyone_begins_once() -> None:
    seen: list[str] = []
    each: dict[str, Callable[[], None]] = {
        name: lambda name=name: seen.append(name)  # type: ignore[misc]
        for name in "abc"
    }

    measure.in_turns(each, 3)

    assert seen == list("abcbcacab")


def test_refuses_to_keep_a_part_of_the_table() -> None:
    done = bench("--write", "--quick")

    assert done.returncode == 2
    assert "--write is for the whole table" in done.stderr


def test_refuses_words_that_no_case_has() -> None:
    done = bench("--only=nothing of the sort")

    assert done.returncode == 2
    assert "no case has nothing of the sort" in done.stderr


def test_refuses_to_be_without_what_it_is_about() -> None:
    done = bench("--without=capwasm")

    assert done.returncode == 2
    assert "no such subject: capwasm" in done.stderr


# -- processes of their own -------------------------------------------------------------------------


def test_a_process_tells_what_idle_instances_take() -> None:
    found = run_here("wasmtime-py", "idle", {"count": 200})

    assert found["seconds"] > 0
    assert 0 < found["kib"] < found["total-kib"]


def test_a_real_plugin_starts_in_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    subject = open_subject("capwasm", Workshop(builds=False))
    try:
        run = subject.alone("start", language="Rust", cold=False, calls=2, instances=2)
        found = run()
    finally:
        subject.close()

    assert set(found) == {
        "import", "start", "first-call", "call", "second-instance", "instance",
    }  # fmt: skip
    assert all(seconds > 0 for seconds in found.values())


def test_a_process_that_fails_gives_its_last_words_and_no_figure() -> None:
    with pytest.raises(Skipped, match="no figure today"):
        run_alone([sys.executable, "-c", "raise SystemExit('no figure today')"])


class Halfway:
    """A subject whose processes fail after the first."""

    def __init__(self) -> None:
        self.runs = 0

    def alone(self, task: str, **spec: Any) -> Callable[[], Mapping[str, float]]:
        def run() -> Mapping[str, float]:
            self.runs += 1
            if self.runs > 1:
                raise Skipped("it fell over")
            return {"seconds": 1.0}

        return run


def test_a_subject_that_fails_on_the_way_has_no_figure_at_all() -> None:
    case = Alone("idle", {"count": 1}, (Phase("seconds", "memory", "one"),))
    plan = Plan(Level.QUICK, measure.Effort(0.1, 2, 0.1), processes=3, colds=1)
    halfway = Halfway()

    (row,) = measure_cases([case], {"Extism": halfway}, plan)  # type: ignore[dict-item]

    assert row.figures == {}
    assert row.skipped == {"Extism": "it fell over"}
    assert halfway.runs == 2


# -- what is built ----------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "source").write_text("one")
    return tmp_path


def get(workshop: Workshop, place: Path, made: list[int], *, fails: bool = False) -> Path:
    def build(where: Path) -> Path:
        made.append(len(made))
        if fails:
            raise Unavailable("it does not build")
        (where / "out").write_text(str(len(made)))
        return where / "out"

    return workshop.get("thing", sources=[place / "source"], build=build, note="the thing")


def test_builds_once_for_the_same_sources(place: Path) -> None:
    made: list[int] = []

    assert get(Workshop(), place, made) == get(Workshop(), place, made)
    assert get(Workshop(builds=False), place, made).read_text() == "1"
    (place / "source").write_text("two")
    assert get(Workshop(), place, made).read_text() == "2"
    assert len(made) == 2


def test_does_not_build_when_told_not_to(place: Path) -> None:
    with pytest.raises(Unavailable, match="the thing: not built yet"):
        get(Workshop(builds=False), place, [])


def test_takes_nothing_that_is_out_of_date(place: Path) -> None:
    get(Workshop(), place, [])
    (place / "source").write_text("two")

    with pytest.raises(Unavailable):
        get(Workshop(builds=False), place, [])


def test_what_does_not_build_is_not_tried_again(place: Path) -> None:
    made: list[int] = []
    workshop = Workshop()

    for _ in range(2):
        with pytest.raises(Unavailable, match="it does not build"):
            get(workshop, place, made, fails=True)
    assert len(made) == 1


# -- the table --------------------------------------------------------------------------------------


def cells(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines]


def test_the_table_shows_who_is_ahead_and_by_how_much() -> None:
    row = Row(
        "call",
        "scalar",
        {"capwasm": figures(1e-6, 2e-6), "wasmtime-py": figures(4e-6, 8e-6), "Rust": figures(1e-7, 2e-7)},
    )  # fmt: skip

    head, _, line = cells(table(["capwasm", "wasmtime-py", "Rust"], [row]))

    assert head == [
        "", "", "capwasm", "wasmtime-py", "Rust", "wasmtime-py / capwasm", "capwasm / Rust",
    ]  # fmt: skip
    assert line[:2] == ["call", "scalar"]
    assert line[2].startswith("1.5 µs ±")
    assert line[3].startswith("6 µs ±")
    assert line[5:] == ["4×", "10×"]


def test_the_table_says_why_a_figure_is_missing() -> None:
    why = {"wasmtime-py": "18 s a call"}
    rows = [Row("bytes", name, {"capwasm": figures(1e-3)}, why) for name in ("1 MB", "10 MB")]

    text = table(["capwasm", "wasmtime-py"], rows)

    assert [line[2:] for line in cells(text)[2:]] == [["1 ms", "-¹", "-"]] * 2
    assert text.endswith("\n¹ 18 s a call.")


def test_one_sample_has_no_spread() -> None:
    assert figures(1.0).spread is None
    assert figures(1.0, 2.0).spread == pytest.approx(2 / 3)


def test_the_page_keeps_a_table_and_shows_every_plot() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = set(re.findall(r"\]\((plots/[^)]+)\)", text))

    assert text.index("<!-- made: table -->") < text.index("<!-- end -->")
    assert shown == {f"plots/{p.name}" for p in (PAGE.parent / "plots").glob("*.svg")}
    assert len(shown) >= 4


# -- plots ------------------------------------------------------------------------------------------


def test_plots_are_whole_and_read_well_in_the_dark() -> None:
    both = {"capwasm": 1e-6, "Extism": 2e-6}
    rows = [
        Row("string", label, {n: figures(t * size) for n, t in both.items()})
        for size, label in SIZES
    ]
    rows += [
        Row("threads", f"a million rounds, {counted(n, 'thread')}", {"capwasm": figures(1.0 / n)})
        for n in (1, 2, 4)
    ]
    rows += [
        Row("memory", f"{counted(n, 'idle instance')}: resident each", {"Extism": figures(14.0)})
        for n in IDLE
    ]

    drawn = dict(plots(rows))

    assert set(drawn) == {"string.svg", "threads.svg", "instances.svg"}
    for text in drawn.values():
        root = ET.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "prefers-color-scheme:dark" in text
    lines = re.findall(r'class="line ([a-z-]+)" d="M([^"]+)"', drawn["string.svg"])
    assert {name: points.count("L") + 1 for name, points in lines} == {
        "capwasm": len(SIZES), "extism": len(SIZES),
    }  # fmt: skip


def test_without_figures_there_are_no_plots() -> None:
    assert list(plots([Row("string", "10 B", {"capwasm": figures(1.0)})])) == []


# -- goals ------------------------------------------------------------------------------------------


def fine() -> list[Row]:
    """Rows that meet every goal on a machine that is half as fast."""
    rows = []
    for group, name in sorted(goals.needed()):
        ours = 1e-6 if "list" not in name else 1.0
        found = {"capwasm": ours, "wasmtime-py": 1e3 * ours, "Extism": 1e2 * ours}
        if group == "threads":
            found = {"capwasm": 1.0 if "1 thread" in name else 0.5}
        if (group, name) == ("call", "scalar"):
            found = {"capwasm": 4.9e-6, "wasmtime-py": 26e-6, "Extism": 26e-6}
        rows.append(Row(group, name, {n: figures(v, v) for n, v in found.items()}))
    return rows


def test_every_goal_is_about_rows_that_are_measured() -> None:
    there = {row for case in all_cases() for row in case.rows}

    assert goals.needed() <= there
    assert len(there) == sum(len(case.rows) for case in all_cases()), "two rows of one name"


def test_a_time_is_scaled_to_the_machine_and_a_ratio_is_not() -> None:
    scale, verdicts = goals.judge(fine())

    assert scale == pytest.approx(2.0)
    assert [v.goal.text for v in verdicts if not v.met] == []
    scalar = next(v for v in verdicts if v.goal.text == "scalar call")
    assert scalar.wanted == "at most 2.5 µs, here 5 µs"


@pytest.mark.parametrize("goal", range(len(goals.GOALS)), ids=lambda i: goals.GOALS[i].text)
def test_what_is_a_little_too_slow_does_not_meet_its_goal(goal: int) -> None:
    rule = goals.GOALS[goal].rule
    worst = rule.rows[-1]
    rows = []
    for row in fine():
        slow = 1e12 if (row.group, row.name) == worst else 1.0
        found = {
            n: figures(*(v * (slow if n == "capwasm" else 1.0) for v in f.samples))
            for n, f in row.figures.items()
        }
        rows.append(Row(row.group, row.name, found))

    assert goals.judge(rows)[1][goal].met is False


def test_what_was_not_measured_is_neither_met_nor_not_met() -> None:
    scale, verdicts = goals.judge([])

    assert scale == 1.0
    assert {v.met for v in verdicts} == {None}
    assert "not measured" in goals.view([])


def test_strict_fails_where_a_goal_is_not_met_and_else_nothing_does() -> None:
    asked = ("--quick", "--without=Rust", "--without=Extism", "--only=call: scalar, any instance")

    assert bench("--goals", *asked).returncode == 0
    assert bench("--strict", *asked).returncode == 1


def test_scaling_is_of_pairs_in_one_round() -> None:
    rows = [
        Row("threads", "a short call, 1 thread", {"capwasm": figures(4.0, 40.0, 8.0)}),
        Row("threads", "a short call, 4 threads", {"capwasm": figures(2.0, 10.0, 4.0)}),
    ]

    assert scaling(rows, "a short call", "capwasm") == {1: 1.0, 4: 2.0}
    assert find(rows, "threads", "a short call, 2 threads") is None
