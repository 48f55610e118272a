"""Stage 2: each step fails closed with its own code, and only the stage makes the proof."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import threading
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as OtherEnvelope
from securesystemslib.signer import SSlibKey

from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.attest import Statement
from capwasm.capsule.container import join, split, write_archive
from capwasm.capsule.envelope import Envelope, Signature, pae
from capwasm.capsule.identity import Identity
from capwasm.capsule.keys import ALGORITHMS, PrivateKey
from capwasm.capsule.pack import pack, sign_capsule
from capwasm.capsule.trust import Requirement, Role, TrustedKey, TrustStore
from capwasm.capsule.verify import VerifiedArtifact, verify
from capwasm.errors import VerificationError
from tests.capsules import FILES, KEY, STORE, WEATHER, forged, signed, trusted

KEYS = {n: PrivateKey.generate(ALGORITHMS[n % 2]) for n in range(1, 10)}
NOW = datetime(2027, 6, 1, tzinfo=UTC)
ARCHIVE = write_archive(FILES)


def code_of(data: bytes, store: TrustStore = STORE, **words: Any) -> str:
    with pytest.raises(VerificationError) as caught:
        verify(read_artifact(data), store, **words)
    return caught.value.code


def envelope_of(data: bytes) -> Envelope:
    return Envelope.parse(bytes(split(data).envelope))


def with_envelope(data: bytes, envelope: Envelope | bytes) -> bytes:
    encoded = envelope if isinstance(envelope, bytes) else envelope.encode()
    return join(encoded, split(data).archive)


@pytest.fixture(params=["alone", "beside", "no more threads"])
def hashing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive and its files are hashed one after the other, or on two threads."""
    if request.param != "alone":
        monkeypatch.setattr("capwasm.capsule.attest._WORTH_A_THREAD", 0)
    if request.param == "no more threads":

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)


# --- the proof itself


@pytest.mark.usefixtures("hashing")
def test_allows_a_signed_capsule_and_says_what_was_proven() -> None:
    verified = verify(read_artifact(signed()), STORE)

    assert (verified.id, verified.version, verified.kind) == ("acme.weather", "1.2.0", "component")
    assert verified.code == FILES["plugin.wasm"]
    assert verified.manifest_bytes == FILES["plugin.toml"]
    assert set(verified.digests) == set(verified.members) == set(FILES)
    assert verified.code_digest == verified.digests["plugin.wasm"]
    assert verified.manifest_digest == verified.digests["plugin.toml"]
    assert [(s.name, s.key_id, s.roles) for s in verified.signers] == [
        ("acme", KEY.public.key_id, frozenset({"publisher"}))
    ]


def test_allows_more_signatures_without_changing_the_digest() -> None:
    store = TrustStore(tuple(trusted(KEYS[n], name=f"k{n}") for n in (1, 2)))
    one, two = (verify(read_artifact(signed(*map(KEYS.get, by))), store) for by in ([1], [1, 2]))  # type: ignore[arg-type]

    assert one.digest == two.digest
    assert len(two.signers) == 2
    assert signed(KEYS[1], KEYS[3]) != signed(KEYS[1])


def test_refuses_to_be_made_changed_copied_or_unpickled() -> None:
    verified = verify(read_artifact(signed()), STORE)

    with pytest.raises(TypeError):
        VerifiedArtifact(WEATHER, "", {}, {}, ())
    with pytest.raises(TypeError):
        replace(verified, digest="")
    with pytest.raises(FrozenInstanceError):
        verified.digest = ""  # type: ignore[misc]
    with pytest.raises(TypeError):
        verified.digests["x"] = ""  # type: ignore[index]
    with pytest.raises(TypeError):
        verified.members["plugin.wasm"][0] = 1
    for clone in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            clone(verified)


@pytest.mark.case("SIG-05", "SIG-21")
def test_refuses_to_read_the_file_again_after_it_was_swapped(tmp_path: Path) -> None:
    path = tmp_path / "a.capsule"
    path.write_bytes(signed())
    artifact = read_artifact(path)
    path.write_bytes(b"swapped before verification")

    verified = verify(artifact, STORE)
    path.unlink()

    assert verified.code == FILES["plugin.wasm"]


