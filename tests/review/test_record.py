"""Records as bytes: by signers who check nothing, and by nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.capsule.attest import Statement
from capwasm.capsule.envelope import PAYLOAD_TYPE, Envelope, Signature, pae
from capwasm.errors import RegistryError, VerificationError
from capwasm.review.record import Record, RecordKind
from tests.review.hall import KEYS, NOW, code_of
from tests.review.test_rules import ANN, BOND, CLEAN, SUE, judge, rejection

GOOD = [ANN, SUE, CLEAN, rejection("bob")]


def forged(record: Record, edit: Callable[[dict[str, Any]], object], **words: Any) -> bytes:
    """A truly signed record whose signer checks nothing."""
    doc = json.loads(record.envelope.payload)
    edit(doc)
    payload = json.dumps(doc, sort_keys=True, separators=(",", ":")).encode()
    return sealed(payload, **words)


def sealed(payload: bytes, kind: str = PAYLOAD_TYPE, names: tuple[str, ...] = ("ann",)) -> bytes:
    signatures = sorted(
        (Signature(KEYS[n].public.key_id, KEYS[n].sign(pae(kind, payload))) for n in names),
        key=lambda s: s.key_id,
    )
    return Envelope(payload, kind, tuple(signatures)).encode()


@pytest.mark.parametrize("record", GOOD, ids=lambda r: r.kind)
def test_what_is_signed_is_read_back(record: Record) -> None:
    assert Record.parse(record.envelope.encode()) == record
    assert forged(record, lambda _doc: None)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "unknown word": lambda d: d["predicate"].update(more=1),
    "unknown word at the top": lambda d: d.update(more=1),
    "newer schema": lambda d: d["predicate"].update(schema=2),
    "another name": lambda d: d["subject"][0].update(name="acme.weather-1.0.1.capsule"),
    "another id": lambda d: d["predicate"].update(id="acme.other"),
    "another version": lambda d: d["predicate"].update(version="1.0.1"),
    "two subjects": lambda d: d["subject"].append(d["subject"][0]),
    "another type": lambda d: d.update(predicateType="https://capwasm.dev/attestation/capsule/v1"),
    "no such type": lambda d: d.update(predicateType="https://capwasm.dev/review/approval/v2"),
    "an exception's words": lambda d: d["predicate"].update(what="unreviewed", expires="2027-03-01T00:00:00Z"),
    "another kind": lambda d: d.update(predicateType=RecordKind.EXCEPTION.predicate_type),
    "a scan": lambda d: d.update(predicateType=RecordKind.SCAN.predicate_type),
    "a long reason": lambda d: d["predicate"].update(reason="x" * 501),
    "a hidden reason": lambda d: d["predicate"].update(reason="a\u202eb"),
    "a control character": lambda d: d["predicate"].update(reason="a\x1b[2Jb"),
    "no time": lambda d: d["predicate"].update(when="yesterday"),
    "no zone": lambda d: d["predicate"].update(when="2027-01-31T12:00:00"),
    "no digest": lambda d: d["predicate"].update(code="abc"),
    "not even a print": lambda d: d["predicate"].update(seen=["zz"]),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.case("MAN-08")
def test_refuses_what_is_signed_and_malformed(name: str) -> None:
    assert code_of(Record.parse, forged(ANN, EDITS[name])) == "review.record"


@pytest.mark.parametrize(
    "words",
    [{"kind": "application/json"}, {"names": ()}, {"names": ("ann", "bob")}],
    ids=["type", "nobody", "two"],
)
@pytest.mark.case("SIG-09")
def test_refuses_another_envelope(words: dict[str, Any]) -> None:
    assert code_of(Record.parse, sealed(ANN.envelope.payload, **words)) == "review.record"


def test_a_scan_is_about_its_own_archive() -> None:
    for word, value in (("plugin", "acme.other"), ("version", "2.0.0"), ("archive", "f" * 64)):
        data = forged(CLEAN, lambda d, w=word, v=value: d["predicate"]["report"].update({w: v}))  # type: ignore[misc]
        assert code_of(Record.parse, data) == "review.record"


@pytest.mark.case("SIG-09")
def test_a_capsules_statement_is_no_record_and_a_record_is_none() -> None:
    with pytest.raises(VerificationError) as caught:
        Statement.parse(ANN.envelope.payload)
    assert caught.value.code == "verify.predicate-type"


def test_refuses_to_sign_what_could_not_be_read() -> None:
    for reason in ("x" * 501, "a\x00b"):
        with pytest.raises(RegistryError, match="reason"):
            Record.sign(RecordKind.APPROVAL, BOND, KEYS["ann"], NOW, reason)
    with pytest.raises(RegistryError):
        Record.sign(RecordKind.REJECTION, BOND, KEYS["ann"], NOW, "")
    with pytest.raises(RegistryError):
        Record.sign(RecordKind.EXCEPTION, BOND, KEYS["sue"], NOW, "why", what="A B", expires=NOW)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just("f" * 64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
WORDS = st.sampled_from(
    ["id", "version", "code", "manifest", "permissions", "when", "reason", "seen", "what",
     "expires", "report", "schema"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(record=st.sampled_from(GOOD), word=WORDS, value=VALUES, drop=st.booleans())
def test_no_signed_word_is_read_as_something_else(
    record: Record, word: str, value: Any, drop: bool
) -> None:
    def edit(doc: dict[str, Any]) -> None:
        doc["predicate"].pop(word, None)
        if not drop:
            doc["predicate"][word] = value

    data = forged(record, edit, names=("stranger",))
    code = code_of(Record.parse, data)
    assert code in ("", "review.record")
    if not code:
        assert not [v for v in judge(CLEAN, Record.parse(data)).votes[1:] if v.counts]


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200))
def test_refuses_any_bytes(data: bytes) -> None:
    assert code_of(Record.parse, data) == "review.record"
