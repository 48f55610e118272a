"""Sigstore bundles: an identity signs, a pinned root vouches for it, and nothing is fetched."""

from __future__ import annotations

import base64
import json
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from capwasm.capsule import bundle as bundles
from capwasm.capsule.artifact import MAX_BUNDLE_BYTES, read_artifact
from capwasm.capsule.container import split
from capwasm.capsule.envelope import Envelope
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.pack import pack
from capwasm.capsule.trust import Requirement, TrustedIdentity, TrustStore
from capwasm.capsule.verify import VerifiedArtifact, verify
from capwasm.errors import ArtifactError, PolicyError, VerificationError
from tests.capsules import FILES, KEY, signed, trusted
from tests.sigstores import ISSUER, SIGNED_AT, SUBJECT, Sigstore, b64, canonical

WORLD, OTHER_WORLD = Sigstore(), Sigstore()
NOW = datetime(2026, 11, 1, tzinfo=UTC)
CAPSULE = pack(FILES)
PAYLOAD = Envelope.parse(bytes(split(CAPSULE).envelope)).payload
ACME = TrustedIdentity("acme release", ISSUER, SUBJECT, frozenset({"publisher"}), ("acme.*",))
REPO = "https://github.com/acme/weather/.github/workflows/release.yml@refs/tags/"
TRUST = TrustStore((), {}, (ACME,), WORLD.trusted_root())
FILE = f"""schema = 1
[sigstore]
trusted-root = "root.json"
[[identity]]
name = "acme release"
issuer = "{ISSUER}"
subject = "{SUBJECT}"
roles = ["publisher"]
ids = ["acme.*"]
"""

needs_sigstore = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("sigstore") is None,
    reason="bundles are verified by an extra: pip install 'capwasm[sigstore]'",
)


def proven(
    tmp_path: Path,
    *made: dict[str, Any] | bytes,
    capsule: bytes = CAPSULE,
    trust: TrustStore = TRUST,
    **words: Any,
) -> VerifiedArtifact:
    """Verify a capsule with bundles that came as files."""
    file = tmp_path / "x.capsule"
    file.write_bytes(capsule)
    paths = []
    for n, one in enumerate(made):
        paths.append(tmp_path / f"{n}.json")
        paths[-1].write_bytes(one if isinstance(one, bytes) else json.dumps(one).encode())
    words.setdefault("now", NOW)
    return verify(read_artifact(file, bundles=paths), trust, **words)


def trust_of(*identities: TrustedIdentity, **words: Any) -> TrustStore:
    words.setdefault("sigstore_root", WORLD.trusted_root())
    return TrustStore(identities=identities, **words)


@needs_sigstore
@pytest.mark.parametrize("dsse", [False, True], ids=["message", "dsse"])
def test_allows_what_an_identity_signed_and_asks_nobody(
    dsse: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_a: object, **_k: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", never)
    monkeypatch.setattr(socket, "getaddrinfo", never)
    bundles._verifier.cache_clear()

    artifact = proven(tmp_path, WORLD.bundle(PAYLOAD, dsse=dsse))

    assert [(s.name, s.key_id, s.roles) for s in artifact.signers] == [
        ("acme release", ACME.key_id, {"publisher"})
    ]
    assert len(ACME.key_id) == 64


@needs_sigstore
def test_allows_a_bundle_beside_the_file_and_whoever_signs_later(tmp_path: Path) -> None:
    file, beside = tmp_path / "x.capsule", tmp_path / "x.capsule.sigstore.json"
    beside.write_text(json.dumps(WORLD.bundle(PAYLOAD)))
    both = replace(TRUST, keys=(trusted(KEY, "marketplace", name="market"),))
    for data, names in ((CAPSULE, {"acme release"}), (signed(KEY), {"acme release", "market"})):
        file.write_bytes(data)
        artifact = verify(read_artifact(file, beside=True), both, now=NOW)
        assert {s.name for s in artifact.signers} == names

    # It is looked for only where the caller says so, and what lies there must be a bundle.
    file.write_bytes(CAPSULE)
    with pytest.raises(VerificationError) as caught:
        verify(read_artifact(file), both, now=NOW)
    assert caught.value.code == "verify.unsigned"
    beside.unlink()
    beside.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtifactError):
        read_artifact(file, beside=True)


