from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from capwasm.capsule.keys import PrivateKey
from capwasm.cli import capwasm
from capwasm.events import ALLOWED, DENIED, Event
from capwasm.record.audit import AuditLog
from capwasm.record.redact import Redactor


def run(*words: object) -> Result:
    return CliRunner().invoke(capwasm, ["audit", *map(str, words)])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    key = PrivateKey.generate()
    (tmp_path / "audit.pub").write_bytes(key.public.pem())
    with AuditLog.open(tmp_path / "log", Redactor(), key=key) as made:
        for i in range(30):
            made.record(Event("call", ALLOWED, "acme.a@1.0.0", "handle", details={"ms": i}))
        made.record(Event("fs", DENIED, "acme.b@2.0.0", "open", "/x\x1b[2J[red]", "denied"))
    return tmp_path / "log"


@pytest.mark.case("LOG-07")
def test_allows_tail_and_escapes_what_it_shows(log: Path) -> None:
    done = run("tail", "--log", log, "-n", 3)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert len(lines) == 3
    assert "denied" in lines[1]
    assert "acme.b@2.0.0 open /x\\x1b[2J[red] because denied" in lines[1]


def test_allows_tail_to_filter(log: Path) -> None:
    for words, count in (
        (["--plugin", "acme.a"], 20),
        (["--plugin", "acme.b@2.0.0"], 1),
        (["--plugin", "acme"], 0),
        (["--verdict", "denied"], 1),
        (["--kind", "call", "-n", "5"], 5),
        (["--kind", "anchor"], 2),
    ):
        assert len(run("tail", "--log", log, *words).output.splitlines()) == count, words


def test_allows_tail_as_json(log: Path) -> None:
    records = [json.loads(x) for x in run("tail", "--log", log, "--json").output.splitlines()]
    assert len(records) == 20
    assert records[-2]["target"] == "/x\x1b[2J[red]"


def test_allows_verify_of_an_untouched_log(log: Path) -> None:
    done = run("verify", "--log", log, "--key", log.parent / "audit.pub")
    assert done.exit_code == 0
    assert "intact: 33 records in 1 segments, 2 of 2 anchors signed" in done.output
    data = json.loads(run("verify", "--log", log, "--json").output)
    assert data["ok"] is True
    head = f"{data['head']['seq']}:{data['head']['hash']}"
    assert run("verify", "--log", log, "--head", head).exit_code == 0


@pytest.mark.case("LOG-10")
def test_refuses_a_changed_log_with_exit_code_1(log: Path) -> None:
    file = log / "000001.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"denied","plugin"', b'"failed","plugin"'))
    done = run("verify", "--log", log)
    assert done.exit_code == 1
    assert "000001.jsonl:32: record 32: changed" in done.output
    data = json.loads(run("verify", "--log", log, "--json").output)
    assert (data["ok"], data["problems"][0]["seq"]) == (False, 32)
    assert "broken record" in run("tail", "--log", log, "-n", 2).output


@pytest.mark.case("LOG-10")
def test_refuses_another_key_and_another_head(log: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pub"
    other.write_bytes(PrivateKey.generate().public.pem())
    assert run("verify", "--log", log, "--key", other).exit_code == 1
    assert run("verify", "--log", log, "--head", f"99:{'0' * 64}").exit_code == 1
    assert run("verify", "--log", log, "--head", f"3:{'0' * 64}").exit_code == 1
    for bad in ("", "x", "1:zz", "-1:" + "0" * 64):
        assert run("verify", "--log", log, "--head", bad).exit_code == 2


def test_allows_the_log_of_a_home(log: Path, tmp_path: Path) -> None:
    log.rename(tmp_path / "audit")
    assert run("verify", "--home", tmp_path).exit_code == 0
    assert len(run("tail", "--home", tmp_path, "-n", 4).output.splitlines()) == 4


def test_refuses_a_missing_log_with_a_clean_line(tmp_path: Path) -> None:
    for verb in ("tail", "verify"):
        done = run(verb, "--log", tmp_path / "none\x1b")
        assert done.exit_code == 1
        assert "error [audit.sink]" in done.output
        assert "\x1b" not in done.output
        data = json.loads(run(verb, "--log", tmp_path / "none", "--json").output)
        assert data["code"] == "audit.sink"
