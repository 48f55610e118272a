"""Stage 4: what is asked, allowed and consented to becomes a grant, or a denial that says it all."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from capwasm.capability import Risk
from capwasm.errors import ConsentError, GrantDeniedError
from capwasm.grants.consent import (
    Consent,
    ConsentEntry,
    ConsentRecord,
    Subject,
    Withdrawal,
    consent_for,
)
from capwasm.grants.decide import Resolution, decide
from capwasm.grants.manifest import Manifest, parse_manifest
from capwasm.grants.policy import Policy
from capwasm.grants.resolve import Grants, resolve
from capwasm.lattice import ClauseSet
from capwasm.limits import DEFAULTS
from tests.toycaps import TOYS, BellClause, DoorClause, manifest_text

CODE = "a" * 64
NOW = datetime(2027, 1, 31, tzinfo=UTC)
LOOK = '[[door]]\ndoor = "front"\nacts = ["look"]\n'
ALLOW = '[[plugins."acme.weather".door]]\ndoor = "front"\n'
FRONT_LOOK = DoorClause("front", frozenset({"look"}))


def manifest(body: str = LOOK) -> Manifest:
    return parse_manifest(manifest_text(body), TOYS)


def policy(body: str = ALLOW) -> Policy:
    return Policy.load(f"schema = 1\n{body}".encode(), TOYS)


def given(of: Manifest, to: Manifest | None = None, code: str = CODE) -> Consent:
    """Consent for `of`, to all that `to` asks (to what `of` itself asks if None)."""
    return consent_for(Subject.of(of, CODE), [ConsentEntry(1, record(of, to or of, code))])


def record(of: Manifest, to: Manifest, code: str = CODE) -> ConsentRecord:
    clauses = {name: request.clauses for name, request in to.requests.items()}
    return ConsentRecord.of(Subject.of(of, code), clauses, to.limits, who="ann", when=NOW)


def none(of: Manifest) -> Consent:
    return consent_for(Subject.of(of, CODE))


def grant(asked: Manifest, allowed: Policy, consent: Consent, core: str = "0.3.0") -> Grants:
    return resolve(asked, allowed, consent, TOYS, core=core)


def denial(
    asked: Manifest, allowed: Policy, consent: Consent, core: str = "0.3.0"
) -> GrantDeniedError:
    with pytest.raises(GrantDeniedError) as caught:
        grant(asked, allowed, consent, core)
    return caught.value


def doors(grants: Grants) -> set[DoorClause]:
    return {g.clause for g in grants.by_capability["door"].allow}


# --- the meet ------------------------------------------------------------------------------------


def test_allows_what_all_three_say() -> None:
    asked = manifest()

    assert doors(grant(asked, policy(), given(asked))) == {FRONT_LOOK}


def test_refuses_what_no_policy_allows() -> None:
    asked = manifest()
    (fault,) = denial(asked, Policy.nothing(), given(asked)).faults

    assert fault.path == "door[0]"
    assert fault.message == "policy: no rule allows to look front"
    assert fault.fix == '[[plugins."acme.weather".door]]\ndoor = "front"\nacts = ["look"]'


def test_refuses_what_nobody_consented_to() -> None:
    asked = manifest()
    (fault,) = denial(asked, policy(), none(asked)).faults

    assert fault.message == "consent: no consent is recorded to look front"
    assert fault.fix == "capwasm consent give acme.weather-1.2.0.capsule"


def test_refuses_both_at_once() -> None:
    asked = manifest(LOOK + "[bell]\ntunes = ['a']\n")
    error = denial(asked, Policy.nothing(), none(asked))

    assert error.code == "grant.denied"
    assert [(f.path, f.message.split(":")[0]) for f in error.faults] == [
        ("door[0]", "policy"), ("door[0]", "consent"), ("bell", "policy"), ("bell", "consent"),
    ]  # fmt: skip


def test_allows_a_plugin_that_asks_for_nothing() -> None:
    asked = manifest("")

    assert grant(asked, Policy.nothing(), none(asked)).by_capability == {}


def test_quantities_narrow_without_a_denial() -> None:
    asked = manifest('[[door]]\ndoor = "front"\nacts = ["look"]\ntimes = 50\n')
    allowed = policy('[[plugins."acme.weather".door]]\ndoor = "front"\ntimes = 20\n')
    consented = manifest('[[door]]\ndoor = "front"\nacts = ["look"]\ntimes = 10\n')
    found = grant(asked, allowed, given(asked, consented))

    assert doors(found) == {replace(FRONT_LOOK, times=10)}
    assert found.explain().decisions[0].narrowed_by == ("policy", "consent")


def test_to_settle_what_was_left_open_is_not_to_narrow() -> None:
    asked = manifest('[[door]]\nacts = ["look"]\n')
    allowed = policy('[[plugins."*".door]]\ndoor = "front"\ntimes = 3\n')
    wanted = manifest('[[door]]\nacts = ["look"]\ntimes = 5\n')
    settled = decide(asked, allowed, given(asked), TOYS, core=None).decisions[0]
    less = decide(wanted, allowed, given(wanted), TOYS, core=None).decisions[0]

    # A door is authority: whoever asks for any door and gets one has less.
    assert settled.narrowed_by == less.narrowed_by == ("policy",)
    front = '[[plugins."*".door]]\ntimes = 3\n'
    settled = decide(asked, policy(front), given(asked), TOYS, core=None).decisions[0]
    less = decide(wanted, policy(front), given(wanted), TOYS, core=None).decisions[0]
    assert (settled.status, settled.narrowed_by) == ("granted", ())
    assert (less.status, less.narrowed_by) == ("narrowed", ("policy",))


def test_no_more_is_granted_than_was_asked() -> None:
    asked = manifest()
    wide = manifest('[[door]]\ndoor = "front"\nacts = ["look", "paint"]\n')

    assert doors(grant(asked, policy('[[plugins."*".door]]\n'), given(asked, wide))) == {FRONT_LOOK}


def test_the_order_is_that_of_the_capabilities() -> None:
    asked = manifest("[bell]\ntunes = ['a']\n" + LOOK)
    allowed = policy(ALLOW + '[plugins."*".bell]\ntunes = ["a"]\n')

    assert list(grant(asked, allowed, given(asked)).by_capability) == ["door", "bell"]


# --- which side refuses, and what would mend it ------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What stands in the policy, and how the denial tells it."""

    policy: str
    message: str
    fix: str


