"""Plugins that nobody made to be bad: the committed guests, in several languages, give no grave finding."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from capwasm.review.finding import Severity
from capwasm.scan.scanners import standard_scanners
from tests.kit import OPTIONAL, guest

from .building import capsule, look, manifest

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "runtime/src/capwasm/demo"
EVERYTHING = "".join(OPTIONAL.values())
CLOCK = "[clock]\n[random]\n"

# In Rust, C and text: those that import every capability ask for each, those that import none ask for none.
GUESTS = {
    "conformance-rust": EVERYTHING,
    "conformance-c": EVERYTHING,
    "prober": EVERYTHING,
    "slugs": "",
    "wordcount": "",
    "shout": "",
    "starter": CLOCK,
    "hostile": "",
    "resource": "",
    "tenant": "",
}


@pytest.mark.parametrize("name", GUESTS)
def test_a_clean_component_has_no_grave_finding(name: str) -> None:
    report = look(capsule(guest(name), manifest(GUESTS[name])), standard_scanners())

    assert report.at_least(Severity.HIGH) == ()
    assert {run.name for run in report.scanners if not run.skipped} >= {"world", "shape", "tokens"}


def test_a_clean_native_plugin_has_no_grave_finding() -> None:
    place = ROOT / "native-shim/examples/c/capsule"
    files = {
        p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()
    }
    toml = files.pop("plugin.toml").decode()
    assert tomllib.loads(toml)["plugin"]["kind"] == "native"
    identity = tomllib.loads(toml)["plugin"]["id"]
    toml = toml.replace(identity, "acme.native")

    from tests.capsules import signed

    report = look(signed(members={"plugin.toml": toml.encode(), **files}), standard_scanners())

    assert report.at_least(Severity.HIGH) == ()
    assert {run.name for run in report.scanners if not run.skipped} >= {"known", "tokens"}
