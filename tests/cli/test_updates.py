"""`capwasm update` and its kin, against a repository that is really served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.cli import capwasm
from capwasm.cli.updates import best
from capwasm.registry.model import Release
from tests.capsules import FILES, MANIFEST, signed
from tests.cli.test_repo import Shell
from tests.kit import World, guest
from tests.repository.shop import serving

ID = "acme.weather"
NET = b'[[net]]\nallow = "https://a.example/"\n'
NOW = datetime(2027, 1, 31, tzinfo=UTC)


@pytest.fixture
def shell(tmp_path: Path, own_home: Path) -> Shell:
    return Shell(tmp_path, own_home)


@pytest.fixture
def url(shell: Shell) -> Iterator[str]:
    """A repository with one version, served and trusted."""
    shell.ok("init", shell.directory)
    offer(shell, "1.2.0")
    with serving(shell.directory / "public") as where:
        shell.trust(where)
        yield where


def made(version: str, more: bytes = b"") -> bytes:
    manifest = MANIFEST.replace(b"1.2.0", version.encode())
    return signed(
        members={**FILES, "plugin.toml": manifest + b'name = "W"\nrequires-core = ">=0"\n' + more}
    )


def offer(shell: Shell, version: str, more: bytes = b"") -> None:
    shell.ok("add", shell.directory, shell.file(version, made(version, more)))
    shell.ok("publish", shell.directory)


def run(*args: object) -> Result:
    return CliRunner().invoke(capwasm, [str(a) for a in args])


def data(*args: object, code: int = 0) -> Any:
    done = run(*args, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def update(*args: object, code: int = 0) -> tuple[str, str | None]:
    [row] = data("update", ID, *args, code=code)
    return row["result"], row["version"]


# -- what is chosen ------------------------------------------------------------------------------------


def release(version: str, days: int | None = None) -> Release:
    published = None if days is None else NOW - timedelta(days=days)
    return Release(ID, version, "0" * 64, 1, published)


@pytest.mark.parametrize(
    ("offered", "highest", "hours", "chosen"),
    [
        ([("1.0.0", 9), ("1.1.0", 1)], "1.0.0", 0, "1.1.0"),
        ([("1.0.0", 9), ("1.1.0", 1)], "1.1.0", 0, None),
        ([("1.0.0", 9)], "1.1.0", 0, None),
        ([], None, 0, None),
        # A publisher who is never at rest does not keep what has come of age away.
        ([("1.1.0", 3), ("1.2.0", 1)], "1.0.0", 48, "1.1.0"),
        ([("1.1.0", 2), ("1.2.0", 1)], "1.0.0", 48, "1.1.0"),
        ([("1.1.0", 1), ("1.2.0", 1)], "1.0.0", 48, "1.2.0"),
        ([("1.1.0", None), ("1.2.0", None)], "1.0.0", 48, "1.2.0"),
        # Who has no pre-release is not given one; who has, goes on.
        ([("1.1.0-rc.1", 9)], "1.0.0", 0, None),
        ([("1.1.0-rc.2", 9)], "1.1.0-rc.1", 0, "1.1.0-rc.2"),
        ([("1.1.0", 9)], "1.1.0-rc.1", 0, "1.1.0"),
        ([("1.0.0+a-b", 9)], "0.9.0", 0, "1.0.0+a-b"),
    ],
)
def test_which_release_is_chosen(
    offered: list[tuple[str, int | None]], highest: str | None, hours: int, chosen: str | None
) -> None:
    found = best([release(*o) for o in offered], highest, hours, NOW)

    assert (found.version if found else None) == chosen


# -- updating --------------------------------------------------------------------------------------------


def test_an_update_that_asks_for_nothing_new_serves(shell: Shell, url: str) -> None:
    assert run("install", ID).exit_code == 0
    assert update() == ("up to date", None)
    assert data("outdated") == {"outdated": [], "failed": {}, "no-repository": []}
    offer(shell, "1.3.0")
    [found] = data("outdated")["outdated"]
    assert (found["plugin"], found["serving"], found["offered"]) == (ID, "1.2.0", "1.3.0")
    assert update("--dry-run") == ("would be updated", "1.3.0")
    assert data("list")[0]["serving"] == "1.2.0"
    assert update("--by", "nightly", "--reason", "the night's") == ("updated", "1.3.0")
    shown = data("show", ID, "--history")
    assert (shown["serving"], shown["history"][-1]["who"]) == ("1.3.0", "nightly")
    assert shown["versions"][-1]["source"] == "repository main"
    assert update() == ("up to date", None)


@pytest.mark.case("SIG-26")
def test_what_asks_for_more_waits_and_is_told_of(shell: Shell, url: str) -> None:
    run("install", ID)
    offer(shell, "1.3.0", NET)
    assert update("--dry-run") == ("would wait", "1.3.0")
    assert update() == ("pending", "1.3.0")
    assert update() == ("pending", "1.3.0")  # and is not fetched again
    assert data("list")[0]["serving"] == "1.2.0"
    [waits] = data("pending")
    assert (waits["plugin"], waits["version"], waits["serving"]) == (ID, "1.3.0", "1.2.0")
    assert waits["reasons"][0].startswith("new high-risk permission: net: ")
    text = run("pending").output
    assert "capwasm activate acme.weather" in text
    changes = data("diff", ID, "--no-imports")
    assert [p["capability"] for p in changes["new"]] == ["net"]
    assert changes["as-an-update"]["verdict"] == "pending"
    assert data("activate", ID)["serving"] == "1.3.0"
    assert data("pending") == []
    assert run("pending").output == "nothing waits\n"


@pytest.mark.case("PER-03")
def test_what_waits_and_is_damaged_is_fetched_again(shell: Shell, url: str) -> None:
    run("install", ID)
    offer(shell, "1.3.0", NET)
    update()
    name = data("show", ID)["versions"][-1]["bundle"]
    kept = shell.home / "store" / "sha256" / name[:2] / f"{name}.capsule"
    kept.chmod(0o600)
    kept.write_bytes(b"\0" * 9)
    assert data("activate", ID, code=1)["code"] == "registry.bundle"
    assert update() == ("pending", "1.3.0")
    assert data("activate", ID)["serving"] == "1.3.0"


def test_what_was_rejected_is_offered_again(shell: Shell, url: str) -> None:
    run("install", ID)
    offer(shell, "1.3.0", NET)
    update()
    assert data("reject", ID)["action"] == "rejected"
    assert data("pending") == []
    assert update() == ("pending", "1.3.0")


@pytest.mark.case("SIG-15")
def test_too_young_waits_until_it_is_of_age(shell: Shell, url: str) -> None:
    run("install", ID)
    offer(shell, "1.3.0")
    policy = shell.home / "policy.toml"
    policy.write_text("schema = 1\n[updates]\nmin-age-hours = 1\n")
    assert update() == ("pending", "1.3.0")
    assert "younger than 1 hours" in data("outdated")["outdated"][0]["note"]
    assert data("activate", ID, code=1)["code"] == "registry.min-age"
    policy.write_text("schema = 1\n[updates]\nmin-age-hours = 0\n")  # as if it had passed
    assert update() == ("updated", "1.3.0")


def test_a_minimum_age_has_an_exception_with_a_name(shell: Shell, url: str) -> None:
    (shell.home / "policy.toml").write_text("schema = 1\n[updates]\nmin-age-hours = 9\n")
    assert run("install", ID).output.startswith("pending: acme.weather 1.2.0\n  younger than 9 h")
    done = run("activate", ID)
    fix = done.stderr.strip().splitlines()[-1].split()
    assert fix[:5] == ["capwasm", "permit", ID, "min-age", "1.2.0"]
    assert run(*fix[1:5], "--reason", "urgent").exit_code == 0
    assert data("activate", ID)["serving"] == "1.2.0"
    assert data("show", ID)["permits"] == []


def test_a_pinned_plugin_takes_no_other(shell: Shell, url: str) -> None:
    run("install", ID)
    offer(shell, "1.3.0")
    assert data("pin", ID)["version"] == "1.2.0"
    assert update() == ("pinned to 1.2.0", "1.3.0")
    assert data("outdated")["outdated"][0]["note"] == "pinned to 1.2.0"
    refused = data("install", f"{ID}@1.3.0", code=1)
    assert (refused["code"], refused["faults"][0]["fix"]) == (
        "registry.pinned",
        f"capwasm unpin {ID}",
    )
    assert data("unpin", ID)["action"] == "unpinned"
    assert update() == ("updated", "1.3.0")
    assert run("pin", f"{ID}@x").exit_code == 2
    assert data("pin", "acme.nobody", code=1)["code"] == "registry.unknown"


def test_not_automatic_means_that_a_person_decides(shell: Shell, url: str) -> None:
    (shell.home / "policy.toml").write_text("schema = 1\n[updates]\nautomatic = false\n")
    assert data("install", ID)["serving"] == "1.2.0"  # that is a person
    offer(shell, "1.3.0")
    assert update() == ("pending", "1.3.0")
    assert data("activate", ID)["serving"] == "1.3.0"


def test_an_update_that_nobody_consented_to_waits_for_the_consent(shell: Shell, url: str) -> None:
    """What serves goes on serving: a load of the new version would be denied."""
    (shell.home / "policy.toml").write_text(
        'schema = 1\n[[plugins."acme.*".net]]\nallow = "https://a.example/"\n'
    )
    offer(shell, "1.3.0", NET)
    run("install", ID)

    def path(version: str) -> Path:
        found = next(v for v in data("show", ID)["versions"] if v["version"] == version)
        name = str(found["bundle"])
        return shell.home / "store" / "sha256" / name[:2] / f"{name}.capsule"

    assert run("consent", "give", path("1.3.0"), "--yes", "--reason", "x").exit_code == 0
    offer(shell, "1.4.0", NET)
    assert update() == ("pending", "1.4.0")
    assert "a load of it would be denied: " in data("pending")[0]["reasons"][0]
    assert run("consent", "give", path("1.4.0"), "--yes", "--reason", "x").exit_code == 0
    assert update() == ("updated", "1.4.0")


def test_one_that_fails_does_not_keep_the_others(shell: Shell, url: str, tmp_path: Path) -> None:
    run("install", ID)
    trust = shell.home / "trust.toml"
    trust.write_text(trust.read_text().replace('"acme.*"', '"acme.*", "own.*"'))
    manifest = MANIFEST.replace(b"acme.weather", b"own.thing")
    own = tmp_path / "own.capsule"
    own.write_bytes(
        signed(members={**FILES, "plugin.toml": manifest + b'name = "W"\nrequires-core = ">=0"\n'})
    )
    assert run("install", own).exit_code == 0
    offer(shell, "1.3.0")

    found = {r["plugin"]: r["result"] for r in data("update", "--all")}
    assert found == {ID: "updated", "own.thing": "no repository"}
    rows = data("update", "own.thing", ID, code=1)
    assert [(r["plugin"], r["result"], r["code"]) for r in rows] == [
        ("own.thing", "failed", "repository.unknown"),
        (ID, "up to date", None),
    ]
    assert data("outdated")["no-repository"] == ["own.thing"]
    assert "own.thing" in run("update", "--all").output


@pytest.mark.case("SIG-06")
def test_what_does_not_verify_is_refused_and_the_old_version_serves(shell: Shell, url: str) -> None:
    run("install", ID)
    offer(shell, "1.3.0")
    trust = shell.home / "trust.toml"
    own = trust.read_text()
    trust.write_text(own.replace('"acme.*"', '"other.*"'))
    [row] = data("update", ID, code=1)
    assert row["result"] == "refused"
    assert row["code"].startswith("verify.")
    trust.write_text(own)
    assert data("list")[0]["serving"] == "1.2.0"
    assert update() == ("updated", "1.3.0")


def test_offline_nothing_is_asked(shell: Shell, url: str) -> None:
    run("install", ID)
    assert data("outdated")["failed"] == {}
    offer(shell, "1.3.0")
    assert data("outdated", "--offline")["outdated"] == []
    assert update("--offline") == ("up to date", None)
    assert update() == ("updated", "1.3.0")


def test_refuses_usage_that_is_none(shell: Shell) -> None:
    assert run("update").exit_code == 2
    assert run("update", ID, "--all").exit_code == 2
    assert data("update", ID, code=1)["code"] == "registry.unknown"
    assert run("update", "--all").output == "nothing is installed\n"
    assert data("reject", ID, code=1)["code"] == "registry.unknown"
    assert data("diff", ID, code=1)["code"] == "registry.unknown"


# -- what differs, by the engine's word -------------------------------------------------------------------


def test_diff_asks_the_engine_what_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    monkeypatch.setenv("CAPWASM_HOME", str(world.home))
    old, new, other = (tmp_path / f"{n}.capsule" for n in ("old", "new", "other"))
    old.write_bytes(world.capsule(guest("hostile"), "[clock]\n[limits]\nfuel = 9\n"))
    new.write_bytes(
        world.capsule(guest("caller"), "[limits]\nfuel = 10\n", version="1.1.0", instance="single")
    )
    other.write_bytes(world.capsule(guest("hostile"), id="test.other"))

    found = data("diff", old, new)
    assert found["imports"] == {"added": ["test:host/api@1.0.0"], "gone": []}
    assert "divide" in found["exports"]["gone"]
    assert [p["capability"] for p in found["gone"]] == ["clock"]
    assert found["raised"] == [{"limit": "fuel", "before": 9, "after": 10}]
    assert found["manifest"] == [{"word": "instance", "before": "per-call", "after": "single"}]
    assert found["risk"] == {"before": "low", "after": None, "why": []}
    assert found["as-an-update"] is None
    text = run("diff", old, new).output
    assert "+ test:host/api@1.0.0" in text
    assert "- gone" in text
    assert data("diff", old, new, "--no-imports")["imports"] is None
    same = data("diff", old, old)
    assert (same["imports"], same["new"]) == ({"added": [], "gone": []}, [])
    assert run("diff", old, other).exit_code == 2
    unsigned = tmp_path / "bad.capsule"
    unsigned.write_bytes(b"nothing")
    assert data("diff", old, unsigned, code=1)["code"] == "verify.not-a-capsule"