@pytest.mark.case("SIG-06")
@pytest.mark.parametrize(
    "other", [("acme.other", "1.2.0", "component"), ("acme.weather", "1.2.1", "component"),
              ("acme.weather", "1.2.0", "native"), ("x", "y", "z")],
)  # fmt: skip
def test_refuses_a_manifest_of_another_plugin(other: tuple[str, str, str]) -> None:
    verified = verify(read_artifact(signed()), STORE)
    verified.check_identity("acme.weather", "1.2.0", "component")

    with pytest.raises(VerificationError) as caught:
        verified.check_identity(*other)

    assert caught.value.code == "verify.identity"
    assert len(caught.value.faults) == sum(
        a != b for a, b in zip(other, ("acme.weather", "1.2.0", "component"), strict=True)
    )


# --- n of m


@dataclass
class Row:
    """Keys 1.. that are trusted, how many are needed, who signs, and the code (None: verified)."""

    keys: list[int]
    need: int
    by: list[int]
    code: str | None = None
    change: Callable[[int, TrustedKey], TrustedKey] = lambda _n, key: key
    reviewers: tuple[int, ...] = ()


def only(number: int, **words: Any) -> Callable[[int, TrustedKey], TrustedKey]:
    return lambda n, key: replace(key, **words) if n == number else key


SCENARIOS = {
    "1-of-1: the key signs": Row([1], 1, [1]),
    "1-of-1: a stranger signs": Row([1], 1, [9], "verify.untrusted-key"),
    "1-of-1: a stranger signs as well": Row([1], 1, [1, 9]),
    "2-of-3: two sign": Row([1, 2, 3], 2, [1, 3]),
    "2-of-3: all sign": Row([1, 2, 3], 2, [3, 2, 1]),
    "2-of-3: one signer left out": Row([1, 2, 3], 2, [2], "verify.threshold"),
    "2-of-3: a stranger does not count": Row([1, 2, 3], 2, [1, 9], "verify.threshold"),
    "2-of-3: strangers alone": Row([1, 2, 3], 2, [8, 9], "verify.untrusted-key"),
    "2-of-3: one key signs twice": Row([1, 2, 3], 2, [1, 1], "verify.threshold"),
    "3-of-3: all sign": Row([1, 2, 3], 3, [1, 2, 3]),
    "3-of-3: two sign": Row([1, 2, 3], 3, [1, 2], "verify.threshold"),
    "2-of-3: one of two is revoked": Row([1, 2, 3], 2, [1, 2], "verify.threshold", only(2, revoked=True)),
    "2-of-3: one of three is revoked": Row([1, 2, 3], 2, [1, 2, 3], None, only(2, revoked=True)),
    "2-of-3: one of two is expired": Row([1, 2, 3], 2, [1, 2], "verify.threshold", only(1, not_after=NOW)),
    "2-of-3: one of two may not sign for acme": Row([1, 2, 3], 2, [1, 2], "verify.threshold", only(1, ids=("acmeevil.*",))),
    "1-of-1: revoked": Row([1], 1, [1], "verify.key-revoked", only(1, revoked=True)),
    "1-of-1: expired": Row([1], 1, [1], "verify.key-expired", only(1, not_after=NOW)),
    "1-of-1: not yet valid": Row([1], 1, [1], "verify.key-expired", only(1, not_before=NOW + timedelta(1))),
    "1-of-1: out of scope": Row([1], 1, [1], "verify.key-scope", only(1, ids=("beta.*",))),
    "1-of-1: out of role": Row([1], 1, [1], "verify.key-role", only(1, roles=frozenset({"official"}))),
    "a review is no publication": Row([1], 1, [5], "verify.key-role", reviewers=(5,)),
}  # fmt: skip


@pytest.mark.case("SIG-12", "SIG-18", "SIG-10")
@pytest.mark.parametrize("row", SCENARIOS.values(), ids=SCENARIOS)
def test_scenario(row: Row) -> None:
    keys = [row.change(n, trusted(KEYS[n], name=f"k{n}")) for n in row.keys]
    keys += [trusted(KEYS[n], "reviewer", name=f"r{n}") for n in row.reviewers]
    thresholds: dict[Role, int] = {"publisher": row.need} if row.need > 1 else {}
    store = TrustStore(tuple(keys), thresholds)
    publisher = Requirement(frozenset({"publisher"}))
    data = signed(*(KEYS[n] for n in row.by))

    if row.code is not None:
        assert code_of(data, store, requirement=publisher, now=NOW) == row.code
    else:
        verified = verify(read_artifact(data), store, requirement=publisher, now=NOW)
        assert len(verified.signers) >= row.need


