"""What each verb does, and what it refuses: versions that go back, names that change hands."""

from __future__ import annotations

from typing import Any

import pytest

from capwasm.errors import AuditError, CapwasmError, RegistryError, VerificationError
from capwasm.events import ALLOWED, DENIED, Event
from capwasm.registry.model import TRANSITIONS, PermitKind, State
from capwasm.registry.registry import Registry
from tests.helpers import ListRecorder
from tests.registry.shop import ACME, GLOBEX, ID, Shop, capsule, state_of, trust_of

WHO: dict[str, Any] = {"who": "ann", "why": "a test"}


@pytest.fixture
def registry(shop: Shop) -> Registry:
    return shop.registry()


def refused(code: str, call: Any, *args: Any, **words: Any) -> CapwasmError:
    """The error, if it has that code and nothing changed."""
    with pytest.raises(CapwasmError) as caught:
        call(*args, **words)
    assert caught.value.code == code, caught.value
    return caught.value


def install(registry: Registry, *versions: str, **words: Any) -> None:
    for version in versions:
        registry.install(capsule(version, **words), **WHO)


# -- install and update -------------------------------------------------------------------------------


def test_allows_the_first_version_and_the_next(registry: Registry, recorder: ListRecorder) -> None:
    first = registry.install(capsule("1.0.0"), **WHO)
    second = registry.install(capsule("1.1.0"), **WHO)

    assert (first.action, first.before, first.plugin.serving) == ("installed", None, "1.0.0")
    assert (second.action, second.before, second.plugin.serving) == ("updated", "1.0.0", "1.1.0")
    states = {v.version: v.state for v in registry.show(ID).versions}
    assert states == {"1.0.0": State.REVIEWED, "1.1.0": State.ACTIVE}
    assert registry.serving(ID)[0].version == "1.1.0"
    assert [(e.action, e.plugin) for e in recorder.of(ALLOWED)] == [
        ("installed", f"{ID}@1.0.0"),
        ("updated", f"{ID}@1.1.0"),
    ]
    assert [e.details["sequence"] for e in recorder.events] == [1, 2]


def test_every_step_says_who_when_and_why(registry: Registry) -> None:
    install(registry, "1.0.0")
    steps = registry.history(ID)

    assert [(s.before, s.after) for s in steps] == [
        (None, State.SUBMITTED),
        (State.SUBMITTED, State.SCANNED),
        (State.SCANNED, State.REVIEWED),
        (State.REVIEWED, State.ACTIVE),
    ]
    assert [s.number for s in steps] == [1, 2, 3, 4]
    assert {(s.mark.who, s.mark.when, s.mark.why) for s in steps} == {
        ("ann", "2027-01-31T12:00:00Z", "a test")
    }


def test_the_same_again_changes_nothing(registry: Registry, recorder: ListRecorder) -> None:
    install(registry, "1.0.0")
    before = state_of(registry.show(ID))
    again = registry.install(capsule("1.0.0"), **WHO)

    assert again.action == "unchanged"
    assert state_of(registry.show(ID)) == before
    assert len(recorder.events) == 1


def test_more_signatures_on_the_same_content_are_a_renewal(registry: Registry) -> None:
    install(registry, "1.0.0")
    renewed = registry.install(capsule("1.0.0", keys=(ACME, GLOBEX)), **WHO)

    assert renewed.action == "renewed"
    assert len(registry.show(ID).versions[0].signers) == 2
    assert registry.serving(ID)[1].bundle == renewed.plugin.versions[0].bundle


@pytest.mark.case("SIG-06")
def test_refuses_another_content_under_a_version_that_was_installed(registry: Registry) -> None:
    install(registry, "1.0.0")
    before = state_of(registry.show(ID))

    refused("registry.version-taken", registry.install, capsule("1.0.0", more=b"!"), **WHO)
    assert state_of(registry.show(ID)) == before


@pytest.mark.case("SIG-01")
def test_refuses_what_does_not_verify_and_keeps_nothing_of_it(
    shop: Shop, recorder: ListRecorder
) -> None:
    registry = shop.registry(trust=trust_of(GLOBEX))
    flipped = bytearray(capsule())
    flipped[-40] ^= 1

    refused("verify.untrusted-key", registry.install, capsule(), **WHO)
    refused("verify.digest", shop.registry().install, bytes(flipped), **WHO)
    assert shop.files() == set()
    assert [e.reason for e in recorder.of(DENIED)] == ["verify.untrusted-key", "verify.digest"]


