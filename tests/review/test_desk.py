"""The way of a plugin through its review, and each way round it that is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from capwasm.capability import Risk
from capwasm.registry.case import Waiver
from capwasm.registry.desk import Desk
from capwasm.registry.model import PermitKind, State
from capwasm.review.finding import Severity
from tests.review.hall import (
    ID,
    KEYS,
    NOW,
    PAINTS,
    REVIEWED,
    SOON,
    Hall,
    capsule,
    code_of,
    finding,
    report_of,
    trust_of,
)


def state_of(hall: Hall, version: str = "1.0.0") -> State | None:
    record = hall.registry.show(ID).version(version)
    return None if record is None else record.state


def serving(hall: Hall, version: str = "1.0.0", asks: str = "") -> bytes:
    """A version that was reviewed, and serves."""
    data = hall.submit(version, asks)
    hall.scan(version=version)
    if asks:
        hall.approve("ann")
    hall.activate()
    return data


# -- the way ----------------------------------------------------------------------------------------------


def test_the_way_from_submitted_to_active(hall: Hall) -> None:
    hall.submit(asks=PAINTS)
    assert state_of(hall) is State.SUBMITTED
    assert hall.desk.case(ID).standing.code == "review.missing"
    assert hall.scan().standing.code == "review.missing"
    assert state_of(hall) is State.SCANNED
    case = hall.approve("ann")
    assert case.standing.ok
    assert case.standing.until is None
    assert state_of(hall) is State.REVIEWED
    assert hall.loads() == "registry.pending"
    hall.activate()
    assert state_of(hall) is State.ACTIVE
    assert hall.loads() == ""
    assert [s.action for s in hall.registry.history(ID)] == [
        "submit", "scan", "approve", "activate",
    ]  # fmt: skip


def test_what_asks_for_nothing_grave_is_approved_by_policy_once_it_was_scanned(hall: Hall) -> None:
    hall.submit()
    assert hall.desk.case(ID).standing.code == "review.unscanned"
    assert code_of(hall.activate) == "review.unscanned"
    assert hall.scan().standing.ok
    hall.activate()
    assert hall.loads() == ""


def test_the_queue_holds_what_waits_and_what_serves_though_it_may_not(hall: Hall) -> None:
    data = serving(hall, asks=PAINTS)
    assert hall.desk.queue() == ()
    hall.submit("1.1.0", PAINTS)
    assert [c.record.version for c in hall.desk.queue()] == ["1.1.0"]
    hall.trust = trust_of(ann={"revoked": True})
    cases = hall.desk.queue()
    assert [(c.record.version, c.standing.code) for c in cases] == [
        ("1.1.0", "review.missing"),
        ("1.0.0", "review.lapsed"),
    ]
    assert hall.loads() == hall.loads(data) == "review.lapsed"


def test_a_case_tells_all_that_a_reviewer_wants_to_know(hall: Hall) -> None:
    serving(hall)
    hall.submit("1.1.0", PAINTS)
    hall.scan(finding(severity=Severity.LOW), version="1.1.0")
    case = hall.desk.case(ID)
    assert (case.record.version, case.serving) == ("1.1.0", "1.0.0")
    assert [p.risk for p in case.permissions] == [Risk.HIGH]
    assert case.changes is not None
    assert [p.capability for p in case.changes.new] == ["door"]
    assert case.report is not None
    assert case.report.findings[0].rule == "secrets.entropy"
    (need,) = case.standing.needs
    assert "it needs the approval of 1 reviewer; for door: paint any door" in need.message
    assert need.fix == f"capwasm approve {ID}@1.1.0 --key KEY --reason TEXT"


def test_a_case_of_what_verifies_no_more_says_so(hall: Hall) -> None:
    hall.submit()
    hall.registry = hall.open(trust_of(acme={"revoked": True}))
    (case,) = hall.desk.queue()
    assert case.manifest is None
    assert not case.standing.ok
    assert case.trouble.startswith("verify.key-revoked: ")


# -- ways round it ------------------------------------------------------------------------------------------


def test_refuses_install_as_a_way_round_submit(hall: Hall) -> None:
    outcome = hall.registry.install(capsule(asks=PAINTS), who="tester")
    assert outcome.action == "pending"
    assert state_of(hall) is State.SUBMITTED
    assert any("approval" in reason for reason in outcome.reasons)
    assert code_of(hall.activate) == "review.missing"
    assert hall.registry.install(capsule(asks=PAINTS), who="tester").action == "unchanged"
    assert hall.registry.show(ID).serving is None
    hall.scan()
    hall.approve("ann")
    assert hall.registry.install(capsule(asks=PAINTS), who="tester").action == "installed"


def test_refuses_an_update_without_its_review_and_what_serves_serves_on(hall: Hall) -> None:
    serving(hall)
    assert hall.registry.install(capsule("1.1.0"), who="tester").action == "pending"
    assert code_of(hall.activate) == "review.unscanned"
    assert hall.loads() == ""
    assert hall.registry.show(ID).serving == "1.0.0"


def test_refuses_load_from_a_file_as_a_way_round(hall: Hall) -> None:
    assert hall.loads(capsule(asks=PAINTS)) == "review.missing"
    hall.submit(asks=PAINTS)
    hall.scan()
    assert hall.loads(capsule(asks=PAINTS)) == "review.missing"
    hall.approve("ann")
    assert hall.loads(capsule(asks=PAINTS)) == ""
    assert hall.loads(capsule("1.1.0", PAINTS)) == "review.missing"
    assert hall.loads(capsule(asks=PAINTS, more=b"x")) == "registry.version-taken"


def test_refuses_rollback_to_what_was_never_reviewed(hall: Hall) -> None:
    hall.with_policy("")
    hall.registry.install(capsule("1.0.0", PAINTS), who="tester")
    hall.with_policy(REVIEWED)
    assert hall.loads() == "review.missing"
    serving(hall, "1.1.0", PAINTS)
    assert code_of(hall.registry.rollback, ID, who="tester") == "review.missing"
    assert code_of(hall.registry.activate, ID, "1.0.0", who="tester") != ""
    assert hall.registry.show(ID).serving == "1.1.0"
    hall.scan(version="1.0.0")
    hall.approve("ann", version="1.0.0")
    assert hall.registry.rollback(ID, who="tester").action == "rolled-back"
    assert hall.loads() == ""


def test_refuses_to_resume_what_lost_its_review(hall: Hall) -> None:
    serving(hall, asks=PAINTS)
    hall.registry.suspend(ID, who="tester")
    hall.trust = trust_of(ann={"not_after": NOW})
    assert code_of(hall.activate) == "review.lapsed"
    hall.approve("bob")
    hall.activate()
    assert hall.loads() == ""


def test_a_review_does_not_make_a_version_older_than_it_is(hall: Hall) -> None:
    # REVIEWED is a state that what served before has too, and that needs no age any more.
    hall.with_policy(REVIEWED + "[updates]\nmin-age-hours = 48\n")
    hall.submit()
    assert hall.scan().standing.ok
    assert state_of(hall) is State.REVIEWED
    assert code_of(hall.activate) == "registry.min-age"
    assert hall.registry.install(capsule(), who="tester").action != "installed"
    hall.registry.permit(ID, PermitKind.MIN_AGE, "1.0.0", who="tester")
    hall.activate()
    assert hall.loads() == ""


def test_a_review_lets_nobody_take_a_name(hall: Hall) -> None:
    serving(hall)
    hall.submit("1.1.0")
    hall.scan(version="1.1.0")
    assert state_of(hall, "1.1.0") is State.REVIEWED
    # What waits is not what one can go back to.
    assert code_of(hall.registry.rollback, ID, "1.1.0", who="tester") == "registry.state"
    assert code_of(hall.registry.rollback, ID, who="tester") == "registry.unknown"
    hall.activate()
    assert hall.registry.show(ID).owners == {KEYS["acme"].public.key_id}


def test_only_one_version_waits(hall: Hall) -> None:
    hall.submit("1.0.0", PAINTS)
    hall.scan()
    hall.approve("ann")
    hall.submit("1.1.0")
    assert state_of(hall) is None
    assert [c.record.version for c in hall.desk.queue()] == ["1.1.0"]
    # What was said of these very bytes is still said when they come back.
    hall.desk.reject(ID, who="tester", why="not yet")
    hall.submit("1.0.0", PAINTS)
    assert hall.desk.case(ID).standing.ok


# -- who may say what ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ann", ""),
        ("stranger", "review.key"),
        ("acme", "review.key"),
        ("sue", "review.key"),
        ("acme/desk", "review.key"),
    ],
)
def test_who_may_approve(hall: Hall, name: str, code: str) -> None:
    hall.submit(asks=PAINTS)
    hall.scan()
    assert code_of(hall.approve, name) == code
    assert hall.desk.case(ID).standing.ok is (code == "")


@pytest.mark.parametrize(
    "change",
    [{"revoked": True}, {"not_after": NOW}, {"not_before": SOON}, {"ids": ("globex.*",)}, None],
    ids=["revoked", "expired", "early", "scope", "gone"],
)
@pytest.mark.case("SIG-18")
def test_refuses_a_key_that_does_not_count_today(hall: Hall, change: dict[str, object]) -> None:
    hall.submit(asks=PAINTS)
    hall.scan()
    today = hall.trust
    hall.trust = trust_of(ann=change)
    assert code_of(hall.approve, "ann") == "review.key"
    hall.trust = today
    assert hall.approve("ann").standing.ok
    hall.trust = trust_of(ann=change)
    case = hall.desk.case(ID)
    assert case.standing.code == "review.lapsed"
    assert case.votes[-1].lapsed
    assert code_of(hall.activate) == "review.lapsed"


def test_refuses_to_say_it_twice(hall: Hall) -> None:
    hall.submit(asks=PAINTS)
    hall.scan()
    hall.approve("ann")
    assert code_of(hall.approve, "ann") == "review.twice"
    assert len([v for v in hall.desk.case(ID).votes if v.name == "ann"]) == 1
    # A newer scan is something else to approve.
    hall.scan(finding(severity=Severity.MEDIUM))
    assert hall.approve("ann").standing.ok


def test_refuses_to_approve_what_was_not_shown(hall: Hall) -> None:
    hall.submit(asks=PAINTS)
    hall.scan()
    seen = hall.desk.case(ID).seen
    hall.scan(finding(severity=Severity.LOW))
    assert code_of(hall.desk.approve, ID, None, key=KEYS["ann"], seen=seen) == "review.changed"
    waive = {"what": "unreviewed", "expires": SOON, "why": "an outage"}
    assert code_of(hall.desk.except_, ID, None, key=KEYS["sue"], seen=seen, **waive) == (
        "review.changed"
    )
    seen = hall.desk.case(ID).seen
    assert hall.desk.approve(ID, None, key=KEYS["ann"], seen=seen).standing.ok


@pytest.mark.parametrize(
    ("why", "code"),
    [
        ("x" * 500, ""),
        ("x" * 501, "registry.text"),
        ("a\x1b[2Jb", "registry.text"),
        ("a\u202eb", "registry.text"),
    ],
    ids=["long", "longer", "escape", "bidi"],
)
@pytest.mark.case("MAN-06")
def test_reasons_are_short_and_can_be_seen(hall: Hall, why: str, code: str) -> None:
    hall.submit(asks=PAINTS)
    assert code_of(hall.desk.approve, ID, None, key=KEYS["ann"], why=why) == code
    assert len(hall.registry.show(ID).reviews) == (0 if code else 1)


def test_refuses_a_report_about_something_else(hall: Hall) -> None:
    hall.submit()
    hall.submit("1.1.0")
    other = report_of(hall.registry, "1.1.0")
    hall.submit("1.0.0")
    assert code_of(hall.desk.scanned, ID, "1.0.0", other) == "review.record"
    assert code_of(hall.desk.scanned, ID, "2.0.0", other) == "registry.unknown"
    assert hall.registry.show(ID).reviews == ()


# -- rejections -----------------------------------------------------------------------------------------------


def test_a_rejection_beats_all_and_lasts_until_a_new_version(hall: Hall) -> None:
    hall.submit(asks=PAINTS)
    hall.scan()
    hall.approve("ann")
    outcome = hall.desk.reject(ID, key=KEYS["bob"], why="it paints at night")
    assert outcome.action == "refused"
    assert state_of(hall) is None
    assert hall.registry.show(ID).waiting is None
    assert code_of(hall.submit, asks=PAINTS) == "review.rejected"
    assert code_of(hall.registry.install, capsule(asks=PAINTS), who="x") == "review.rejected"
    assert hall.loads(capsule(asks=PAINTS)) == "review.rejected"
    assert hall.loads(capsule(more=b"other")) == "review.rejected"
    hall.submit("1.0.1", PAINTS)
    hall.scan(version="1.0.1")
    assert hall.approve("ann").standing.ok


def test_a_rejection_ends_what_serves_too_also_where_no_review_is_required(hall: Hall) -> None:
    hall.with_policy("")
    hall.registry.install(capsule(), who="tester")
    assert hall.loads() == ""
    hall.desk.reject(ID, "1.0.0", key=KEYS["bob"], why="it paints at night")
    assert hall.loads() == "review.rejected"
    assert code_of(hall.approve, "ann", version="1.0.0") == "review.rejected"


def test_a_rejection_without_a_key_only_forgets(hall: Hall) -> None:
    hall.submit(asks=PAINTS)
    assert code_of(hall.desk.reject, ID, "2.0.0", who="x", why="") == "registry.unknown"
    assert hall.desk.reject(ID, "1.0.0", who="tester", why="").action == "rejected"
    hall.submit(asks=PAINTS)
    hall.scan()
    assert hall.approve("ann").standing.ok


@pytest.mark.parametrize(
    ("change", "code"),
    [({"not_after": NOW}, "review.rejected"), ({"revoked": True}, "review.missing")],
    ids=["expired", "revoked"],
)
def test_a_rejection_outlives_its_keys_time_but_not_its_revocation(
    hall: Hall, change: dict[str, object], code: str
) -> None:
    hall.submit(asks=PAINTS)
    hall.desk.reject(ID, key=KEYS["bob"], why="no")
    hall.trust = trust_of(bob=change)
    assert hall.loads(capsule(asks=PAINTS)) == code


@pytest.mark.parametrize("name", ["acme", "stranger"])
def test_refuses_a_rejection_by_whom_nobody_asked(hall: Hall, name: str) -> None:
    hall.submit()
    assert code_of(hall.desk.reject, ID, key=KEYS[name], why="no") == "review.key"
    assert hall.registry.show(ID).waiting == "1.0.0"


# -- exceptions -----------------------------------------------------------------------------------------------


def test_an_exception_needs_two_people_and_lapses_by_itself(hall: Hall) -> None:
    bad = finding()
    hall.submit()
    assert hall.scan(bad).standing.code == "review.blocked"
    assert hall.except_("sue", what=bad.fingerprint).standing.code == "review.blocked"
    (made,) = hall.desk.exceptions()
    assert (made.state, made.until) == (Waiver.PENDING, None)
    case = hall.except_("eve", what=bad.fingerprint, expires=SOON - timedelta(days=1))
    assert case.standing.ok
    assert case.standing.until == SOON - timedelta(days=1)
    assert hall.desk.exceptions()[0].state is Waiver.IN_FORCE
    hall.activate()
    assert hall.loads() == ""
    hall.now = SOON - timedelta(days=1)
    assert hall.loads() == "review.lapsed"
    assert hall.desk.exceptions()[0].state is Waiver.PENDING
    hall.now = SOON
    assert hall.desk.exceptions()[0].state is Waiver.LAPSED
    assert [c.record.version for c in hall.desk.queue()] == ["1.0.0"]


@pytest.mark.parametrize(
    ("names", "ok"),
    [
        (("sue", "eve"), True),
        (("eve", "sue"), True),
        (("pat", "eve"), True),
        (("sue", "pat"), True),
        (("sue",), False),
        (("pat",), False),
        (("max/one", "max/two"), False),
        (("max/one", "eve"), True),
    ],
)
def test_two_different_people_with_both_roles(hall: Hall, names: tuple[str, ...], ok: bool) -> None:
    bad = finding()
    hall.submit()
    hall.scan(bad)
    assert hall.except_(*names, what=bad.rule).standing.ok is ok


def test_an_exception_stands_in_for_the_review_but_not_for_a_finding(hall: Hall) -> None:
    hall.submit(asks=PAINTS)
    assert not hall.except_("sue", what="unreviewed").standing.ok
    assert hall.except_("eve", what="unreviewed").standing.ok
    hall.activate()
    assert hall.loads() == ""
    assert hall.scan(finding()).standing.code == "review.blocked"
    assert hall.loads() == "review.blocked"
    hall.scan()
    assert hall.loads() == ""
    hall.now = SOON
    assert hall.loads() == "review.lapsed"


@pytest.mark.parametrize(
    ("what", "expires", "code"),
    [
        ("secrets.entropy", SOON, ""),
        ("secrets.other", SOON, "review.finding"),
        ("secrets.entropy", NOW, "review.expiry"),
        ("secrets.entropy", NOW + timedelta(days=90), ""),
        ("secrets.entropy", NOW + timedelta(days=91), "review.expiry"),
    ],
)
def test_what_an_exception_may_say(hall: Hall, what: str, expires: object, code: str) -> None:
    hall.submit()
    hall.scan(finding())
    assert code_of(hall.except_, "sue", what=what, expires=expires) == code


@pytest.mark.parametrize("name", ["ann", "acme", "stranger"])
def test_refuses_an_exception_by_others(hall: Hall, name: str) -> None:
    hall.submit()
    hall.scan(finding())
    assert code_of(hall.except_, name, what="secrets.entropy") == "review.key"


# -- what is recorded -------------------------------------------------------------------------------------------


def test_every_word_and_every_refusal_is_on_record(hall: Hall) -> None:
    hall.submit(asks=PAINTS)
    hall.scan()
    hall.approve("ann")
    code_of(hall.approve, "acme/desk")
    hall.activate()
    told = [
        (e.kind, e.verdict, e.action, e.reason if e.verdict == "denied" else e.details.get("who"))
        for e in hall.recorder.events
    ]
    assert told == [
        ("review", "allowed", "submitted", "tester"),
        ("review", "allowed", "scanned", "this home"),
        ("review", "allowed", "approved", "ann"),
        ("review", "denied", "approve", "review.key"),
        ("install", "allowed", "activated", "tester"),
    ]


def test_a_second_desk_sees_what_the_first_did(hall: Hall) -> None:
    hall.submit(asks=PAINTS)
    other = hall.open()
    hall.scan()
    Desk(other).approve(ID, None, key=KEYS["ann"])
    assert hall.desk.case(ID).standing.ok