PAINT = '[[door]]\ndoor = "front"\nacts = ["look", "paint"]\n'
FIX = '[[plugins."acme.weather".door]]\ndoor = "front"\nacts = ["look", "paint"]'
ROWS = {
    "no rule": Row("", "policy: no rule allows to look and paint front", FIX),
    "a rule for another plugin": Row(
        '[[plugins."acme.other".door]]\n', "policy: no rule allows to look and paint front", FIX
    ),
    "a rule for another door": Row(
        '[[plugins."*".door]]\ndoor = "back"\n',
        "policy: no rule allows to look and paint front",
        FIX,
    ),
    "a narrower rule": Row(
        '[[plugins."acme.*".door]]\ndoor = "front"\nacts = ["look"]\n',
        'policy: look and paint front is more than plugins."acme.*".door[0] (line 2) allows',
        FIX,
    ),
    "two rules, neither enough": Row(
        '[[plugins."*".door]]\nacts = ["look"]\n[[plugins."*".door]]\nacts = ["paint"]\n',
        'policy: look and paint front is more than plugins."*".door[0] (line 2),'
        ' plugins."*".door[1] (line 4) allows',
        FIX,
    ),
    "a deny rule for all": Row(
        ALLOW + '[[deny.door]]\ndoor = "front"\n',
        "policy: look and paint front is denied by deny.door[0] (line 4)",
        "remove deny.door[0] (line 4)",
    ),
    "a deny rule for the plugin": Row(
        ALLOW + '[[plugins."acme.*".deny.door]]\n',
        'policy: look and paint front is denied by plugins."acme.*".deny.door[0] (line 4)',
        'remove plugins."acme.*".deny.door[0] (line 4)',
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_refuses_and_names_the_rule_of_the_policy(name: str) -> None:
    row, asked = ROWS[name], manifest(PAINT)
    (fault,) = denial(asked, policy(row.policy), given(asked)).faults

    assert (fault.message, fault.fix) == (row.message, row.fix)


def test_a_deny_beats_every_allow_at_each_operation() -> None:
    asked = manifest('[[door]]\nacts = ["look"]\n')
    allowed = policy('[[plugins."*".door]]\n[[deny.door]]\ndoor = "back"\n')
    found = grant(asked, allowed, given(asked))
    door = found.by_capability["door"]

    assert door.find(lambda c: c.allows(("front", "look"))) is not None
    assert door.find(lambda c: c.allows(("back", "look"))) is None
    assert [r.path for r in found.explain().decisions[0].cut_by] == ["deny.door[0]"]


def test_a_deny_ends_only_the_piece_it_speaks_of() -> None:
    asked = manifest('[[door]]\nacts = ["look"]\noptional = true\n')
    allowed = policy(
        '[[plugins."*".door]]\ndoor = "front"\n[[plugins."*".door]]\ndoor = "back"\n'
        '[[deny.door]]\ndoor = "back"\n'
    )

    assert doors(grant(asked, allowed, given(asked))) == {FRONT_LOOK}


@pytest.mark.case("MAN-10")
def test_refuses_consent_for_other_bytes() -> None:
    asked = manifest()
    (fault,) = denial(asked, policy(), given(asked, code="b" * 64)).faults

    assert "recorded for other bytes, not for these" in fault.message


def test_refuses_consent_that_was_withdrawn() -> None:
    asked = manifest()
    gone = record(asked, asked).model_copy(
        update={"withdrawn": Withdrawal(who="bob", when="2027-02-01T00:00:00Z")}
    )
    consent = consent_for(Subject.of(asked, CODE), [ConsentEntry(1, gone)])

    assert "withdrawn" in denial(asked, policy(), consent).faults[0].message


def test_refuses_consent_to_less() -> None:
    asked = manifest(PAINT)
    (fault,) = denial(asked, policy(), given(asked, manifest(LOOK))).faults

    assert fault.message == "consent: consent is given for less than to look and paint front"


@pytest.mark.case("MAN-10")
def test_refuses_a_consent_about_another_manifest() -> None:
    other = manifest(PAINT)

    with pytest.raises(ConsentError):
        grant(manifest(), policy(), given(other))


def test_a_malformed_record_is_a_consent_error() -> None:
    asked = manifest()
    bad = record(asked, asked).model_copy(update={"permissions": {"door": ({"knob": 1},)}})
    consent = consent_for(Subject.of(asked, CODE), [ConsentEntry(1, bad)])

    with pytest.raises(ConsentError):
        grant(asked, policy(), consent)


@pytest.mark.parametrize(
    "body",
    [
        PAINT,
        PAINT + '[[door]]\ndoor = "back"\n',
        PAINT + "[bell]\ntunes = ['a', 'b']\n",
        "[bell]\ntunes = ['a', 'b', 'c']\n",
    ],
)
@pytest.mark.parametrize(
    "standing",
    ["", '[plugins."acme.weather".bell]\ntunes = ["z", "a"]\n', '[plugins."acme.*".bell]\ntunes = ["a"]\n'],
)  # fmt: skip
def test_the_fixes_of_a_denial_are_enough(body: str, standing: str) -> None:
    asked = manifest(body)
    error = denial(asked, policy(standing), none(asked))
    fixes = dict.fromkeys(f.fix for f in error.faults if f.message.startswith("policy"))
    text = standing
    for fix in fixes:
        assert fix is not None
        if "in place of line 2" in fix:
            text = text.replace(standing, "")
        text += fix + "\n"

    assert grant(asked, policy(text), given(asked)).by_capability
    assert all(
        f.message.startswith("consent") for f in denial(asked, policy(text), none(asked)).faults
    )


def test_a_fix_keeps_what_the_table_in_its_place_allowed() -> None:
    asked = manifest("[bell]\ntunes = ['a', 'b']\n")
    standing = policy('[plugins."acme.weather".bell]\ntunes = ["z", "a"]\n')
    (fault,) = denial(asked, standing, given(asked)).faults

    assert fault.fix == (
        '[plugins."acme.weather".bell]  # in place of line 2\ntunes = ["z", "a", "b"]'
    )


# --- optional ------------------------------------------------------------------------------------------


def test_allows_a_load_without_an_optional_permission() -> None:
    asked = manifest(LOOK + '[[door]]\ndoor = "back"\nacts = ["paint"]\noptional = true\n')
    found = grant(asked, policy(), given(asked))

    assert doors(found) == {FRONT_LOOK}
    assert [d.status for d in found.explain().decisions] == ["granted", "left out"]


def test_allows_an_optional_permission_narrowed() -> None:
    asked = manifest(PAINT + "optional = true\n")
    allowed = policy('[[plugins."*".door]]\nacts = ["look"]\n')
    found = grant(asked, allowed, given(asked))

    assert doors(found) == {FRONT_LOOK}
    assert found.explain().decisions[0].status == "narrowed"


def test_refuses_the_same_permission_when_it_is_not_optional() -> None:
    asked = manifest(PAINT + "optional = false\n")

    assert denial(asked, policy('[[plugins."*".door]]\nacts = ["look"]\n'), given(asked))


def test_required_wins_over_optional() -> None:
    asked = manifest(PAINT + "optional = true\n" + PAINT)

    assert [f.path for f in denial(asked, Policy.nothing(), given(asked)).faults] == ["door[1]"]


# --- automatic consent -------------------------------------------------------------------------------

AUTOMATIC = '[consent]\nautomatic = ["door", "bell"]\n'


def test_allows_low_and_medium_risks_by_automatic_consent() -> None:
    asked = manifest('[[door]]\ndoor = "front"\nacts = ["look", "enter"]\n')
    found = grant(asked, policy(AUTOMATIC + ALLOW), none(asked))

    assert found.explain().decisions[0].consent == "automatic"
    assert found.explain().decisions[0].risk is Risk.MEDIUM
    assert len(doors(found)) == 1


def test_refuses_a_high_risk_by_automatic_consent_and_says_so() -> None:
    asked = manifest(PAINT)
    (fault,) = denial(asked, policy(AUTOMATIC + ALLOW), none(asked)).faults

    assert "consent.automatic names door, but a high risk is for a person" in fault.message
    assert "Paint stays." in fault.message


def test_the_risk_is_that_of_what_the_policy_leaves() -> None:
    asked = manifest(PAINT + "optional = true\n")
    allowed = policy(AUTOMATIC + '[[plugins."*".door]]\nacts = ["look"]\n')

    assert doors(grant(asked, allowed, none(asked))) == {FRONT_LOOK}


def test_refuses_automatic_consent_to_what_a_person_left_out_or_took_back() -> None:
    asked, allowed = manifest(), policy(AUTOMATIC + ALLOW)
    less = record(asked, manifest(""))
    gone = record(asked, asked).model_copy(
        update={"withdrawn": Withdrawal(who="bob", when="2027-02-01T00:00:00Z")}
    )
    for decided, word in ((less, "given for less"), (gone, "withdrawn")):
        consent = consent_for(Subject.of(asked, CODE), [ConsentEntry(1, decided)])
        (fault,) = denial(asked, allowed, consent).faults
        assert word in fault.message
        assert "consent.automatic names door, but does not overrule a person" in fault.message
    elsewhere = given(asked, code="b" * 64)  # about other bytes nobody has decided yet

    assert doors(grant(asked, allowed, elsewhere)) == {FRONT_LOOK}


def test_refuses_automatic_consent_to_what_no_rule_allows() -> None:
    asked = manifest()
    (fault,) = denial(asked, policy(AUTOMATIC), none(asked)).faults

    assert fault.message.startswith("policy: no rule")


def test_refuses_automatic_consent_of_a_capability_not_named() -> None:
    asked = manifest()

    assert denial(asked, policy('[consent]\nautomatic = ["bell"]\n' + ALLOW), none(asked))


# --- limits --------------------------------------------------------------------------------------------

MORE = "[limits]\nfuel = 9_000_000_000\nwall-ms = 60_000\n"


def test_refuses_a_limit_above_the_default_that_nobody_agreed_to() -> None:
    asked = manifest(MORE)

    assert grant(asked, Policy.nothing(), none(asked)).limits == DEFAULTS


def test_allows_a_limit_above_the_default_by_consent() -> None:
    asked = manifest(MORE)

    assert grant(asked, Policy.nothing(), given(asked)).limits.fuel == 9_000_000_000


def test_allows_a_limit_above_the_default_by_a_rule_of_the_plugins_own() -> None:
    asked = manifest(MORE)
    allowed = policy('[plugins."acme.weather".limits]\nfuel = 5_000_000_000\n')
    found = grant(asked, allowed, none(asked)).limits

    assert found.fuel == 5_000_000_000
    assert found.wall_ms == DEFAULTS.wall_ms


def test_refuses_a_ceiling_for_all_as_leave_to_reach_it() -> None:
    asked = manifest(MORE)

    assert grant(asked, policy("[limits]\nfuel = 8_000_000_000\n"), none(asked)).limits == DEFAULTS


def test_limits_narrow_on_every_side() -> None:
    asked = manifest("[limits]\nfuel = 100\nwall-ms = 100\ndepth = 3\n")
    allowed = policy('[limits]\nfuel = 50\n[plugins."*".limits]\nwall-ms = 40\n')
    consent = given(asked, manifest("[limits]\nfuel = 100\nwall-ms = 100\ndepth = 2\n"))
    found = grant(asked, allowed, consent)

    assert (found.limits.fuel, found.limits.wall_ms, found.limits.depth) == (50, 40, 2)
    rows = {r.name: r for r in found.explain().limits}
    assert (rows["fuel"].narrowed_by, rows["fuel"].source) == (("policy",), "limits")
    assert rows["wall-ms"].source == 'plugins."*".limits'
    assert rows["depth"].narrowed_by == ("consent",)
    assert rows["memory"].narrowed_by == ()


# --- the core --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("core", ["0.3.0", "0.9.9"])
def test_allows_a_core_of_the_range(core: str) -> None:
    assert grant(manifest(""), Policy.nothing(), none(manifest("")), core)


@pytest.mark.parametrize("core", ["0.2.9", "1.0.0", "1.0.0-rc.1"])
def test_refuses_another_core_with_all_else_that_is_missing(core: str) -> None:
    asked = manifest()
    error = denial(asked, Policy.nothing(), given(asked), core)

    assert error.code == "grant.core-version"
    assert [f.path for f in error.faults] == ["plugin.requires-core", "door[0]"]
    assert core in error.faults[0].message


# --- the result --------------------------------------------------------------------------------------------


def test_refuses_grants_made_by_anyone_else() -> None:
    found = grant(manifest(), policy(), given(manifest()))

    with pytest.raises(TypeError):
        Grants(found.subject, found.by_capability, found.limits, found.explain())
    with pytest.raises(TypeError):
        copy.copy(found)
    with pytest.raises(TypeError):
        replace(found, limits=DEFAULTS)
    with pytest.raises(TypeError):
        found.by_capability["bell"] = found.by_capability["door"]  # type: ignore[index]


@pytest.mark.case("LIFE-05")
def test_each_clause_has_a_lease_of_its_own() -> None:
    asked = manifest(LOOK + '[[door]]\ndoor = "back"\nacts = ["look"]\n')
    allowed = policy('[[plugins."*".door]]\n')
    one, two = (grant(asked, allowed, given(asked)) for _ in range(2))
    door = one.by_capability["door"]
    door.allow[0].lease.revoke("test")

    alive = [g.clause for g in door.allow if g.lease.alive]
    assert len(alive) == 1
    assert one.revoke("all", "bell") == 0
    assert one.revoke("all") == 1
    assert door.find(lambda c: True) is None
    assert two.by_capability["door"].find(lambda c: True) is not None


def test_a_denial_names_the_owner_of_the_policy() -> None:
    asked = manifest()

    assert "security@acme.com" in str(
        denial(asked, policy('owner = "security@acme.com"\n'), given(asked))
    )


def test_decide_shows_a_denial_and_grants_nothing() -> None:
    asked = manifest(PAINT)
    found = decide(asked, Policy.nothing(), none(asked), TOYS, core="0.3.0")

    assert isinstance(found, Resolution)
    assert found.decisions[0].status == "denied"
    assert found.allow == {"door": ClauseSet.of()}
    assert len(found.faults) == 2


def test_the_widest_manifest_and_policy_resolve_in_bounded_time() -> None:
    asked = manifest(
        "".join(f'[[door]]\ndoor = "{_name(i)}"\nacts = ["look"]\n' for i in range(64))
    )
    allowed = policy(
        "".join(
            f'[[plugins."*".door]]\nacts = ["look", "{act}"]\ntimes = {i + 1}\n'
            for i in range(85)
            for act in ("enter", "paint", "look")
        )
    )
    found = grant(asked, allowed, given(asked))

    assert len(doors(found)) == 64


def _name(number: int) -> str:
    return "".join(chr(97 + int(d)) for d in str(number))


def test_refuses_more_tables_than_resolve_in_bounded_time() -> None:
    from capwasm.errors import ManifestError

    with pytest.raises(ManifestError, match=re.escape("65 tables; at most 64")):
        manifest("[[door]]\n" * 65)


def test_bell_and_door_never_mix() -> None:
    asked = manifest("[bell]\ntunes = ['a']\n")
    allowed = policy('[plugins."*".bell]\ntunes = ["a"]\n[[deny.door]]\n')
    found: Any = grant(asked, allowed, given(asked)).by_capability

    assert [g.clause for g in found["bell"].allow] == [BellClause("a")]
    assert "door" not in found