@pytest.mark.parametrize("words", [{"who": ""}, {"who": "a\nb"}, {"who": "a", "why": "x" * 501}])
def test_refuses_a_change_without_a_name_that_can_be_read(
    registry: Registry, shop: Shop, words: dict[str, str]
) -> None:
    refused("registry.text", registry.install, capsule(), **words)
    assert shop.files() == set()


def test_refuses_what_the_audit_cannot_tell(shop: Shop) -> None:
    class Full:
        def record(self, event: Event) -> None:
            raise AuditError("no space")

    install(shop.registry(), "1.0.0")
    before = state_of(shop.registry().show(ID))
    registry = shop.registry(recorder=Full())

    for call in (
        lambda: registry.install(capsule("1.1.0"), **WHO),
        lambda: registry.suspend(ID, **WHO),
        lambda: registry.remove(ID, **WHO),
    ):
        refused("audit.sink", call)
    assert state_of(shop.registry().show(ID)) == before


def test_refuses_to_be_used_from_within_its_own_change(shop: Shop) -> None:
    class Nosy:
        def record(self, event: Event) -> None:
            registry.list()

    registry = shop.registry(recorder=Nosy())
    with pytest.raises(RuntimeError, match="within a change"):
        registry.install(capsule(), **WHO)
    assert shop.registry().list() == ()


# -- never back -----------------------------------------------------------------------------------------


@pytest.mark.case("SIG-15")
def test_refuses_an_older_version_and_after_a_removal_too(registry: Registry) -> None:
    install(registry, "1.0.0", "1.2.0")

    error = refused("verify.rollback", registry.install, capsule("1.1.0"), **WHO)
    assert "capwasm permit acme.weather downgrade 1.1.0" in str(error.faults[0].fix)
    registry.remove(ID, **WHO)
    for version in ("1.1.0", "1.2.0-rc.1", "0.9.9"):
        refused("verify.rollback", registry.install, capsule(version), **WHO)
    install(registry, "1.2.0")
    assert registry.show(ID).serving == "1.2.0"


@pytest.mark.case("SIG-15")
def test_allows_one_older_version_that_a_person_permitted_and_no_other(registry: Registry) -> None:
    install(registry, "1.0.0", "1.2.0")
    registry.permit(ID, PermitKind.DOWNGRADE, "1.1.0", **WHO)

    refused("verify.rollback", registry.install, capsule("1.0.5"), **WHO)
    outcome = registry.install(capsule("1.1.0"), **WHO)
    assert (outcome.plugin.serving, outcome.plugin.highest) == ("1.1.0", "1.2.0")
    assert registry.serving(ID)[0].version == "1.1.0"
    install(registry, "1.3.0")
    # With the higher version the exception is over.
    refused("verify.rollback", registry.install, capsule("1.1.0"), **WHO)


@pytest.mark.case("SIG-15")
def test_refuses_to_load_an_older_version_from_elsewhere(shop: Shop, registry: Registry) -> None:
    from capwasm.capsule.artifact import read_artifact
    from capwasm.capsule.verify import verify
    from tests.registry.shop import TRUST

    def proven(*args: Any, **words: Any) -> Any:
        return verify(read_artifact(capsule(*args, **words)), TRUST)

    install(registry, "1.0.0", "1.1.0")
    registry.admit(proven("1.1.0"))
    registry.admit(proven("9.0.0"))
    registry.admit(proven("1.0.0", id="acme.other"))
    refused("verify.rollback", registry.admit, proven("1.0.0"))
    refused("registry.name-taken", registry.admit, proven("9.0.0", keys=(GLOBEX,)))
    refused("registry.version-taken", registry.admit, proven("1.1.0", more=b"!"))
    registry.suspend(ID, **WHO)
    refused("registry.state", registry.admit, proven("1.1.0"))
    registry.revoke(ID, "1.1.0", **WHO)
    refused("verify.revoked", registry.admit, proven("1.1.0"))


