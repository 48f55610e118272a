"""`capwasm revocations` and `capwasm revoke`, as an issuer and an operator type them."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.cli import capwasm
from capwasm.record.audit import tail
from tests.kit import World, guest

LIST = """
[deny.versions."test.guest"]
"<1.1" = "leaks keys"
[deny.plugins]
"evil.*" = "stolen name"
[[deny.capabilities]]
capability = "net"
clause = { allow = "https://x.example/" }
"""


def run(*args: object) -> Result:
    return CliRunner().invoke(capwasm, [str(a) for a in args])


def data(*args: object, code: int = 0) -> Any:
    done = run(*args, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setenv("CAPWASM_HOME", str(world.home))
    monkeypatch.chdir(tmp_path)
    text = (world.home / "trust.toml").read_text()
    for name in ("ann", "ben"):
        public = data("keygen", name)["trust"].split('"')[3]
        text += f'[[key]]\nname = "{name}"\npublic = "{public}"\nroles = ["revoker"]\nids = ["*"]\n'
    (world.home / "trust.toml").write_text(text)
    Path("list.toml").write_text(LIST)
    return world


def make(number: int, *more: object, key: str = "ann.key") -> None:
    done = run("revocations", "make", "list.toml", "--sequence", number, "--key", key,
               "-o", "feed.json", *more)  # fmt: skip
    assert done.exit_code == 0, done.output


def test_the_way_of_a_feed(world: World) -> None:
    for version in ("1.0.0", "1.1.0"):
        path = Path(f"{version}.capsule")
        path.write_bytes(world.capsule(guest("hostile"), version=version))
    assert run("install", "1.0.0.capsule").exit_code == 0
    assert run("revocations", "show").output == "no revocation feed was ever accepted\n"
    make(3)
    done = run("revocations", "add", "feed.json")
    assert done.output == (
        "accepted: feed 3, 3 entries\n"
        "  revoked: test.guest 1.0.0 (version test.guest <1.1: leaks keys)\n"
    )
    assert run("revocations", "add", "feed.json").output == "unchanged: feed 3, 3 entries\n"
    shown = run("revocations", "show")
    assert shown.exit_code == 0
    assert shown.output.startswith("feed 3: 3 entries\nissued ")
    found = data("revocations", "show")
    assert (found["sequence"], found["stale"], found["loads-refused"]) == (3, None, False)

    denied = run("revocations", "check", "1.0.0.capsule")
    assert (denied.exit_code, denied.output) == (
        1, "test.guest@1.0.0: revoked by feed 3: version test.guest <1.1: leaks keys\n",
    )  # fmt: skip
    assert run("revocations", "check", "1.1.0.capsule").output == (
        "test.guest@1.1.0: not revoked\n"
    )
    assert run("revocations", "check", "evil.x@9.0.0").exit_code == 1
    assert data("revocations", "check", "good.x@9.0.0")["allowed"] is True
    again = run("install", "1.0.0.capsule")
    assert again.exit_code == 1
    assert "[verify.revoked]" in again.stderr
    told = [e for e in tail(world.home / "audit-commands", 1000) if e["kind"] == "revocation"]
    assert [e["action"] for e in told] == ["accepted"]


@pytest.mark.case("SIG-15")
def test_refuses_an_older_feed_and_one_by_nobody(world: World) -> None:
    make(3)
    run("revocations", "add", "feed.json")
    run("keygen", "eve")
    for number, key, code in ((2, "ann", "revocation.rollback"), (9, "eve", "untrusted-key")):
        make(number, key=f"{key}.key")
        done = run("revocations", "add", "feed.json")
        assert done.exit_code == 1
        assert code in done.stderr
    assert data("revocations", "show")["sequence"] == 3


@pytest.mark.case("SIG-12")
def test_a_threshold_wants_two_keys(world: World) -> None:
    with (world.home / "trust.toml").open("a") as file:
        file.write('[[role]]\nname = "revoker"\nthreshold = 2\n')
    make(1)
    assert "[verify.threshold]" in run("revocations", "add", "feed.json").stderr
    signed = data("revocations", "sign", "feed.json", "--key", "ben.key", "-o", "both.json")
    assert len(signed["signatures"]) == 2
    assert run("revocations", "add", "both.json").exit_code == 0


def test_the_next_number_and_a_list_in_json(world: World) -> None:
    make(41)
    Path("list.json").write_text(json.dumps({"allow": {"plugins": ["acme.*"]}}))
    made = data("revocations", "make", "list.json", "--after", "feed.json", "--key", "ann.key",
                "-o", "next.json", "--days", "0.5")  # fmt: skip
    assert made["sequence"] == 42
    assert run("revocations", "add", "next.json").exit_code == 0
    assert run("revocations", "check", "acme.x@1.0.0").exit_code == 0
    assert run("revocations", "check", "other.x@1.0.0").exit_code == 1


@pytest.mark.parametrize(
    "text",
    ["[deny", "[denied]", "sequence = 3", '[deny.plugins]\n"a*" = ""',
     '[deny.versions."a.b"]\n"1.2" = ""', "[deny]\ndigests = 3"],
)  # fmt: skip
def test_refuses_a_list_with_faults(world: World, text: str) -> None:
    Path("list.toml").write_text(text)
    done = run("revocations", "make", "list.toml", "--sequence", 1, "-o", "feed.json")
    assert done.exit_code == 1
    assert "[revocation.list]" in done.stderr
    assert not Path("feed.json").exists()


def test_refuses_wrong_usage(world: World) -> None:
    for args in (
        ("make", "list.toml", "-o", "f"),
        ("make", "list.toml", "--sequence", 1, "--after", "f", "-o", "f"),
        ("sign", "f", "-o", "f"),
        ("fetch",),
    ):
        assert run("revocations", *args).exit_code == 2, args
    assert run("revoke", "a.b", "1.0.0").exit_code == 2
    for args in (("add", "none"), ("check", "none"), ("sign", "none", "--key", "k", "-o", "f")):
        assert run("revocations", *args).exit_code == 1, args


def test_a_feed_is_fetched_from_the_policys_url(world: World) -> None:
    make(5)
    Path("site").mkdir()
    Path("feed.json").rename("site/feed.json")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory="site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        world.policy(f'[revocation]\nurl = "{url}/feed.json"\n')
        assert data("revocations", "fetch")["accepted"] is True
        assert data("revocations", "fetch")["accepted"] is False
        assert "repository.status" in run("revocations", "fetch", f"{url}/none").stderr
        server.shutdown()
    assert "repository.unreachable" in run("revocations", "fetch").stderr


@pytest.mark.parametrize(("stale", "code"), [("refuse", 1), ("report", 0)])
def test_show_and_doctor_tell_how_things_stand(world: World, stale: str, code: int) -> None:
    def line() -> Any:
        done = run("doctor", "--json")
        checks = {c["name"]: c for c in json.loads(done.stdout)["checks"]}
        return done.exit_code, checks["revocations"]["status"]

    world.policy(f'[revocation]\nstale = "{stale}"\n')
    assert line() == (code, "lacks" if code else "note")
    assert ("Loads are refused." in run("revocations", "show").output) == bool(code)
    make(1)
    run("revocations", "add", "feed.json")
    assert line() == (0, "ok")
    (world.home / "revocations/kept/head").write_bytes(b"0")
    assert line() == (1, "lacks")
    assert run("revocations", "show").exit_code == 1


def test_revoke_ends_an_installed_version(world: World) -> None:
    path = Path("a.capsule")
    path.write_bytes(world.capsule(guest("hostile")))
    run("install", path)
    done = run("revoke", "test.guest", "1.0.0", "--reason", "found out")
    assert (done.exit_code, done.output) == (0, "revoked: test.guest 1.0.0\n")
    assert "[verify.revoked]" in run("install", path).stderr