def test_refuses_everything_without_a_trust_store() -> None:
    assert code_of(signed(), TrustStore.empty()) == "verify.no-trust-store"
    assert code_of(b"", TrustStore.empty()) == "verify.no-trust-store"


def test_refuses_a_time_without_a_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        verify(read_artifact(signed()), STORE, now=datetime(2027, 1, 1))  # noqa: DTZ001


# --- signatures


def test_refuses_an_unsigned_capsule() -> None:
    assert code_of(pack(FILES)) == "verify.unsigned"


@pytest.mark.case("SIG-01")
@pytest.mark.parametrize("bad", [1, 2])
def test_refuses_one_false_signature_though_enough_are_true(bad: int) -> None:
    store = TrustStore(tuple(trusted(KEYS[n], name=f"k{n}") for n in (1, 2, 3)))
    envelope = envelope_of(signed(KEYS[1], KEYS[2], KEYS[3]))
    broken = tuple(
        Signature(s.key_id, KEYS[bad].sign(b"another message"))
        if s.key_id == KEYS[bad].public.key_id
        else s
        for s in envelope.signatures
    )

    assert code_of(with_envelope(signed(), replace(envelope, signatures=broken)), store) == (
        "verify.bad-signature"
    )


@pytest.mark.case("SIG-10")
def test_refuses_a_hint_that_lies() -> None:
    envelope = envelope_of(signed())
    stranger = Signature("ab" * 32, envelope.signatures[0].value)
    store = TrustStore((trusted(KEY), trusted(KEYS[1], name="k1")))
    named_other = Signature(KEYS[1].public.key_id, envelope.signatures[0].value)

    assert code_of(with_envelope(signed(), replace(envelope, signatures=(stranger,)))) == (
        "verify.key-hint"
    )
    assert code_of(
        with_envelope(signed(), replace(envelope, signatures=(named_other,))), store
    ) == ("verify.bad-signature")


@pytest.mark.case("SIG-12")
def test_refuses_two_signatures_of_one_name() -> None:
    envelope = envelope_of(signed())
    twice = replace(envelope, signatures=envelope.signatures * 2)

    assert code_of(with_envelope(signed(), twice)) == "verify.envelope"


@pytest.mark.case("SIG-12")
def test_refuses_one_ecdsa_key_that_signs_twice_under_two_names() -> None:
    key = KEYS[1]
    assert key.public.algorithm == "ecdsa-p256"
    store = TrustStore((trusted(key), trusted(KEYS[2], name="k2")), {"publisher": 2})
    envelope = envelope_of(signed(key))
    again = Signature("00" * 32, key.sign(envelope.signed_bytes()))
    twice = replace(envelope, signatures=(*envelope.signatures, again))

    assert code_of(with_envelope(signed(), twice), store) == "verify.key-hint"


@pytest.mark.case("SIG-14")
def test_refuses_an_ed25519_signature_with_another_s() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    envelope = envelope_of(signed())
    value = envelope.signatures[0].value
    s = int.from_bytes(value[32:], "little") + order
    other = Signature(envelope.signatures[0].key_id, value[:32] + s.to_bytes(32, "little"))

    assert code_of(with_envelope(signed(), replace(envelope, signatures=(other,)))) == (
        "verify.bad-signature"
    )


@pytest.mark.case("SIG-13")
def test_refuses_a_signature_with_a_small_order_r_under_a_sound_key() -> None:
    envelope = envelope_of(signed())
    forged_ = Signature(KEY.public.key_id, (1).to_bytes(32, "little") + bytes(32))

    assert code_of(with_envelope(signed(), replace(envelope, signatures=(forged_,)))) == (
        "verify.bad-signature"
    )


# --- envelope


@pytest.mark.case("SIG-09")
def test_refuses_a_true_signature_over_another_type() -> None:
    assert code_of(forged(ARCHIVE, payload_type="application/json")) == "verify.payload-type"
    relabelled = replace(envelope_of(forged(ARCHIVE, payload_type="application/json")),
                         payload_type="application/vnd.in-toto+json")  # fmt: skip
    assert code_of(with_envelope(signed(), relabelled)) == "verify.bad-signature"


