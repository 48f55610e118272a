"""The commands on capsules: the whole way by hand, refusals as data, and nothing half written."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.container import join, split
from capwasm.capsule.envelope import Envelope
from capwasm.capsule.trust import TrustStore
from capwasm.capsule.verify import verify
from capwasm.cli import capwasm
from tests.capsules import FILES, forged, signed


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files of a plugin in `weather/`."""
    monkeypatch.chdir(tmp_path)
    for name, data in FILES.items():
        path = tmp_path / "weather" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path


def run(*args: str, code: int = 0, typed: str | None = None) -> Result:
    result = CliRunner().invoke(capwasm, args, input=typed)
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def data_of(*args: str, code: int = 0) -> Any:
    return json.loads(run(*args, "--json", code=code).stdout)


CAPSULE = "acme.weather-1.2.0.capsule"


def make_signed(*extra: str) -> None:
    entry = data_of("keygen", "acme", *extra)["trust"]
    Path("trust.toml").write_text(f"schema = 1\n{entry}\n")
    run("pack", "weather")
    run("sign", CAPSULE, "--key", "acme.key")


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256"])
def test_allows_the_whole_way_from_files_to_a_verified_capsule(here: Path, algorithm: str) -> None:
    make_signed("--algorithm", algorithm)

    assert stat.S_IMODE((here / "acme.key").stat().st_mode) == 0o600
    out = data_of("verify", CAPSULE, "--trust", "trust.toml")
    assert (out["verified"], out["id"], out["signers"][0]["name"]) == (True, "acme.weather", "acme")
    assert verify(read_artifact(CAPSULE), TrustStore.load("trust.toml")).digest == out["digest"]
    assert "verified: acme.weather 1.2.0" in run("verify", CAPSULE, "--trust", "trust.toml").stdout
    assert not list(here.glob(".*"))


def test_refuses_to_verify_without_a_store_or_for_another_role(here: Path) -> None:
    make_signed()
    trust = ("--trust", "trust.toml")

    assert data_of("verify", CAPSULE, code=1)["code"] == "verify.no-trust-store"
    assert data_of("verify", CAPSULE, *trust, "--require", "official", code=1)["code"] == (
        "verify.key-role"
    )
    assert data_of("verify", CAPSULE, *trust, "--reviewed", code=1)["code"] == "verify.threshold"
    run("verify", CAPSULE, *trust, "--require", "publisher", "--require", "official")


def test_refuses_in_words_on_stderr_and_keeps_stdout_clean(here: Path) -> None:
    result = run("verify", "none.capsule", code=1)

    assert result.stdout == ""
    assert "error [artifact.unreadable] none.capsule" in result.stderr


@pytest.mark.parametrize("args", [["verify"], ["sign", "x"], ["keygen", "k", "--algorithm", "rsa"],
                                  ["verify", "x", "--require", "reviewer"], ["nonsense"]])  # fmt: skip
def test_refuses_wrong_usage_with_2(here: Path, args: list[str]) -> None:
    run(*args, code=2)


def test_refuses_to_overwrite_a_key_without_force(here: Path) -> None:
    first = data_of("keygen", "acme")["key-id"]
    kept = (here / "acme.key").read_bytes()

    assert data_of("keygen", "acme", code=1)["code"] == "trust.unreadable"
    (here / "acme.pub").unlink()
    assert data_of("keygen", "acme", code=1)["code"] == "trust.unreadable"
    assert (here / "acme.key").read_bytes() == kept
    assert not (here / "acme.pub").exists()
    assert data_of("keygen", "acme", "--force")["key-id"] != first


def test_allows_an_encrypted_key_with_a_file_or_a_prompt(here: Path) -> None:
    (here / "pass").write_text("correct horse\n")
    (here / "pass").chmod(0o600)
    assert data_of("keygen", "acme", "--passphrase-file", "pass")["encrypted"] is True
    run("pack", "weather", "-o", "w.capsule")

    run("sign", "w.capsule", "--key", "acme.key", "--passphrase-file", "pass", "-o", "a.capsule")
    result = run(
        "sign", "w.capsule", "--key", "acme.key", "-o", "b.capsule", typed="correct horse\n"
    )
    run("sign", "w.capsule", "--key", "acme.key", code=1, typed="wrong\n")

    assert (here / "a.capsule").read_bytes() == (here / "b.capsule").read_bytes()
    assert "correct horse" not in result.output
    run("keygen", "asked", "--encrypt", typed="x\nx\n")
    assert b"ENCRYPTED" in (here / "asked.key").read_bytes()


def test_refuses_a_passphrase_that_others_may_read_or_that_is_empty(here: Path) -> None:
    (here / "pass").write_text("x")
    (here / "pass").chmod(0o644)
    args = ("keygen", "acme", "--passphrase-file", "pass")
    assert data_of(*args, code=1)["code"] == "trust.permissions"

    (here / "pass").write_text("\n")
    (here / "pass").chmod(0o600)
    assert data_of(*args, code=1)["code"] == "trust.key"
    assert not (here / "acme.key").exists()


def test_refuses_to_print_a_private_key(here: Path) -> None:
    out = run("keygen", "acme").output + run("keygen", "other", "--json").output

    for name in ("acme", "other"):
        lines = (here / f"{name}.key").read_text().splitlines()[1:-1]
        assert not any(line in out for line in lines)


