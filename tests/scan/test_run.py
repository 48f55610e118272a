"""Scanners run within bounds: what fails, hangs, floods or lies is told of, and nothing else is lost."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capwasm.capability import Risk
from capwasm.capsule.artifact import read_artifact
from capwasm.errors import PolicyError
from capwasm.review.finding import MAX_FINDINGS, Finding, Report, Severity
from capwasm.scan.model import Context, NotLooked, Rule, Scanner
from capwasm.scan.run import MAX_YIELDED, MOST_OF_A_RULE
from capwasm.scan.scanners import GROUP, chosen_scanners, standard_scanners
from capwasm.scan.score import Facts, score
from capwasm.scan.subject import Subject

from .building import CAPABILITIES, NOW, capsule, look, manifest, subject

ODD = Rule("test.odd", Severity.LOW, "It is odd.")
GRAVE = Rule("test.grave", Severity.HIGH, "It is grave.")
Body = Callable[[Subject, Context], Iterator[Finding]]


def scanner(body: Body, name: str = "test", **words: Any) -> Scanner:
    return Scanner(name, body, (ODD, GRAVE), **words)


def run(body: Body, **words: Any) -> Report:
    return look(subject(capsule()), [scanner(body, **words)])


def quick(_subject: Subject, _context: Context) -> Iterator[Finding]:
    yield ODD.at("plugin.wasm")


# -- what fails, and what does not end ------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [ValueError("x\x1b[2J"), SystemExit(3), MemoryError(), RecursionError()]
)
def test_a_scanner_that_fails_is_a_grave_finding_and_the_next_one_runs(
    failure: BaseException,
) -> None:
    def fails(_subject: Subject, _context: Context) -> Iterator[Finding]:
        yield GRAVE.at("plugin.toml")
        raise failure

    report = look(subject(capsule()), [scanner(fails), scanner(quick, "next")])

    assert [(f.rule, f.severity) for f in report.findings] == [
        ("scan.failed", Severity.HIGH),
        ("test.grave", Severity.HIGH),
        ("test.odd", Severity.LOW),
    ]
    assert report.findings[0].place == "test"
    assert "\x1b" not in report.to_json().decode()


def test_a_scanner_that_does_not_end_is_a_grave_finding_and_is_ended() -> None:
    steps = 0

    def endless(_subject: Subject, _context: Context) -> Iterator[Finding]:
        nonlocal steps
        yield ODD.at("plugin.wasm")
        while True:
            steps += 1

    report = look(subject(capsule()), [scanner(endless, seconds=0.3), scanner(quick, "next")])
    before = steps
    time.sleep(0.05)

    assert steps == before  # nothing goes on in the background
    assert [f.rule for f in report.findings] == ["scan.timeout", "test.odd", "test.odd"]


def test_what_can_not_be_ended_says_nothing_any_more() -> None:
    def stubborn(_subject: Subject, _context: Context) -> Iterator[Finding]:
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            with contextlib.suppress(SystemExit):
                time.sleep(0.01)
        yield GRAVE.at("plugin.wasm")

    report = run(stubborn, seconds=0.2)
    time.sleep(1.5)

    assert [f.rule for f in report.findings] == ["scan.timeout"]


def test_a_flood_of_one_rule_hides_no_other() -> None:
    def flood(_subject: Subject, _context: Context) -> Iterator[Finding]:
        for number in range(5_000):
            yield ODD.at("plugin.wasm", str(number))
        yield GRAVE.at("plugin.toml")

    report = run(flood)

    assert report.findings[0].rule == "test.grave"
    odd = [f for f in report.findings if f.rule == "test.odd"]
    assert len(odd) == MOST_OF_A_RULE + 1
    assert f"{5_000 - MOST_OF_A_RULE} more of this kind." in {f.message for f in odd}
    assert Report.parse(report.to_json()) == report


def test_a_flood_without_end_is_a_grave_finding() -> None:
    def flood(_subject: Subject, _context: Context) -> Iterator[Finding]:
        while True:
            yield ODD.at("plugin.wasm")

    found = run(flood, seconds=60.0).findings

    assert found[0].rule == "scan.failed"
    assert str(MAX_YIELDED) in found[0].evidence


def test_what_no_report_holds_is_counted_and_is_not_the_gravest() -> None:
    rules = tuple(Rule(f"test.r{n}", Severity.MEDIUM, "m") for n in range(60))

    def flood(_subject: Subject, _context: Context) -> Iterator[Finding]:
        for rule in rules:
            yield from (rule.at("plugin.wasm", str(n)) for n in range(18))
        yield GRAVE.at("plugin.toml")

    report = look(subject(capsule()), [Scanner("test", flood, (*rules, GRAVE))])

    assert len(report.findings) == MAX_FINDINGS
    assert report.findings[0].rule == "test.grave"
    (told,) = [f for f in report.findings if f.rule == "scan.cut"]
    assert (told.severity, told.evidence) == (Severity.MEDIUM, "82 findings")
    assert Report.parse(report.to_json()) == report


def test_a_scanner_that_can_not_even_begin_is_a_grave_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(_self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", none)

    assert [f.rule for f in run(quick).findings] == ["scan.failed"]


@pytest.mark.parametrize(
    "lie",
    [
        "a text",
        None,
        Finding("manifest.invalid", Severity.NOTE, "m", "p"),
        Finding("test.odd", "awful", "m", "p"),  # type: ignore[arg-type]
    ],
)
def test_refuses_what_is_no_finding_of_its_rules(lie: Any) -> None:
    def lies(_subject: Subject, _context: Context) -> Iterator[Finding]:
        yield lie

    assert [f.rule for f in run(lies).findings] == ["scan.failed"]


def test_what_a_scanner_says_is_cut_and_made_visible() -> None:
    def loud(_subject: Subject, _context: Context) -> Iterator[Finding]:
        yield Finding("test.odd", Severity.LOW, "m\u202e" * 900, "p\n" * 900, "e\x00" * 900)

    report = run(loud)

    assert Report.parse(report.to_json()) == report
    assert all(
        text.isprintable() for f in report.findings for text in (f.message, f.place, f.evidence)
    )


# -- what does not look ---------------------------------------------------------------------------


def test_a_scanner_that_can_not_look_says_why() -> None:
    def blind(_subject: Subject, _context: Context) -> Iterator[Finding]:
        raise NotLooked("there is no mirror")
        yield

    scanners = [
        scanner(blind, "blind"),
        scanner(quick, "native", kinds=frozenset({"native"})),
        scanner(quick, "lacking", needs=("no_such_module",), extra="scan"),
    ]
    report = look(subject(capsule()), scanners)

    assert report.findings == ()
    assert [(r.name, r.skipped) for r in report.scanners] == [
        ("blind", "there is no mirror"),
        ("native", "it looks at native plugins"),
        ("lacking", "needs no_such_module: pip install 'capwasm[scan]'"),
    ]


# -- scanners of others -----------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Installs a distribution with one scanner, as pip would lay it out."""

    def install(name: str, source: str) -> None:
        module = f"test_scanner_{name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {module}:SCANNER\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    monkeypatch.syspath_prepend(str(tmp_path))
    return install