def edited(edit: Callable[[dict[str, Any]], object]) -> bytes:
    doc = json.loads(envelope_of(signed()).encode())
    edit(doc)
    return json.dumps(doc, sort_keys=True, separators=(",", ":")).encode()


ENVELOPES = {
    "empty": b"",
    "not JSON": b"{",
    "an array": b"[]",
    "not UTF-8": b"\xff",
    "a repeated key": envelope_of(signed()).encode()[:-1] + b',"payload":""}',
    "spaces": json.dumps(json.loads(envelope_of(signed()).encode()), sort_keys=True).encode(),
    "another order": json.dumps(
        dict(reversed(json.loads(envelope_of(signed()).encode()).items())), separators=(",", ":")
    ).encode(),
    "an unknown word": edited(lambda d: d.update(alg="none")),
    "an algorithm in a signature": edited(lambda d: d["signatures"][0].update(alg="none")),
    "no payload": edited(lambda d: d.pop("payload")),
    "no keyid": edited(lambda d: d["signatures"][0].pop("keyid")),
    "a path for a keyid": edited(lambda d: d["signatures"][0].update(keyid="../../etc/passwd")),
    "a keyid in capitals": edited(lambda d: d["signatures"][0].update(keyid="AB" * 32)),
    "not base64": edited(lambda d: d.update(payload="*")),
    "url-safe base64": edited(lambda d: d["signatures"][0].update(sig="_-_-")),
    "loose base64": edited(lambda d: d["signatures"][0].update(sig="AB==")),
    "a long signature": edited(lambda d: d["signatures"][0].update(sig="A" * 400)),
    "a null": edited(lambda d: d.update(signatures=None)),
    "seventeen signatures": edited(
        lambda d: d.update(signatures=[{"keyid": f"{n:064x}", "sig": "AAAA"} for n in range(17)])
    ),
    "not sorted": edited(
        lambda d: d.update(signatures=[{"keyid": f"{n:064x}", "sig": "AAAA"} for n in (2, 1)])
    ),
    "deep": b"[" * 60_000,
}


@pytest.mark.case("SIG-08", "SIG-10", "SIG-11", "MAN-03", "MAN-04", "MAN-08")
@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
def test_refuses_an_envelope_in_any_other_form(envelope: bytes) -> None:
    assert code_of(with_envelope(signed(), envelope)) == "verify.envelope"


@settings(max_examples=100)
@given(st.binary(max_size=400))
def test_refuses_noise_as_an_envelope(noise: bytes) -> None:
    assert code_of(with_envelope(signed(), noise)) == "verify.envelope"


# --- statement: each is truly signed


def deep(doc: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split("/")
    node: Any = doc
    for part in parents:
        node = node[int(part) if part.isdigit() else part]
    node[last] = value


EDITS = {
    "_type": ["https://in-toto.io/Statement/v0.1", None],
    "subject": [[], None, [{"name": "x", "digest": {"sha256": "0" * 64}}] * 2],
    "subject/0/name": ["other.capsule", "acme.weather-1.2.0.zip", "../acme.weather-1.2.0.capsule"],
    "subject/0/digest": [{}, {"sha512": "0" * 128}, {"sha256": "0" * 63}, {"sha256": "A" * 64}],
    "subject/0/extra": [1],
    "predicate/schema": [0, -1, "1", True, None],
    "predicate/id": ["Acme.Weather", "acme", "../acme.x", "acme.we\u0430ther", 1],
    "predicate/version": ["1.2", "1.2.0\n"],
    "predicate/kind": ["wasm", None],
    "predicate/size": [-1, True, "12", 2**63 + 1, 1.0],
    "predicate/members": [[], {}, None],
    "predicate/members/0/size": [-1, False, None, 2**64],
    "predicate/members/0/sha256": ["", "0" * 65],
    "predicate/members/0/mode": [0o755],
    "predicate/extra": ["x"],
    "extra": ["x"],
}


@pytest.mark.case("MAN-05", "MAN-08", "MAN-09", "SIG-02", "SIG-04")
@pytest.mark.parametrize(("path", "value"), [(p, v) for p, vs in EDITS.items() for v in vs])
def test_refuses_a_signed_statement_with_a_fault(path: str, value: Any) -> None:
    assert code_of(forged(ARCHIVE, edit=lambda d: deep(d, path, value))) == "verify.statement"


def raw_statement(old: bytes, new: bytes) -> bytes:
    payload = Statement.describe(WEATHER, ARCHIVE, FILES)
    assert old in payload
    return forged(ARCHIVE, payload=payload.replace(old, new, 1))


@pytest.mark.case("MAN-03", "MAN-04", "MAN-05", "MAN-06")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"schema":1', b'"schema":1,"schema":1'),
        (b'"schema":1', b'"schema":NaN'),
        (b'"schema":1', b'"schema":Infinity'),
        (b'"schema":1', b'"schema":1e999'),
        (b'"schema":1', b'"schema":1.0'),
        (b'"schema":1', b'"schema":' + b"9" * 40_000),
        (b'"schema":1', b'"schema":' + b"[" * 30_000),
        (b'"size":6', b'"size":-0'),
        (b'"acme.weather"', b'"acme.weather\\ud800"'),
        (b'"acme.weather"', b'"acme.weather\\u0000"'),
        (b'"acme.weather"', b'"acme.weather\\u202e"'),
        (b"{", b"\xef\xbb\xbf{"),
        (b"{", b"{\0"),
    ],
)
def test_refuses_signed_json_that_two_readers_read_apart(old: bytes, new: bytes) -> None:
    assert code_of(raw_statement(old, new)) == "verify.statement"


