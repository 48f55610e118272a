"""Licences: what is wrong is found by its rule, what agrees gives nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.caps import standard_capabilities
from capwasm.grants.scan import ScanRule
from capwasm.review.finding import Finding, Severity
from capwasm.scan import licences
from capwasm.scan.model import Context

from .supply import COMPONENT, ID, VERSION, bill, findings, manifest, part, subject

pytest.importorskip("license_expression", reason="the extra scan has it")

MIT = b"MIT License\n\nPermission is hereby granted, free of charge, to any person\nobtaining a copy of"
APACHE = b"                Apache License\n          Version 2.0, January 2004\n"


def found_in(
    licence: str = "Apache-2.0",
    text: bytes | None = None,
    sbom: bytes | None = None,
    allowed: tuple[str, ...] = (),
) -> dict[str, Finding]:
    members = {"plugin.toml": manifest(licence=licence), "plugin.wasm": COMPONENT}
    members |= {"LICENSE": text} if text else {}
    members |= {"sbom.cdx.json": sbom} if sbom else {}
    context = Context(
        rule=ScanRule.model_validate_json(
            ScanRule(licences=allowed).model_dump_json(by_alias=True)
        ),
        capabilities=standard_capabilities(),
    )
    return findings(licences.SCANNERS, subject(members), context)


def of_plugin(*rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "component": {
            "type": "application", "name": ID, "version": VERSION, "licenses": list(rows)
        }
    }  # fmt: skip


def licensed(expression: str) -> dict[str, Any]:
    return part("pypi", "httpx", "0.28.1", licenses=[{"expression": expression}])


CLEAN = [
    ("Apache-2.0", APACHE, bill(licensed("BSD-3-Clause"))),
    ("MIT OR Apache-2.0", MIT, bill(metadata=of_plugin({"expression": "Apache-2.0 OR MIT"}))),
    (
        "GPL-2.0-or-later WITH Classpath-exception-2.0",
        b"GNU GENERAL PUBLIC LICENSE\n Version 2",
        None,
    ),
    ("LicenseRef-acme-internal", b"Our own words.", None),
    ("(MIT AND (BSD-3-Clause OR ISC))", None, None),
]


@pytest.mark.parametrize(("licence", "text", "sbom"), CLEAN)
def test_what_agrees_gives_nothing(licence: str, text: bytes | None, sbom: bytes | None) -> None:
    assert found_in(licence, text, sbom) == {}


SEEDS: dict[str, tuple[dict[str, Any], Severity, str]] = {
    "licence.missing": ({"licence": ""}, Severity.LOW, ""),
    "licence.invalid": ({"licence": "Apache 2"}, Severity.MEDIUM, "Apache 2"),
    "licence.disagree": ({"licence": "Apache-2.0", "text": MIT}, Severity.MEDIUM, "it is MIT"),
    "licence.not-allowed": (
        {"sbom": bill(licensed("AGPL-3.0-only")), "allowed": ("Apache-2.0", "MIT")},
        Severity.HIGH, "AGPL-3.0-only",
    ),
    "licence.unknown": (
        {"sbom": bill(part("pypi", "x", "1", licenses=[{"license": {"name": "ours"}}])),
         "allowed": ("Apache-2.0",)},
        Severity.MEDIUM, "ours",
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", SEEDS)
def test_finds_what_is_wrong(rule: str) -> None:
    words, severity, evidence = SEEDS[rule]

    found = found_in(**words)

    assert set(found) == {rule}, found
    assert found[rule].severity is severity
    assert evidence in found[rule].evidence


def test_an_sbom_of_another_licence_disagrees() -> None:
    found = found_in("MIT", sbom=bill(metadata=of_plugin({"license": {"id": "GPL-3.0-only"}})))

    assert "GPL-3.0-only; the manifest: MIT" in found["licence.disagree"].evidence


@pytest.mark.parametrize(
    ("expression", "ok"),
    [
        ("MIT", True), ("GPL-3.0-only", False), ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False), ("MIT AND ISC", True), ("(MIT OR GPL-3.0-only) AND ISC", True),
        ("ISC WITH Classpath-exception-2.0", True), ("GPL-3.0-only WITH GCC-exception-3.1", False),
        ("LicenseRef-acme", True), ("LicenseRef-other", False),
    ],
)  # fmt: skip
def test_what_the_operator_allows_is_chosen_by_the_expression(expression: str, ok: bool) -> None:
    allowed = ("MIT", "ISC", "LicenseRef-acme")

    for found in (
        found_in(expression, allowed=allowed),
        found_in("MIT", sbom=bill(licensed(expression)), allowed=allowed),
    ):
        assert ("licence.not-allowed" in found) is not ok


@pytest.mark.parametrize(
    "text", ["(" * 300, "MIT AND " * 40, "MIT " + "OR (MIT AND ISC) " * 30, "a" * 5000, "\u202eMIT"]
)
def test_hostile_expressions_are_invalid_and_no_more(text: str) -> None:
    found = found_in("MIT", sbom=bill(licensed(text)), allowed=("MIT",))

    assert set(found) <= {"licence.invalid", "licence.unknown"}


@settings(max_examples=150, deadline=None)
@given(
    text=st.lists(
        st.sampled_from(["MIT", "ISC", "AND", "OR", "WITH", "(", ")", "+", "x", ":"])
    ).map(" ".join)
)
def test_any_text_is_an_expression_or_none(text: str) -> None:
    made = licences._parsed(text)
    if made is not None:
        assert isinstance(licences._allows(made, frozenset({"MIT"})), bool)
        assert licences._same(made, made)
