"""What an author in Python is told when the plugin is wrong: file and line, and what mends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from capwasm.authoring.scaffold import New, new_project
from capwasm.cli import capwasm
from tests.guests_python.bench import MISSING

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

SOURCE = """\
from capwasm_guest import plugin


@plugin
class Plugin:
    def greet(self, name):
        return getattr(self, name)()

    def wrong(self):
        return {"text": "Hello", "before": "often"}

    def lacks(self):
        return {"text": "Hello"}

    def breaks(self):
        return [][1]

    def loops(self):
        while True:
            pass

    def deep(self):
        return self.deep()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    place = tmp_path / "faulty"
    new_project(New("faulty", "python", directory=place))
    (place / "plugin.py").write_text(SOURCE)
    return place


def run(project: Path, *words: str, options: tuple[str, ...] = ()) -> Result:
    return CliRunner().invoke(capwasm, ["run", "--yes", *options, str(project), *words])


def line_of(text: str) -> int:
    return SOURCE.splitlines().index(text) + 1


def test_every_fault_of_a_running_plugin_is_told_with_its_line(project: Path) -> None:
    for method, line, said in (
        ("wrong", 0, "greet().before: WIT wants int, got str 'often'"),
        ("lacks", 0, "WIT wants Greeting(text, before); it has no before"),
        ("breaks", line_of("        return [][1]"), "IndexError: list index out of range"),
        ("deep", line_of("        return self.deep()"), "RecursionError"),
    ):
        done = run(project, "greet", method)

        assert done.exit_code == 1, (method, done.output)
        told = done.stderr.partition("error [guest.trap]")[2]
        assert said in told, (method, done.stderr)
        if line:
            assert f"at plugin.py:{line} in {method}" in told
            assert f'"plugin.py", line {line}' in done.stderr, done.stderr
        for noise in ("capwasm_guest/", "/0/", "componentize_py", "RUST_BACKTRACE", "panicked"):
            assert noise not in done.stderr


def test_a_limit_of_a_running_plugin_is_told_with_the_lines_for_plugin_toml(project: Path) -> None:
    done = run(project, "greet", "loops", options=("--json",))

    error = json.loads(done.stdout)
    assert error["code"].startswith("limit.")
    assert error["faults"][0]["fix"].startswith("[limits]\n")


def test_a_wrong_argument_is_told_with_its_name_and_type(project: Path) -> None:
    done = run(project, "greet")

    assert done.exit_code == 2
    assert "api.greet(name: string) -> result<greeting, string> takes 1 argument" in done.stderr
