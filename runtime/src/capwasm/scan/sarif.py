"""A report as SARIF 2.1.0, for the tools that show findings beside code.  Pure.

(OASIS, Static Analysis Results Interchange Format 2.1.0; sections are named where it matters.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import quote

from capwasm.review.finding import Finding, Report, Severity

from .model import Rule

__all__ = ["sarif"]

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS: Final = {
    Severity.NOTE: "note",
    Severity.LOW: "note",
    Severity.MEDIUM: "warning",
    Severity.HIGH: "error",
    Severity.CRITICAL: "error",
}
# What tools that sort by a number of CVSS want; the middle of each of its classes.
_NUMBERS: Final = {
    Severity.NOTE: "0.0",
    Severity.LOW: "2.0",
    Severity.MEDIUM: "5.5",
    Severity.HIGH: "8.0",
    Severity.CRITICAL: "9.5",
}
_BASE: Final = "CAPSULE"
_PLACE: Final = re.compile(
    r"(?P<member>[^@:]+)(?::(?P<inside>[^@]*))?(?:@0x(?P<offset>[0-9a-f]{1,15}))?"
)


def sarif(report: Report, rules: Mapping[str, Rule]) -> dict[str, Any]:
    """The log of one run, about one capsule.

    Args:
        report: what was found.
        rules: by id; a rule that is not among them is described by its findings.
    """
    found = {
        f.rule: rules.get(f.rule) or Rule(f.rule, f.severity, f.message, f.fix)
        for f in report.findings
    }
    order = sorted(found)
    driver = {
        "name": "capwasm",
        "semanticVersion": version("capwasm"),
        "rules": [_rule(found[name]) for name in order],
    }
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "automationDetails": {"id": f"capwasm/{report.plugin}@{report.version}/"},
                "invocations": [_invocation(report)],
                # 3.14.14: the members of the archive stand below it.
                "originalUriBaseIds": {
                    _BASE: {
                        "description": {"text": f"The capsule {report.plugin} {report.version}."}
                    }
                },
                "artifacts": [
                    {
                        "location": {
                            "uri": _capsule(report),
                            "description": {"text": "The archive."},
                        },
                        "hashes": {"sha-256": report.archive},
                    }
                ],
                "results": [_result(f, order.index(f.rule), report) for f in report.findings],
                "columnKind": "unicodeCodePoints",
                "properties": {"riskScore": report.score, "riskReasons": list(report.reasons)},
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": rule.id,
        "shortDescription": {"text": rule.meaning},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"security-severity": _NUMBERS[rule.severity], "tags": ["security"]},
    }
    if rule.fix:
        made["help"] = {"text": rule.fix}
    return made


def _invocation(report: Report) -> dict[str, Any]:
    # 3.20.14: a scanner that failed is a result; the run as such went through.
    return {
        "executionSuccessful": True,
        "endTimeUtc": report.when,
        "toolExecutionNotifications": [
            {
                "level": "note",
                "message": {"text": f"{run.name} did not look: {run.skipped}"},
                "descriptor": {"id": f"skipped/{run.name}"},
            }
            for run in report.scanners
            if run.skipped
        ],
    }


def _result(finding: Finding, index: int, report: Report) -> dict[str, Any]:
    text = f"{finding.message}  {finding.evidence}".rstrip()
    properties = {"severity": str(finding.severity)}
    if finding.evidence:
        properties["evidence"] = finding.evidence
    if finding.fix:
        properties["fix"] = finding.fix
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": text},
        "locations": [_location(finding.place, report)],
        "partialFingerprints": {"capwasmFinding/v1": finding.fingerprint},
        "properties": properties,
    }


def _location(place: str, report: Report) -> dict[str, Any]:
    """`plugin.wasm:module[0]@0x1f3`: a member, what of it, and its offset in bytes."""
    found = _PLACE.fullmatch(place)
    member = found["member"] if found else ""
    physical: dict[str, Any] = {"artifactLocation": {"uri": _capsule(report)}}
    if (found and "." in member) or "/" in member:
        physical["artifactLocation"] = {"uri": quote(member), "uriBaseId": _BASE}
        if found and found["offset"]:
            physical["region"] = {"byteOffset": int(found["offset"], 16)}
    return {
        "physicalLocation": physical,
        "logicalLocations": [{"fullyQualifiedName": place, "kind": "member"}],
    }


def _capsule(report: Report) -> str:
    return quote(f"{report.plugin}-{report.version}.capsule")
