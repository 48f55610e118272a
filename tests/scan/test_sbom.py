"""SBOMs: each seeded fault is found by its rule, a good one gives nothing, a hostile one is bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.review.finding import Severity
from capwasm.scan import sbom
from capwasm.scan.bill import OddBill, read_bill

from .supply import ID, VERSION, bill, component, findings, part

pytest.importorskip("cyclonedx", reason="the extra scan has it")

GOOD = (
    part("pypi", "httpx", "0.28.1", licenses=[{"license": {"id": "BSD-3-Clause"}}]),
    part("npm", "%40scope/thing", "2.0.0", licenses=[{"expression": "MIT OR Apache-2.0"}]),
    part("golang", "github.com/gorilla/mux", "v1.8.1"),
    part("cargo", "serde_json", "1.0.140"),
    {"type": "file", "bom-ref": "f", "name": "icon.svg"},
)


def found_in(data: bytes | None) -> dict:
    return findings(sbom.SCANNERS, component(sbom=data) if data is not None else component())


@pytest.mark.parametrize("spec", ["1.4", "1.5", "1.6", "1.7"])
def test_a_good_sbom_gives_nothing(spec: str) -> None:
    assert found_in(bill(*GOOD, specVersion=spec)) == {}


def test_the_plugin_may_be_called_as_people_call_it() -> None:
    subject = {"type": "application", "name": "Weather", "version": VERSION}

    assert found_in(bill(*GOOD, metadata={"component": subject})) == {}


def named(name: str, version: str) -> dict[str, Any]:
    return {"component": {"type": "application", "name": name, "version": version}}


SEEDS: dict[str, tuple[bytes | None, Severity, str]] = {
    "sbom.missing": (None, Severity.LOW, ""),
    "sbom.unreadable": (b"{", Severity.HIGH, "not valid JSON"),
    "sbom.format": (bill(*GOOD, specVersion="2.0"), Severity.MEDIUM, "CycloneDX 2.0"),
    "sbom.invalid": (bill(*GOOD, surprise=1), Severity.MEDIUM, "surprise"),
    "sbom.subject": (bill(*GOOD, metadata=named(ID, "1.1.0")), Severity.MEDIUM, "1.1.0"),
    "sbom.no-version": (bill(part("pypi", "httpx")), Severity.MEDIUM, "pkg:pypi/httpx"),
    "sbom.no-purl": (
        bill({"type": "library", "name": "httpx", "version": "1"}), Severity.LOW, "httpx 1",
    ),
    "sbom.bad-purl": (bill(part("pypi", "x", "1", purl="pkg:")), Severity.MEDIUM, "purl"),
    "sbom.duplicate": (
        bill(part("pypi", "x", "1"), part("pypi", "x", "1", **{"bom-ref": "other"})),
        Severity.LOW, "components[0]",
    ),
    "sbom.empty": (bill(), Severity.NOTE, ""),
}  # fmt: skip


@pytest.mark.parametrize("rule", SEEDS)
def test_finds_what_is_wrong(rule: str) -> None:
    data, severity, evidence = SEEDS[rule]

    found = found_in(data)

    assert set(found) == {rule}, found
    assert found[rule].severity is severity
    assert evidence in found[rule].evidence


@pytest.mark.parametrize(
    ("metadata", "message"),
    [(None, "does not say of what"), (named("other.plugin", VERSION), "does not say that")],
)
def test_an_sbom_of_something_else_is_found(metadata: Any, message: str) -> None:
    found = found_in(bill(*GOOD, metadata=metadata))

    assert message in found["sbom.subject"].message


@pytest.mark.parametrize(
    ("name", "version"), [("urllib3", "2.0.0"), ("httpx", "9.9.9"), ("not-httpx", "0.28.1")]
)
def test_a_purl_of_another_package_is_found(name: str, version: str) -> None:
    """People read the name, and advisories are looked up by the purl."""
    lying = part("pypi", "httpx", "0.28.1") | {"name": name, "version": version}

    found = found_in(bill(lying))

    assert set(found) == {"sbom.bad-purl"}


def test_components_within_components_are_looked_at() -> None:
    inner = part("npm", "left-pad")
    outer = part("npm", "outer", "1.0.0", components=[inner])

    found = found_in(bill(outer))

    assert found["sbom.no-version"].place == "sbom.cdx.json:components[0].components[0]"


HOSTILE = {
    "deep": b'{"components":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "long": b'{"x":"' + b"a" * (5 * 2**20) + b'"}',
    "wide": json.dumps({"components": [{}] * 2001}).encode(),
    "many": json.dumps({str(n): [0] * 1999 for n in range(101)}).encode(),
    "twice": b'{"specVersion":"1.6","specVersion":"1.5"}',
    "number": b'{"version":' + b"9" * 5000 + b"}",
    "nan": b'{"version":NaN}',
    "bytes": b"\xff\xfe{",
    "hidden": '{"bomFormat":"Cyclone\u202eDX"}'.encode(),
    "array": b"[]",
    "nothing": b"",
}


@pytest.mark.case("MAN-03", "MAN-04", "MAN-05", "MAN-06")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_sbom_is_bounded_and_told_of(name: str) -> None:
    found = found_in(HOSTILE[name])

    assert set(found) == {"sbom.unreadable"}
    assert found["sbom.unreadable"].severity is Severity.HIGH


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["components", "metadata", "component", "purl", "name", "version",
                         "licenses", "license", "id", "expression", "bomFormat", "specVersion"]),
        inner, max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(doc=JSON)
def test_whatever_the_document_is_it_is_read_or_odd(doc: Any) -> None:
    try:
        made = read_bill(memoryview(json.dumps(doc).encode()))
    except OddBill:
        return
    assert all(isinstance(str(c), str) and isinstance(c.commit, str) for c in made.components)