@needs_sigstore
def test_allows_any_tag_of_one_workflow_and_no_other(tmp_path: Path) -> None:
    trust = trust_of(replace(ACME, subject=REPO + "*"))

    def by(uri: str) -> dict[str, Any]:
        return WORLD.bundle(PAYLOAD, names=(x509.UniformResourceIdentifier(uri),))

    assert proven(tmp_path, by(REPO + "v1.2.0"), trust=trust).signers
    for uri in (REPO, REPO + "a/b", REPO + "*", REPO.replace("/acme/", "/evil/") + "v1",
                REPO.replace("tags", "heads") + "v1", "x" + REPO + "v1"):  # fmt: skip
        with pytest.raises(VerificationError) as caught:
            proven(tmp_path, by(uri), trust=trust)
        assert caught.value.code == "verify.untrusted-key"


def _entry(bundle: dict[str, Any]) -> dict[str, Any]:
    return bundle["verificationMaterial"]["tlogEntries"][0]  # type: ignore[no-any-return]


def _edited(edit: Callable[[dict[str, Any]], object], **words: Any) -> dict[str, Any]:
    made = WORLD.bundle(PAYLOAD, **words)
    edit(made)
    return made


def _flip(holder: dict[str, Any], key: str) -> None:
    raw = bytearray(base64.b64decode(holder[key]))
    raw[-1] ^= 1
    holder[key] = b64(bytes(raw))


def _other_body(bundle: dict[str, Any]) -> None:
    """The true proof of another entry: signed by the log, but of another signature."""
    bundle["verificationMaterial"]["tlogEntries"] = WORLD.bundle(b"{}")["verificationMaterial"][
        "tlogEntries"
    ]


LATER = SIGNED_AT + timedelta(hours=1)
FALSE: dict[str, Callable[[], dict[str, Any]]] = {
    "another artifact": lambda: WORLD.bundle(PAYLOAD.replace(b"1.2.0", b"1.2.1")),
    "another artifact, dsse": lambda: WORLD.bundle(PAYLOAD + b" ", dsse=True),
    "another type": lambda: WORLD.bundle(PAYLOAD, payload_type="text/plain"),
    "another type, dsse": lambda: WORLD.bundle(PAYLOAD, payload_type="text/plain", dsse=True),
    "another world": lambda: OTHER_WORLD.bundle(PAYLOAD),
    "an authority of the same name": lambda: Sigstore(ct_log=WORLD.ct_log, log=WORLD.log).bundle(PAYLOAD),
    "another log": lambda: Sigstore(ca=WORLD.ca, ct_log=WORLD.ct_log).bundle(PAYLOAD),
    "another log of certificates": lambda: Sigstore(ca=WORLD.ca, log=WORLD.log).bundle(PAYLOAD),
    "no log of certificates": lambda: WORLD.bundle(PAYLOAD, sct=False),
    "signed after the certificate ended": lambda: WORLD.bundle(PAYLOAD, logged_at=LATER),
    "signed before it began": lambda: WORLD.bundle(PAYLOAD, at=LATER),
    "a time that the log did not say": lambda: _edited(lambda b: _entry(b).update(integratedTime=str(int(SIGNED_AT.timestamp()) + 1))),
    "a changed entry": lambda: _edited(lambda b: _flip(_entry(b), "canonicalizedBody")),
    "the entry of another": lambda: _edited(_other_body),
    "a changed promise": lambda: _edited(lambda b: _flip(_entry(b)["inclusionPromise"], "signedEntryTimestamp")),
    "a changed root": lambda: _edited(lambda b: _flip(_entry(b)["inclusionProof"], "rootHash")),
    "no path in the tree": lambda: _edited(lambda b: _entry(b)["inclusionProof"].update(hashes=[])),
    "a changed signature": lambda: _edited(lambda b: _flip(b["messageSignature"], "signature")),
    "a changed signature, dsse": lambda: _edited(lambda b: _flip(b["dsseEnvelope"]["signatures"][0], "sig"), dsse=True),
    "two subjects": lambda: WORLD.bundle(PAYLOAD, names=(x509.RFC822Name(SUBJECT), x509.RFC822Name("x@y.example"))),
    "a subject of another kind": lambda: WORLD.bundle(PAYLOAD, names=(x509.DNSName("acme.example"),)),
}  # fmt: skip


@needs_sigstore
@pytest.mark.parametrize("what", FALSE)
def test_refuses_a_false_bundle_even_beside_enough_keys(what: str, tmp_path: Path) -> None:
    made = FALSE[what]()
    trust = replace(TRUST, keys=(trusted(KEY, name="key"),))

    for capsule in (CAPSULE, signed(KEY)):
        with pytest.raises(VerificationError) as caught:
            proven(tmp_path, made, capsule=capsule, trust=trust)
        assert caught.value.code == "verify.bad-bundle"
    # ... and a true one beside it is no excuse.
    with pytest.raises(VerificationError):
        proven(tmp_path, WORLD.bundle(PAYLOAD), made, trust=trust)


