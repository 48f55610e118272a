"""Sigstore bundles: who signed, by the word of an authority, a log and a time stamp.  Offline.

A bundle is one more signature over the very bytes that the envelope's signatures cover, type and
payload (`Envelope.signed_bytes`): as a DSSE envelope of its own, or as a message.  It can only add
a signer.  The package `sigstore` verifies it against the trusted root that the operator pinned:
the certificate's chain and its entry in the certificates' log, valid at the time that the log or
a time stamp proves; the entry in the signatures' log, its proof of inclusion and checkpoint; the
signature.  Nothing is fetched, and no root is known beside that one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from capwasm._model import parse_json
from capwasm.errors import Fault, VerificationError

from .artifact import MAX_BUNDLE_BYTES
from .envelope import Envelope
from .trusted import TrustedIdentity

if TYPE_CHECKING:
    from cryptography import x509
    from sigstore.verify import Verifier

    from .trust import TrustStore

__all__ = ["true_identities"]

MAX_BUNDLES: Final = 8
MEDIA_TYPES: Final = (
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
)
# https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md: the issuer, as a UTF8String.
_ISSUER: Final = "1.3.6.1.4.1.57264.1.8"


def true_identities(
    bundles: Sequence[bytes], envelope: Envelope, trust: TrustStore
) -> tuple[list[TrustedIdentity], list[Fault]]:
    """The trusted identities that truly signed what `envelope` signs; and a fault for each other.

    One false bundle ends it, as a false signature of a trusted key does: the root is pinned, so
    what does not verify under it was changed, or is of a world that the operator did not choose.
    A true bundle by somebody whom the store does not hold counts for nothing.  Without a pinned
    root nothing can be told of any bundle, so none counts.

    Raises:
        VerificationError: `verify.bundle` (malformed, too large, of another version),
            `verify.bad-bundle`, `verify.sigstore` (it can't be verified here).
    """
    if not bundles:
        return [], []
    if trust.sigstore_root is None:
        message = "not looked at: the trust store names no [sigstore] trusted-root"
        return [], [Fault("bundle", message)]
    if len(bundles) > MAX_BUNDLES:
        raise VerificationError(f"more than {MAX_BUNDLES} bundles", code="verify.bundle")
    found, unknown = [], []
    for data in bundles:
        _check_form(data)
        who = _Who(trust.identities)
        _verify(data, envelope, _verifier(trust.sigstore_root), who)
        if who.identity is not None:
            found.append(who.identity)
        else:
            unknown.append(
                Fault(
                    f"bundle by {who.subject!a}",
                    "by an identity that the trust store does not hold",
                    fix=f"add an [[identity]] with issuer = {who.issuer!a} and this subject, if you trust it",
                )
            )
    return found, unknown


class _Who:
    """Takes the place of a policy of `sigstore`: learns whose a certificate is.

    It is told before the certificate is verified, so what it learned counts only after that.
    """

    def __init__(self, identities: Sequence[TrustedIdentity]) -> None:
        self._identities = identities
        self.identity: TrustedIdentity | None = None
        self.issuer = self.subject = ""

    def verify(self, cert: x509.Certificate) -> None:
        """Learn it, or raise `ValueError`, and so end the verification."""
        self.issuer, self.subject = _issuer(cert), _subject(cert)
        of = [i for i in self._identities if i.is_of(self.issuer, self.subject)]
        self.identity = of[0] if of else None  # a store refuses two of one certificate


def _issuer(cert: x509.Certificate) -> str:
    from cryptography import x509  # 40 ms, and seldom needed

    value = cert.extensions.get_extension_for_oid(x509.ObjectIdentifier(_ISSUER)).value
    raw = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
    if len(raw) < 2 or raw[0] != 0x0C or raw[1] != len(raw) - 2 or raw[1] > 127:
        raise ValueError("the certificate's issuer of identities is not a short UTF8String")
    return raw[2:].decode()


def _subject(cert: x509.Certificate) -> str:
    from cryptography import x509

    names = list(cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    if len(names) != 1 or not isinstance(
        names[0], x509.RFC822Name | x509.UniformResourceIdentifier
    ):
        raise ValueError("the certificate names no subject, or several, or one of another kind")
    return names[0].value


def _check_form(data: bytes) -> None:
    """Bounds first: what `sigstore` meets is small, flat JSON of the one version we take."""
    document: Any = parse_json(
        data, VerificationError, code="verify.bundle", context="bundle", limit=MAX_BUNDLE_BYTES
    )
    kind = document.get("mediaType") if isinstance(document, dict) else None
    if kind not in MEDIA_TYPES:
        raise VerificationError(
            f"the bundle is {str(kind)[:80]!a}, not {MEDIA_TYPES[0]}", code="verify.bundle"
        )
    if ("dsseEnvelope" in document) == ("messageSignature" in document):
        raise VerificationError(
            "the bundle holds not one signature: a dsseEnvelope or a messageSignature",
            code="verify.bundle",
        )


def _verify(data: bytes, envelope: Envelope, verifier: Verifier, who: _Who) -> None:
    from sigstore.errors import Error
    from sigstore.models import Bundle

    # Whatever ends the verification of hostile bytes, ends it: the package promises no closed set
    # of exceptions for them (`ValueError`, `TypeError`, those of pydantic and cryptography).
    try:
        bundle = Bundle.from_json(data)
    except Exception as exc:
        raise VerificationError(
            f"the bundle is malformed: {_first_line(exc)}", code="verify.bundle"
        ) from exc
    try:
        if bundle._inner.dsse_envelope is None:  # noqa: SLF001  there is no public word for it
            verifier.verify_artifact(envelope.signed_bytes(), bundle, who)
        elif verifier.verify_dsse(bundle, who) != (envelope.payload_type, envelope.payload):
            raise Error("it is over another statement")
    except Exception as exc:
        raise VerificationError(
            f"the bundle is false: {_first_line(exc)}", code="verify.bad-bundle"
        ) from exc


@functools.lru_cache(maxsize=4)
def _verifier(root: bytes) -> Verifier:
    """What verifies under a pinned root.

    Raises:
        VerificationError: `verify.sigstore`: the extra is not installed, or the root is none.
    """
    try:
        from sigstore.models import TrustedRoot
        from sigstore.verify import Verifier
        from sigstore_models.trustroot.v1 import TrustedRoot as Document
    except ImportError as exc:
        raise VerificationError(
            "there is a bundle to verify, and what verifies bundles is not installed",
            code="verify.sigstore",
            faults=[Fault("sigstore", "not installed", fix="pip install 'capwasm[sigstore]'")],
        ) from exc
    try:
        return Verifier(trusted_root=TrustedRoot(Document.from_json(root)))
    except Exception as exc:
        raise VerificationError(
            f"the trusted root of the trust store can't be used: {_first_line(exc)}",
            code="verify.sigstore",
        ) from exc


def _first_line(exc: Exception) -> str:
    """A short, escaped word of why: the rest may be long, and hostile."""
    return ascii(str(exc).partition("\n")[0][:200] or type(exc).__name__)[1:-1]
