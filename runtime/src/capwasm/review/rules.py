"""What the records of a version are worth today: one pure function, asked wherever it matters.

It is asked before a version may serve, at each load, and while it runs.  Nothing of its answer is
kept: a key that was revoked, expired or lost its scope since does not count, an exception whose
time is over does not either, and so what rested on them is refused from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from capwasm.capsule.keys import PublicKey
from capwasm.capsule.trust import TrustStore
from capwasm.capsule.trusted import WAIVERS, Role, Trusted, TrustedKey, person
from capwasm.errors import Fault
from capwasm.grants.review import ReviewRule

from .finding import Finding, Report, Severity
from .permissions import Permission
from .record import UNREVIEWED, Bond, Record, RecordKind

__all__ = ["Matter", "Standing", "Vote", "approvals_needed", "doubt_of_key", "standing"]

SKEW: Final = timedelta(minutes=5)
MAX_TOLD: Final = 50
_EVER: Final = datetime.max.replace(tzinfo=UTC)
_ROLES: Final[dict[RecordKind, frozenset[Role]]] = {
    RecordKind.APPROVAL: frozenset({"reviewer"}),
    RecordKind.EXCEPTION: WAIVERS,
    RecordKind.REJECTION: WAIVERS | {"reviewer"},
}
# The first that is in the way names the refusal.
_GRAVITY: Final = (
    "review.rejected",
    "review.blocked",
    "review.lapsed",
    "review.missing",
    "review.unscanned",
)


@dataclass(frozen=True, slots=True)
class Matter:
    """A version that is to be decided on, and all that was said of its plugin.

    Attributes:
        bond: what it is, to the last byte.
        high: its permissions of high risk.
        signers: key ids of whoever signed the capsule, reviewers apart.
        records: of the plugin, oldest first; what speaks of other versions counts for nothing.
        own: the home's key, whose scans count; None, and none does.
    """

    bond: Bond
    high: tuple[Permission, ...]
    signers: frozenset[str]
    records: tuple[Record, ...] = ()
    own: PublicKey | None = None


@dataclass(frozen=True, slots=True)
class Vote:
    """One record, and what it is worth.

    Attributes:
        record: who signed what, when and why.
        name: what the trust store calls the key, or the beginning of its id if it holds none such.
        person: whose key it is: the name up to its slash; empty if it is nobody's.
        doubt: why it does not count, in one sentence; empty if it does.
        lapsed: whether it could have counted once: the time or the trust store has moved on.
        until: while it counts, when that ends by itself; None if it does not.
        roles: of the key.
    """

    record: Record
    name: str
    person: str
    doubt: str = ""
    lapsed: bool = False
    until: datetime | None = None
    roles: frozenset[Role] = frozenset()

    @property
    def counts(self) -> bool:
        """Whether it is worth anything."""
        return not self.doubt


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a version may serve.

    Attributes:
        ok: whether it may.
        needs: what is missing or in the way, each with the line that would help; empty if ok.
        until: while ok, when that ends by itself at the latest; None if it does not.
        code: the stable code of what is most in the way; empty if ok.
        votes: every record of this version, oldest first, with what it is worth.
        report: the newest scan that counts, or None.
        waived: what exceptions are in force, and until when each.
    """

    ok: bool
    needs: tuple[Fault, ...] = ()
    until: datetime | None = None
    code: str = ""
    votes: tuple[Vote, ...] = ()
    report: Report | None = None
    waived: tuple[tuple[str, datetime], ...] = ()


def standing(matter: Matter, trust: TrustStore, rule: ReviewRule, now: datetime) -> Standing:
    """Whether a version may serve, and what it needs if not.

    Args:
        matter: the version, and all that was said.
        trust: the trust store of today.
        rule: the policy's.
        now: with a time zone.
    """
    bond = matter.bond
    votes = tuple(
        _vote(r, matter, trust, rule, now)
        for r in matter.records
        if (r.bond.plugin, r.bond.version) == (bond.plugin, bond.version)
    )
    counted = [v for v in votes if v.counts]
    report = next((v.record.report for v in reversed(counted) if v.record.report), None)
    waived = dict(_waived(counted, trust))
    needs: list[tuple[str, Fault]] = list(_rejections(counted))
    lasts = [_EVER]
    if rule.required:
        lapsed = {v.record.what: v for v in votes if v.lapsed and v.record.what}
        needs += _blocked(bond, report, rule, waived, lapsed, lasts)
        wanting = list(_reviewed(matter, votes, report, trust, rule, waived, lasts))
        if wanting and UNREVIEWED in waived:
            lasts.append(waived[UNREVIEWED])
        else:
            if UNREVIEWED in lapsed:
                wanting = [("review.lapsed", fault) for _, fault in wanting]
            needs += wanting
    until = min(lasts)
    worst = min((code for code, _ in needs), key=_GRAVITY.index, default="")
    return Standing(
        ok=not needs,
        needs=_told([fault for _, fault in needs]),
        until=None if needs or until == _EVER else until,
        code=worst,
        votes=votes,
        report=report,
        waived=tuple(sorted(waived.items())),
    )