NO_BUNDLES: dict[str, bytes | Callable[[], dict[str, Any]]] = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "one key twice": b'{"mediaType": 1, "mediaType": 2}',
    "deep": b"[" * 5000,
    "another version": lambda: _edited(lambda b: b.update(mediaType="application/vnd.dev.sigstore.bundle.v0.4+json")),
    "an older version": lambda: _edited(lambda b: b.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1")),
    "no version": lambda: _edited(lambda b: b.pop("mediaType")),
    "an unknown word": lambda: _edited(lambda b: b.update(more=1)),
    "no signature": lambda: _edited(lambda b: b.pop("messageSignature")),
    "two signatures": lambda: _edited(lambda b: b.update(WORLD.bundle(PAYLOAD, dsse=True))or b.update(messageSignature={})),
    "no certificate": lambda: _edited(lambda b: b["verificationMaterial"].pop("certificate")),
    "no entry": lambda: _edited(lambda b: b["verificationMaterial"].update(tlogEntries=[])),
    "no checkpoint": lambda: _edited(lambda b: _entry(b)["inclusionProof"].pop("checkpoint")),
    "no time": lambda: _edited(lambda b: _entry(b).pop("inclusionPromise")),
}  # fmt: skip


@needs_sigstore
@pytest.mark.parametrize("what", NO_BUNDLES)
def test_refuses_what_is_no_bundle(what: str, tmp_path: Path) -> None:
    made = NO_BUNDLES[what]
    with pytest.raises(VerificationError) as caught:
        proven(tmp_path, made if isinstance(made, bytes) else made())
    assert caught.value.code == "verify.bundle"


@needs_sigstore
def test_refuses_each_bundle_with_one_byte_changed_or_cut(tmp_path: Path) -> None:
    data = canonical(WORLD.bundle(PAYLOAD))
    assert proven(tmp_path, data).signers
    refused = 0
    for at in range(0, len(data), 37):
        for bad in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at]):
            try:
                # The digest is a hint and a log's index only in part signed; who signed stays.
                assert [s.key_id for s in proven(tmp_path, bad).signers] == [ACME.key_id]
            except VerificationError:
                refused += 1
    assert refused > len(data) // 37


