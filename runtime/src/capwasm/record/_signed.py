"""The records that a log writes of itself: anchors, what was pruned, and what is missing."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from capwasm.events import ALLOWED, FAILED

from ._chain import Head, anchor_message, encode, retention_message
from ._plain import Fields

if TYPE_CHECKING:
    from capwasm.capsule.keys import PrivateKey

    from .retention import Pruning

__all__ = ["anchor", "gap", "retention"]


def anchor(
    action: str, log: str, head: Head, stamp: str, key: PrivateKey | None, segment: int | None
) -> Fields:
    """An anchor that follows `head`; at the beginning of a segment with its number."""
    details: dict[str, Any] = {"log": log}
    if segment is not None:
        details |= {"segment": segment, "format": 1}
    details |= _signature(key, anchor_message(log, head.seq + 1, stamp, head.hash))
    return "anchor", ALLOWED, "", action, "", "", encode(details)


def retention(pruning: Pruning, log: str, head: Head, stamp: str, key: PrivateKey | None) -> Fields:
    """What says that `pruning` is right: up to there the log may be missing."""
    details: dict[str, Any] = {
        "log": log,
        "first": pruning.first,
        "seq": pruning.upto.seq,
        "hash": pruning.upto.hash,
        "segments": len(pruning.segments),
        "bytes": pruning.bytes,
    }
    message = retention_message(log, head.seq + 1, stamp, head.hash, pruning.upto)
    details |= _signature(key, message)
    return "retention", ALLOWED, "", "prune", "", pruning.why, encode(details)


def gap(reason: str, **details: int) -> Fields:
    """Something is missing, or could not be done."""
    return "gap", FAILED, "", "", "", reason, encode(details)


def _signature(key: PrivateKey | None, message: bytes) -> dict[str, str]:
    if key is None:
        return {}
    signature = base64.b64encode(key.sign(message)).decode()
    return {"key": key.public.key_id, "signature": signature}
