"""The laws of the lattice, for every capability, and of what `resolve` makes of it.

On these laws rests the whole promise: that manifest, policy, consent and denials can each only
narrow, whatever they say and in whatever order they are met.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from capwasm.capability import Risk
from capwasm.caps import NAMES
from capwasm.errors import ManifestError, PolicyError
from capwasm.grants._document import toml_table
from capwasm.grants.consent import Consent, ConsentEntry, ConsentRecord, Subject, consent_for
from capwasm.grants.decide import decide
from capwasm.grants.manifest import Manifest, parse_manifest
from capwasm.grants.policy import Policy
from capwasm.grants.resolve import resolve
from capwasm.lattice import ClauseSet
from capwasm.limits import DEFAULTS, Limits
from tests.strategies import CAPABILITIES, KINDS, Kind, limits
from tests.toycaps import manifest_text

NOW = datetime(2027, 1, 31, tzinfo=UTC)
ALL = tuple(CAPABILITIES.values())

every = pytest.mark.parametrize("name", list(KINDS))
few = settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much], deadline=None)
many = settings(parent=few, max_examples=120)


def draw(data: st.DataObject, strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    return [data.draw(strategy) for _ in range(count)]


def met(a: Any, b: Any) -> Any:
    return None if a is None or b is None else a.meet(b)


def test_every_capability_is_held_to_the_laws() -> None:
    assert set(NAMES) <= set(KINDS)
    assert set(KINDS) == set(CAPABILITIES)


# --- clauses -----------------------------------------------------------------------------------


@every
@many
@given(data=st.data())
def test_the_meet_is_commutative_associative_and_idempotent(name: str, data: st.DataObject) -> None:
    a, b, c = draw(data, KINDS[name].clauses, 3)

    assert a.meet(a) == a
    assert a.meet(b) == b.meet(a)
    assert met(met(a, b), c) == met(a, met(b, c))


@every
@many
@given(data=st.data())
def test_the_meet_is_the_largest_clause_within_both(name: str, data: st.DataObject) -> None:
    a, b, c = draw(data, KINDS[name].clauses, 3)
    both = a.meet(b)

    assert both is None or (both.within(a) and both.within(b))
    if c.within(a) and c.within(b):
        assert both is not None
        assert c.within(both)


@every
@many
@given(data=st.data())
def test_within_is_a_partial_order_that_agrees_with_the_meet(
    name: str, data: st.DataObject
) -> None:
    a, b, c = draw(data, KINDS[name].clauses, 3)

    assert a.within(a)
    assert a.within(b) == (a.meet(b) == a)
    if a.within(b) and b.within(a):
        assert a == b
        assert hash(a) == hash(b)
    if a.within(b) and b.within(c):
        assert a.within(c)


@every
@many
@given(data=st.data())
def test_authority_leaves_out_quantities_alone(name: str, data: st.DataObject) -> None:
    a, b = draw(data, KINDS[name].clauses, 2)

    assert a.satisfied_by(a)
    if a.within(b):
        assert a.satisfied_by(b)
    if a.satisfied_by(b):
        both = a.meet(b)
        assert both is not None
        assert a.satisfied_by(both)


@every
@many
@given(data=st.data())
def test_the_meet_allows_just_what_both_allow(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    a, b = draw(data, kind.clauses, 2)
    operation = data.draw(kind.operations)
    both = a.meet(b)

    allowed = both is not None and kind.allows(both, operation)
    assert allowed == (kind.allows(a, operation) and kind.allows(b, operation))
    if a.within(b) and kind.allows(a, operation):
        assert kind.allows(b, operation)


@every
@many
@given(data=st.data())
def test_a_clause_survives_its_own_words(name: str, data: st.DataObject) -> None:
    clause = data.draw(KINDS[name].clauses)
    kept = CAPABILITIES[name].parse([clause.to_toml()], "consent")
    written = CAPABILITIES[name].parse([clause.to_toml()], "policy")

    assert (kept.faults, kept.clauses) == ((), (clause,))
    # A policy may read an open field as closed (where a name leads), but never gives less authority.
    assert written.faults == ()
    assert clause.satisfied_by(written.clauses[0])


@every
@few
@given(data=st.data())
def test_people_are_told_one_line(name: str, data: st.DataObject) -> None:
    clause = data.draw(KINDS[name].clauses)
    risk, why = CAPABILITIES[name].risk(clause)

    assert isinstance(risk, Risk)
    for line in (clause.describe(), why):
        assert line
        assert line.isprintable()


@every
@many
@given(data=st.data())
def test_the_risk_of_less_is_no_greater(name: str, data: st.DataObject) -> None:
    a, b = draw(data, KINDS[name].clauses, 2)
    order = [Risk.LOW, Risk.MEDIUM, Risk.HIGH]
    both = a.meet(b)
    assume(both is not None)
    risks = [order.index(CAPABILITIES[name].risk(c)[0]) for c in (both, a, b)]

    assert risks[0] <= min(risks[1:])


# --- sets of clauses -----------------------------------------------------------------------------


def clause_sets(kind: Kind) -> st.SearchStrategy[ClauseSet[Any]]:
    return st.lists(kind.clauses, max_size=4).map(ClauseSet.of)


@every
@few
@given(data=st.data())
def test_sets_form_a_lattice_with_the_empty_set_at_the_bottom(
    name: str, data: st.DataObject
) -> None:
    a, b, c = draw(data, clause_sets(KINDS[name]), 3)
    nothing: ClauseSet[Any] = ClauseSet.of()

    assert a.meet(a) == a
    assert a.meet(b) == b.meet(a)
    assert a.meet(b).meet(c) == a.meet(b.meet(c))
    assert a.meet(b).within(a)
    assert a.meet(b).within(b)
    assert a.meet(nothing) == nothing
    assert nothing.within(a)
    assert a.within(nothing) == (not a)
    assert a.within(b) == (a.meet(b) == a)
    if a.within(b) and b.within(a):
        assert a == b


@every
@few
@given(data=st.data())
def test_a_set_allows_just_what_its_clauses_do(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    some, others = (data.draw(st.lists(kind.clauses, max_size=4)) for _ in range(2))
    operation = data.draw(kind.operations)
    a, b = ClauseSet.of(some), ClauseSet.of(others)

    def allows(clauses: Any) -> bool:
        return any(kind.allows(c, operation) for c in clauses)

    assert allows(a) == allows(some)
    assert allows(a.meet(b)) == (allows(a) and allows(b))
    assert a == ClauseSet.of(reversed(some))
    assert a.missing_from(a) == []


# --- limits --------------------------------------------------------------------------------------


@many
@given(limits(), limits(), limits())
def test_limits_form_a_lattice(a: Limits, b: Limits, c: Limits) -> None:
    assert a.meet(a) == a
    assert a.meet(b) == b.meet(a)
    assert a.meet(b).meet(c) == a.meet(b.meet(c))
    assert a.meet(b).within(a)
    assert a.within(b) == (a.meet(b) == a)
    assert a.meet(Limits.ceiling()) == a
    if c.within(a) and c.within(b):
        assert c.within(a.meet(b))


@few
@given(limits())
def test_limits_survive_their_own_words(a: Limits) -> None:
    assert Limits.from_table(a.to_table(), DEFAULTS) == a


# --- the whole way -------------------------------------------------------------------------------


def manifest_of(name: str, clauses: list[Any], *, optional: bool) -> Manifest:
    """A manifest that asks for these clauses; those that no manifest can ask for are assumed away."""
    capability = CAPABILITIES[name]
    tables = [c.to_toml() for c in (clauses if capability.repeated else clauses[:1])]
    head = f"[[{name}]]" if capability.repeated else f"[{name}]"
    words = {"optional": True} if optional else {}
    body = "\n".join(toml_table(head, {**t, **words}) for t in tables)
    try:
        return parse_manifest(manifest_text(body), ALL)
    except ManifestError:
        assume(False)
        raise


def policy_of(
    name: str, allow: list[Any], deny: list[Any], *, automatic: bool = False, selector: str = "*"
) -> Policy:
    capability = CAPABILITIES[name]
    brackets = ("[[", "]]") if capability.repeated else ("[", "]")

    def tables(path: str, clauses: list[Any]) -> list[str]:
        chosen = clauses if capability.repeated else clauses[:1]
        return [toml_table(f"{brackets[0]}{path}{brackets[1]}", c.to_toml()) for c in chosen]

    lines = ["schema = 1"]
    if automatic:
        lines.append(f'[consent]\nautomatic = ["{name}"]')
    lines += tables(f"deny.{name}", deny) + tables(f'plugins."{selector}".{name}', allow)
    try:
        return Policy.load("\n".join(lines).encode(), ALL)
    except PolicyError:
        assume(False)
        raise


def consent_of(manifest: Manifest, name: str, clauses: list[Any]) -> Consent:
    subject = Subject.of(manifest, "a" * 64)
    record = ConsentRecord.of(
        subject, {name: ClauseSet.of(clauses)}, manifest.limits, who="ann", when=NOW
    )
    return consent_for(subject, [ConsentEntry(1, record)])


@every
@many
@given(data=st.data(), automatic=st.booleans())
@pytest.mark.case("MAN-10", "SEC-05")
def test_a_grant_never_allows_what_one_side_does_not(
    name: str, data: st.DataObject, automatic: bool
) -> None:
    kind, capability = KINDS[name], CAPABILITIES[name]
    asked, allowed, agreed = (
        data.draw(st.lists(kind.clauses, min_size=1, max_size=3)) for _ in range(3)
    )
    denied = data.draw(st.lists(kind.clauses, max_size=1))
    manifest = manifest_of(name, asked, optional=True)
    policy = policy_of(name, allowed, denied, automatic=automatic)
    consent = consent_of(manifest, name, agreed)
    operations = draw(data, kind.operations, 4)
    grants = resolve(manifest, policy, consent, ALL, core="0.3.0")
    grant = grants.by_capability.get(name)

    request, rules = manifest.requests[name].clauses, policy.for_plugin(manifest.id)
    for operation in operations:

        def allows(clause: Any, operation: Any = operation) -> bool:
            return kind.allows(clause, operation)

        given_here = grant is not None and grant.find(allows) is not None
        if given_here:
            assert request.any(allows)
            assert rules.allowed(name).any(allows)
            assert not rules.denied(name).any(allows)
            assert ClauseSet.of(agreed).any(allows) or (
                automatic
                and any(
                    allows(c) and capability.risk(c)[0] is not Risk.HIGH
                    for table in manifest.requests[name].asked
                    for clause in table.clauses
                    for c in ClauseSet.of([clause]).meet(rules.allowed(name))
                )
            )
    if grant is not None:
        effective = ClauseSet.of(g.clause for g in grant.allow)
        assert effective.within(request)
        assert effective.within(rules.allowed(name))


@pytest.mark.parametrize("name", [c.name for c in ALL if c.repeated])
@few
@given(data=st.data())
def test_the_order_of_tables_means_nothing(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    asked, allowed = (data.draw(st.lists(kind.clauses, min_size=1, max_size=3)) for _ in range(2))
    found = []
    for step in (1, -1):
        manifest = manifest_of(name, asked[::step], optional=True)
        policy, consent = policy_of(name, allowed[::step], []), consent_of(manifest, name, asked)
        found.append(resolve(manifest, policy, consent, ALL, core="0.3.0").explain().allow)

    assert found[0] == found[1]


@every
@few
@given(data=st.data())
def test_the_fix_of_every_denial_is_enough(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    asked = data.draw(st.lists(kind.clauses, min_size=1, max_size=3))
    allowed = data.draw(st.lists(kind.clauses, max_size=2))
    manifest = manifest_of(name, asked, optional=False)
    policy = policy_of(name, allowed, [], selector="acme.*")
    consent = consent_of(manifest, name, list(manifest.requests[name].clauses))
    before = decide(manifest, policy, consent, ALL, core="0.3.0")
    fixes = dict.fromkeys(f.fix for f in before.faults if f.fix)
    text = "\n".join(["schema = 1", *fixes])
    fixed = Policy.load(text.encode(), ALL)
    after = decide(manifest, fixed, consent, ALL, core="0.3.0")

    assert {d.path for d in after.decisions if d.faults} <= {
        d.path for d in before.decisions if not d.faults
    }


@few
@given(asked=limits(), ceiling=limits(), own=limits(), agreed=limits(), consented=st.booleans())
def test_limits_never_exceed_any_side(
    asked: Limits, ceiling: Limits, own: Limits, agreed: Limits, consented: bool
) -> None:
    manifest = parse_manifest(manifest_text(toml_table("[limits]", asked.to_table())), ALL)
    lines = [
        "schema = 1",
        toml_table("[limits]", ceiling.to_table()),
        toml_table('[plugins."*".limits]', own.to_table()),
    ]
    policy = Policy.load("\n".join(lines).encode(), ALL)
    subject = Subject.of(manifest, "a" * 64)
    record = ConsentRecord.of(subject, {}, agreed, who="ann", when=NOW)
    consent = consent_for(subject, [ConsentEntry(1, record)] if consented else [])
    found = resolve(manifest, policy, consent, ALL, core="0.3.0").limits

    assert found.within(asked)
    assert found.within(ceiling)
    assert found.within(own)
    assert not consented or found.within(agreed)


@few
@given(asked=limits())
def test_limits_that_nobody_raised_stay_at_the_default(asked: Limits) -> None:
    manifest = parse_manifest(manifest_text(toml_table("[limits]", asked.to_table())), ALL)
    consent = consent_for(Subject.of(manifest, "a" * 64))

    assert resolve(manifest, Policy.nothing(), consent, ALL, core="0.3.0").limits.within(DEFAULTS)