def approvals_needed(trust: TrustStore, rule: ReviewRule) -> int:
    """How many reviewers what needs them needs: the policy's number, or the trust store's."""
    return max(rule.approvals, trust.thresholds.get("reviewer", 1))


# -- one record ---------------------------------------------------------------------------------------


def _vote(
    record: Record, matter: Matter, trust: TrustStore, rule: ReviewRule, now: datetime
) -> Vote:
    if record.kind is RecordKind.SCAN:
        mine = matter.own is not None and record.is_by(matter.own)
        doubt = "" if mine else "not by this home's own key"
        return Vote(record, "this home", "", doubt or _other(record, matter))
    key = trust.find(record.key_id)
    if key is None:
        text = "the trust store does not hold this key"
        return Vote(record, record.key_id[:16], "", text, lapsed=True)
    doubt, lapsed, until = _doubt(record, key, matter, trust, rule, now)
    return Vote(record, key.name, person(key.name), doubt, lapsed, until, key.roles)


def _doubt(
    record: Record,
    key: TrustedKey,
    matter: Matter,
    trust: TrustStore,
    rule: ReviewRule,
    now: datetime,
) -> tuple[str, bool, datetime | None]:
    """Why it does not count, whether it could have once, and until when it does."""
    if not record.is_by(key.key):
        return "its signature is false", False, None
    kind = record.kind
    if other := _other(record, matter):
        return other, False, None
    if found := doubt_of_key(kind, key, matter, trust, now):
        return *found, None
    if record.when > now + SKEW:
        return "it was signed in the future, by its own word", False, None
    ends = [key.not_after] if key.not_after is not None else []
    if kind is RecordKind.EXCEPTION:
        assert record.expires is not None
        ends += [record.expires, record.when + timedelta(days=rule.exception_days)]
        if min(ends) <= now:
            return f"it lapsed at {min(ends):%Y-%m-%d %H:%M} UTC", True, None
    return "", False, min(ends, default=None)


def doubt_of_key(
    kind: RecordKind, key: TrustedKey, matter: Matter, trust: TrustStore, now: datetime
) -> tuple[str, bool] | None:
    """Why that key can't say this today, and whether it could have once; None if it can."""
    if not key.roles & _ROLES[kind]:
        valid = " or ".join(sorted(_ROLES[kind]))
        return f"its key has not the role {valid}", False
    refusal = key.refusal(now, matter.bond.plugin)
    # A rejection outlives its key's time, but not its revocation: refusing is the safe side.
    late = kind is RecordKind.REJECTION and refusal and refusal[0] == "verify.key-expired"
    if refusal is not None and not late:
        return f"its key does not count: {refusal[1]}", True
    if kind is RecordKind.REJECTION:
        return None
    everybody: tuple[Trusted, ...] = (*trust.keys, *trust.identities)
    signers = {person(s.name) for s in everybody if s.key_id in matter.signers}
    if key.key_id in matter.signers or person(key.name) in signers:
        return "whoever signed a plugin can't have a say in its review", False
    return None


def _other(record: Record, matter: Matter) -> str:
    """What else it speaks of, if not of this."""
    if record.kind is RecordKind.REJECTION:
        return ""  # of the version, whatever stands in it
    words = ("archive", "code", "manifest", "permissions")
    wrong = [w for w in words if getattr(record.bond, w) != getattr(matter.bond, w)]
    return f"it is bound to another {' and '.join(wrong)}" if wrong else ""


# -- all of them together -----------------------------------------------------------------------------


def _rejections(counted: Iterable[Vote]) -> Iterator[tuple[str, Fault]]:
    for vote in counted:
        if vote.record.kind is RecordKind.REJECTION:
            text = f"{vote.name} rejected this version: {vote.record.reason}"
            yield "review.rejected", Fault("", text)