def test_allows_the_way_back_and_forth_again(registry: Registry) -> None:
    install(registry, "1.0.0", "1.1.0")
    back = registry.rollback(ID, **WHO)

    assert (back.action, back.version, back.before) == ("rolled-back", "1.0.0", "1.1.0")
    assert back.plugin.permits_for(PermitKind.DOWNGRADE, "1.0.0")
    assert back.plugin.version("1.1.0").state is State.SUSPENDED
    assert registry.serving(ID)[0].version == "1.0.0"
    # An update does not come back to it by itself; a person may.
    assert registry.install(capsule("1.1.0"), **WHO).action == "unchanged"
    forth = registry.activate(ID, "1.1.0", **WHO)
    assert (forth.plugin.serving, forth.plugin.permits) == ("1.1.0", ())


def test_refuses_a_way_back_that_is_none(registry: Registry) -> None:
    install(registry, "1.0.0")
    refused("registry.unknown", registry.rollback, ID, **WHO)
    refused("registry.unknown", registry.rollback, ID, "0.1.0", **WHO)
    refused("registry.state", registry.rollback, ID, "1.0.0", **WHO)
    refused("registry.unknown", registry.rollback, "acme.nobody", **WHO)
    registry.install(capsule("3.0.0", keys=(GLOBEX,)), **WHO)
    refused("registry.state", registry.rollback, ID, "3.0.0", **WHO)  # it waits; it never served
    registry.reject(ID, **WHO)
    install(registry, "1.1.0")
    registry.revoke(ID, "1.0.0", **WHO)
    refused("registry.unknown", registry.rollback, ID, **WHO)
    refused("verify.revoked", registry.rollback, ID, "1.0.0", **WHO)


def test_the_three_versions_before_are_kept(registry: Registry) -> None:
    install(registry, *(f"1.{n}.0" for n in range(6)))

    assert [v.version for v in registry.show(ID).versions] == ["1.2.0", "1.3.0", "1.4.0", "1.5.0"]
    assert registry.collect()[0] == 2
    assert registry.verify().problems == ()


# -- whose name it is ------------------------------------------------------------------------------------


@pytest.mark.case("SIG-26")
def test_refuses_to_update_to_another_signer_until_a_person_agrees(registry: Registry) -> None:
    install(registry, "1.0.0")
    parked = registry.install(capsule("1.1.0", keys=(GLOBEX,)), **WHO)

    assert (parked.action, parked.plugin.serving, parked.plugin.waiting) == (
        "pending",
        "1.0.0",
        "1.1.0",
    )
    assert parked.plugin.highest == "1.0.0"
    assert GLOBEX.public.key_id in parked.reasons[0]
    assert registry.serving(ID)[0].version == "1.0.0"
    registry.activate(ID, **WHO)
    assert registry.show(ID).owners == {GLOBEX.public.key_id}
    assert registry.serving(ID)[0].version == "1.1.0"


@pytest.mark.case("SIG-26")
def test_refuses_a_removed_name_to_anybody_else(registry: Registry) -> None:
    install(registry, "1.0.0")
    registry.remove(ID, **WHO)

    for version in ("1.0.0", "9.0.0"):
        refused("registry.name-taken", registry.install, capsule(version, keys=(GLOBEX,)), **WHO)
    assert registry.list() == ()
    assert [p.id for p in registry.list(removed=True)] == [ID]
    install(registry, "1.0.1")
    assert registry.show(ID).removed is None


@pytest.mark.case("SIG-26")
def test_allows_a_removed_name_to_the_signer_that_a_person_named_once(registry: Registry) -> None:
    install(registry, "1.0.0")
    registry.remove(ID, **WHO)
    registry.permit(ID, PermitKind.SIGNER, GLOBEX.public.key_id, **WHO)

    refused("verify.rollback", registry.install, capsule("0.1.0", keys=(GLOBEX,)), **WHO)
    taken = registry.install(capsule("2.0.0", keys=(GLOBEX,)), **WHO)
    assert taken.plugin.owners == {GLOBEX.public.key_id}
    assert taken.plugin.permits == ()
    # It is theirs now, and the one who had it would need an exception.
    assert registry.install(capsule("3.0.0"), **WHO).action == "pending"


@pytest.mark.case("SIG-26", "SIG-18")
def test_allows_a_rotation_by_both_keys_that_a_person_agrees_to(registry: Registry) -> None:
    install(registry, "1.0.0")
    joined = registry.install(capsule("1.1.0", keys=(ACME, GLOBEX)), **WHO)
    assert joined.reasons == (f"another signer: {GLOBEX.public.key_id}",)
    registry.activate(ID, **WHO)
    left = registry.install(capsule("1.2.0", keys=(GLOBEX,)), **WHO)
    assert left.reasons == (f"signed by fewer keys than before, without: {ACME.public.key_id}",)
    registry.activate(ID, **WHO)

    assert registry.show(ID).owners == {GLOBEX.public.key_id}
    assert registry.install(capsule("1.3.0"), **WHO).action == "pending"


