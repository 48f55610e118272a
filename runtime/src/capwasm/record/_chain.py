"""One record of the audit log as bytes: a line of JSON that begins with the hash of its own rest.

::

    {"hash":"<64 hex>","prev":"<64 hex>","seq":7,"time":"2026-01-31T12:00:00.123456789Z", … }

The hash is SHA-256 over the exact bytes that follow the hash field, to the end of the line.  They
name the hash of the record before, so a line can't be changed, taken out, put in or moved without
the chain showing where.  Nothing is ever encoded anew to check it (docs/adr/0010-audit-chain.md).
"""

from __future__ import annotations

import hashlib
import json
import time
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final, NamedTuple

__all__ = [
    "GENESIS",
    "MAX_LINE",
    "Head",
    "Sealed",
    "Stamp",
    "anchor_message",
    "is_sound",
    "parse",
    "seal",
]

MAX_LINE: Final = 128 * 1024
"""Bytes of the longest line; what goes into a record is cut so that it fits."""

BEGIN: Final = b'{"hash":"'
_REST: Final = len(BEGIN) + 64 + 2
encode: Final = json.JSONEncoder(
    separators=(",", ":"), allow_nan=False, check_circular=False
).encode


_decode: Final = json.JSONDecoder().decode


class Head(NamedTuple):
    """The newest record of a chain: all that is needed to go on, or to hold the log to its word."""

    seq: int
    hash: str


GENESIS: Final = Head(0, "0" * 64)
"""What the first record follows."""


class Sealed(NamedTuple):
    """A record with its place in the chain.  `line` ends with a newline."""

    seq: int
    hash: str
    line: bytes

    @property
    def head(self) -> Head:
        """The chain's head once this record is in it."""
        return Head(self.seq, self.hash)


class Stamp:
    """Wall-clock time as text, UTC, to the nanosecond; the date is worked out once a second."""

    __slots__ = ("_date",)

    def __init__(self) -> None:
        """Know no date yet."""
        self._date = (-1, "")

    def __call__(self) -> str:
        """The time now."""
        second, fraction = divmod(time.time_ns(), 1_000_000_000)
        date = self._date  # one attribute, so that no thread sees half a change
        if date[0] != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._date = date = (second, text)
        return f"{date[1]}.{fraction:09d}Z"


def seal(
    head: Head | Sealed,
    stamp: str,
    run: str,
    kind: str,
    verdict: str,
    plugin: str,
    action: str,
    target: str,
    reason: str,
    details: str,
) -> Sealed:
    """The record that follows `head`; its `details` are JSON, of `encode`.

    Pure ASCII, so a terminal can show the file as it is.
    """
    seq = head.seq + 1
    rest = (
        f'"prev":"{head.hash}","seq":{seq},"time":"{stamp}","mono":{time.monotonic_ns()}'
        f',"run":"{run}","kind":"{kind}","verdict":"{verdict}","plugin":{quoted(plugin)}'
        f',"action":{quoted(action)},"target":{quoted(target)},"reason":{quoted(reason)}'
        f',"details":{details}}}'
    ).encode("ascii")
    digest = hashlib.sha256(rest).hexdigest()
    return Sealed(seq, digest, b'{"hash":"%b",%b\n' % (digest.encode(), rest))


def is_sound(line: bytes) -> bool:
    """Whether the hash that a line begins with is that of the rest of it."""
    return (
        line[73:75] == b'",'
        and line.startswith(BEGIN)
        and line.endswith(b"\n")
        and hashlib.sha256(line[_REST:-1]).hexdigest().encode() == line[9:73]
    )


def parse(line: bytes) -> tuple[Sealed, dict[str, Any]]:
    """A record from its line, newline included, and its fields.  Its own hash holds.

    Raises:
        ValueError: says what is wrong with the line.
    """
    if not is_sound(line):
        raise ValueError(_whats_wrong(line))
    try:
        fields = _decode("{" + line[_REST:-1].decode("ascii"))
    except (ValueError, RecursionError):
        raise ValueError("not a record: malformed JSON") from None
    seq, prev = fields.get("seq"), fields.get("prev")
    if type(seq) is not int or not 0 < seq < 2**63 or not isinstance(prev, str):
        raise ValueError("not a record: no place in the chain")
    return Sealed(seq, line[9:73].decode(), line), fields


def _whats_wrong(line: bytes) -> str:
    if not line.endswith(b"\n"):
        return "incomplete" if len(line) < MAX_LINE else "too long to be a record"
    if not line.startswith(BEGIN) or line[73:75] != b'",':
        return "not a record"
    return "changed: the hash of the record is not the one it states"


def retention_message(log: str, seq: int, stamp: str, prev: str, upto: Head) -> bytes:
    """What a retention record signs: the same, and the last record that was removed."""
    return f"capwasm audit retention 1\n{log}\n{seq}\n{stamp}\n{prev}\n{upto.seq}\n{upto.hash}\n".encode()


def anchor_message(log: str, seq: int, stamp: str, prev: str) -> bytes:
    """What an anchor signs: the log, its own place and time, and the head before it."""
    return f"capwasm audit anchor 1\n{log}\n{seq}\n{stamp}\n{prev}\n".encode()
