"""`capwasm demo`, the README's first command: every step as it should be, and seen to be so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.cli import capwasm
from capwasm.demo import owner, play
from capwasm.demo.publisher import flip_a_bit
from capwasm.demo.service import WeatherService
from capwasm.demo.story import STORY
from capwasm.errors import GrantDeniedError

PROGRAM = [sys.executable, "-c", "from capwasm.cli import main; main()"]


def run(*args: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(capwasm, ["demo", *args], input=typed)


def program(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **env},
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What `--json` told, and the directory that was kept; proxies that don't exist are set."""
    root = tmp_path_factory.mktemp("demo") / "kept"
    nowhere = "http://127.0.0.1:9"
    done = program(
        "demo", "--yes", "--json", "--keep", str(root), HTTP_PROXY=nowhere, http_proxy=nowhere
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout), root


@pytest.mark.case("SIG-01", "SEC-06", "SEC-07")
def test_allows_and_refuses_in_every_step_as_the_story_says(
    kept: tuple[dict[str, Any], Path],
) -> None:
    told, _ = kept
    steps = {step["name"]: step for step in told["steps"]}

    assert list(steps) == list(STORY)
    assert told["ok"] is True
    assert {n: s["ok"] for n, s in steps.items()} == dict.fromkeys(STORY, True)
    assert {n: s["verdict"] for n, s in steps.items()} == {n: s.verdict for n, s in STORY.items()}
    assert steps["tamper"]["facts"] == {"code": "verify.digest"}
    assert steps["deny-by-default"]["facts"]["missing"] == ["fs[0]", "secret[0]", "net[0]"]
    assert steps["cache"]["facts"] == {"requests": 1}
    assert steps["snoop-file"]["facts"]["recorded"] == ["not-granted"]
    assert steps["snoop-url"]["facts"]["recorded"] == ["not-granted"]
    assert steps["revoke"]["facts"]["authorized"] == [True, False]
    assert steps["limit"]["facts"] == {"code": "limit.fuel"}
    assert steps["audit"]["facts"]["files-with-the-token"] == []
    assert [p["risk"] for p in told["permissions"]].count("high") == 2
    kinds = {(r["kind"], r["verdict"]) for r in told["audit"]}
    assert {("load", "denied"), ("load", "allowed"), ("net", "denied"), ("fs", "denied")} <= kinds


def test_allows_to_look_around_in_what_was_kept(kept: tuple[dict[str, Any], Path]) -> None:
    told, root = kept
    home = str(root / "home")

    assert told["kept"] == str(root)
    assert program("audit", "verify", "--home", home).returncode == 0
    assert (
        program("verify", str(root / "demo.weather-1.0.0.capsule"), "--home", home).returncode == 0
    )
    assert (root / "reports/oslo.txt").read_text() == "Oslo: -3.5 °C, light snow\n"
    again = program("call", "--home", home, told_capsule(root), "forecast", "Oslo")
    assert json.loads(again.stdout)["ok"]["cached"] is True
    assert run("--yes", "--keep", str(root)).exit_code == 2


def told_capsule(root: Path) -> str:
    [capsule] = root.glob("*.capsule")
    return str(capsule)


def test_allows_people_to_read_it_within_80_columns() -> None:
    done = run(typed="y\n")

    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(scene.title in done.stdout for scene in STORY.values())
    assert all(scene.why in done.stdout for scene in STORY.values()), "a reason was wrapped"
    assert "Do you agree? [y/n]: y" in done.stdout
    assert f"All {len(STORY)} steps went as they should" in done.stdout
    assert "\x1b" not in done.stdout


def test_allows_colour_unless_plain() -> None:
    env = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}

    assert "\x1b[1;32m" in program("demo", "--yes", **env).stdout
    assert "\x1b" not in program("demo", "--yes", "--plain", **env).stdout


def test_refuses_the_plugin_when_nobody_agrees_and_says_what_would_help() -> None:
    done = run(typed="n\n")

    assert done.exit_code == 1
    assert "error [grant.denied] demo.weather 1.0.0: 3 things missing" in done.stderr
    assert "\ncapwasm consent give demo.weather-1.0.0.capsule\n" in done.stderr
    assert STORY["load"].title not in done.stdout
    assert run(typed="").exit_code == 1


def test_refuses_json_without_an_answer() -> None:
    assert run("--json").exit_code == 2


def test_leaves_nothing_behind(tmp_path: Path) -> None:
    assert program("demo", "--yes", TMPDIR=str(tmp_path)).returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.case("SEC-10")
def test_never_tells_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "t0ken-that-nobody-may-see-0123456789"
    monkeypatch.setattr(play.secrets, "token_urlsafe", lambda _n: token)

    for args in (["--yes", "--json"], ["--yes", "--keep", str(tmp_path / "kept")]):
        done = run(*args)
        assert done.exit_code == 0
        assert token not in done.output
    files = [p.read_bytes() for p in (tmp_path / "kept").rglob("*") if p.is_file()]
    assert files
    assert not any(token.encode() in data for data in files)


# -- each check can fail -------------------------------------------------------------------------


def played(root: Path) -> dict[str, bool]:
    root.mkdir()
    return {step.name: step.ok for step in play.play(root, lambda _asked: True)}


def wrong(steps: dict[str, bool]) -> list[str]:
    return [name for name, ok in steps.items() if not ok]


def test_tells_when_a_file_or_an_address_was_granted_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow = owner.allow

    def aim(home: Any, origin: str, reports: Path) -> None:
        allow(home, origin, reports)
        targets = {"snoop-file": "/reports/oslo.txt", "snoop-url": f"{origin}/v1/weather"}
        monkeypatch.setattr(play, "NOT_GRANTED", targets)

    monkeypatch.setattr(owner, "allow", aim)
    assert wrong(played(tmp_path / "demo")) == ["snoop-file", "snoop-url", "revoke"]


def test_tells_when_a_changed_capsule_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(play, "flip_a_bit", lambda capsule: capsule)
    assert wrong(played(tmp_path / "demo")) == ["tamper"]

    assert flip_a_bit(b"abc") == b"acc"


def test_tells_when_the_secret_lies_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = owner.keep_secret

    def careless(home: Any, name: str, value: str) -> None:
        keep(home, name, value)
        (home.root / "note.txt").write_text(value)

    monkeypatch.setattr(owner, "keep_secret", careless)
    assert wrong(played(tmp_path / "demo")) == ["audit"]


def test_tells_when_the_service_was_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits = property(lambda _self: [], lambda _self, _value: None)
    monkeypatch.setattr(WeatherService, "visits", visits, raising=False)
    assert set(wrong(played(tmp_path / "demo"))) >= {"fetch", "cache"}


def test_a_step_that_went_wrong_is_shown_and_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    real = play.play

    def bad(root: Path, agree: Any) -> Any:
        yield from (replace(s, ok=s.name != "cache") for s in real(root, agree))

    monkeypatch.setattr(play, "play", bad)
    done = run("--yes")

    assert done.exit_code == 1
    assert re.search(r"^ 8 WRONG   Call", done.stdout, re.MULTILINE)
    assert "1 of 14 steps went wrong: cache" in done.stdout
    assert json.loads(run("--yes", "--json").stdout)["ok"] is False


def test_refuses_to_consent_for_another_capsule(tmp_path: Path) -> None:
    with pytest.raises(GrantDeniedError):
        list(play.play(tmp_path, lambda _asked: False))
