"""The commands by which an operator decides: shown in full, asked first, recorded, refusable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.cli import capwasm
from capwasm.grants.consent_store import ConsentStore
from capwasm.grants.schema import manifest_schema, policy_schema
from tests.capsules import FILES, KEY, signed

MANIFEST = """schema = 1
[plugin]
id = "acme.weather"
name = "Weather"
version = "1.2.0"
requires-core = ">=0.3,<1"
kind = "component"
[[net]]
allow = "https://api.acme.com/v1/*"
why = "To fetch the forecast."
[[net]]
allow = "https://telemetry.acme.com"
optional = true
[log]
[clock]
[kv]
quota = "4MiB"
[limits]
fuel = 9_000_000_000
"""
POLICY = """schema = 1
owner = "security@acme.com"
[consent]
automatic = ["log", "clock", "kv", "net"]
[[plugins."acme.*".net]]
allow = "https://api.acme.com"
[plugins."acme.*".log]
[plugins."acme.*".clock]
[plugins."acme.*".kv]
quota = "1MiB"
"""
TRUST = f"""schema = 1
[[key]]
name = "acme"
public = "{KEY.public.base64()}"
roles = ["publisher"]
ids = ["acme.*"]
"""
CAPSULE = "acme.weather-1.2.0.capsule"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_home: Path) -> Path:
    """A working directory with a signed capsule, and a home that trusts and allows it."""
    monkeypatch.chdir(tmp_path)
    own_home.mkdir(mode=0o700)
    (own_home / "trust.toml").write_text(TRUST)
    (own_home / "policy.toml").write_text(POLICY)
    (tmp_path / "plugin.toml").write_text(MANIFEST)
    (tmp_path / "plugin.wasm").write_bytes(FILES["plugin.wasm"])
    (tmp_path / CAPSULE).write_bytes(capsule(MANIFEST))
    return tmp_path


def capsule(manifest: str) -> bytes:
    return signed(members={**FILES, "plugin.toml": manifest.encode()})


def run(*args: str, code: int = 0, typed: str | None = None) -> Result:
    result = CliRunner().invoke(capwasm, args, input=typed)
    assert result.exit_code == code, result.output
    return result


def data(*args: str, code: int = 0) -> Any:
    return json.loads(run(*args, "--json", code=code).stdout)


def give(*args: str) -> None:
    run("consent", "give", CAPSULE, "--yes", "--reason", "reviewed", "--by", "ann", *args)


def statuses(*args: str, code: int = 0) -> dict[str, str]:
    found = data("grants", "explain", CAPSULE, *args, code=code)
    return {p["path"]: p["status"] for p in found["permissions"]}


# --- explain -------------------------------------------------------------------------------------


def test_refuses_what_nobody_consented_to_and_shows_what_would_allow_it(here: Path) -> None:
    shown = run("grants", "explain", CAPSULE, code=1).stdout

    assert "acme.weather 1.2.0  denied" in shown
    assert 'policy   plugins."acme.*".net[0] (line 5)' in shown
    assert "a high risk is for a person" in " ".join(shown.split())
    assert shown.rstrip().endswith(f"capwasm consent give {CAPSULE}")


def test_allows_it_once_a_person_agreed(here: Path) -> None:
    give()

    assert statuses() == {
        "clock": "granted", "log": "granted", "kv": "narrowed", "net[0]": "granted",
        "net[1]": "left out",
    }  # fmt: skip
    assert "given by ann at" in run("grants", "explain", CAPSULE).stdout


def test_the_page_fits_80_columns_and_its_lines_of_toml_are_whole(here: Path) -> None:
    (here / "empty.toml").write_text("schema = 1\n")
    page = run("grants", "explain", CAPSULE, "--policy", "empty.toml", "--all-limits", code=1)
    lines = page.stdout.splitlines()

    assert max(len(line) for line in lines) <= 80
    assert 'allow = "https://api.acme.com/v1/*"' in lines
    assert '[[plugins."acme.weather".net]]' in lines
    assert "\x1b" not in page.output


def test_the_lines_that_it_shows_are_enough(here: Path, own_home: Path) -> None:
    (own_home / "policy.toml").write_text("schema = 1\n")
    give()
    lines = run("grants", "explain", CAPSULE, code=1).stdout.split("What would allow it:")[1]
    (own_home / "policy.toml").write_text("schema = 1\n" + lines)

    assert set(statuses().values()) == {"granted", "left out"}


def test_json_says_all_that_the_page_says(here: Path) -> None:
    give()
    found = data("grants", "explain", CAPSULE)
    kv = next(p for p in found["permissions"] if p["path"] == "kv")
    fuel = next(r for r in found["limits"] if r["name"] == "fuel")

    assert (found["granted"], found["verified"], found["consent"]["who"]) == (True, True, "ann")
    assert kv["asked"]["toml"] == {"quota": "4MiB"}
    assert kv["effective"][0]["toml"] == {"quota": "1MiB"}
    assert kv["narrowed-by"] == ["policy"]
    assert kv["policy"][0]["rule"] == 'plugins."acme.*".kv'
    assert fuel["effective"] == 9_000_000_000


def test_a_denial_is_data_too(here: Path) -> None:
    found = data("grants", "explain", CAPSULE, code=1)

    assert found["granted"] is False
    assert [f["path"] for f in found["faults"]] == ["net[0]"]
    assert found["faults"][0]["fix"] == f"capwasm consent give {CAPSULE}"


@pytest.mark.parametrize(("core", "code"), [("0.3.0", 0), ("1.0.0", 1), ("no", 2)])
def test_the_core_is_looked_at_when_it_is_told(here: Path, core: str, code: int) -> None:
    give()
    shown = run("grants", "explain", CAPSULE, "--core", core, code=code)

    assert ("plugin.requires-core" in shown.output) == (code == 1)


def test_refuses_a_capsule_that_nobody_trusted_signed(here: Path, own_home: Path) -> None:
    (own_home / "trust.toml").unlink()

    assert "verify.no-trust-store" in run("grants", "explain", CAPSULE, code=1).output
    assert "verify.no-trust-store" in run("consent", "give", CAPSULE, "--yes", code=1).output


def test_a_draft_is_explained_and_called_a_draft(here: Path) -> None:
    shown = run("grants", "explain", "plugin.toml", code=1).output

    assert "A draft: nobody has verified these bytes." in shown


@pytest.mark.case("MAN-06", "LOG-07")
def test_refuses_a_manifest_that_would_write_on_the_terminal(here: Path) -> None:
    (here / "plugin.toml").write_text(MANIFEST.replace("To fetch", "\\u001B[2JTo fetch"))
    result = run("grants", "explain", "plugin.toml", code=1)

    assert "\x1b" not in result.output
    assert "net[0].why" in result.output


# --- consent -------------------------------------------------------------------------------------


def test_shows_each_permission_with_its_risk_and_the_plugins_words(here: Path) -> None:
    shown = run("consent", "give", CAPSULE, "--yes", "--reason", "ok").stdout

    assert "net[0]: send GET, HEAD to https://api.acme.com/v1/*  high risk" in shown
    assert "the plugin says: “To fetch the forecast.”" in shown
    assert "limits above the defaults: fuel 9,000,000,000 (default 2,000,000,000)" in shown


def test_records_who_when_and_why(here: Path, own_home: Path) -> None:
    give()
    (entry,) = ConsentStore(own_home / "consents").entries("acme.weather")

    assert (entry.record.who, entry.record.reason) == ("ann", "reviewed")
    assert set(entry.record.permissions) == {"clock", "log", "kv", "net"}


def test_refuses_a_high_risk_without_a_reason(here: Path, own_home: Path) -> None:
    assert "--reason is needed: net[0], net[1]" in (
        run("consent", "give", CAPSULE, "--yes", code=2).output
    )
    assert not (own_home / "consents").exists()


def test_refuses_to_agree_when_there_is_nobody_to_ask(here: Path, own_home: Path) -> None:
    run("consent", "give", CAPSULE, "--reason", "ok", code=2, typed="y\n")

    assert not (own_home / "consents").exists()


def test_leaves_out_an_optional_permission_and_no_other(here: Path, own_home: Path) -> None:
    give("--without", "net[1]")
    (entry,) = ConsentStore(own_home / "consents").entries()
    assert [t["allow"] for t in entry.record.permissions["net"]] == ["https://api.acme.com/v1/*"]

    refused = run("consent", "give", CAPSULE, "--yes", "--without", "net[0]", code=2)
    assert "not optional; those that are: net[1]" in refused.output


@pytest.mark.case("MAN-10")
def test_marks_what_a_new_version_adds(here: Path) -> None:
    give()
    newer = MANIFEST.replace("1.2.0", "1.3.0") + '[[secret]]\nname = "x"\nuse = "reveal"\n'
    (here / "newer.capsule").write_bytes(capsule(newer))
    shown = run("consent", "give", "newer.capsule", "--yes", "--reason", "ok").stdout
    new = [line.split(":")[0].strip() for line in shown.splitlines() if line.endswith(" NEW")]

    assert new == ["secret[0]"]


@pytest.mark.case("MAN-10")
def test_refuses_other_bytes_under_an_old_consent(here: Path) -> None:
    give()
    (here / CAPSULE).write_bytes(signed(members={
        **FILES, "plugin.toml": MANIFEST.encode(), "plugin.wasm": FILES["plugin.wasm"] + b"\0\1x",
    }))  # fmt: skip

    assert "for other bytes" in run("grants", "explain", CAPSULE, code=1).output


def test_withdraws_and_the_next_load_is_denied(here: Path) -> None:
    give()
    run("consent", "withdraw", "acme.weather", "--by", "bob", "--reason", "SEC-40")

    assert "withdrawn" in run("grants", "explain", CAPSULE, code=1).output
    assert "withdrawn by bob" in run("consent", "list").stdout
    assert "consent.missing" in run("consent", "withdraw", "acme.weather", code=1).output


def test_lists_what_is_there(here: Path) -> None:
    assert data("consent", "list") == []
    give()

    (entry,) = data("consent", "list", "acme.weather")
    assert (entry["number"], entry["plugin"], entry["who"]) == (1, "acme.weather", "ann")
    assert data("consent", "list", "acme.other") == []


@pytest.mark.case("MAN-09")
@pytest.mark.parametrize("plugin", ["../x", "CON", "acme"])
def test_refuses_what_is_no_plugin_id(here: Path, plugin: str) -> None:
    run("consent", "list", plugin, code=2)
    run("consent", "withdraw", plugin, code=2)


def test_a_draft_needs_its_code_to_be_agreed_to(here: Path) -> None:
    assert "needs --code" in run("consent", "give", "plugin.toml", "--yes", code=2).output
    run("consent", "give", "plugin.toml", "--code", "plugin.wasm", "--yes", "--reason", "ok")

    assert statuses()["net[0]"] == "granted"


def test_refuses_a_who_that_would_write_on_the_terminal(here: Path, own_home: Path) -> None:
    run("consent", "give", CAPSULE, "--yes", "--reason", "x", "--by", "a\x1b[2J", code=1)
    run("consent", "give", CAPSULE, "--yes", "--reason", "x", "--by", "", code=0)

    assert ConsentStore(own_home / "consents").entries()[0].record.who


def test_a_consent_is_recorded_in_the_audit_log_that_is_named(here: Path) -> None:
    give("--audit", "audit")
    shown = run("audit", "tail", "--log", "audit", "--kind", "consent", "--json").stdout

    assert json.loads(shown.splitlines()[0])["action"] == "give"


def test_refuses_a_plugin_that_asks_for_nothing(here: Path) -> None:
    bare = MANIFEST.split("[[net]]", maxsplit=1)[0]
    (here / CAPSULE).write_bytes(capsule(bare))

    assert "asks for nothing" in run("consent", "give", CAPSULE, "--yes", code=1).output


# --- manifest and policy ---------------------------------------------------------------------------


def test_checks_a_manifest(here: Path) -> None:
    shown = run("manifest", "check", "plugin.toml").stdout

    assert "acme.weather 1.2.0 (component): sound" in shown
    assert "net[1]: send GET, HEAD to https://telemetry.acme.com (high risk, optional)" in shown
    found = data("manifest", "check", "plugin.toml")
    assert (found["id"], found["instance"]) == ("acme.weather", "per-call")
    assert {p["risk"] for p in found["permissions"]} == {"low", "high"}


def test_refuses_a_manifest_with_all_its_faults(here: Path) -> None:
    (here / "bad.toml").write_text(MANIFEST + "coffee = 1\n[siren]\n")
    found = data("manifest", "check", "bad.toml", code=1)

    assert found["code"] == "manifest.invalid"
    assert [f["path"] for f in found["faults"]] == ["", "limits.coffee"]
    assert data("manifest", "check", "none.toml", code=1)["code"] == "manifest.unreadable"


def test_checks_a_policy_and_says_what_its_owner_should_know(here: Path, own_home: Path) -> None:
    path = own_home / "policy.toml"
    path.write_text(POLICY.replace("[consent]", 'review-by = "2020-01-01"\n[consent]'))
    shown = run("policy", "check", str(path)).stdout

    assert "note: review-by: was to be looked at again by 2020-01-01" in shown
    assert 'note: plugins."acme.*".net[0]: is a high risk, so consent.automatic' in shown
    assert data("policy", "check", str(path))["automatic"] == ["clock", "kv", "log", "net"]


def test_refuses_a_policy_with_all_its_faults(here: Path) -> None:
    (here / "bad.toml").write_text(POLICY + '[plugins."X"]\n[siren]\n')
    found = data("policy", "check", "bad.toml", code=1)

    assert found["code"] == "policy.invalid"
    assert [f["path"] for f in found["faults"]] == ["", "plugins.X"]


def test_prints_the_schemas_of_what_there_is() -> None:
    from capwasm.caps import standard_capabilities

    known = standard_capabilities()
    assert json.loads(run("manifest", "schema").stdout) == manifest_schema(known)
    assert json.loads(run("policy", "schema").stdout) == policy_schema(known)


@pytest.mark.parametrize("which", [manifest_schema, policy_schema])
def test_every_reference_of_a_schema_leads_somewhere(which: Any) -> None:
    from capwasm.caps import standard_capabilities

    schema = which(standard_capabilities())
    parts = json.dumps(schema).split('"#/$defs/')[1:]

    assert all(part.split('"')[0] in schema.get("$defs", {}) for part in parts)