@pytest.mark.case("MAN-03")
@pytest.mark.parametrize("payload", [b"", b"null", b"[]", b"1", b'"x"', b"\xff", b"{}"])
def test_refuses_a_signed_payload_that_is_no_statement(payload: bytes) -> None:
    assert code_of(forged(ARCHIVE, payload=payload)) == "verify.statement"


@pytest.mark.case("MAN-08", "SIG-04")
@pytest.mark.parametrize("schema", [2, 99, 2**60])
def test_refuses_a_schema_of_the_future_by_its_own_code(schema: int) -> None:
    assert code_of(forged(ARCHIVE, edit=lambda d: deep(d, "predicate/schema", schema))) == (
        "verify.schema"
    )


@pytest.mark.case("SIG-09")
def test_refuses_a_true_statement_about_something_else() -> None:
    slsa = "https://slsa.dev/provenance/v1"

    assert code_of(forged(ARCHIVE, edit=lambda d: deep(d, "predicateType", slsa))) == (
        "verify.predicate-type"
    )


def test_refuses_members_that_are_not_sorted_or_stand_twice() -> None:
    for edit in (list.reverse, lambda m: m.append(m[-1])):
        data = forged(ARCHIVE, edit=lambda d, e=edit: e(d["predicate"]["members"]))  # type: ignore[misc]
        assert code_of(data) == "verify.statement"


# --- content: each is truly signed


@pytest.mark.case("SIG-01", "SIG-02", "SIG-06")
@pytest.mark.usefixtures("hashing")
def test_refuses_an_archive_that_is_not_the_signed_one() -> None:
    same_size = write_archive({**FILES, "plugin.wasm": b"\0asm\x0d\0\x01\1"})
    assert len(same_size) == len(ARCHIVE)

    assert code_of(join(bytes(split(signed()).envelope), same_size)) == "verify.digest"
    assert code_of(signed() + b"\0") == "verify.digest"
    assert code_of(signed()[:-1]) == "verify.digest"


@pytest.mark.case("SIG-02")
@pytest.mark.parametrize("off", [-1, 1])
def test_refuses_an_archive_whose_signed_size_is_not_its_own(off: int) -> None:
    size = len(ARCHIVE) + off

    assert code_of(forged(ARCHIVE, edit=lambda d: deep(d, "predicate/size", size))) == (
        "verify.digest"
    )


@pytest.mark.case("SIG-03")
@pytest.mark.usefixtures("hashing")
def test_refuses_a_file_that_the_statement_does_not_list() -> None:
    listed = {n: d for n, d in FILES.items() if n != "README.md"}

    assert code_of(forged(ARCHIVE, listed)) == "verify.member-extra"


@pytest.mark.case("SIG-02", "SIG-03")
@pytest.mark.usefixtures("hashing")
def test_refuses_a_listed_file_that_is_not_there() -> None:
    assert code_of(forged(ARCHIVE, {**FILES, "assets/more": b""})) == "verify.member-missing"


