"""`python -m bench` does the work that it times, and says so in a form that others can read."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from bench import measure
from bench.cases import cases
from bench.report import Row, table
from bench.subject import Job

REPOSITORY = Path(__file__).parents[2]
FEW = ("call: scalar", "string: 1 kB", "values: record", "host call", "fresh, to its first call")


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    done = bench("--quick", "--json", *(f"--only={word}" for word in FEW))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tells_of_each_case_that_was_asked_for(report: dict[str, Any]) -> None:
    wanted = {
        (c.group, c.name) for c in cases() if any(word in f"{c.group}: {c.name}" for word in FEW)
    }

    assert {(r["group"], r["name"]) for r in report["results"]} == wanted
    assert len(wanted) > 5


def test_measures_every_subject_that_is_installed(report: dict[str, Any]) -> None:
    subjects = {"capwasm", "wasmtime-py"} | ({"Extism"} if find_spec("extism") else set())

    for result in report["results"]:
        assert set(result["subjects"]) == subjects, result["name"]
        assert set(result["ratios"]) == subjects - {"capwasm"}
        for figures in result["subjects"].values():
            assert 0 < figures["best"] <= figures["median"]
            assert len(figures["samples"]) >= 2
            assert figures["runs"] >= len(figures["samples"])
    assert set(report["missing"]) == {"Extism"} - subjects


def test_says_on_which_machine(report: dict[str, Any]) -> None:
    assert {"cpu", "cores", "python", "wasmtime", "date"} <= set(report["machine"])


def test_refuses_a_time_for_work_that_was_not_done() -> None:
    jobs = {"right": Job(lambda: 42), "lazy": Job(lambda: 41)}
    effort = measure.Effort(0.0001, 2, 0.01)

    with pytest.raises(measure.WrongValue, match="lazy: 41 is not 42"):
        measure.compare(jobs, 42, effort, operations=1, main=True)


def test_refuses_to_keep_a_part_of_the_table() -> None:
    done = bench("--write", "--quick")

    assert done.returncode == 2
    assert "--write is for the whole table" in done.stderr


def test_refuses_words_that_no_case_has() -> None:
    done = bench("--only=nothing of the sort")

    assert done.returncode == 2
    assert "no case has nothing of the sort" in done.stderr


def test_the_table_shows_who_is_ahead_and_by_how_much() -> None:
    figures = {
        "capwasm": measure.Figures((1e-6, 2e-6), 2),
        "wasmtime-py": measure.Figures((4e-6, 8e-6), 2),
    }

    text = table(["capwasm", "wasmtime-py"], [Row("call", "scalar", figures)])

    head, _, line = [[c.strip() for c in row.strip("|").split("|")] for row in text.splitlines()]
    assert head == ["", "", "capwasm", "wasmtime-py", "wasmtime-py / capwasm"]
    assert line[:2] == ["call", "scalar"]
    assert line[2].startswith("1.5 µs")
    assert line[3].startswith("6 µs")
    assert line[4] == "4×"
