"""Who answers for a policy, and what happens when it is due: told of everywhere, refused if it says so."""

from __future__ import annotations

import json
import logging
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from capwasm import Runtime
from capwasm.cli import capwasm
from capwasm.errors import CapwasmError, PolicyError
from capwasm.events import DENIED, Event
from capwasm.grants.policy import Policy
from tests.toycaps import TOYS

TODAY = datetime.now(UTC).date()


def load(body: str) -> Policy:
    return Policy.load(f"schema = 1\n{body}".encode(), TOYS)


def head(days: int, owner: str = "sec@acme.com", more: str = "") -> str:
    return f'owner = "{owner}"\nreview-by = "{TODAY + timedelta(days)}"\n{more}'


def refuse(grace: int) -> str:
    return f'[governance]\noverdue = "refuse"\ngrace-days = {grace}\n'


def told(policy: Policy, today: date = TODAY) -> list[str]:
    return [r.path for r in policy.governance(today).remarks()]


def test_nothing_is_said_of_a_policy_with_an_owner_and_a_day() -> None:
    assert told(load(head(15))) == []
    assert load(head(15)).governance(TODAY).line() is None
    assert told(Policy.nothing()) == []


def test_all_that_is_missing_is_said() -> None:
    assert told(load("")) == ["owner", "review-by"]
    assert told(load(head(400, owner=""))) == ["owner"]
    assert told(load('owner = "me"')) == ["review-by"]


@pytest.mark.parametrize(
    ("days", "due", "words"),
    [
        (15, "ok", None),
        (14, "soon", "in 14 days"),
        (1, "soon", "tomorrow"),
        (0, "soon", "today"),
        (-1, "overdue", "was to be"),
    ],
)
def test_what_is_due_is_told_of_in_time(days: int, due: str, words: str | None) -> None:
    found = load(head(days)).governance(TODAY)

    assert (found.due, found.days) == (due, days)
    assert found.when() is None if words is None else words in str(found.line())


def test_word_governance_notice_days() -> None:
    assert load(head(20)).governance(TODAY).due == "ok"
    assert load(head(20, more="[governance]\nnotice-days = 20")).governance(TODAY).due == "soon"


def test_word_governance_overdue() -> None:
    load(head(-3000)).governance(TODAY).check()
    load(head(-3000, more='[governance]\noverdue = "warn"')).governance(TODAY).check()
    with pytest.raises(PolicyError) as caught:
        load(head(-3000, more=refuse(30))).governance(TODAY).check()
    assert caught.value.code == "policy.overdue"
    assert "sec@acme.com" in caught.value.message
    with pytest.raises(PolicyError) as invalid:
        load(refuse(30))  # without a day it would never bite
    assert [f.path for f in invalid.value.faults] == ["governance.overdue"]


def test_word_governance_grace_days() -> None:
    on_the_last = load(head(-5, more=refuse(5))).governance(TODAY)
    after_it = load(head(-5, more=refuse(4))).governance(TODAY)

    assert not on_the_last.refuses
    assert "loads are refused from" in str(on_the_last.when())
    assert after_it.refuses
    assert load('review-by = "9999-12-31"\n' + refuse(30)).governance(TODAY).refuses is False


def runtime(home: Path, policy: str, seen: list[Event]) -> Runtime:
    home.mkdir(mode=0o700)
    (home / "policy.toml").touch(mode=0o600)
    (home / "policy.toml").write_text(f"schema = 1\n{policy}")
    return Runtime.open(home, core_version="1.0.0", hook=seen.append)


def test_a_start_tells_of_it_once_in_the_log_and_in_the_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Event] = []
    with caplog.at_level(logging.WARNING, "capwasm"), runtime(tmp_path / "late", head(-1), seen):
        pass
    assert sum("was to be looked at again" in r.getMessage() for r in caplog.records) == 1
    details = next(e.details for e in seen if e.kind == "runtime.start")["governance"]
    assert (details["due"], details["owner"], details["refuses"]) == (
        "overdue",
        "sec@acme.com",
        False,
    )

    caplog.clear()
    with caplog.at_level(logging.WARNING, "capwasm"), runtime(tmp_path / "fine", head(99), seen):
        pass
    assert not any("looked at again" in r.getMessage() for r in caplog.records)


def test_a_load_is_refused_only_where_the_policy_says_so(tmp_path: Path) -> None:
    seen: list[Event] = []
    with runtime(tmp_path / "strict", head(-2, more=refuse(1)), seen) as strict:
        with pytest.raises(PolicyError) as caught:
            strict.load(b"no capsule")
        assert caught.value.code == "policy.overdue"
        assert any(e.kind == "load" and e.verdict == DENIED for e in seen)
    with runtime(tmp_path / "calm", head(-2), seen) as calm:
        with pytest.raises(CapwasmError) as caught_later:
            calm.load(b"no capsule")
        assert caught_later.value.code == "verify.no-trust-store"  # it went on to the bytes


@pytest.mark.parametrize(
    ("body", "status", "failed"),
    [
        (head(99), "ok", False),
        (head(3), "note", False),
        ("", "note", False),
        (head(-9), "note", False),
        (head(-9, more=refuse(1)), "lacks", True),
    ],
)
def test_the_doctor_tells_of_it(tmp_path: Path, body: str, status: str, failed: bool) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "policy.toml").touch(mode=0o600)
    (tmp_path / "policy.toml").write_text(f"schema = 1\n{body}")
    done = CliRunner().invoke(capwasm, ["doctor", "--json", "--home", str(tmp_path)])
    (check,) = [c for c in json.loads(done.stdout)["checks"] if c["name"] == "policy-review"]

    assert (check["status"], done.exit_code) == (status, 1 if failed else 0)