SOURCE = """
from capwasm.review.finding import Severity
from capwasm.scan.model import Rule, Scanner

RULE = Rule("acme.readme", Severity.MEDIUM, "There is no README.")

def look(subject, context):
    if "README.md" not in subject.members:
        yield RULE.at("README.md")

SCANNER = Scanner({name!r}, look, (RULE,))
"""


def test_a_scanner_of_others_runs_if_the_policy_names_it(
    installed: Callable[[str, str], None],
) -> None:
    installed("acme", SOURCE.format(name="acme"))

    (theirs,) = [s for s in chosen_scanners(("acme",)) if s not in standard_scanners()]

    assert [f.rule for f in look(subject(capsule()), [theirs]).findings] == ["acme.readme"]


def test_refuses_a_scanner_of_others_that_nobody_named(
    installed: Callable[[str, str], None],
) -> None:
    installed("acme", "raise SystemExit('it was imported')")

    assert chosen_scanners() == standard_scanners()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (None, "no scanner 'acme' is installed"),
        ("raise SystemExit(0)", "can't be imported: SystemExit"),
        ("import no_such_module", "can't be imported: ModuleNotFoundError"),
        ("SCANNER = 7", "is no capwasm.scan.model.Scanner"),
        (SOURCE.format(name="shape"), "has names of another scanner: shape"),
        (SOURCE.format(name="x").replace("acme.readme", "scan.failed"), "scanner: scan.failed"),
    ],
)
def test_refuses_a_scanner_that_can_not_be_used(
    installed: Callable[[str, str], None], source: str | None, why: str
) -> None:
    if source is not None:
        installed("acme", source)

    with pytest.raises(PolicyError) as caught:
        chosen_scanners(("acme",))

    (fault,) = caught.value.faults
    assert (caught.value.code, fault.path) == ("policy.invalid", "scan.scanners[0]")
    assert why in fault.message


