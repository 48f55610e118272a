"""The feed: who may sign it, what it may say, and that not one byte of it can change."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.envelope import PAYLOAD_TYPE, Envelope, Signature
from capwasm.capsule.trust import Requirement, TrustedKey, TrustStore
from capwasm.capsule.verify import verify
from capwasm.errors import CapwasmError, PolicyError, RevocationError, VerificationError
from capwasm.revocation import feed as feeds
from capwasm.revocation.feed import add_signature, make, parse, verify_feed
from tests.registry.shop import capsule
from tests.revocation.desk import ANN, BEN, EVE, NOW, PUBLISHER, feed, trust

HEX = "0" * 64
BASE: dict[str, Any] = {
    "schema": 1, "sequence": 1,
    "issued": "2027-01-31T12:00:00Z", "expires": "2027-02-07T12:00:00Z",
}  # fmt: skip


def code_of(data: bytes, by: TrustStore | None = None, now: Any = NOW) -> str | None:
    try:
        verify_feed(data, by or trust(), now)
    except CapwasmError as exc:
        return exc.code
    return None


def signed(payload: bytes, payload_type: str = feeds.PAYLOAD_TYPE) -> bytes:
    """A payload that `make` would never make, truly signed."""
    envelope = Envelope(payload, payload_type)
    signature = Signature(ANN.public.key_id, ANN.sign(envelope.signed_bytes()))
    return Envelope(payload, payload_type, (signature,)).encode()


def test_allows_a_feed_that_a_revoker_signed() -> None:
    found = verify_feed(feed(7, deny={"plugins": {"evil.*": "stolen"}}), trust(), NOW)

    assert (found.sequence, found.signers) == (7, ("ann",))
    assert found.content.deny.plugins == {"evil.*": "stolen"}
    assert found.content.allow is None


@pytest.mark.parametrize(
    ("keys", "threshold", "code"),
    [
        ((), 1, "verify.unsigned"),
        ((EVE,), 1, "verify.untrusted-key"),
        ((PUBLISHER,), 1, "verify.key-role"),
        ((ANN,), 2, "verify.threshold"),
        ((ANN, ANN), 2, "verify.threshold"),
        ((ANN, PUBLISHER), 2, "verify.threshold"),
        ((ANN, BEN), 2, None),
        ((ANN, EVE), 1, None),
    ],
)
@pytest.mark.case("SIG-12", "SIG-18")
def test_refuses_whoever_may_not_revoke(keys: Any, threshold: int, code: str | None) -> None:
    assert code_of(feed(keys=keys), trust(threshold)) == code


@pytest.mark.case("SIG-18")
def test_refuses_a_revokers_key_that_was_revoked_or_has_expired() -> None:
    assert code_of(feed(), trust(revoked=True)) == "verify.key-revoked"
    assert code_of(feed(), trust(not_after=NOW)) == "verify.key-expired"
    assert code_of(feed(), TrustStore.empty()) == "verify.no-trust-store"
    no_revoker = TrustStore((TrustedKey("a", ANN.public, frozenset({"official"}), ("*",)),))
    assert code_of(feed(), no_revoker) == "verify.no-trust-store"


@pytest.mark.case("SIG-09")
def test_refuses_a_signature_over_another_kind_of_document() -> None:
    payload = parse(feed()).data
    content = Envelope.parse(payload).payload
    assert code_of(signed(content)) is None
    assert code_of(signed(content, PAYLOAD_TYPE)) == "verify.payload-type"
    assert code_of(capsule()) == "verify.envelope"


@pytest.mark.case("SIG-09")
def test_refuses_a_capsule_that_a_revoker_signed() -> None:
    with pytest.raises(VerificationError) as caught:
        verify(read_artifact(capsule(keys=[ANN])), trust(), now=NOW)
    assert caught.value.code == "verify.key-role"
    for wrong in ({"revoker", "publisher"}, {"reviewer"}, set()):
        with pytest.raises(ValueError, match="any_of"):
            Requirement(frozenset(wrong))  # type: ignore[arg-type]


def test_refuses_a_revoker_with_another_role_or_a_narrow_scope() -> None:
    for roles, ids in (({"revoker", "publisher"}, ("*",)), ({"revoker"}, ("acme.*",))):
        with pytest.raises(PolicyError) as caught:
            TrustStore((TrustedKey("a", ANN.public, frozenset(roles), ids),))  # type: ignore[arg-type]
        assert caught.value.code == "trust.invalid"


@pytest.mark.case("PER-09")
def test_refuses_what_has_expired_and_what_is_of_the_future() -> None:
    data = feed(good=timedelta(hours=1))
    assert code_of(data, now=NOW + timedelta(minutes=59)) is None
    assert code_of(data, now=NOW + timedelta(hours=1)) == "revocation.expired"
    assert code_of(data, now=NOW - timedelta(minutes=4)) is None
    assert code_of(data, now=NOW - timedelta(minutes=6)) == "revocation.future"


@pytest.mark.case("SIG-01")
def test_refuses_every_byte_that_was_changed_added_or_cut() -> None:
    data = feed(deny={"digests": {HEX: "bad"}})
    for place in range(len(data)):
        for flipped in (data[place] ^ 1, data[place] ^ 0x20):
            changed = data[:place] + bytes([flipped]) + data[place + 1 :]
            if changed != data:
                assert code_of(changed) is not None, place
        assert code_of(data[:place]) is not None
    assert code_of(data + b"\n") == "verify.envelope"
    assert code_of(b" " + data) == "verify.envelope"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({"schema": 2}, "revocation.schema"),
        ({"schema": True}, "revocation.feed"),
        ({"sequence": 0}, "revocation.feed"),
        ({"sequence": 10**15 + 1}, "revocation.feed"),
        ({"sequence": 1.0}, "revocation.feed"),
        ({"issued": "2027-01-31"}, "revocation.feed"),
        ({"issued": "2027-02-31T12:00:00Z"}, "revocation.feed"),
        ({"expires": "2027-01-31T12:00:00Z"}, "revocation.feed"),
        ({"extra": 1}, "revocation.feed"),
        ({"deny": {"digest": {}}}, "revocation.feed"),
        ({"deny": {"digests": {"A" * 64: ""}}}, "revocation.feed"),
        ({"deny": {"digests": {HEX: 1}}}, "revocation.feed"),
        ({"deny": {"digests": {HEX: "x" * 501}}}, "revocation.feed"),
        ({"deny": {"digests": {HEX: "a\u202eb"}}}, "revocation.feed"),
        ({"deny": {"versions": {"acme": {}}}}, "revocation.feed"),
        ({"deny": {"versions": {"acme.weather": {"1.2.3": ""}}}}, "revocation.feed"),
        ({"deny": {"plugins": {"acme*": ""}}}, "revocation.feed"),
        ({"deny": {"signers": {"abc": ""}}}, "revocation.feed"),
        ({"deny": {"capabilities": [{"capability": "Net"}]}}, "revocation.feed"),
        ({"allow": {"plugins": ["*acme"]}}, "revocation.feed"),
        ({"allow": []}, "revocation.feed"),
    ],
)
@pytest.mark.case("MAN-08")
def test_refuses_a_feed_that_is_malformed_though_truly_signed(words: Any, code: str) -> None:
    assert code_of(signed(json.dumps({**BASE, **words}).encode())) == code
    assert code_of(signed(json.dumps(BASE).encode())) is None
    if code == "revocation.feed":
        with pytest.raises(RevocationError) as caught:
            make({**BASE, **words})
        assert caught.value.code == "revocation.list"


@pytest.mark.case("MAN-03", "MAN-04", "MAN-05")
def test_refuses_json_with_two_readings_and_other_texts() -> None:
    good = json.dumps(BASE)
    for wrong in (
        good.replace('"sequence": 1', '"sequence": 1, "sequence": 2'),
        good.replace('"sequence": 1', '"sequence": NaN'),
        good + "x", "[]", "", "1", '{"deny":' + "[" * 100_000, "\ud800",
    ):  # fmt: skip
        assert code_of(signed(wrong.encode("utf-8", "surrogatepass"))) == "revocation.feed"


def test_refuses_more_entries_or_bytes_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {"digests": {f"{n:064x}": "" for n in range(6)}, "plugins": {"a.b": ""}}
    monkeypatch.setattr(feeds, "MAX_ENTRIES", 8)
    assert code_of(feed(deny=many, allow={"plugins": ["a.*"]})) is None
    with pytest.raises(RevocationError):
        feed(deny=many, allow={"plugins": ["a.*", "b.*"]})
    data = feed(deny=many)
    monkeypatch.setattr(feeds, "MAX_FEED_BYTES", len(data))
    assert code_of(data) is None
    monkeypatch.setattr(feeds, "MAX_FEED_BYTES", len(data) - 1)
    assert code_of(data) == "revocation.too-large"


def test_a_key_signs_once_and_signing_again_replaces_it() -> None:
    data = feed(keys=(ANN, BEN))
    assert add_signature(data, ANN) == data
    assert add_signature(add_signature(feed(keys=()), BEN), ANN) == data


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_whatever_it_is_given_it_refuses_by_one_of_our_errors(data: bytes) -> None:
    assert code_of(data) is not None
    assert code_of(signed(data)) is not None
