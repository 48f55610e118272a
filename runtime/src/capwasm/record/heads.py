"""Heads that are kept elsewhere: where a log was at some time, signed, in one line of JSON.

Whoever can write a log's directory can put an older copy of it back, or cut it where the last signed
anchor stands; a head that lies on another machine shows both.  `capwasm audit anchor` makes them.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from capwasm.errors import AuditError

from ._chain import Head, Stamp
from .at import record_at
from .sinks import read_mark

if TYPE_CHECKING:
    from capwasm.capsule.keys import PrivateKey, PublicKey

__all__ = ["KeptHead", "newest", "parse_heads", "signed"]

MAX_HEADS: Final = 100_000
_HEX: Final = set("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class KeptHead:
    """A head, and what vouches for it.

    Attributes:
        log: the log's id.   head: its newest record.   time: when that was so.
        key: id of the key that signed it, or empty.   signature: base64, or empty.
    """

    log: str
    head: Head
    time: str
    key: str = ""
    signature: str = ""

    def message(self) -> bytes:
        """What is signed."""
        head = f"{self.head.seq}\n{self.head.hash}"
        return f"capwasm audit head 1\n{self.log}\n{head}\n{self.time}\n".encode()

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for one line of JSON."""
        data = {"log": self.log, "seq": self.head.seq, "hash": self.head.hash, "time": self.time}
        return data | ({"key": self.key, "signature": self.signature} if self.signature else {})


def newest(directory: str | PathLike[str]) -> KeptHead:
    """Where the log is on the disk now; also while it is written to.

    Raises:
        AuditError: `audit.tampered` where `head.json` and the records don't agree, or it is gone;
            `audit.sink` when there is no log to read.
    """
    mark = read_mark(Path(directory))
    found = record_at(directory, mark.head.seq) if mark else None
    if mark is None or found is None or found[1][9:73] != mark.head.hash:
        why = "head.json is gone" if mark is None else f"record {mark.head.seq} is not there"
        raise AuditError(f"{why}; run `capwasm audit verify`", code="audit.tampered")
    return KeptHead(mark.log, mark.head, Stamp()())


def signed(kept: KeptHead, key: PrivateKey) -> KeptHead:
    """The same, signed."""
    signature = base64.b64encode(key.sign(kept.message())).decode()
    return replace(kept, key=key.public.key_id, signature=signature)


def parse_heads(text: str, keys: Sequence[PublicKey] = ()) -> list[Head]:
    """The heads of a file that was kept elsewhere: a line each, JSON or `SEQ:HASH`.

    Args:
        text: the file's.
        keys: with any, a signature that is there must be one of theirs.

    Raises:
        AuditError: `audit.head` for a line that is no head, or a signature that does not hold.
    """
    lines = [line.strip() for line in text.splitlines()]
    found = [(n, line) for n, line in enumerate(lines, 1) if line]
    if not found or len(found) > MAX_HEADS:
        raise AuditError(f"1 to {MAX_HEADS} heads, one a line", code="audit.head")
    return [_head(line, keys, f"line {n}") for n, line in found]


def _head(line: str, keys: Iterable[PublicKey], context: str) -> Head:
    if not line.startswith("{"):
        seq, _, digest = line.partition(":")
        if seq.isascii() and seq.isdecimal() and len(seq) < 19 and _is_hash(digest):
            return Head(int(seq), digest)
        raise AuditError(
            "write SEQ:HASH, a number and 64 hex digits", code="audit.head", context=context
        )
    try:
        data = json.loads(line)
        kept = KeptHead(data["log"], Head(data["seq"], data["hash"]), data["time"])
        kept = replace(kept, key=data.get("key", ""), signature=data.get("signature", ""))
        texts = (kept.log, kept.head.hash, kept.time, kept.key, kept.signature)
        if not all(type(t) is str for t in texts) or type(kept.head.seq) is not int:
            raise TypeError
        signature = base64.b64decode(kept.signature, validate=True)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error):
        raise AuditError("not a head", code="audit.head", context=context) from None
    known = {key.key_id: key for key in keys}
    if not _is_hash(kept.head.hash) or not 0 < kept.head.seq < 2**63:
        raise AuditError("not a head", code="audit.head", context=context)
    if known and signature:
        key = known.get(kept.key)
        if key is None or not key.verify(signature, kept.message()):
            raise AuditError("not signed by a key that counts", code="audit.head", context=context)
    return kept.head


def _is_hash(text: str) -> bool:
    return len(text) == 64 and set(text) <= _HEX