def test_refuses_to_pack_what_may_not_be_there_and_writes_nothing(here: Path) -> None:
    (here / "weather/main.py").touch()
    (here / "weather/.git").mkdir()
    (here / "weather/.git/HEAD").touch()

    paths = [f["path"] for f in data_of("pack", "weather", code=1)["faults"]]
    assert paths == ["'.git/HEAD'", "main.py"]

    (here / "weather/assets/link").symlink_to("/etc/passwd")
    assert data_of("pack", "weather", code=1)["faults"][0]["path"] == "'assets/link'"
    assert not list(here.glob("*.capsule"))


def test_refuses_to_sign_what_was_changed_and_leaves_it_as_it_was(here: Path) -> None:
    make_signed()
    changed = (here / CAPSULE).read_bytes()[:-1] + b"\1"
    (here / CAPSULE).write_bytes(changed)

    assert data_of("sign", CAPSULE, "--key", "acme.key", code=1)["code"] == "verify.digest"
    assert (here / CAPSULE).read_bytes() == changed


def test_refuses_to_write_into_a_directory_that_is_not_there(here: Path) -> None:
    assert data_of("pack", "weather", "-o", "no/x.capsule", code=1)["code"] == "artifact.unreadable"


def test_inspect_says_unverified_unless_a_store_verifies_it(here: Path) -> None:
    make_signed()

    bare = run("inspect", CAPSULE).stdout
    assert bare.startswith("UNVERIFIED: no trust store")
    assert "plugin     acme.weather 1.2.0 (component)" in bare
    assert "content    is what the statement says" in bare
    assert all(name in bare for name in FILES)

    assert run("inspect", CAPSULE, "--trust", "trust.toml").stdout.startswith("VERIFIED")
    out = data_of("inspect", CAPSULE, "--trust", "trust.toml")
    assert (out["verified"], out["consistent"], out["format"]) == (True, True, 1)
    assert out["signatures"][0]["true"] is True
    assert out["statement"]["predicate"]["id"] == "acme.weather"


def test_inspect_says_where_the_policy_has_it_run(here: Path, own_home: Path) -> None:
    make_signed()
    assert "runs       in the core's own process, unless" in run("inspect", CAPSULE).stdout
    native = {"plugin.toml": FILES["plugin.toml"].replace(b'"component"', b'"native"')}
    native["lib/x86_64-linux-gnu/plugin.so"] = b"x"
    (here / "native.capsule").write_bytes(signed(members=native))
    refused = run("inspect", "native.capsule").stdout
    assert 'runs       in a process of its own (kind = "native")' in refused
    assert "refused    policy: isolation.native" in refused

    own_home.mkdir()
    lets = '[isolation]\nprocess = ["acme.*"]\nnative = ["acme.*"]\n'
    (own_home / "policy.toml").write_text(f"schema = 1\n{lets}")

    assert 'of its own (isolation.process "acme.*")' in run("inspect", CAPSULE).stdout
    assert "refused" not in run("inspect", "native.capsule").stdout
    assert data_of("inspect", "native.capsule")["isolation"]["process"] is True
    (own_home / "policy.toml").write_text("schema = 99\n")
    assert "isolation" not in data_of("inspect", CAPSULE)


def test_inspect_tells_a_stranger_and_a_forger_apart(here: Path) -> None:
    make_signed()
    (here / "stranger.capsule").write_bytes(signed())
    out = run("inspect", "stranger.capsule", "--trust", "trust.toml", code=1).stdout
    assert "UNVERIFIED: refused [verify.untrusted-key]" in out
    assert "unknown" in out

    run("pack", "weather", "-o", "bare.capsule")
    assert "signature  none" in run("inspect", "bare.capsule").stdout

    parts = split((here / CAPSULE).read_bytes())
    envelope = Envelope.parse(bytes(parts.envelope))
    signature = replace(envelope.signatures[0], value=bytes(64))
    broken = replace(envelope, signatures=(signature,))
    (here / CAPSULE).write_bytes(join(broken.encode(), parts.archive))
    out = run("inspect", CAPSULE, "--trust", "trust.toml", code=1).stdout
    assert "UNVERIFIED: refused [verify.bad-signature]" in out
    assert "FALSE, in the name of acme" in out


@pytest.mark.parametrize("cut", [0, 5, 14, 40, 900, -1])
def test_inspect_shows_what_it_can_of_a_broken_capsule(here: Path, cut: int) -> None:
    (here / "x.capsule").write_bytes(signed()[:cut])

    out = data_of("inspect", "x.capsule", code=1)

    assert out["verified"] is False
    assert out["fault"]["code"].startswith("verify.")
    assert "MALFORMED" in run("inspect", "x.capsule", code=1).stdout


@pytest.mark.case("LOG-07", "MAN-06")
def test_inspect_lets_nothing_in_a_capsule_or_a_name_drive_the_terminal(here: Path) -> None:
    evil = "\x1b]0;x\x07\u202e"
    name = f"{evil}.capsule"
    (here / name).write_bytes(forged(b"", edit=lambda d: d.update(predicateType=evil)))
    (here / "member.capsule").write_bytes(forged(b"PK\x03\x04" + bytes(22) + b"\x05\0\0\0\x1b[2Jx"))

    for args in (["inspect", name], ["inspect", "member.capsule"], ["verify", name]):
        for output in (run(*args, code=1).output, run(*args, "--json", code=1).output):
            assert output.isascii() or output.replace("…", "").isascii()
            assert "\x1b" not in output
            assert "\x07" not in output


def test_inspect_needs_no_engine() -> None:
    script = (
        "import sys; from capwasm.cli.capsule import commands; import capwasm.capsule.describe;"
        "sys.exit(any(m.split('.')[0] == 'wasmtime' for m in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
