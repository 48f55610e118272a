"""What records are worth: a table of policies and words with twins, and the laws that all keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.capability import Risk
from capwasm.capsule.envelope import Envelope, Signature
from capwasm.capsule.trust import TrustStore
from capwasm.errors import PolicyError
from capwasm.grants.manifest import parse_manifest
from capwasm.grants.policy import Policy
from capwasm.grants.review import ReviewRule
from capwasm.review.finding import Finding, Report, Severity
from capwasm.review.permissions import Permission, permission_digest, permissions
from capwasm.review.record import Bond, Record, RecordKind
from capwasm.review.rules import Matter, Standing, standing
from tests.registry.shop import MANIFEST
from tests.review.hall import ID, KEYS, NOW, SOON, finding, trust_of
from tests.toycaps import TOYS

BOND = Bond(ID, "1.0.0", "a" * 64, "c" * 64, "d" * 64, "e" * 64)
HIGH = (Permission("door", "paint any door", Risk.HIGH, "Paint stays."),)
MATTER = Matter(BOND, HIGH, frozenset({KEYS["acme"].public.key_id}), (), KEYS["home"].public)
PLAIN = replace(MATTER, high=())
RULE = ReviewRule(required=True)
BAD = finding()
ODD = finding("imports.odd", Severity.MEDIUM)


def scan(*findings: Finding, bond: Bond = BOND, key: str = "home") -> Record:
    report = Report(
        bond.plugin, bond.version, bond.archive, "2027-01-31T12:00:00Z", 0, (), (), findings
    )
    return Record.sign(RecordKind.SCAN, bond, KEYS[key], NOW, report=report)


def approval(name: str, *seen: Finding, bond: Bond = BOND, when: datetime = NOW) -> Record:
    prints = frozenset(f.fingerprint for f in seen)
    return Record.sign(RecordKind.APPROVAL, bond, KEYS[name], when, seen=prints)


def exception(
    name: str, what: str = "", expires: datetime = SOON, bond: Bond = BOND, when: datetime = NOW
) -> Record:
    return Record.sign(
        RecordKind.EXCEPTION, bond, KEYS[name], when, "a false alarm",
        what=what or BAD.fingerprint, expires=expires,
    )  # fmt: skip


def rejection(name: str, bond: Bond = BOND) -> Record:
    return Record.sign(RecordKind.REJECTION, bond, KEYS[name], NOW, "no")


def judge(
    *records: Record,
    matter: Matter = MATTER,
    trust: TrustStore | None = None,
    rule: ReviewRule = RULE,
    now: datetime = NOW,
) -> Standing:
    return standing(replace(matter, records=records), trust or trust_of(), rule, now)


ANN, BOB = approval("ann"), approval("bob")
SUE, EVE = exception("sue"), exception("eve")
CLEAN = scan()


# -- each word of [review], with its twin -----------------------------------------------------------------


def rule(**words: Any) -> ReviewRule:
    """As a policy file would say it."""
    text = "".join(f"{k.replace('_', '-')} = {v}\n" for k, v in words.items())
    return Policy.load(f"schema = 1\n[review]\n{text}".encode(), TOYS).review


ON: dict[str, Any] = {"required": "true"}
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[Record, ...], Matter]] = {
    # word: the policy that lets it by, the one that does not, what was said, of what
    "required": ({"required": "false"}, ON, (), MATTER),
    "approvals": (ON | {"approvals": 1}, ON | {"approvals": 2}, (CLEAN, ANN), MATTER),
    "automatic": (ON | {"automatic": "true"}, ON | {"automatic": "false"}, (CLEAN,), PLAIN),
    "person": (ON | {"person": '"high"'}, ON | {"person": '"medium"'}, (scan(ODD),), PLAIN),
    "block": (
        ON | {"block": '"critical"'},
        ON | {"block": '"high"'},
        (scan(BAD), approval("ann", BAD)),
        PLAIN,
    ),
    "exception_days": (
        ON | {"exception_days": 30},
        ON | {"exception_days": 2},
        (scan(BAD), exception("sue", when=NOW - timedelta(days=3)), EVE),
        PLAIN,
    ),
}


@pytest.mark.parametrize("word", ROWS)
def test_each_word_of_the_policy_decides(word: str) -> None:
    allows, refuses, records, matter = ROWS[word]
    assert judge(*records, matter=matter, rule=rule(**allows)).ok
    assert not judge(*records, matter=matter, rule=rule(**refuses)).ok


def test_each_word_of_the_policy_has_a_row() -> None:
    assert set(ROWS) == set(ReviewRule.model_fields)


@pytest.mark.parametrize(
    "words",
    [{"approvals": 0}, {"approvals": 17}, {"person": '"grave"'}, {"exception_days": 0},
     {"exception_days": 367}, {"required": 1}, {"requird": "true"}],
)  # fmt: skip
def test_refuses_words_that_mean_nothing(words: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        rule(**words)


# -- approvals ----------------------------------------------------------------------------------------------


def test_allows_what_a_reviewer_approved() -> None:
    assert judge(CLEAN, ANN) == replace(judge(CLEAN, ANN), ok=True, needs=(), until=None, code="")


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ((), "review.missing"),
        ((ANN,), "review.unscanned"),
        ((CLEAN,), "review.missing"),
        ((CLEAN, approval("acme")), "review.missing"),
        ((CLEAN, approval("acme/desk")), "review.missing"),
        ((CLEAN, approval("sue")), "review.missing"),
        ((CLEAN, approval("stranger")), "review.lapsed"),
        ((scan(key="ann"), ANN), "review.unscanned"),
        ((CLEAN, approval("ann", when=NOW + timedelta(hours=1))), "review.missing"),
    ],
)
def test_refuses_what_lacks_a_word(records: tuple[Record, ...], code: str) -> None:
    found = judge(*records)
    assert (found.ok, found.code) == (False, code)
    assert found.needs


@pytest.mark.case("SIG-12")
def test_n_of_m_are_distinct_persons() -> None:
    two = ReviewRule(required=True, approvals=2)
    assert judge(CLEAN, ANN, BOB, rule=two).ok
    assert not judge(CLEAN, ANN, ANN, rule=two).ok
    assert not judge(CLEAN, ANN, approval("ann/laptop"), rule=two).ok
    assert "has 1 (ann)" in judge(CLEAN, ANN, approval("ann/laptop"), rule=two).needs[0].message


def test_the_trust_stores_threshold_counts_too() -> None:
    trust = trust_of(thresholds={"reviewer": 2})
    assert judge(CLEAN, ANN, BOB, trust=trust).ok
    assert not judge(CLEAN, ANN, trust=trust).ok


@pytest.mark.parametrize("word", [f.name for f in fields(Bond)])
@pytest.mark.case("SIG-02")
def test_refuses_words_about_anything_else(word: str) -> None:
    value = {"plugin": "acme.other", "version": "1.0.1"}.get(word, "f" * 64)
    other = replace(BOND, **{word: value})
    assert not judge(CLEAN, approval("ann", bond=other)).ok
    assert not judge(scan(bond=other), ANN).ok
    waived = judge(scan(BAD), exception("sue", bond=other), EVE, matter=PLAIN)
    assert waived.code == "review.blocked"


def test_refuses_a_true_record_with_another_signature() -> None:
    envelope = ANN.envelope
    for key in ("bob", "stranger"):
        value = KEYS[key].sign(envelope.signed_bytes())
        made = Envelope(envelope.payload, envelope.payload_type, (Signature(ANN.key_id, value),))
        forged = Record.parse(made.encode())
        assert not judge(CLEAN, forged).ok
        assert judge(CLEAN, forged).votes[-1].doubt == "its signature is false"


def test_an_approval_counts_for_the_findings_that_were_seen() -> None:
    assert judge(scan(ODD), approval("ann", ODD)).ok
    blind = judge(scan(ODD), ANN)
    assert not blind.ok
    assert "approved before these findings: ann" in blind.needs[0].message
    assert judge(scan(ODD), approval("ann", ODD, BAD)).ok
    assert not judge(
        scan(ODD), approval("ann", ODD), rule=ReviewRule(required=True, approvals=2)
    ).ok


def test_the_newest_scan_counts() -> None:
    assert judge(scan(BAD), CLEAN, ANN).ok
    assert not judge(CLEAN, scan(BAD), ANN).ok


# -- exceptions, rejections, time ---------------------------------------------------------------------------


def test_one_exception_a_finding() -> None:
    other = finding("net.urls")
    assert judge(scan(BAD), SUE, EVE, matter=PLAIN).ok
    assert not judge(scan(BAD, other), SUE, EVE, matter=PLAIN).ok
    assert not judge(scan(BAD), SUE, exception("eve", "net.urls"), matter=PLAIN).ok
    both = (SUE, EVE, exception("sue", "net.urls"), exception("eve", "net.urls"))
    assert judge(scan(BAD, other), *both, matter=PLAIN).ok


def test_thresholds_of_both_roles_take_so_many_persons() -> None:
    trust = trust_of(thresholds={"security": 2})
    assert not judge(scan(BAD), SUE, EVE, matter=PLAIN, trust=trust).ok
    assert judge(scan(BAD), SUE, EVE, exception("pat"), matter=PLAIN, trust=trust).ok
    assert not judge(scan(BAD), SUE, exception("pat"), matter=PLAIN, trust=trust).ok


@pytest.mark.parametrize(
    ("records", "trust", "until"),
    [
        ((CLEAN, ANN), trust_of(), None),
        ((CLEAN, ANN), trust_of(ann={"not_after": SOON}), SOON),
        ((CLEAN, ANN, BOB), trust_of(ann={"not_after": SOON}), None),
        ((scan(BAD), SUE, EVE), trust_of(), SOON),
        ((scan(BAD), SUE, EVE), trust_of(eve={"not_after": NOW + timedelta(1)}), NOW + timedelta(1)),
        ((exception("sue", "unreviewed"), exception("eve", "unreviewed", NOW + timedelta(2))),
         trust_of(), NOW + timedelta(2)),
    ],
)  # fmt: skip
def test_tells_when_it_ends_and_ends_then(
    records: tuple[Record, ...], trust: TrustStore, until: datetime | None
) -> None:
    matter = MATTER if len(records) != 3 or records[0] == CLEAN else PLAIN
    found = judge(*records, matter=matter, trust=trust)
    assert (found.ok, found.until) == (True, until)
    if until is not None:
        assert judge(*records, matter=matter, trust=trust, now=until - timedelta(seconds=1)).ok
        after = judge(*records, matter=matter, trust=trust, now=until)
        assert (after.ok, after.code) == (False, "review.lapsed")


@pytest.mark.parametrize("required", [True, False])
def test_a_rejection_beats_all(required: bool) -> None:
    rule = ReviewRule(required=required)
    assert judge(CLEAN, ANN, rule=rule).ok
    assert judge(CLEAN, ANN, BOB, rejection("bob"), rule=rule).code == "review.rejected"
    assert judge(CLEAN, ANN, rejection("sue"), rule=rule).code == "review.rejected"
    repacked = replace(BOND, archive="f" * 64)
    assert judge(CLEAN, ANN, rejection("bob", repacked), rule=rule).code == "review.rejected"
    elsewhere = replace(BOND, version="1.0.1")
    for vain in (rejection("acme"), rejection("stranger"), rejection("bob", elsewhere)):
        assert judge(CLEAN, ANN, vain, rule=rule).ok


# -- the permission set ---------------------------------------------------------------------------------------


def digest(asks: str) -> str:
    text = MANIFEST.format(id=ID, version="1.0.0") + asks
    return permission_digest(parse_manifest(text.encode(), TOYS))


ASKS = '[[door]]\ndoor = "a"\nacts = ["look", "enter"]\n[[door]]\ndoor = "b"\nacts = ["look"]\n'


def test_one_permission_set_has_one_digest_however_it_is_written() -> None:
    other = '[[door]]\nacts = ["look"]\ndoor = "b"\nwhy = "to see"\n[[door]]\nacts = ["enter","look"]\ndoor = "a"\n'
    assert digest(ASKS) == digest(other)


@pytest.mark.parametrize(
    "other",
    [
        "",
        ASKS.replace('"b"', '"c"'),
        ASKS.replace(', "enter"', ""),
        ASKS + "times = 3\n",
        ASKS + "optional = true\n",
        ASKS + '[bell]\ntunes = ["ding"]\n',
        ASKS + "[limits]\nfuel = 1\n",
    ],
)  # fmt: skip
def test_another_permission_set_has_another(other: str) -> None:
    assert digest(ASKS) != digest(other)


def test_native_code_is_a_high_risk_whatever_it_asks() -> None:
    text = MANIFEST.format(id=ID, version="1.0.0").replace('"component"', '"native"')
    found = permissions(parse_manifest(text.encode(), TOYS), TOYS)
    assert [(p.capability, p.risk) for p in found] == [("native", Risk.HIGH)]


# -- laws -------------------------------------------------------------------------------------------------------

PRINTS = (BAD, ODD)
OTHERS = [replace(BOND, **{f.name: {"plugin": "acme.other", "version": "2.0.0"}.get(f.name, "f" * 64)})
          for f in fields(Bond)]  # fmt: skip
RIGHT = [
    ANN, BOB, approval("ann", *PRINTS), approval("bob", *PRINTS), SUE, EVE,
    exception("sue", "unreviewed"), exception("eve", "unreviewed", NOW + timedelta(1)),
    CLEAN, scan(BAD), scan(ODD), rejection("bob"), approval("ann/laptop", *PRINTS),
]  # fmt: skip
WRONG = [
    *(approval(n, *PRINTS) for n in ("acme", "acme/desk", "sue", "eve", "stranger")),
    *(exception(n, w) for n in ("ann", "acme", "stranger") for w in ("unreviewed", BAD.rule)),
    *(approval("bob", *PRINTS, bond=b) for b in OTHERS),
    *(exception(n, bond=b) for b in OTHERS for n in ("sue", "eve")),
    *(scan(bond=b) for b in OTHERS),
    scan(key="ann"), scan(key="stranger"),
    exception("sue", expires=NOW), exception("eve", "unreviewed", NOW),
    rejection("stranger"), rejection("acme"), rejection("bob", OTHERS[1]),
    approval("bob", *PRINTS, when=NOW + timedelta(days=1)),
]  # fmt: skip
RULES = st.builds(
    ReviewRule,
    required=st.just(value=True),
    approvals=st.integers(1, 3),
    automatic=st.booleans(),
    person=st.sampled_from(Severity).map(str),
    block=st.sampled_from(Severity).map(str),
)
MATTERS = st.sampled_from([MATTER, PLAIN])
RECORDS = st.lists(st.sampled_from(RIGHT), max_size=6)
TRUSTS = st.sampled_from(
    [trust_of(), trust_of(ann={"revoked": True}), trust_of(sue={"not_after": NOW}, bob=None)]
)


def mixed(records: list[Record], wrong: list[Record], data: st.DataObject) -> list[Record]:
    whole = list(records)
    for record in wrong:
        whole.insert(data.draw(st.integers(0, len(whole))), record)
    return whole


@settings(max_examples=150, deadline=None)
@given(
    matter=MATTERS, rule=RULES, trust=TRUSTS, records=RECORDS,
    wrong=st.lists(st.sampled_from(WRONG), min_size=1, max_size=4), data=st.data(),
)  # fmt: skip
def test_a_wrong_record_changes_nothing(
    matter: Matter, rule: ReviewRule, trust: TrustStore, records: list[Record],
    wrong: list[Record], data: st.DataObject,
) -> None:  # fmt: skip
    before = judge(*records, matter=matter, trust=trust, rule=rule)
    after = judge(*mixed(records, wrong, data), matter=matter, trust=trust, rule=rule)
    assert (after.ok, after.until) == (before.ok, before.until)


@settings(max_examples=100, deadline=None)
@given(matter=MATTERS, rule=RULES, records=RECORDS, name=st.sampled_from(["ann", "bob", "sue"]),
       later=st.integers(0, 100))  # fmt: skip
def test_time_and_a_revoked_key_never_let_by(
    matter: Matter, rule: ReviewRule, records: list[Record], name: str, later: int
) -> None:
    records = [r for r in records if r.kind is not RecordKind.REJECTION]
    before = judge(*records, matter=matter, rule=rule)
    revoked = trust_of(**{name: {"revoked": True}})
    assert before.ok or not judge(*records, matter=matter, rule=rule, trust=revoked).ok
    now = NOW + timedelta(days=later)
    after = judge(*records, matter=matter, rule=rule, now=now)
    assert before.ok or not after.ok
    if before.ok and (before.until is None or now < before.until):
        assert after.ok


@settings(max_examples=100, deadline=None)
@given(matter=MATTERS, rule=RULES, records=RECORDS, data=st.data())
def test_who_wants_more_lets_by_less(
    matter: Matter, rule: ReviewRule, records: list[Record], data: st.DataObject
) -> None:
    stricter = rule.model_copy(
        update={
            "approvals": rule.approvals + data.draw(st.integers(0, 2)),
            "automatic": rule.automatic and data.draw(st.booleans()),
            "person": data.draw(st.sampled_from(list(Severity)[: Severity(rule.person).rank + 1])),
        }
    )
    if judge(*records, matter=matter, rule=stricter).ok:
        assert judge(*records, matter=matter, rule=rule).ok


def _changed(data: bytes) -> Iterator[bytes]:
    for place in range(0, len(data), 7):
        yield data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_no_byte_of_a_record_can_be_changed() -> None:
    from tests.review.hall import code_of

    for data in _changed(ANN.envelope.encode()):
        if not code_of(Record.parse, data):
            assert not judge(CLEAN, Record.parse(data)).ok
