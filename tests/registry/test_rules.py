"""The update rules as a table, each row with its twin; and the laws that all of them keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.caps import standard_capabilities
from capwasm.capsule.artifact import read_artifact
from capwasm.grants.policy import Policy
from capwasm.registry.changes import Moved, Surface, compare
from capwasm.registry.intake import Intake
from capwasm.registry.model import (
    Candidate,
    Current,
    Decision,
    Mark,
    Permit,
    PermitKind,
    PluginRecord,
    State,
    Verdict,
    publishers,
    utc_text,
)
from capwasm.registry.rules import decide
from tests.registry.shop import ACME, GLOBEX, ID, NOW, TRUST, capsule

KNOWN = standard_capabilities()
A, G = ACME.public.key_id, GLOBEX.public.key_id
ACCEPT, PENDING = (Verdict.ACCEPT, ""), (Verdict.PENDING, "")
INTAKE = Intake(TRUST, Policy.nothing(), KNOWN, lambda _artifact: None)
NET = '[[net]]\nallow = "https://a.example/"\nmethods = ["GET"]\n'
MORE = '[[net]]\nallow = "https://a.example/"\nmethods = ["GET", "POST"]\n'
CLOCK, LOG = "[clock]\n", "[log]\n"


def candidate(
    version: str = "1.1.0", asks: str = "", *, keys: Any = (ACME,), **words: Any
) -> Candidate:
    made = INTAKE.examine(
        read_artifact(capsule(version, keys=keys, asks=asks)),
        published=words.pop("published", None),
    )
    return dataclasses.replace(made, **words)


def policy(text: str = "") -> Policy:
    return Policy.load(f"schema = 1\n{text}".encode(), KNOWN)


def current(asks: str = "", state: State = State.ACTIVE, **words: Any) -> Current:
    """1.0.0 serves, or what `words` say."""
    serving = words.pop("serving", "1.0.0")
    versions = words.pop("versions", {})
    manifest: Any = None
    records = []
    if serving is not None:
        made = candidate(serving, asks)
        manifest = words.pop("manifest", made.manifest)
        records.append(dataclasses.replace(made.record, state=state))
    for other, (found, how) in versions.items():
        mark = Mark("ann", utc_text(words.get("seen", NOW)))
        records.append(dataclasses.replace(found.record, version=other, state=how, installed=mark))
    words.pop("seen", None)
    denied = words.pop("denied", ())
    plugin = PluginRecord(
        id=ID, serving=serving, state=None if serving is None else state,
        highest=words.pop("highest", serving), owners=words.pop("owners", frozenset({A})),
        pinned=words.pop("pinned", None), waiting=None, removed=words.pop("removed", None),
        changed=Mark("ann", ""), versions=tuple(records),
        permits=tuple(
            Permit(ID, kind, subject, Mark("ann", "")) for kind, subject in words.pop("permits", ())
        ),
    )  # fmt: skip
    assert not words
    return Current(plugin, manifest, denied)


def ask(
    now: Current | None, wanted: Candidate, rules: Policy | None = None, when: datetime = NOW
) -> Decision:
    before = None
    if now is not None and now.manifest is not None:
        serving = now.plugin.version(now.plugin.serving or "")
        assert serving is not None
        before = now.manifest, serving
    changes = compare(before, (wanted.manifest, wanted.record), KNOWN)
    return decide(now, wanted, changes, rules or policy(), when)


DOWN, SIGN, AGE = PermitKind.DOWNGRADE, PermitKind.SIGNER, PermitKind.MIN_AGE
OTHER = candidate("1.1.0", CLOCK)
SAME = candidate("1.1.0")
DAY = policy("[updates]\nmin-age-hours = 24\n")
BY_HAND = policy("[updates]\nautomatic = false\n")
Row = tuple[
    str, Callable[[], Decision], tuple[Verdict, str], Callable[[], Decision], tuple[Verdict, str]
]

# what it is about; the row; and its twin, which differs in that alone.
ROWS: list[Row] = [
    ("first", lambda: ask(None, candidate("1.0.0")), ACCEPT,
     lambda: ask(None, candidate("1.0.0"), DAY), PENDING),
    ("update", lambda: ask(current(), candidate()), ACCEPT,
     lambda: ask(current(), candidate(), BY_HAND), PENDING),
    ("revoked",
     lambda: ask(current(versions={"1.1.0": (SAME, State.REVOKED)}), candidate()),
     (Verdict.REFUSE, "verify.revoked"),
     lambda: ask(current(versions={"1.1.0": (SAME, State.REVIEWED)}), candidate()), ACCEPT),
    ("content",
     lambda: ask(current(versions={"1.1.0": (OTHER, State.REVIEWED)}), candidate()),
     (Verdict.REFUSE, "registry.version-taken"),
     lambda: ask(current(versions={"1.1.0": (SAME, State.REVIEWED)}), candidate()), ACCEPT),
    ("downgrade", lambda: ask(current(highest="1.2.0"), candidate()),
     (Verdict.REFUSE, "verify.rollback"),
     lambda: ask(current(highest="1.2.0", permits=[(DOWN, "1.1.0")]), candidate()), ACCEPT),
    ("downgrade of another", lambda: ask(current(highest="1.2.0", permits=[(DOWN, "1.0.1")]), candidate()),
     (Verdict.REFUSE, "verify.rollback"),
     lambda: ask(current(highest="1.1.0"), candidate()), ACCEPT),
    ("tombstone",
     lambda: ask(current(serving=None, highest="1.0.0", removed="x"), candidate(keys=(GLOBEX,))),
     (Verdict.REFUSE, "registry.name-taken"),
     lambda: ask(current(serving=None, highest="1.0.0", removed="x"), candidate()), ACCEPT),
    ("tombstone, permitted",
     lambda: ask(current(serving=None, highest="1.0.0", removed="x", permits=[(SIGN, G)]),
                 candidate(keys=(GLOBEX,))), ACCEPT,
     lambda: ask(current(serving=None, highest="1.0.0", removed="x", permits=[(SIGN, A)]),
                 candidate(keys=(GLOBEX,))), (Verdict.REFUSE, "registry.name-taken")),
    ("pinned", lambda: ask(current(pinned="1.0.0"), candidate()),
     (Verdict.REFUSE, "registry.pinned"),
     lambda: ask(current(pinned="1.1.0"), candidate()), ACCEPT),
    ("another signer", lambda: ask(current(), candidate(keys=(GLOBEX,))), PENDING,
     lambda: ask(current(permits=[(SIGN, G)]), candidate(keys=(GLOBEX,))), ACCEPT),
    ("a signer more", lambda: ask(current(), candidate(keys=(ACME, GLOBEX))), PENDING,
     lambda: ask(current(owners=frozenset({A, G})), candidate(keys=(ACME, GLOBEX))), ACCEPT),
    ("a signer less", lambda: ask(current(owners=frozenset({A, G})), candidate()), PENDING,
     lambda: ask(current(owners=frozenset({A})), candidate()), ACCEPT),
    ("a renewal by others",
     lambda: ask(current(), candidate("1.0.0", keys=(GLOBEX,))), PENDING,
     lambda: ask(current(), candidate("1.0.0", keys=(ACME, GLOBEX))), ACCEPT),
    ("suspended plugin", lambda: ask(current(state=State.SUSPENDED), candidate()), PENDING,
     lambda: ask(current(), candidate("1.0.0")), ACCEPT),
    ("sent back",
     lambda: ask(current(versions={"1.1.0": (SAME, State.SUSPENDED)}, highest="1.1.0"), candidate()),
     PENDING,
     lambda: ask(current(versions={"1.1.0": (SAME, State.SUSPENDED)}, highest="1.1.0"),
                 candidate("1.2.0")), ACCEPT),
    ("new permission", lambda: ask(current(), candidate(asks=CLOCK)), PENDING,
     lambda: ask(current(CLOCK), candidate(asks=CLOCK)), ACCEPT),
    ("new high risk", lambda: ask(current(), candidate(asks=NET)), PENDING,
     lambda: ask(current(NET), candidate(asks=NET)), ACCEPT),
    ("widened", lambda: ask(current(NET), candidate(asks=MORE)), PENDING,
     lambda: ask(current(MORE), candidate(asks=NET)), ACCEPT),
    ("limit raised", lambda: ask(current("[limits]\nfuel = 9\n"), candidate()), PENDING,
     lambda: ask(current(), candidate(asks="[limits]\nfuel = 9\n")), ACCEPT),
    ("not comparable", lambda: ask(current(manifest=None), candidate()), PENDING,
     lambda: ask(current(), candidate()), ACCEPT),
    ("not consented", lambda: ask(current(), candidate(denied=("net: no consent",))), PENDING,
     lambda: ask(current(denied=("clock: none",)), candidate(denied=("net: none",))), ACCEPT),
    ("young", lambda: ask(current(), candidate(published=NOW - timedelta(hours=23)), DAY), PENDING,
     lambda: ask(current(), candidate(published=NOW - timedelta(hours=24)), DAY), ACCEPT),
    ("young, permitted", lambda: ask(current(permits=[(AGE, "1.1.0")]), candidate(), DAY), ACCEPT,
     lambda: ask(current(permits=[(AGE, "1.2.0")]), candidate(), DAY), PENDING),
    ("published in the future",
     lambda: ask(current(versions={"1.1.0": (SAME, State.SCANNED)}, seen=NOW - timedelta(days=1)),
                 candidate(published=NOW + timedelta(days=9)), DAY), ACCEPT,
     lambda: ask(current(), candidate(published=NOW + timedelta(days=9)), DAY), PENDING),
    ("seen long enough",
     lambda: ask(current(versions={"1.1.0": (SAME, State.SCANNED)}, seen=NOW - timedelta(days=1)),
                 candidate(), DAY), ACCEPT,
     lambda: ask(current(versions={"1.1.0": (SAME, State.SCANNED)}, seen=NOW - timedelta(hours=1)),
                 candidate(), DAY), PENDING),
    ("a release made older",
     lambda: ask(current(versions={"1.1.0": (candidate(published=NOW), State.SCANNED)}),
                 candidate(published=NOW - timedelta(days=9)), DAY), PENDING,
     lambda: ask(current(versions={"1.1.0": (SAME, State.SCANNED)}),
                 candidate(published=NOW - timedelta(days=9)), DAY), ACCEPT),
    ("a clock that went back",
     lambda: ask(current(versions={"1.1.0": (SAME, State.SCANNED)}, seen=NOW + timedelta(days=9)),
                 candidate(), DAY), PENDING,
     lambda: ask(current(versions={"1.1.0": (SAME, State.REVIEWED)}, seen=NOW + timedelta(days=9)),
                 candidate(), DAY), ACCEPT),
]  # fmt: skip


@pytest.mark.case("SIG-15", "SIG-26", "PER-09")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_row_and_its_twin(row: Row) -> None:
    _, first, expected, twin, other = row
    for call, (verdict, code) in ((first, expected), (twin, other)):
        found = call()
        assert (found.verdict, found.code) == (verdict, code), found
        assert found.reasons or verdict is Verdict.ACCEPT
        assert bool(found.faults) is (verdict is Verdict.REFUSE)


def test_every_row_names_a_rule_that_its_twin_does_not_meet() -> None:
    assert all(row[2][0] is not row[4][0] for row in ROWS)


def test_a_native_plugin_in_place_of_a_component_waits() -> None:
    wanted = candidate()
    native: Any = dataclasses.replace(
        compare((SAME.manifest, SAME.record), (wanted.manifest, wanted.record), KNOWN),
        facts=(("kind", "component", "native"),),
    )
    found = decide(current(), wanted, native, policy(), NOW)

    assert (found.verdict, found.reasons) == (Verdict.PENDING, ("from component to native",))


def test_a_high_risk_is_marked_and_the_age_is_told() -> None:
    found = ask(current(), candidate(asks=NET + CLOCK), DAY)

    assert found.reasons[0].startswith("new high-risk permission: net: send GET to https://a.ex")
    assert found.reasons[1].startswith("new permission: clock: ")
    assert found.reasons[2] == "younger than 24 hours: until 2027-02-01T12:00:00Z"
    assert found.until == NOW + timedelta(hours=24)


def test_the_reasons_are_bounded() -> None:
    many = "".join(f'[[net]]\nallow = "https://a{n}.example/"\n' for n in range(60))
    found = ask(current(), candidate(asks=many))

    assert len(found.reasons) == 51
    assert found.reasons[-1] == "and 10 reasons more"


# -- laws -------------------------------------------------------------------------------------------------

PIECES = (
    CLOCK, LOG, NET, MORE,
    '[[fs]]\nmount = "/a"\nbind = "a"\naccess = "read"\n',
    '[[fs]]\nmount = "/a"\nbind = "a"\naccess = "read-write"\n',
    '[[fs]]\nmount = "/b"\nbind = "b"\naccess = "read"\n',
    "[random]\n", "[kv]\n", '[config]\nkeys = ["a"]\n', '[config]\nkeys = ["a", "b"]\n',
)  # fmt: skip
LIMITS = ("", "[limits]\nfuel = 5\n", "[limits]\nfuel = 9\nwall-ms = 3\n")


def _tables(pieces: tuple[str, ...]) -> list[str]:
    """These; of two tables of one name, only the last."""
    found: dict[str, str] = {}
    for n, piece in enumerate(pieces):
        head = piece.partition("\n")[0]
        mount = piece.split("\n")[1] if piece.startswith("[[fs") else ""
        found[head + mount if not piece.startswith("[[net") else f"{head}{n}"] = piece
    return list(found.values())


def _joined(pieces: tuple[str, ...]) -> str:
    return "".join(_tables(pieces))


ASKS = st.lists(st.sampled_from(PIECES), unique=True, max_size=5).map(tuple)
STATES = st.sampled_from([None, State.SCANNED, State.REVIEWED, State.SUSPENDED, State.REVOKED])
WORLDS = st.fixed_dictionaries(
    {
        "highest": st.sampled_from(["1.0.0", "1.1.0", "1.2.0"]),
        "pinned": st.sampled_from([None, "1.0.0", "1.1.0"]),
        "owners": st.sampled_from([frozenset({A}), frozenset({G}), frozenset({A, G})]),
        "permits": st.lists(
            st.sampled_from([(DOWN, "1.1.0"), (SIGN, A), (SIGN, G), (AGE, "1.1.0")]), unique=True
        ),
        "state": st.sampled_from([State.ACTIVE, State.SUSPENDED]),
    }
)
POLICIES = st.sampled_from([policy(), DAY, BY_HAND])
KEYS = st.sampled_from([(ACME,), (GLOBEX,), (ACME, GLOBEX)])


@settings(max_examples=150, deadline=None)
@given(more=ASKS, some=st.sets(st.integers(0, 4)), limits=st.sampled_from(LIMITS))
def test_to_ask_for_less_never_waits(more: tuple[str, ...], some: set[int], limits: str) -> None:
    tables = _tables(more)
    less = "".join(table for n, table in enumerate(tables) if n in some)
    found = ask(current("".join(tables)), candidate(asks=less + limits))

    assert found.verdict is Verdict.ACCEPT, found.reasons


@settings(max_examples=150, deadline=None)
@given(old=ASKS, new=ASKS)
def test_to_ask_for_more_always_waits(old: tuple[str, ...], new: tuple[str, ...]) -> None:
    now, wanted = current(_joined(old)), candidate(asks=_joined(new))
    found = ask(now, wanted)
    assert now.manifest is not None
    before = {n: r.clauses for n, r in now.manifest.requests.items()}
    within = all(
        name in before and request.clauses.within(before[name])
        for name, request in wanted.manifest.requests.items()
    )

    assert (found.verdict is Verdict.ACCEPT) is within


@settings(max_examples=250, deadline=None)
@given(world=WORLDS, known=STATES, keys=KEYS, asks=ASKS, rules=POLICIES, data=st.data())
def test_a_refusal_beats_what_waits_and_that_beats_the_rest(
    world: dict[str, Any], known: State | None, keys: Any, asks: tuple[str, ...], rules: Policy,
    data: st.DataObject,
) -> None:  # fmt: skip
    wanted = candidate("1.1.0", _joined(asks), keys=keys)
    versions = {} if known is None else {"1.1.0": (wanted, known)}
    now = current(**world, versions=versions)
    found = ask(now, wanted, rules)
    shuffled = dataclasses.replace(
        now,
        plugin=dataclasses.replace(
            now.plugin,
            permits=tuple(data.draw(st.permutations(now.plugin.permits))),
            versions=tuple(data.draw(st.permutations(now.plugin.versions))),
        ),
    )
    refused = (
        known is State.REVOKED
        or (world["highest"] == "1.2.0" and (DOWN, "1.1.0") not in world["permits"])
        or world["pinned"] == "1.0.0"
    )

    assert ask(shuffled, wanted, rules) == found
    assert (found.verdict is Verdict.REFUSE) is refused
    assert set(found.used) <= set(now.plugin.permits)
    if found.verdict is Verdict.ACCEPT:
        named = {p.subject for p in found.used if p.kind is SIGN}
        joined = publishers(wanted.record.signers) - now.plugin.owners - named
        accepted = known is State.REVIEWED
        assert not joined or accepted
        assert known is not State.SUSPENDED
    # What is refused by one policy is refused by all, and no exception makes it worse.
    if found.verdict is Verdict.REFUSE:
        assert all(ask(now, wanted, p).verdict is Verdict.REFUSE for p in (policy(), DAY, BY_HAND))
    bare = dataclasses.replace(now, plugin=dataclasses.replace(now.plugin, permits=()))
    rank = {Verdict.ACCEPT: 0, Verdict.PENDING: 1, Verdict.REFUSE: 2}
    assert rank[ask(bare, wanted, rules).verdict] >= rank[found.verdict]


@settings(max_examples=60, deadline=None)
@given(hours=st.integers(-100, 100), age=st.integers(0, 50))
def test_once_of_age_it_stays_so(hours: int, age: int) -> None:
    rules = policy(f"[updates]\nmin-age-hours = {age}\n")
    wanted = candidate(published=NOW - timedelta(hours=hours))
    first, later = (ask(current(), wanted, rules, NOW + timedelta(hours=h)) for h in (0, 1))

    if first.verdict is Verdict.ACCEPT:
        assert later.verdict is Verdict.ACCEPT
    if first.until is not None:
        assert ask(current(), wanted, rules, NOW).until == first.until


# -- what differs -----------------------------------------------------------------------------------------


def test_changes_name_what_came_and_what_went() -> None:
    old = candidate("1.0.0", NET + LOG + "[limits]\nfuel = 9\n")
    new = candidate("1.1.0", MORE + CLOCK + "[limits]\nfuel = 8\n", keys=(GLOBEX,))
    surfaces = Surface(frozenset("ab"), frozenset("x")), Surface(frozenset("bc"), frozenset("x"))
    found = compare((old.manifest, old.record), (new.manifest, new.record), KNOWN, surfaces)

    assert [p.capability for p in found.new] == ["clock"]
    assert [p.capability for p in found.widened] == ["net"]
    assert [p.capability for p in found.gone] == ["log"]
    assert found.narrowed == ()
    assert (found.raised, found.lowered) == ((), (("fuel", 9, 8),))
    assert found.signers == Moved((G,), (A,))
    assert (found.imports, found.exports) == (Moved(("c",), ("a",)), Moved())
    assert [r and r.value for r in found.risk] == ["high", "high"]
    back = compare((new.manifest, new.record), (old.manifest, old.record), KNOWN)
    assert [p.capability for p in back.narrowed] == ["net"]
    assert back.imports is None


@settings(max_examples=100, deadline=None)
@given(old=ASKS, new=ASKS)
def test_changes_there_and_back_are_each_others_mirror(
    old: tuple[str, ...], new: tuple[str, ...]
) -> None:
    a, b = candidate("1.0.0", _joined(old)), candidate("1.1.0", _joined(new))
    one = compare((a.manifest, a.record), (b.manifest, b.record), KNOWN)
    two = compare((b.manifest, b.record), (a.manifest, a.record), KNOWN)

    assert (one.new, one.widened, one.narrowed, one.gone) == (
        two.gone, two.narrowed, two.widened, two.new,
    )  # fmt: skip
    same = compare((a.manifest, a.record), (a.manifest, a.record), KNOWN)
    assert (same.beyond, same.gone, same.narrowed, same.signers) == ((), (), (), Moved())
