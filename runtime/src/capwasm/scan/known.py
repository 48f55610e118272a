"""What is known of these very bytes: digests that the operator knows to be bad, and revocations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from capwasm._files import read_file
from capwasm.errors import Fault, PolicyError
from capwasm.review.finding import Finding, Severity

from .model import Context, Rule, Scanner
from .subject import Subject

__all__ = ["SCANNERS", "read_known_bad"]

MAX_FILE: Final = 64 * 2**20
_MAX_FAULTS: Final = 20
_LINE: Final = re.compile(r"(?:sha256:)?([0-9A-Fa-f]{64})(?:\s+\*?(.{0,200}))?")

BAD: Final = Rule(
    "known.bad-digest",
    Severity.CRITICAL,
    "These very bytes are on the operator's list of what is known to be bad.",
)
REVOKED: Final = Rule("known.revoked", Severity.CRITICAL, "The revocation feed denies this plugin.")
UNPROVEN: Final = Rule(
    "known.unproven",
    Severity.MEDIUM,
    "No trusted key vouches for this capsule: what follows is about bytes that anybody may have made.",
    "Add the publisher's key to trust.toml, or scan a capsule that is signed.",
)


def read_known_bad(path: Path) -> dict[str, str]:
    """A list of digests: SHA-256 in hex, and what it is, a line each, as `sha256sum` writes them.

    Empty lines and those that begin with `#` say nothing.

    Raises:
        PolicyError: `policy.unreadable`, or `policy.invalid` with the lines that are neither: a
            list that was cut or garbled must not pass for one that knows nothing.
    """
    data = read_file(
        path, MAX_FILE, PolicyError, code="policy.unreadable", too_large="policy.unreadable"
    )
    known: dict[str, str] = {}
    faults: list[Fault] = []
    for number, raw in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if (found := _LINE.fullmatch(line)) is not None:
            known[found[1].lower()] = (found[2] or "").strip()
        elif len(faults) < _MAX_FAULTS:
            faults.append(Fault(f"line {number}", "no SHA-256 in hex, with what it is after it"))
    if faults:
        raise PolicyError(
            "not a list of digests", code="policy.invalid", context=str(path), faults=faults
        )
    return known


def _known(subject: Subject, context: Context) -> Iterator[Finding]:
    if subject.verified is None:
        yield UNPROVEN.at("signatures", subject.refusal)
    parts = {"archive": subject.digest, "capsule": subject.file, **subject.digests}
    for name, digest in parts.items():
        if (what := context.known_bad.get(digest)) is not None:
            yield BAD.at(name, f"{digest}  {what}".rstrip())
    if why := context.revoked(subject):
        yield REVOKED.at("capsule", why)


SCANNERS: Final = (Scanner("known", _known, (BAD, REVOKED, UNPROVEN)),)
