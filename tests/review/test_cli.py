"""`capwasm submit | review | approve | reject | except`, as people and scripts type them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.cli import capwasm
from tests.kit import guest
from tests.review.test_running import NET, PEOPLE, POLICY, Office

ID = "test.guest"
SOON = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    office = Office(tmp_path)
    office.policy(POLICY)
    monkeypatch.setenv("CAPWASM_HOME", str(office.home))
    monkeypatch.chdir(tmp_path)
    for name in PEOPLE:
        office.keys[name].save(tmp_path / f"{name}.key")
    (tmp_path / "guest.capsule").write_bytes(office.capsule(guest("hostile"), NET))
    return office


def run(*args: object) -> Result:
    return CliRunner().invoke(capwasm, [str(a) for a in args])


def data(*args: object, code: int = 0) -> Any:
    done = run(*args, "--json")
    assert done.exit_code == code, done.output
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_each_command_says_what_it_came_to(office: Office) -> None:
    done = run("submit", "guest.capsule", "--by", "tester")
    assert done.output.startswith("submitted: test.guest 1.0.0\n")
    assert f"capwasm scan {ID}@1.0.0\n" in done.output
    assert "review.missing" in run("review").output
    assert run("scan", ID).exit_code == 0
    page = run("review", f"{ID}@1.0.0").output
    assert "high    net: send GET, HEAD to https://a.example/" in page
    seen = data("review", ID)["seen"]
    assert f"capwasm approve {ID}@1.0.0 --key KEY --reason TEXT --seen {seen}" in page
    done = run("approve", ID, "--key", "ann.key", "--reason", "fine", "--seen", seen)
    assert done.output == "approved: test.guest 1.0.0 (reviewed)\n  its review lets it serve\n"
    assert f"capwasm activate {ID} 1.0.0" in run("review", ID).output
    assert run("activate", ID).exit_code == 0
    assert run("review").output == "nothing waits for a review\n"
    done = run("reject", f"{ID}@1.0.0", "--key", "bob.key", "--reason", "it spins")
    assert done.exit_code == 0
    assert done.output.startswith("refused: test.guest 1.0.0\n  key ")
    assert "bob rejected this version: it spins" in run("review").output


def test_programs_get_data(office: Office) -> None:
    assert data("submit", "guest.capsule")["action"] == "submitted"
    data("scan", ID)
    (case,) = data("review")
    assert (case["ok"], case["code"], case["state"]) == (False, "review.missing", "scanned")
    assert case["permissions"][0]["risk"] == "high"
    assert case["needs"][0]["fix"].startswith("capwasm approve ")
    case = data("approve", ID, "--key", "ann.key")
    assert (case["ok"], case["said"][-1]["who"], case["said"][-1]["counts"]) == (True, "ann", True)
    rule = case["findings"][0]["rule"]
    for name, state in (("sue", "pending"), ("eve", "in force")):
        data("except", ID, "--finding", rule, "--expires", SOON, "--key", f"{name}.key",
             "--reason", "known")  # fmt: skip
        (made,) = data("review", "--exceptions")
        assert (made["what"], made["state"]) == (rule, state)
    last_day = datetime.fromisoformat(SOON).replace(tzinfo=UTC) + timedelta(days=1)
    assert made["until"] == last_day.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert data("review", "acme.other", "--exceptions") == []
    assert "in force" in run("review", ID, "--exceptions").output
    refusal = data("approve", ID, "--key", "ann.key", code=1)
    assert refusal["code"] == "review.twice"


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("approve", ID), 2),
        (("approve", ID, "--key", "nobody.key"), 1),
        (("approve", "acme.nobody", "--key", "ann.key"), 1),
        (("reject", ID, "--key", "ann.key"), 2),
        (("reject", ID, "--key", "ann.key", "--by", "me", "--reason", "no"), 2),
        (("except", ID, "--key", "sue.key", "--reason", "x", "--expires", SOON), 2),
        (("except", ID, "--unreviewed", "--finding", "a.b", "--key", "sue.key", "--reason", "x",
          "--expires", SOON), 2),
        (("except", ID, "--unreviewed", "--key", "sue.key", "--reason", " ", "--expires", SOON), 2),
        (("except", ID, "--unreviewed", "--key", "sue.key", "--reason", "x", "--expires", "soon"), 2),
        (("except", ID, "--unreviewed", "--key", "sue.key", "--reason", "x",
          "--expires", "9999-12-31"), 2),
        (("except", ID, "--unreviewed", "--key", "sue.key", "--reason", "x",
          "--expires", "2020-01-01"), 1),
        (("except", ID, "--unreviewed", "--key", "ann.key", "--reason", "x", "--expires", SOON), 1),
        (("submit", "nothing.capsule"), 1),
        (("review", "acme.nobody"), 1),
    ],
)  # fmt: skip
def test_refuses_with_a_code_of_its_own(office: Office, args: tuple[str, ...], code: int) -> None:
    run("submit", "guest.capsule")
    done = run(*args)
    assert done.exit_code == code, done.output
    assert done.stderr.startswith(("error [", "Usage:", "error:"))
    assert data("review", ID)["said"] == []


def test_a_key_that_nobody_trusts_is_told_with_the_lines_that_would(office: Office) -> None:
    from capwasm.capsule.keys import PrivateKey

    PrivateKey.generate().save("new.key")
    run("submit", "guest.capsule")
    done = run("approve", ID, "--key", "new.key")
    assert done.exit_code == 1
    assert "error [review.key] " in done.stderr
    assert 'roles = ["reviewer"]' in done.stderr


def test_an_encrypted_key_is_opened(office: Office) -> None:
    office.keys["bob"].save("bob2.key", b"secret words")
    passphrase = Path("words")
    passphrase.touch(mode=0o600)
    passphrase.write_text("secret words\n")
    run("submit", "guest.capsule")
    assert run("approve", ID, "--key", "bob2.key", "--passphrase-file", "words").exit_code == 0
    assert data("review", ID)["said"][0]["who"] == "bob"


def test_install_tells_that_a_review_is_needed(office: Office) -> None:
    done = run("install", "guest.capsule")
    assert done.output.startswith("pending: test.guest 1.0.0\n")
    assert f"It needs a review:\n\ncapwasm scan {ID}@1.0.0\n" in done.output
    assert f"capwasm review {ID}" in run("pending").output


@pytest.mark.case("MAN-06")
def test_what_is_shown_holds_nothing_hidden(office: Office) -> None:
    run("submit", "guest.capsule")
    done = run("approve", ID, "--key", "ann.key", "--reason", "a\x1b[2Jb")
    assert done.exit_code == 1
    assert "registry.text" in done.stderr
    assert "\x1b" not in done.output