@pytest.mark.case("SIG-26")
def test_allows_a_rotation_that_a_person_permitted_before(registry: Registry) -> None:
    install(registry, "1.0.0")
    registry.permit(ID, PermitKind.SIGNER, GLOBEX.public.key_id, **WHO)
    install(registry, "1.1.0", keys=(GLOBEX,))

    plugin = registry.show(ID)
    assert (plugin.serving, plugin.owners) == ("1.1.0", {GLOBEX.public.key_id})
    assert plugin.permits == ()


@pytest.mark.case("SIG-26")
def test_who_signs_an_accepted_version_as_well_owns_nothing(registry: Registry) -> None:
    install(registry, "1.0.0")
    renewed = registry.install(capsule("1.0.0", keys=(ACME, GLOBEX)), **WHO)
    registry.suspend(ID, **WHO)
    registry.activate(ID, **WHO)

    assert renewed.action == "renewed"
    assert registry.show(ID).owners == {ACME.public.key_id}
    assert registry.install(capsule("2.0.0", keys=(GLOBEX,)), **WHO).action == "pending"


def test_a_renewal_of_what_is_suspended_does_not_wake_it(registry: Registry) -> None:
    install(registry, "1.0.0")
    registry.suspend(ID, **WHO)

    assert registry.install(capsule("1.0.0", keys=(ACME, GLOBEX)), **WHO).action == "renewed"
    refused("registry.state", registry.serving, ID)
    refused("registry.name-taken", registry.install, capsule("1.0.0", keys=(GLOBEX,)), **WHO)


def test_what_waits_serves_once_nothing_is_against_it(shop: Shop) -> None:
    registry = shop.registry()
    install(registry, "1.0.0")
    parked = registry.install(capsule("1.1.0", keys=(GLOBEX,)), **WHO)
    registry.permit(ID, PermitKind.SIGNER, GLOBEX.public.key_id, **WHO)

    assert parked.action == "pending"
    taken = registry.install(capsule("1.1.0", keys=(GLOBEX,)), **WHO)
    assert (taken.action, taken.plugin.waiting, taken.plugin.permits) == ("updated", None, ())


# -- states ----------------------------------------------------------------------------------------------


def test_refuses_to_serve_what_is_not_active(registry: Registry, shop: Shop) -> None:
    refused("registry.unknown", registry.serving, ID)
    install(registry, "1.0.0")
    registry.suspend(ID, **WHO)
    refused("registry.state", registry.serving, ID)
    refused("registry.state", registry.suspend, ID, **WHO)
    registry.activate(ID, **WHO)
    assert registry.serving(ID)
    registry.revoke(ID, "1.0.0", **WHO)
    refused("verify.revoked", registry.serving, ID)
    refused("verify.revoked", registry.activate, ID, "1.0.0", **WHO)
    refused("registry.state", registry.revoke, ID, "1.0.0", **WHO)
    registry.remove(ID, **WHO)
    refused("registry.unknown", registry.serving, ID)


def test_refuses_to_bring_back_by_a_removal_what_was_revoked(registry: Registry) -> None:
    install(registry, "1.0.0")
    registry.revoke(ID, "1.0.0", **WHO)
    registry.remove(ID, **WHO)

    refused("verify.revoked", registry.install, capsule("1.0.0"), **WHO)
    refused("verify.revoked", registry.install, capsule("1.0.0", keys=(ACME, GLOBEX)), **WHO)


def test_a_suspended_plugin_is_not_woken_by_an_update(registry: Registry) -> None:
    install(registry, "1.0.0")
    registry.suspend(ID, **WHO)

    assert registry.install(capsule("1.1.0"), **WHO).action == "pending"
    refused("registry.state", registry.serving, ID)
    assert registry.activate(ID, "1.1.0", **WHO).plugin.serving == "1.1.0"


def test_a_pinned_plugin_stays_until_a_person_moves_it(registry: Registry) -> None:
    install(registry, "1.0.0")
    registry.pin(ID, "1.0.0", **WHO)

    refused("registry.pinned", registry.install, capsule("1.1.0"), **WHO)
    refused("registry.unknown", registry.reject, ID, **WHO)
    registry.pin(ID, None, **WHO)
    assert registry.install(capsule("1.1.0"), **WHO).action == "updated"


