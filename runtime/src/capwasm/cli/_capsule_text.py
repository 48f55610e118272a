"""The words of `capwasm inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._anatomy import anatomy_lines, permission_lines

__all__ = ["inspect_text"]


def inspect_text(report: dict[str, Any], *, verbose: bool = False) -> str:
    """A report of `describe` for people: the verdict first.  The caller escapes it."""
    return "\n".join(_lines(report, verbose=verbose))


def _lines(report: dict[str, Any], *, verbose: bool) -> Iterator[str]:
    yield from _verdict_lines(report)
    yield ""
    yield f"file       {report['file']}, {report['size']} bytes"
    yield f"sha256     {report['sha256']}"
    if "archive" in report:
        yield f"format     {report['format']}"
        yield f"archive    {report['archive']['size']} bytes, sha256 {report['archive']['sha256']}"
    for signature in report.get("signatures", ()):
        yield f"signature  {signature['key-id']}  {_verdict(signature)}"
    if report.get("signatures") == []:
        yield "signature  none"
    if "statement" in report:
        predicate = report["statement"]["predicate"]
        yield f"plugin     {predicate['id']} {predicate['version']} ({predicate['kind']})"
    if "isolation" in report:
        isolation = report["isolation"]
        manifest = "" if isolation["process"] else ", unless its manifest wants one of its own"
        yield f"runs       {isolation['text']}{manifest}"
        if isolation["refused"] is not None:
            yield f"refused    {isolation['refused']['message']}"
    yield from permission_lines(report)
    if "code" in report:
        yield from anatomy_lines(report["code"], verbose=verbose)
    for member in report.get("members", ()):
        yield f"member     {member['sha256'][:16]}…  {member['size']:>10}  {member['name']}"
    if "consistent" in report:
        yield f"content    {'is' if report['consistent'] else 'is NOT'} what the statement says"
    if "fault" in report:
        yield f"MALFORMED  [{report['fault']['code']}] {report['fault']['message']}"


def _verdict_lines(report: dict[str, Any]) -> Iterator[str]:
    if "format" not in report and "code" in report:
        yield "UNSIGNED: a bare component, without a manifest.  Nobody vouches for it."
    elif report["verified"]:
        names = ", ".join(f"{s['name']} ({', '.join(s['roles'])})" for s in report["signers"])
        yield f"VERIFIED: every byte was signed by {names}"
    elif "refusal" in report:
        refusal = report["refusal"]
        yield f"UNVERIFIED: refused [{refusal['code']}] {refusal['message']}"
        for fault in refusal.get("faults", ()):
            yield f"  {fault['path']}: {fault['message']}"
        yield "What follows is only what the capsule says of itself."
    else:
        yield "UNVERIFIED: no trust store.  What follows is only what the capsule says of itself."


def _verdict(signature: dict[str, Any]) -> str:
    if signature["true"] is None:
        return "by a key that was not given, so unknown"
    who = f"{signature['name']} ({', '.join(signature['roles'])})"
    return f"true, by {who}" if signature["true"] else f"FALSE, in the name of {who}"
