"""`capwasm scan`: as a user runs it, on files and on what is installed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from capwasm.cli import capwasm
from capwasm.events import NullRecorder
from capwasm.home import Home
from capwasm.registry.desk import Desk
from capwasm.review.finding import Report
from tests.capsules import KEY
from tests.scan.building import CAPABILITIES, capsule, component, manifest
from tests.scan.seeds import SEEDS, noise


def scan(*words: object) -> Result:
    return CliRunner().invoke(capwasm, ["scan", *map(str, words)])


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.capsule"
    path.write_bytes(SEEDS["carries a program in a custom section"].make())
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.capsule"
    path.write_bytes(capsule())
    return path


@pytest.fixture
def home(own_home: Path) -> Path:
    """A home that trusts the publisher."""
    own_home.mkdir(mode=0o700)
    (own_home / "trust.toml").write_text(
        f'schema = 1\n[[key]]\nname = "acme"\npublic = "{KEY.public.base64()}"\n'
        'roles = ["publisher"]\nids = ["acme.*"]\n'
    )
    return own_home


def policy(home: Path, text: str) -> None:
    (home / "policy.toml").write_text(f"schema = 1\n{text}")


# -- files ------------------------------------------------------------------------------------------


def test_a_bad_file_is_told_of_the_gravest_first_with_a_fix(home: Path, bad: Path) -> None:
    result = scan(bad)

    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0].startswith("acme.weather 1.2.0: 1 high, ")
    assert result.output.index("embedded.program") < result.output.index("wasm.custom-unknown")
    assert "  fix: Strip it: wasm-tools strip --delete NAME." in lines
    assert any(line.startswith("  at plugin.wasm@0x") and line.endswith("ELF") for line in lines)


def test_a_good_file_is_let_pass(home: Path, good: Path) -> None:
    assert scan(good).exit_code == 0


@pytest.mark.parametrize(
    ("fail_on", "code"), [("low", 1), ("medium", 1), ("high", 1), ("critical", 0), ("never", 0)]
)
def test_what_fails_is_chosen(home: Path, bad: Path, fail_on: str, code: int) -> None:
    assert scan(bad, "--fail-on", fail_on).exit_code == code


def test_a_file_needs_no_home_and_makes_none(own_home: Path, bad: Path) -> None:
    result = scan(bad)

    assert result.exit_code == 1
    assert "known.unproven" in result.output
    assert not own_home.exists()


def test_a_file_that_is_trusted_changes_nothing_in_the_home(home: Path, good: Path) -> None:
    before = sorted(home.rglob("*"))

    assert "known.unproven" not in scan(good).output
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x89CAPS\r\n\x1a\x01\x00\x00\x00"])
def test_refuses_what_is_no_capsule(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.capsule").write_bytes(data)

    result = scan(tmp_path / "x.capsule")

    assert (result.exit_code, result.output.startswith("error [verify.")) == (1, True)


def test_json_is_the_report(home: Path, bad: Path) -> None:
    result = scan(bad, "--json", "--fail-on", "never")

    report = Report.parse(json.dumps(json.loads(result.output)).encode())
    assert {f.rule for f in report.findings} >= {"embedded.program", "wasm.custom-unknown"}


def test_sarif_is_written_beside(home: Path, bad: Path, tmp_path: Path) -> None:
    target = tmp_path / "bad.sarif"

    assert scan(bad, "--sarif", target).exit_code == 1
    log = json.loads(target.read_bytes())
    assert (log["version"], log["runs"][0]["results"][0]["ruleId"]) == ("2.1.0", "embedded.program")


@pytest.mark.case("LOG-07")
def test_a_plugin_can_not_write_to_the_terminal(home: Path, tmp_path: Path) -> None:
    evil = b"\x1b]0;owned\x07" + b"http://93.184.215.14/\x1b[2J"
    path = tmp_path / "x.capsule"
    path.write_bytes(capsule(component(data=evil)))

    output = scan(path).output
    assert "hosts.public-address" in output
    assert "\x1b" not in output
    assert "\x07" not in output


def test_a_secret_is_not_shown(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.capsule"
    path.write_bytes(SEEDS["holds a token"].make())

    output = scan(path).output + scan(path, "--json").output
    assert "secrets.token" in output
    assert noise(36)[4:12] not in output


# -- the words of the policy ------------------------------------------------------------------------


def test_known_bad_of_the_policy_and_of_the_command(home: Path, good: Path, tmp_path: Path) -> None:
    digest = json.loads(scan(good, "--json").output)["archive"]
    assert "known.bad-digest" not in scan(good).output
    (tmp_path / "more.txt").write_text(f"# seen\n\nSHA256:{digest}\n".replace("SHA256", "sha256"))
    by_hand = scan(good, "--known-bad", tmp_path / "more.txt")
    (home / "bad.txt").write_text(f"{digest}  a stealer\n")
    policy(home, '[scan]\nknown-bad = "bad.txt"\n')
    by_policy = scan(good)

    whole = hashlib.sha256(good.read_bytes()).hexdigest()  # as sha256sum tells of the file
    (tmp_path / "file.txt").write_text(f"{whole}  good.capsule\n")
    by_file = scan(good, "--known-bad", tmp_path / "file.txt")

    for result in (by_hand, by_policy, by_file):
        assert (result.exit_code, "known.bad-digest" in result.output) == (1, True)
    assert "a stealer" in by_policy.output


@pytest.mark.parametrize("text", ["hello", "abcd  x", f"{'0' * 63}g x"])
def test_refuses_a_list_that_is_none(home: Path, good: Path, text: str) -> None:
    (home / "bad.txt").write_text(f"{'0' * 64} fine\n{text}\n")
    policy(home, '[scan]\nknown-bad = "bad.txt"\n')

    result = scan(good)

    assert result.exit_code == 1
    assert "error [policy.invalid]" in result.output
    assert "line 2" in result.output


def test_refuses_a_list_that_is_missing(home: Path, good: Path) -> None:
    policy(home, '[scan]\nknown-bad = "bad.txt"\n')

    assert "error [policy.unreadable]" in scan(good).output


def test_ids_of_the_policy_may_not_be_imitated(home: Path, good: Path) -> None:
    assert "manifest.look-alike" not in scan(good).output
    policy(home, '[scan]\nids = ["acne.weather"]\n')

    assert "manifest.look-alike" in scan(good).output


def test_a_scanner_that_the_policy_names_and_nobody_has_is_refused(home: Path, good: Path) -> None:
    policy(home, '[scan]\nscanners = ["acme-lint"]\n')

    result = scan(good)

    assert result.exit_code == 1
    assert "no scanner 'acme-lint' is installed" in result.output


# -- what is installed --------------------------------------------------------------------------------


def kept(home: Path, plugin: str) -> Report | None:
    known = Home(home)
    policy_ = known.policy(CAPABILITIES)
    with known.registry(
        NullRecorder(), trust=known.trust(), policy=policy_, capabilities=CAPABILITIES
    ) as registry:
        return Desk(registry).case(plugin).report


def test_the_report_on_an_installed_plugin_is_kept(home: Path, good: Path) -> None:
    assert CliRunner().invoke(capwasm, ["install", str(good)]).exit_code == 0
    assert kept(home, "acme.weather") is None

    result = scan("acme.weather@1.2.0", "--json")

    report = kept(home, "acme.weather")
    assert result.exit_code == 0
    assert report is not None
    assert json.loads(report.to_json()) == json.loads(result.output)


def test_what_was_submitted_is_scanned_and_still_does_not_serve(home: Path, bad: Path) -> None:
    policy(home, "[review]\nrequired = true\n")
    assert CliRunner().invoke(capwasm, ["submit", str(bad)]).exit_code == 0

    assert scan("acme.weather").exit_code == 1

    report = kept(home, "acme.weather")
    assert report is not None
    assert report.findings[0].rule == "embedded.program"
    shown = CliRunner().invoke(capwasm, ["show", "acme.weather", "--json"]).output
    assert json.loads(shown)["serving"] is None


def test_an_installed_id_may_not_be_imitated(home: Path, good: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(capwasm, ["install", str(good)]).exit_code == 0
    path = tmp_path / "x.capsule"
    path.write_bytes(capsule(None, manifest(plugin_id="acrne.weather")))

    assert "acrne.weather, as acme.weather" in scan(path).output


@pytest.mark.parametrize("name", ["acme.nobody", "acme.weather@9.9.9"])
def test_refuses_what_is_not_installed(home: Path, good: Path, name: str) -> None:
    CliRunner().invoke(capwasm, ["install", str(good)])

    result = scan(name)

    assert (result.exit_code, "error [registry.unknown]" in result.output) == (1, True)