def test_refuses_to_activate_what_was_verified_once_and_is_not_today(shop: Shop) -> None:
    registry = shop.registry()
    install(registry, "1.0.0")
    registry.install(capsule("1.1.0", keys=(GLOBEX,)), **WHO)
    later = shop.registry(trust=trust_of(ACME))

    refused("verify.untrusted-key", later.activate, ID, **WHO)
    assert later.show(ID).waiting == "1.1.0"
    assert later.serving(ID)[0].version == "1.0.0"


def test_refuses_to_serve_by_a_key_that_is_trusted_no_more(shop: Shop) -> None:
    install(shop.registry(), "1.0.0")

    refused("verify.untrusted-key", shop.registry(trust=trust_of(GLOBEX)).serving, ID)


def test_no_transition_leads_out_of_revoked() -> None:
    assert TRANSITIONS[State.REVOKED] == frozenset()
    assert set(TRANSITIONS) == {None, *State}
    assert State.ACTIVE not in {
        s for b in (None, State.SUBMITTED, State.SCANNED) for s in TRANSITIONS[b]
    }


# -- exceptions, and what nobody knows -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        (PermitKind.SIGNER, "nobody"),
        (PermitKind.SIGNER, "F" * 64),
        (PermitKind.DOWNGRADE, "1"),
        (PermitKind.MIN_AGE, ""),
    ],
)
def test_refuses_an_exception_for_nothing(
    registry: Registry, shop: Shop, kind: PermitKind, subject: str
) -> None:
    with pytest.raises(ValueError, match="not a"):
        registry.permit(ID, kind, subject, **WHO)
    with pytest.raises(ValueError, match="not a plugin id"):
        registry.permit("../x", PermitKind.DOWNGRADE, "1.0.0", **WHO)
    assert shop.files() == set()


def test_allows_an_exception_before_the_plugin_comes(registry: Registry) -> None:
    registry.permit(ID, PermitKind.MIN_AGE, "1.0.0", **WHO)

    assert registry.show(ID).highest is None
    install(registry, "1.0.0")
    assert registry.show(ID).serving == "1.0.0"


def test_refuses_every_question_about_a_stranger(registry: Registry) -> None:
    for call in (registry.show, registry.history, registry.serving):
        refused("registry.unknown", call, ID)
    for verb in (registry.remove, registry.suspend, registry.reject, registry.activate):
        refused("registry.unknown", verb, ID, **WHO)
    assert registry.find(ID) is None
    install(registry, "1.0.0")
    registry.remove(ID, **WHO)
    refused("registry.unknown", registry.remove, ID, **WHO)


def test_an_error_of_a_refusal_is_one_of_ours(registry: Registry) -> None:
    install(registry, "1.1.0")
    assert isinstance(
        refused("verify.rollback", registry.install, capsule(), **WHO), VerificationError
    )
    assert isinstance(refused("registry.unknown", registry.show, "x.y"), RegistryError)


def test_refuses_to_guess_which_of_two_is_meant(registry: Registry) -> None:
    install(registry, "1.0.0")
    registry.suspend(ID, **WHO)
    assert registry.install(capsule("1.1.0"), **WHO).action == "pending"

    fault = refused("registry.state", registry.activate, ID, **WHO)
    assert [f.fix for f in fault.faults] == [
        f"capwasm activate {ID} 1.0.0",
        f"capwasm activate {ID} 1.1.0",
    ]
    assert registry.activate(ID, "1.0.0", **WHO).plugin.waiting == "1.1.0"
    assert registry.activate(ID, **WHO).plugin.serving == "1.1.0"


def test_an_id_passes_to_who_signed_the_same_content_by_an_exception(registry: Registry) -> None:
    install(registry, "1.0.0")
    other = capsule("1.0.0", keys=(GLOBEX,))
    refused("registry.name-taken", registry.install, other, **WHO)

    registry.permit(ID, PermitKind.SIGNER, GLOBEX.public.key_id, **WHO)
    assert registry.install(other, **WHO).action == "renewed"
    plugin = registry.show(ID)
    assert (plugin.owners, plugin.permits) == (frozenset({GLOBEX.public.key_id}), ())
    assert registry.serving(ID)[0].version == "1.0.0"
    refused("registry.name-taken", registry.install, capsule("1.0.0"), **WHO)
