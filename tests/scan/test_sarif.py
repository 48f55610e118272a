"""SARIF: every kind of finding and place, held against models made of the official schema."""

from __future__ import annotations

import json
from typing import Any

import pytest

from capwasm.review.finding import Finding, Report, ScannerRun, Severity
from capwasm.scan.sarif import sarif
from capwasm.scan.scanners import catalogue, standard_scanners

from .building import look
from .seeds import SEEDS

RULES = catalogue(standard_scanners())
PLACES = (
    "plugin.wasm@0x1f3",
    "plugin.wasm:module[0]@0x0",
    "plugin.toml:net[0].allow",
    "archive",
    "assets/a+b",
)


def report(*findings: Finding) -> Report:
    runs = (ScannerRun("world"), ScannerRun("osv", "there is no mirror"))
    return Report(
        "acme.weather", "1.2.0", "ab" * 32, "2027-01-31T00:00:00Z", 7, ("7: x",), runs, findings
    )


def result(place: str, severity: Severity = Severity.HIGH) -> dict[str, Any]:
    finding = Finding("wasm.debug", severity, "It is there.", place, "e", "Strip it.")
    return sarif(report(finding), RULES)["runs"][0]["results"][0]


def test_every_rule_and_place_is_what_the_schema_says() -> None:
    models = pytest.importorskip("pydantic_sarif.model", reason="the extra test has it")
    found = [rule.at(place, "\u202e evil") for rule in RULES.values() for place in PLACES]
    found.append(Finding("acme.own", Severity.NOTE, "Of a rule that nobody declared.", "x"))
    log = sarif(report(*found), RULES)

    schema = models.StaticAnalysisResultsFormatSarifVersion210JsonSchema
    schema.model_validate_json(json.dumps(log))
    broken = json.loads(json.dumps(log))
    broken["runs"][0]["results"][0]["level"] = "awful"
    with pytest.raises(ValueError, match="level"):
        schema.model_validate_json(json.dumps(broken))


def test_a_result_names_its_rule() -> None:
    run = sarif(look(SEEDS["is cut off"].make(), standard_scanners()), RULES)["runs"][0]

    rules = run["tool"]["driver"]["rules"]
    for one in run["results"]:
        assert rules[one["ruleIndex"]]["id"] == one["ruleId"]
    assert {r["id"] for r in rules} == {one["ruleId"] for one in run["results"]}
    assert "wasm.malformed" in {r["id"] for r in rules}


def test_a_place_is_a_member_and_an_offset() -> None:
    where = result("plugin.wasm:module[0]@0x1f3")["locations"][0]

    assert where["physicalLocation"] == {
        "artifactLocation": {"uri": "plugin.wasm", "uriBaseId": "CAPSULE"},
        "region": {"byteOffset": 0x1F3},
    }
    assert where["logicalLocations"][0]["fullyQualifiedName"] == "plugin.wasm:module[0]@0x1f3"
    archive = result("archive")["locations"][0]["physicalLocation"]
    assert archive == {"artifactLocation": {"uri": "acme.weather-1.2.0.capsule"}}


def test_a_place_made_by_a_plugin_is_no_other_uri() -> None:
    where = result("assets/../../etc/x y#z.wasm")["locations"][0]["physicalLocation"]

    assert where["artifactLocation"]["uri"] == "assets/../../etc/x%20y%23z.wasm"
    assert where["artifactLocation"]["uriBaseId"] == "CAPSULE"


@pytest.mark.parametrize(
    ("severity", "level"),
    [
        ("note", "note"),
        ("low", "note"),
        ("medium", "warning"),
        ("high", "error"),
        ("critical", "error"),
    ],
)
def test_a_severity_is_a_level(severity: str, level: str) -> None:
    one = result("archive", Severity(severity))

    assert one["level"] == level
    assert one["properties"] == {"severity": severity, "evidence": "e", "fix": "Strip it."}


def test_the_same_finding_has_the_same_fingerprint_in_a_later_scan() -> None:
    first, later = (
        look(SEEDS["names a tunnel"].make(), standard_scanners(), published=None) for _ in "ab"
    )
    prints = [
        [
            one["partialFingerprints"]["capwasmFinding/v1"]
            for one in sarif(r, RULES)["runs"][0]["results"]
        ]
        for r in (first, later)
    ]
    assert prints[0] == prints[1]
    assert all(prints[0])


def test_a_scanner_that_did_not_look_is_told_of() -> None:
    (invocation,) = sarif(report(), RULES)["runs"][0]["invocations"]

    (note,) = invocation["toolExecutionNotifications"]
    assert note["message"]["text"] == "osv did not look: there is no mirror"
