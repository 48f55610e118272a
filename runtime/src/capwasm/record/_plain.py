"""An event's fields as plain values within bounds, ready to be sealed."""

from __future__ import annotations

from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final, TypeAlias

from capwasm.events import ALLOWED, DENIED, FAILED, KINDS, Event

from ._chain import encode
from .redact import Redactor

__all__ = ["Fields", "fit"]

FIELD_CHARS: Final = 1024
DETAIL_CHARS: Final = 1024
DETAIL_ITEMS: Final = 64
DETAIL_DEPTH: Final = 4
DETAIL_TOTAL: Final = 4_000  # characters over all, an item counting 8: so a line always fits


# What is sealed: kind, verdict, plugin, action, target, reason; the details, as JSON.
Fields: TypeAlias = tuple[str, str, str, str, str, str, str]


def fit(event: Event, redactor: Redactor) -> Fields:
    """What of `event` goes into a record.

    Raises:
        ValueError: its kind or verdict is not one of `events`.
    """
    if event.kind not in KINDS or event.verdict not in (ALLOWED, DENIED, FAILED):
        raise ValueError(f"no such kind of event: {event.kind!r}, {event.verdict!r}")
    plugin, action, target, reason = event.plugin, event.action, event.target, event.reason
    texts = [plugin, action, target, reason]
    keys: list[str] = []
    short = all([type(t) is str and len(t) <= FIELD_CHARS for t in texts])  # noqa: C419  quicker
    json = _usual(event.details, texts, keys) if short else None
    if json is not None and redactor.clean(texts, keys):
        return event.kind, event.verdict, plugin, action, target, reason, json
    plain = _Plain(redactor)
    fields = [plain.field(text) for text in texts[:4]]
    details = plain.mapping(event.details)
    if not redactor.clean(plain.texts, plain.keys):
        fields, details = redactor.value((fields, details))
    return event.kind, event.verdict, *fields, encode(details)  # type: ignore[return-value]


def _usual(details: Mapping[Any, Any], texts: list[str], keys: list[str]) -> str | None:
    """Details as JSON, with their texts added; None if they are not few, flat and short."""
    if not details:
        return "{}"
    if len(details) > 16:
        return None
    parts = []
    for key, item in details.items():
        if type(key) is not str or len(key) > 32:
            return None
        keys.append(key)
        kind = type(item)
        if kind is int and -(2**63) < item < 2**63:
            if not -100_000 < item < 100_000:
                texts.append(str(item))
            parts.append(f"{quoted(key)}:{item}")
        elif kind is str and len(item) <= 200:
            texts.append(item)
            parts.append(f"{quoted(key)}:{quoted(item)}")
        elif kind is float and abs(item) < 1e300:
            parts.append(f"{quoted(key)}:{item!r}")
        else:
            return None
    return f"{{{','.join(parts)}}}"


class _Plain:
    """Turns an event into plain values within bounds.  Never calls `repr`: it may hold anything.

    `texts` and `keys` collect every text on the way, so that all are searched for secrets at once.
    """

    __slots__ = ("_redactor", "_room", "keys", "texts")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._room = DETAIL_TOTAL
        self.texts: list[str] = []
        self.keys: list[str] = []

    def field(self, text: str) -> str:
        if type(text) is not str:  # an enum's member, or a caller's mistake
            text = str(text)
        if len(text) > FIELD_CHARS:
            text = self._cut(text, FIELD_CHARS)
        self.texts.append(text)
        return text

    def mapping(self, value: Mapping[Any, Any], depth: int = 1) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for index, (key, item) in enumerate(value.items()):
            if index >= DETAIL_ITEMS or self._room <= 0:
                out["…"] = f"[+{len(value) - index}]"
                break
            word = str(key) if isinstance(key, str | int) else type(key).__name__
            name = self._text(word, self.keys)
            out[name] = self._any(item, depth)
        return out

    def _any(self, value: Any, depth: int) -> Any:
        self._room -= 8
        if isinstance(value, str):
            return self._text(str(value), self.texts)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            if value.bit_length() > 64:
                return "[a huge number]"
            self.texts.append(str(int(value)))
            return int(value)
        if isinstance(value, float):
            return float(value) if abs(value) < 1e300 else "[not a finite number]"
        if depth < DETAIL_DEPTH:
            if isinstance(value, Mapping):
                return self.mapping(value, depth + 1)
            if isinstance(value, list | tuple | set | frozenset):
                return self._items(value, depth + 1)
        return f"[{type(value).__name__}]"

    def _items(self, value: Any, depth: int) -> list[Any]:
        out: list[Any] = []
        for index, item in enumerate(value):
            if index >= DETAIL_ITEMS or self._room <= 0:
                out.append(f"[+{len(value) - index}]")
                break
            out.append(self._any(item, depth))
        return out

    def _text(self, text: str, texts: list[str]) -> str:
        if len(text) > DETAIL_CHARS or len(text) > self._room:
            text = self._cut(text, max(0, min(DETAIL_CHARS, self._room)))
        self._room -= len(text)
        texts.append(text)
        return text

    def _cut(self, text: str, limit: int) -> str:
        kept, left_off = self._redactor.cut(text, limit)
        return f"{kept}…[+{left_off}]" if left_off else kept
