"""The cases that stand in the package and in docs/, tried as they stand."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from capwasm.cli import capwasm
from capwasm.demo.owner import _POLICY

DOCS = Path(__file__).parents[2] / "docs"
ORIGIN = "http://127.0.0.1:8973"


def run(code: int, *args: str) -> str:
    done = CliRunner().invoke(capwasm, ["policy", "test", *args])
    assert done.exit_code == code, done.output
    return done.output


def written(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_policy_of_the_demo(tmp_path: Path) -> None:
    cases = str(resources.files("capwasm.demo") / "cases.toml")
    text = _POLICY.format(origin=ORIGIN, reports='"/srv/reports"')
    assert "3 case(s), 0 failed" in run(0, cases, "--policy", written(tmp_path / "a.toml", text))

    wider = text.replace('"demo.weather"', '"demo.*"').replace('["GET"]', '["*"]')
    assert "3 case(s), 1 failed" in run(1, cases, "--policy", written(tmp_path / "b.toml", wider))


def example(page: str, start: str) -> str:
    """The indented or fenced block that begins with those words."""
    text = (DOCS / page).read_text(encoding="utf-8")
    rest = text[text.index(start) :]
    if start.startswith("    "):
        block = re.match(r"(?:    .*\n|\n)+", rest)
        assert block is not None
        return re.sub("(?m)^    ", "", block[0])
    return rest.partition("\n```")[0]


@pytest.fixture
def governance(tmp_path: Path) -> Path:
    written(tmp_path / "policy.toml", example("policy.md", "    schema = 1"))
    written(tmp_path / "cases.toml", example("governance.md", "# cases.toml"))
    return tmp_path


def test_the_cases_of_the_page(governance: Path) -> None:
    assert "3 case(s), 0 failed" in run(0, str(governance / "cases.toml"))

    policy = (governance / "policy.toml").read_text(encoding="utf-8")
    for old, new, differs in (
        ('"acme.*".net', '"*".net', "missing"),
        ("/v1/*", "/v2/*", "GET https://api.acme.com/v1/today"),
        ("https://*.internal.acme.com", "https://*.acme.com", "denied: grant.denied"),
    ):
        assert policy.count(old) == 1
        written(governance / "policy.toml", policy.replace(old, new))
        assert differs in run(1, str(governance / "cases.toml"))