@pytest.mark.case("SIG-02")
@pytest.mark.parametrize("word", ["sha256", "size"])
@pytest.mark.usefixtures("hashing")
def test_refuses_a_file_whose_own_digest_or_size_is_wrong(word: str) -> None:
    value: Any = "0" * 64 if word == "sha256" else 7
    unspeakable = forged(ARCHIVE, edit=lambda d: deep(d, "predicate/members/3/name", "\xfc"))

    assert code_of(unspeakable) == "verify.member-extra"
    assert code_of(
        forged(ARCHIVE, edit=lambda d: deep(d, f"predicate/members/3/{word}", value))
    ) == ("verify.member-digest")


@pytest.mark.case("SIG-03")
@pytest.mark.parametrize(
    ("change", "kind", "code"),
    [
        ({"setup.py": b""}, "component", "verify.member-extra"),
        ({"lib/x86_64-linux-gnu/plugin.so": b""}, "component", "verify.member-extra"),
        ({"README.MD": b""}, "component", "verify.member-extra"),
        ({}, "native", "verify.member-extra"),
        ({"assets/ICON.svg": b""}, "component", "verify.member-duplicate"),
        ({"assets/icon.svg/x": b""}, "component", "verify.member-name"),
        ({"plugin.wasm": None}, "component", "verify.member-missing"),
        ({"plugin.toml": None}, "component", "verify.member-missing"),
        ({"lib/x86/plugin.so": b"", "plugin.wasm": None}, "native", "verify.member-extra"),
    ],
)
def test_refuses_a_set_of_files_that_no_capsule_has(
    change: dict[str, bytes | None], kind: Any, code: str
) -> None:
    members = {n: d for n, d in {**FILES, **change}.items() if d is not None}
    data = forged(write_archive(members), members, identity=replace(WEATHER, kind=kind))

    assert code_of(data) == code


@pytest.mark.case("SIG-20")
def test_refuses_a_custom_section_added_after_signing() -> None:
    section = b"\x00\x05\x04note"
    archive = write_archive({**FILES, "plugin.wasm": FILES["plugin.wasm"] + section})

    assert code_of(join(bytes(split(signed()).envelope), archive)) == "verify.digest"


@pytest.mark.case("SIG-07")
def test_refuses_a_forgery_before_anything_in_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        pytest.fail("parsed before the signature was checked")

    stranger, changed = forged(ARCHIVE, key=PrivateKey.generate()), signed() + b"x"
    monkeypatch.setattr("capwasm.capsule.verify.Statement.parse", never)
    assert code_of(stranger) == "verify.untrusted-key"

    monkeypatch.undo()
    monkeypatch.setattr("capwasm.capsule.verify.read_archive", never)
    assert code_of(changed) == "verify.digest"


def test_names_the_file_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "bad.capsule"
    path.write_bytes(b"nothing")

    with pytest.raises(VerificationError, match=r"bad\.capsule"):
        verify(read_artifact(path), STORE)


# --- an independent implementation of DSSE agrees


@pytest.mark.case("SIG-08", "SIG-09")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_allows_another_implementation_to_verify_and_to_agree_on_the_signed_bytes(
    algorithm: Any,
) -> None:
    key = PrivateKey.generate(algorithm)
    mine = envelope_of(signed(key))
    other = OtherEnvelope.from_dict(json.loads(mine.encode()))
    their_key = SSlibKey.from_crypto(key.public._key, keyid=key.public.key_id)

    assert other.verify([their_key], 1)
    assert other.pae() == mine.signed_bytes()
    assert base64.b64decode(json.loads(mine.encode())["payload"]) == mine.payload


def test_allows_no_two_pairs_of_type_and_payload_to_be_signed_alike() -> None:
    assert pae("a", b"1 b") != pae("a 1", b"b")
    assert pae("", b"") == b"DSSEv1 0  0 "


def test_allows_a_device_that_keeps_the_key_to_sign() -> None:
    class Device:
        public = KEY.public

        def sign(self, message: bytes) -> bytes:
            return KEY.sign(message)

    data = sign_capsule(read_artifact(pack(FILES)), Device())

    assert verify(read_artifact(data), STORE).identity == Identity(
        "acme.weather", "1.2.0", "component"
    )
