"""What a capsule says of itself, for people to look at: proves nothing, and says so.

`verify` is for programs that act.  This reads as much as it can of a capsule that may be hostile,
with the same strict readers, and puts a verdict beside it.  Nothing here makes a
`VerifiedArtifact`, except by `verify`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from capwasm.errors import VerificationError

from .artifact import Artifact
from .attest import Statement, sha256
from .container import FORMAT_VERSION, read_archive, split
from .envelope import Envelope
from .members import COMPONENT
from .trust import Requirement, TrustStore
from .verify import ANY_ORIGIN, check_content, verify

__all__ = ["describe"]

ReadCode = Callable[[bytes], Any]


def describe(
    artifact: Artifact,
    trust: TrustStore | None = None,
    *,
    requirement: Requirement = ANY_ORIGIN,
    now: datetime | None = None,
    read_code: ReadCode | None = None,
) -> dict[str, Any]:
    """All that can be said of a capsule, as plain data.

    Args:
        artifact: the bytes.
        trust: whom to verify it with; None says only what the capsule claims.
        requirement: as for `verify`.
        now: as for `verify`.
        read_code: tells more of a component's code (its imports and exports).  It meets bytes that
            may be unverified, so it must be made for that.

    Returns:
        `verified` (bool) and, where known, `refusal`, `format`, `signatures`, `statement`,
        `archive`, `members`, `consistent` (the content is what the statement says), `code`; and
        `fault`, where reading ended early.
    """
    report: dict[str, Any] = {
        "file": artifact.name,
        "size": len(artifact.data),
        "sha256": artifact.sha256,
        "verified": False,
    }
    if trust is not None:
        try:
            verified = verify(artifact, trust, requirement=requirement, now=now)
        except VerificationError as exc:
            report["refusal"] = exc.to_dict()
        else:
            report["verified"] = True
            report["signers"] = [
                {"name": s.name, "key-id": s.key_id, "roles": sorted(s.roles)}
                for s in verified.signers
            ]
    try:
        _read(artifact, trust, report, read_code)
    except VerificationError as exc:
        report["fault"] = exc.to_dict()
    return report


def _read(
    artifact: Artifact,
    trust: TrustStore | None,
    report: dict[str, Any],
    read_code: ReadCode | None,
) -> None:
    parts = split(artifact.data)
    report["format"] = FORMAT_VERSION
    report["archive"] = {"size": len(parts.archive), "sha256": sha256(parts.archive)}
    envelope = Envelope.parse(bytes(parts.envelope))
    report["payload-type"] = envelope.payload_type
    message = envelope.signed_bytes()
    report["signatures"] = [
        _signature(s.key_id, s.value, message, trust) for s in envelope.signatures
    ]
    statement = Statement.parse(envelope.payload)
    report["statement"] = statement.model_dump(mode="json", by_alias=True)
    members = read_archive(parts.archive)
    report["members"] = [
        {"name": name, "size": len(data), "sha256": sha256(data)} for name, data in members.items()
    ]
    report["consistent"] = False
    check_content(statement, parts.archive)
    report["consistent"] = True
    if read_code is not None and COMPONENT in members:
        report["code"] = read_code(bytes(members[COMPONENT]))


def _signature(
    key_id: str, value: bytes, message: bytes, trust: TrustStore | None
) -> dict[str, Any]:
    """What is known of one signature: true, false, or unknown where the key is not trusted."""
    key = trust.find(key_id) if trust else None
    out: dict[str, Any] = {"key-id": key_id, "true": None}
    if key is not None:
        out |= {
            "true": key.key.verify(value, message),
            "name": key.name,
            "roles": sorted(key.roles),
            "algorithm": key.key.algorithm,
        }
    return out
