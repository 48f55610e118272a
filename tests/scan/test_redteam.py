"""Scans under attack by plugins: nothing grave is hidden behind much that is slight, or not looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.grants.scan import ScanRule
from capwasm.review.finding import Finding, Report, Severity
from capwasm.scan.model import Context, NotLooked, Rule, Scanner
from capwasm.scan.osv import SCANNERS as OSV
from capwasm.scan.run import MOST_OF_A_RULE
from capwasm.scan.subject import Subject

from .building import capsule, look, subject

ODD = Rule("test.odd", Severity.LOW, "It is odd.")


def said(*severities: Severity) -> Report:
    """The report on a scanner that finds one of each of these, in that order."""

    def finds(_subject: Subject, _context: Context) -> Iterator[Finding]:
        for number, severity in enumerate(severities):
            yield ODD.at(f"plugin.wasm@{number}", severity=severity)

    return look(subject(capsule()), [Scanner("test", finds, (ODD,))])


@pytest.mark.parametrize("before", [MOST_OF_A_RULE, 5_000])
def test_a_grave_finding_is_not_hidden_behind_slight_ones_of_its_rule(before: int) -> None:
    slight, grave = [Severity.LOW] * before, [Severity.CRITICAL] * 2
    report = said(*slight, *grave, *slight)

    assert [f.place for f in report.findings if f.severity is Severity.CRITICAL] == [
        f"plugin.wasm@{before}",
        f"plugin.wasm@{before + 1}",
    ]
    assert len(report.findings) == MOST_OF_A_RULE + 1


def test_what_is_left_off_is_as_grave_as_it_can_be_and_no_graver() -> None:
    (more,) = [f for f in said(*[Severity.HIGH] * 30).findings if f.place == "elsewhere"]
    assert more.severity is Severity.HIGH
    (more,) = [
        f for f in said(Severity.HIGH, *[Severity.LOW] * 30).findings if f.place == "elsewhere"
    ]
    assert more.severity is Severity.LOW


def test_who_answers_for_what_is_left_off_answers_for_no_more() -> None:
    prints = {
        f.fingerprint
        for count in (30, 31)
        for f in said(*[Severity.HIGH] * count).findings
        if f.place == "elsewhere"
    }
    assert len(prints) == 2


def skips(_subject: Subject, _context: Context) -> Iterator[Finding]:
    yield from ()
    raise NotLooked("it can't")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("osv", ScanRule(osv="mirror")),
        ("licences", ScanRule(licences=("MIT",))),
        ("dry-run", ScanRule().model_copy(update={"dry_run": True})),
        ("acme", ScanRule(scanners=("acme",))),
    ],
)
@pytest.mark.parametrize("needs", [(), ("no_such_module",)], ids=["by itself", "no extra"])
def test_what_the_policy_asks_for_and_was_not_looked_at_is_told(
    name: str, rule: ScanRule, needs: tuple[str, ...]
) -> None:
    scanner = Scanner(name, skips, (ODD,), needs=needs)
    (told,) = look(subject(capsule()), [scanner], rule=rule).findings
    assert (told.rule, told.severity, told.place) == ("scan.skipped", Severity.MEDIUM, name)
    assert look(subject(capsule()), [scanner]).findings == ()

    native = Scanner(name, skips, (ODD,), kinds=frozenset({"native"}))
    assert look(subject(capsule()), [native], rule=rule).findings == ()


def test_a_plugin_does_not_get_round_advisories_by_telling_nothing(tmp_path: Path) -> None:
    report = look(subject(capsule()), OSV, rule=ScanRule(osv="mirror"), mirror=tmp_path)
    assert [f.rule for f in report.findings] == ["scan.skipped"]
