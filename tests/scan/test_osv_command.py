"""`capwasm osv`: the index of a home."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from capwasm.cli import capwasm

from .advisories import advisory, database

FLAW = advisory("GHSA-a", "PyPI", "lib", {"introduced": "0"})


def ran(home: Path, *words: str) -> Result:
    return CliRunner().invoke(capwasm, ["osv", *words, "--home", str(home)])


def test_makes_the_index_and_shows_what_it_holds(tmp_path: Path) -> None:
    zips = database(tmp_path / "zips", PyPI=[FLAW, b"{"])

    made = ran(tmp_path / "home", "import", str(zips / "PyPI/all.zip"), "--json")
    shown = ran(tmp_path / "home", "show", "--json")

    assert made.exit_code == shown.exit_code == 0, made.output
    assert json.loads(made.stdout)["odd"] == 1
    assert json.loads(shown.stdout) == {"ecosystems": {"PyPI": "2026-11-20T00:00:00+00:00"}}


def test_tells_the_line_of_policy_that_uses_it(tmp_path: Path) -> None:
    zips = database(tmp_path / "zips", PyPI=[FLAW])

    assert '[scan]\nosv = "osv"' in ran(tmp_path / "home", "import", str(zips)).stdout


def test_refuses_what_is_no_mirror(tmp_path: Path) -> None:
    (tmp_path / "odd.zip").write_bytes(b"PK\x03\x04 and no more")

    made = ran(tmp_path / "home", "import", str(tmp_path / "odd.zip"))
    shown = ran(tmp_path / "other", "show")

    assert made.exit_code == shown.exit_code == 1
    assert getattr(made.exception, "code", "") or "scan.mirror" in made.output