def _blocked(
    bond: Bond,
    report: Report | None,
    rule: ReviewRule,
    waived: dict[str, datetime],
    lapsed: dict[str, Vote],
    lasts: list[datetime],
) -> Iterator[tuple[str, Fault]]:
    """Findings that nobody answers for."""
    for finding in report.at_least(Severity(rule.block)) if report is not None else ():
        until = _waiver(finding, waived)
        if until is not None:
            lasts.append(until)
            continue
        fix = (
            f"capwasm except {bond.plugin}@{bond.version} --finding {finding.fingerprint}"
            " --expires DATE --key KEY --reason TEXT"
        )
        text = f"{finding.rule} ({finding.severity}): {finding.message}"
        gone = lapsed.get(finding.rule) or lapsed.get(finding.fingerprint)
        if gone is not None:
            text += f"; an exception for it counts no more: {gone.doubt}"
        yield "review.lapsed" if gone else "review.blocked", Fault(finding.place, text, fix)


def _reviewed(
    matter: Matter,
    votes: Sequence[Vote],
    report: Report | None,
    trust: TrustStore,
    rule: ReviewRule,
    waived: dict[str, datetime],
    lasts: list[datetime],
) -> Iterator[tuple[str, Fault]]:
    """What lacks of scan and approvals."""
    name = f"{matter.bond.plugin}@{matter.bond.version}"
    if report is None:
        yield (
            "review.unscanned",
            Fault("", "no scan of it is on record", f"capwasm scan {name}"),
        )
    graver = report.at_least(Severity(rule.person)) if report is not None else ()
    unseen = {f.fingerprint for f in graver if _waiver(f, waived) is None}
    why = [str(p) for p in matter.high]
    if unseen:
        why.append(f"{len(unseen)} finding{'s' * (len(unseen) > 1)} to look at")
    if not why and not rule.automatic:
        why.append("policy approves nothing by itself ([review] automatic = false)")
    if not why:
        return
    ends: dict[str, datetime] = {}
    approvals = [v for v in votes if v.record.kind is RecordKind.APPROVAL]
    for vote in approvals:
        if vote.counts and unseen <= vote.record.seen:
            ends[vote.person] = max(ends.get(vote.person, _time(vote.until)), _time(vote.until))
    need = approvals_needed(trust, rule)
    if len(ends) >= need:
        lasts.append(sorted(ends.values(), reverse=True)[need - 1])
        return
    lost = [v for v in approvals if v.lapsed]
    has = f", has {len(ends)} ({', '.join(sorted(ends))})" if ends else ""
    gone = f"; no longer counts: {lost[0].name}: {lost[0].doubt}" if lost else ""
    blind = [v.name for v in approvals if v.counts and v.person not in ends]
    more = f"; approved before these findings: {', '.join(blind)}" if blind else ""
    yield (
        "review.lapsed" if lost else "review.missing",
        Fault(
            "",
            f"it needs the approval of {need} reviewer{'s' * (need > 1)}{has}{gone}{more}; for "
            + "; ".join(why[:MAX_TOLD]),
            f"capwasm approve {name} --key KEY --reason TEXT",
        ),
    )


def _time(until: datetime | None) -> datetime:
    """A time that can be compared: none is never."""
    return _EVER if until is None else until


def _waiver(finding: Finding, waived: dict[str, datetime]) -> datetime | None:
    """Until when somebody answers for a finding, or None."""
    found = [waived[w] for w in (finding.rule, finding.fingerprint) if w in waived]
    return max(found, default=None)


def _waived(counted: Iterable[Vote], trust: TrustStore) -> Iterator[tuple[str, datetime]]:
    """What exceptions are in force, and until when: both roles, and as many persons as that takes."""
    by_what: dict[str, list[Vote]] = {}
    for vote in counted:
        if vote.record.kind is RecordKind.EXCEPTION:
            by_what.setdefault(vote.record.what, []).append(vote)
    need = [trust.thresholds.get(role, 1) for role in ("security", "engineering")]
    for what, votes in by_what.items():
        for until in sorted({_time(v.until) for v in votes}, reverse=True):
            still = [v for v in votes if _time(v.until) >= until]
            one, other = (
                {v.person for v in still if role in v.roles} for role in ("security", "engineering")
            )
            # Nobody fills two places: so many persons there must be, whoever fills which.
            if len(one) >= need[0] and len(other) >= need[1] and len(one | other) >= sum(need):
                yield what, until
                break


def _told(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    if len(faults) <= MAX_TOLD:
        return tuple(faults)
    return (*faults[:MAX_TOLD], Fault("", f"and {len(faults) - MAX_TOLD} more"))
