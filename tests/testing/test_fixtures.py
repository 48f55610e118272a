"""The fixtures, as pytest runs them for an author."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from capwasm.testing import pytest_plugin
from tests.testing.conftest import project

PLUGIN = pytest_plugin.__name__


def pytest_in(place: Path, test: str, **env: str) -> subprocess.CompletedProcess[str]:
    tests = place / "tests"
    tests.mkdir(parents=True, exist_ok=True)
    (tests / "test_it.py").write_text(test)
    return run_pytest(place, **env)


def run_pytest(place: Path, **env: str) -> subprocess.CompletedProcess[str]:
    known = any(e.value == PLUGIN for e in entry_points(group="pytest11"))
    argv = [*([] if known else ["-p", PLUGIN]), "-q", "-W", "error", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *argv, "--strict-markers", "tests"],
        cwd=place,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


USES = """
import pytest

def test_one(bench):
    bench.call("run", "kv.set", ["a", "1"])
    assert dict(bench.kv) == {"a": b"1"}

def test_two(bench):
    assert dict(bench.kv) == {}

@pytest.mark.bench(config={"city": "Oslo"})
def test_marked(bench, bench_factory):
    assert bench.call("run", "config.all", []).unwrap() == "city=Oslo"
    other = bench_factory(bench.source, config={"city": "Rome"})
    assert other.call("run", "config.all", []).unwrap() == "city=Rome"
"""


def test_the_bench_is_of_the_project_that_the_test_stands_in(tmp_path: Path) -> None:
    done = pytest_in(project(tmp_path / "p"), USES, CAPWASM_PROJECT="")
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_environment_names_a_project(tmp_path: Path) -> None:
    named = project(tmp_path / "p")
    done = pytest_in(tmp_path / "elsewhere", USES, CAPWASM_PROJECT=str(named))
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_without_a_project_it_says_what_is_missing(tmp_path: Path) -> None:
    done = pytest_in(tmp_path, USES, CAPWASM_PROJECT="")
    assert done.returncode == 1
    assert "there is no plugin.toml in any directory above" in done.stdout


def test_a_failure_is_told_by_what_the_bench_says(tmp_path: Path) -> None:
    done = pytest_in(
        project(tmp_path / "p"),
        "def test_it(bench):\n"
        '    bench.call("run", "fetch", ["GET", "https://api.example.com/x"])\n',
    )
    assert done.returncode == 1
    assert "UnansweredError: the plugin fetched GET https://api.example.com/x" in done.stdout
    assert "Error in sys.excepthook" not in done.stderr


def test_unused_it_imports_nothing_but_pytest() -> None:
    code = (
        f"import sys, pytest; before = set(sys.modules); import {PLUGIN}; "
        "print(sorted(m for m in set(sys.modules) - before if not m.startswith('capwasm')), "
        f"sorted(m for m in sys.modules if m.startswith('capwasm.') and m != '{PLUGIN}'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[] ['capwasm.testing']"


def test_the_door_opens_and_is_what_type_checkers_see() -> None:
    import ast

    from capwasm import testing

    assert sorted(testing._HOME) == testing.__all__
    for name in testing.__all__:
        assert getattr(testing, name) is not None
    assert getattr(testing, "nothing", None) is None
    tree = ast.parse(Path(testing.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If))
    found = {a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert found == testing._HOME