# -- the score ----------------------------------------------------------------------------------------

FINDINGS = st.lists(st.sampled_from(Severity), max_size=60)
FACTS = st.builds(
    Facts,
    permissions=st.dictionaries(st.sampled_from(Risk), st.integers(0, 9)),
    verified=st.booleans(),
    native=st.booleans(),
    sbom=st.booleans(),
    known_publisher=st.booleans(),
    hours=st.none() | st.floats(0, 1000),
)


def findings(severities: list[Severity]) -> list[Finding]:
    return [Finding("test.odd", severity, "m", "p") for severity in severities]


@given(FACTS, FINDINGS, st.sampled_from(Severity))
def test_one_finding_more_never_lowers_the_score(
    facts: Facts, severities: list[Severity], more: Severity
) -> None:
    before, reasons = score(facts, findings(severities))
    after, _ = score(facts, findings([*severities, more]))

    assert 0 <= before <= after <= 100
    assert sum(int(reason.partition(":")[0]) for reason in reasons) >= before


@given(FACTS, FINDINGS, st.sampled_from(Risk))
def test_one_permission_more_never_lowers_the_score(
    facts: Facts, severities: list[Severity], risk: Risk
) -> None:
    more = dict(facts.permissions)
    more[risk] = more.get(risk, 0) + 1
    wider = Facts(
        more, facts.verified, facts.native, facts.sbom, facts.known_publisher, facts.hours
    )

    assert score(facts, findings(severities))[0] <= score(wider, findings(severities))[0]


def test_what_is_not_found_but_doubted_is_in_the_score() -> None:
    data = capsule(None, manifest('[[exec]]\ncommand = "thumbnail"\n'))
    sure = look(subject(data), [])
    unproven = Subject.unproven(read_artifact(data), CAPABILITIES, "no key is trusted")
    unsure = look(unproven, [], known_publisher=False, published=NOW - timedelta(hours=2))

    assert sure.reasons == (
        "10: 1 permission of high risk",
        "3: it does not tell what it is made of",
    )
    assert unsure.score == sure.score + 25 + 5 + 3
    assert set(unsure.reasons) - set(sure.reasons) == {
        "25: no trusted key signed it",
        "5: nothing of its publisher is installed",
        "3: it was released less than 72 hours ago",
    }


def test_what_is_known_to_be_bad_scores_more_than_any_heap_of_trifles() -> None:
    heap = findings([Severity.LOW] * 500 + [Severity.MEDIUM] * 500)
    assert score(Facts(), heap)[0] < score(Facts(), findings([Severity.CRITICAL]))[0]
    assert score(Facts(), []) == (0, ())


def test_the_example_of_the_docs_is_a_scanner() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/scan.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(source, names)

    assert [f.rule for f in look(capsule(), [names["SCANNER"]]).findings] == ["acme.readme"]
    assert look(capsule(**{"README.md": b"# Weather"}), [names["SCANNER"]]).findings == ()