def test_refuses_a_bundle_too_large_or_too_many(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        proven(tmp_path, b" " * (MAX_BUNDLE_BYTES + 1))
    assert caught.value.code == "artifact.too-large"
    with pytest.raises(VerificationError) as told:
        proven(tmp_path, *([b"{}"] * 9))
    assert told.value.code == "verify.bundle"
    with pytest.raises(ArtifactError):
        read_artifact(CAPSULE, bundles=[tmp_path / "missing"])


STRANGERS: dict[str, dict[str, Any]] = {
    "another subject": {"names": (x509.RFC822Name("evil@acme.example"),)},
    "a subject that begins so": {"names": (x509.RFC822Name(SUBJECT + ".evil"),)},
    "another kind of the same text": {"names": (x509.UniformResourceIdentifier("mailto:" + SUBJECT),)},
    "another issuer": {"issuer": "https://accounts.evil.example"},
    "an issuer that begins so": {"issuer": ISSUER + "/"},
}  # fmt: skip


@needs_sigstore
@pytest.mark.parametrize("words", STRANGERS.values(), ids=STRANGERS)
def test_a_true_bundle_of_a_stranger_counts_for_nothing(
    words: dict[str, Any], tmp_path: Path
) -> None:
    made = WORLD.bundle(PAYLOAD, **words)
    with pytest.raises(VerificationError, match="add an") as caught:
        proven(tmp_path, made)
    assert caught.value.code == "verify.untrusted-key"

    trust = replace(TRUST, keys=(trusted(KEY, name="key"),))
    artifact = proven(tmp_path, made, capsule=signed(KEY), trust=trust)
    assert [s.name for s in artifact.signers] == ["key"]


REFUSED: dict[str, tuple[TrustedIdentity, str]] = {
    "revoked": (replace(ACME, revoked=True), "verify.key-revoked"),
    "not yet": (replace(ACME, not_before=NOW + timedelta(days=1)), "verify.key-expired"),
    "no more": (replace(ACME, not_after=NOW), "verify.key-expired"),
    "for other plugins": (replace(ACME, ids=("globex.*",)), "verify.key-scope"),
    "a reviewer": (replace(ACME, roles=frozenset({"reviewer"})), "verify.key-role"),
}


@pytest.mark.case("SIG-18")
@needs_sigstore
@pytest.mark.parametrize("what", REFUSED)
def test_refuses_an_identity_whose_word_does_not_reach(what: str, tmp_path: Path) -> None:
    identity, code = REFUSED[what]
    with pytest.raises(VerificationError) as caught:
        proven(tmp_path, WORLD.bundle(PAYLOAD), trust=trust_of(identity))
    assert caught.value.code == code


@needs_sigstore
def test_an_identity_has_the_roles_that_it_was_given_and_no_other(tmp_path: Path) -> None:
    official = Requirement(frozenset({"official"}))
    with pytest.raises(VerificationError) as caught:
        proven(tmp_path, WORLD.bundle(PAYLOAD), requirement=official)
    assert caught.value.code == "verify.key-role"

    trust = trust_of(replace(ACME, roles=frozenset({"official"})))
    assert proven(tmp_path, WORLD.bundle(PAYLOAD), trust=trust, requirement=official).signers


@pytest.mark.case("SIG-12")
@needs_sigstore
def test_a_threshold_counts_distinct_signers(tmp_path: Path) -> None:
    other = replace(ACME, name="second", subject="second@acme.example")
    trust = trust_of(ACME, other, thresholds={"publisher": 2})
    mine = [WORLD.bundle(PAYLOAD), WORLD.bundle(PAYLOAD, dsse=True)]
    with pytest.raises(VerificationError) as caught:
        proven(tmp_path, *mine, trust=trust)
    assert caught.value.code == "verify.threshold"

    theirs = WORLD.bundle(PAYLOAD, names=(x509.RFC822Name("second@acme.example"),))
    assert len(proven(tmp_path, *mine, theirs, trust=trust).signers) == 2
    mixed = replace(trust, keys=(trusted(KEY, name="key"),))
    assert len(proven(tmp_path, mine[0], capsule=signed(KEY), trust=mixed).signers) == 2

    tags = trust_of(
        replace(ACME, name="ci", subject=REPO + "*"), ACME, thresholds={"publisher": 2}
    )  # two tags of one workflow are one signer
    with pytest.raises(VerificationError):
        proven(
            tmp_path,
            *(
                WORLD.bundle(PAYLOAD, names=(x509.UniformResourceIdentifier(REPO + tag),))
                for tag in ("v1", "v2")
            ),
            trust=tags,
        )


def test_without_a_root_no_bundle_is_looked_at(tmp_path: Path) -> None:
    trust = TrustStore((trusted(KEY, name="key"),))
    with pytest.raises(VerificationError, match="trusted-root") as caught:
        proven(tmp_path, b"whatever", trust=trust)
    assert caught.value.code == "verify.untrusted-key"
    assert [s.name for s in proven(tmp_path, b"x", capsule=signed(KEY), trust=trust).signers] == [
        "key"
    ]


@needs_sigstore
@pytest.mark.parametrize(
    "root",
    [b"{}", WORLD.trusted_root().replace(b"version=0.1", b"version=9"),
     json.dumps(json.loads(WORLD.trusted_root()) | {"tlogs": []}).encode(),
     json.dumps(json.loads(WORLD.trusted_root()) | {"certificateAuthorities": []}).encode()],
    ids=["nothing", "another version", "no log", "no authority"],
)  # fmt: skip
def test_refuses_a_root_that_is_none(root: bytes, tmp_path: Path) -> None:
    with pytest.raises(VerificationError) as caught:
        proven(tmp_path, WORLD.bundle(PAYLOAD), trust=replace(TRUST, sigstore_root=root))
    assert caught.value.code == "verify.sigstore"


def test_tells_what_to_install_and_refuses_till_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles._verifier.cache_clear()
    for name in ("sigstore", "sigstore.models", "sigstore.verify"):
        monkeypatch.setitem(sys.modules, name, None)
    trust = replace(TRUST, keys=(trusted(KEY, name="key"),))
    with pytest.raises(VerificationError, match=r"pip install 'capwasm\[sigstore\]'") as caught:
        proven(tmp_path, WORLD.bundle(PAYLOAD), capsule=signed(KEY), trust=trust)
    assert caught.value.code == "verify.sigstore"
    # Without a bundle the extra is not needed.
    assert proven(tmp_path, capsule=signed(KEY), trust=trust).signers


def test_allows_a_trust_store_with_identities(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(WORLD.trusted_root())
    (tmp_path / "trust.toml").write_text(FILE)
    assert TrustStore.load(tmp_path / "trust.toml") == TRUST
    assert TrustStore.load(tmp_path) == TRUST


FAULTY: dict[str, tuple[str, str, str]] = {
    "no root": (FILE.replace('[sigstore]\ntrusted-root = "root.json"', ""), "trust.invalid", "trusted-root"),
    "a root that is not there": (FILE.replace("root.json", "other.json"), "trust.unreadable", "opened"),
    "a root elsewhere": (FILE.replace("root.json", "../root.json"), "trust.invalid", "trusted-root"),
    "a root that anyone may write": (FILE.replace("root.json", "open.json"), "trust.permissions", "0666"),
    "a root that is no JSON": (FILE.replace("root.json", "trust.toml"), "trust.invalid", "JSON"),
    "an unknown word": (FILE + "x = 1\n", "trust.invalid", "'x'"),
    "no issuer": (FILE.replace(f'issuer = "{ISSUER}"\n', ""), "trust.invalid", "issuer"),
    "an issuer without TLS": (FILE.replace("https:", "http:"), "trust.invalid", "issuer"),
    "an issuer with a star": (FILE.replace("accounts.", "*."), "trust.invalid", "issuer"),
    "a star for everybody": (FILE.replace(SUBJECT, "*"), "trust.invalid", "subject"),
    "a star in a mail address": (FILE.replace(SUBJECT, "*@acme.example"), "trust.invalid", "star"),
    "a star behind a repository": (FILE.replace(SUBJECT, "https://github.com/acme/*"), "trust.invalid", "star"),
    "two stars": (FILE.replace(SUBJECT, REPO + "*" + "*"), "trust.invalid", "star"),
    "a revoker": (FILE.replace('["publisher"]', '["revoker"]'), "trust.invalid", "revoker"),
    "a reviewer who publishes": (FILE.replace('["publisher"]', '["publisher", "reviewer"]'), "trust.invalid", "his own"),
    "no ids": (FILE.replace('ids = ["acme.*"]', ""), "trust.invalid", "ids"),
    "twice": (FILE + FILE[FILE.index("[[identity]]"):].replace("acme release", "b"), "trust.invalid", "same identity"),
    "one of the other's": (
        FILE.replace(SUBJECT, REPO + "*") + FILE[FILE.index("[[identity]]"):].replace("acme release", "b").replace(SUBJECT, REPO + "v1"),
        "trust.invalid", "same identity",
    ),
    "a name of another": (FILE + FILE[FILE.index("[[identity]]"):].replace(SUBJECT, "b@c.example"), "trust.invalid", "this name"),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTY)
def test_refuses_a_faulty_store_of_identities(what: str, tmp_path: Path) -> None:
    text, code, words = FAULTY[what]
    (tmp_path / "root.json").write_bytes(WORLD.trusted_root())
    (tmp_path / "open.json").write_bytes(WORLD.trusted_root())
    (tmp_path / "open.json").chmod(0o666)
    (tmp_path / "trust.toml").write_text(text)
    with pytest.raises(PolicyError) as caught:
        TrustStore.load(tmp_path / "trust.toml")
    assert caught.value.code == code
    assert words in str(caught.value)


def test_refuses_a_second_root_in_a_directory(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(WORLD.trusted_root())
    (tmp_path / "a.toml").write_text(FILE)
    (tmp_path / "b.toml").write_text('schema = 1\n[sigstore]\ntrusted-root = "root.json"\n')
    with pytest.raises(PolicyError, match="second root"):
        TrustStore.load(tmp_path)


@pytest.mark.case("SIG-10")
@needs_sigstore
def test_a_key_can_not_pass_for_an_identity(tmp_path: Path) -> None:
    """A signature in the envelope under an identity's id is a stranger's, whoever made it."""
    from capwasm.capsule.container import join
    from capwasm.capsule.envelope import Signature

    evil = PrivateKey.generate()
    parts = split(CAPSULE)
    envelope = Envelope.parse(bytes(parts.envelope))
    forged = replace(
        envelope, signatures=(Signature(ACME.key_id, evil.sign(envelope.signed_bytes())),)
    )
    with pytest.raises(VerificationError) as caught:
        proven(tmp_path, capsule=join(forged.encode(), bytes(parts.archive)))
    assert caught.value.code == "verify.untrusted-key"
