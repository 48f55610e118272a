"""Keeps known secrets out of everything that is recorded, in every form they are likely to take.

A secret is registered once and found again raw, in any case, reversed, in hex, in base64 at each
of its three alignments or broken into lines, percent-encoded, in UTF-16, byte by byte, and escaped
as the usual encoders of URLs, JSON, Python and HTML do, also two of these deep; so are the lines of a secret of several lines and the fields of a
JSON one (LOG-02, LOG-04, LOG-06).  This guards against accidents and against servers that echo.  It
can't stop a guest that was given a secret in the clear and means to smuggle it out: such a guest
can use a form that nobody thought of.

How it is fast: a form of 15 bytes or more, wherever it lies in a text, covers one whole aligned
8-byte word of it.  So a text is read as words, and looked up in one set: the time does not grow
with the number of secrets, and a text without secrets is read once.  Shorter forms take two passes
with words of four bytes.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import threading
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from ._forms import forms_of, parts

__all__ = ["MAX_SECRET", "MIN_SECRET", "Redactor", "StreamRedactor", "printable"]

MIN_SECRET: Final = 6
"""Shorter values are refused: they would mask ordinary words, and tell what they are (LOG-05)."""
MAX_SECRET: Final = 64 * 1024
VALUES_A_NAME: Final = 16  # a rotated secret stays masked for so many successors
MAX_DEPTH: Final = 32

_LONG, _SHORT = 15, 5  # lengths from which a form is sure to cover an aligned word of 8, of 4


# -- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Form:
    text: bytes = field(repr=False)
    name: str


@dataclass(frozen=True, slots=True, repr=False)
class _Table:
    """Never changed once made, so that it is read without a lock."""

    long: Mapping[int, tuple[_Form, ...]] = field(default_factory=dict)
    short: Mapping[int, tuple[_Form, ...]] = field(default_factory=dict)
    longest: int = 0

    def plus(self, forms: Iterable[_Form]) -> _Table:
        long, short, longest = dict(self.long), dict(self.short), self.longest
        for form in forms:
            size = len(form.text)
            words, width, least = (long, 8, _LONG) if size >= _LONG else (short, 4, _SHORT)
            # Some aligned word begins within these places.  The middle of a secret is taken,
            # for its beginning is often the same as that of others.
            first = (size - least) // 2
            for at in range(first, first + least - width + 1):
                word = int.from_bytes(form.text[at : at + width], _ORDER)
                words[word] = (*words.get(word, ()), form)
            longest = max(longest, size)
        return _Table(long, short, longest)

    def find(self, data: bytes) -> list[tuple[int, int, str]]:
        """Where secrets lie: begin, end and name, in order, none overlapping another."""
        if not self.longest:
            return []
        low = data.lower()
        suspects: set[_Form] = set()
        if self.long and len(low) >= _LONG:
            words = memoryview(low)[: len(low) & ~7].cast("Q")
            if not self.long.keys().isdisjoint(words):
                suspects.update(f for w in self.long.keys() & words for f in self.long[w])
        if self.short and len(low) >= _SHORT:
            for at in (0, 2):
                words = memoryview(low)[at : at + (len(low) - at & ~3)].cast("I")
                suspects.update(f for w in self.short.keys() & words for f in self.short[w])
        spans = []
        for form in suspects:
            at = low.find(form.text)
            while at >= 0:
                spans.append((at, at + len(form.text), form.name))
                at = low.find(form.text, at + 1)
        return _merged(spans) if spans else spans


_ORDER: Final = "little" if memoryview(b"\1\0\0\0").cast("I")[0] == 1 else "big"


def _merged(spans: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    spans.sort(key=lambda s: (s[0], -s[1]))
    out = [spans[0]]
    for begin, end, name in spans[1:]:
        last = out[-1]
        if begin < last[1]:
            out[-1] = (last[0], max(last[1], end), last[2])
        else:
            out.append((begin, end, name))
    return out


def _replaced(data: bytes, spans: Iterable[tuple[int, int, str]], begin: int = 0) -> bytes:
    out = []
    for start, end, name in spans:
        out += [data[begin:start], b"[secret:%b]" % name.encode()]
        begin = end
    return b"".join([*out, data[begin:]])


# -- the door ------------------------------------------------------------------------------------


class Redactor:
    """Takes registered secrets out of text, bytes and plain structures.  For any thread."""

    def __init__(self) -> None:
        """Know no secret."""
        self._table = _Table()
        self._lock = threading.Lock()
        self._values: dict[str, dict[bytes, tuple[_Form, ...]]] = {}
        self._salt = secrets.token_bytes(16)

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._values)} names>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse: a pickle would hold every secret."""
        raise TypeError("a Redactor can't be pickled or copied")

    def register(self, name: str, value: bytes) -> bool:
        """Mask `value` as `[secret:name]` from now on.  Registering it again costs nothing.

        Args:
            name: what the mask says; odd characters become `_`.
            value: the secret itself, of `MIN_SECRET` to `MAX_SECRET` bytes.

        Returns:
            False when the value can't be masked, which is also logged as a warning: it is too
            short, too long, or made of one or two characters only.
        """
        name = re.sub(r"[^A-Za-z0-9_.@/-]", "_", name)[:64]
        if not MIN_SECRET <= len(value) <= MAX_SECRET or len(set(value)) <= 2:
            logging.getLogger("capwasm").warning(
                "secret %s can't be masked in logs: it must have %d to %d bytes, not all alike",
                name,
                MIN_SECRET,
                MAX_SECRET,
            )
            return False
        digest = hashlib.blake2b(value, key=self._salt, digest_size=16).digest()
        with self._lock:
            if digest in self._values.get(name, ()):
                return True
            pieces = {p for p in parts(value) if len(p) >= MIN_SECRET and len(set(p)) > 2}
            texts = {form.lower() for part in pieces for form in forms_of(part)}
            forms = tuple(_Form(text, name) for text in texts if len(text) >= MIN_SECRET)
            values = self._values.setdefault(name, {})
            values[digest] = forms
            if len(values) > VALUES_A_NAME:
                del values[next(iter(values))]
                known = (fs for vs in self._values.values() for fs in vs.values())
                self._table = _Table().plus(form for fs in known for form in fs)
            else:
                self._table = self._table.plus(forms)
        return True

    @property
    def longest(self) -> int:
        """Bytes of the longest form: what a stream may have to hold back."""
        return self._table.longest

    def data(self, data: bytes) -> bytes:
        """`data` without secrets; the same object if it has none."""
        spans = self._table.find(data)
        return _replaced(data, spans) if spans else data

    def text(self, text: str) -> str:
        """`text` without secrets; the same object if it has none."""
        data = text.encode("utf-8", "surrogatepass")
        spans = self._table.find(data)
        return _replaced(data, spans).decode("utf-8", "replace") if spans else text

    def cut(self, text: str, limit: int) -> tuple[str, int]:
        """At most `limit` characters of `text` without secrets, and how many were left off.

        No secret is cut in two, and what is left off costs nothing.
        """
        if len(text) <= limit:
            return self.text(text)[:limit], 0
        head = text[: limit + self._table.longest].encode("utf-8", "surrogatepass")
        return self.stream().feed(head).decode("utf-8", "replace")[:limit], len(text) - limit

    def value(self, value: Any) -> Any:
        """A plain structure (dict, list, tuple, text, bytes, numbers) without secrets.

        Keys count, and so do whole numbers; and a secret counts that lies across texts, in pieces,
        one after the other.  The same object if there is nothing to take out.  What is of another
        type, or nested deeper than 32, becomes a word that says so.
        """
        texts: list[str] = []
        keys: list[str] = []
        if _gather(value, texts, keys, 0) and self.clean(texts, keys):
            return value
        texts.clear()

        def take(text: str) -> str:
            texts.append(text)
            return text

        self._walk(value, 0, take)
        pieces = iter(self.texts(texts))
        return self._walk(value, 0, lambda _: next(pieces))

    def clean(self, texts: Iterable[str], keys: Iterable[str] = ()) -> bool:
        """Whether none of these holds a secret, nor the texts in a row: one search for all of them."""
        data = "\0".join(["".join(texts), *keys])
        return not self._table.find(data.encode("utf-8", "surrogatepass"))

    def texts(self, texts: Sequence[str]) -> list[str]:
        """These texts without secrets, and without the pieces of those that lie across them."""
        data = [text.encode("utf-8", "surrogatepass") for text in texts]
        spans = self._table.find(b"".join(data))
        if not spans:
            return list(texts)
        begin, out = 0, []
        for piece in data:
            end = begin + len(piece)
            here = [
                (max(start, begin) - begin, min(stop, end) - begin, name)
                for start, stop, name in spans
                if start < end and stop > begin
            ]
            out.append(_replaced(piece, here).decode("utf-8", "replace"))
            begin = end
        return out

    def _walk(self, value: Any, depth: int, text: Callable[[str], str]) -> Any:
        """A structure with `text` of each text in it, in order."""
        if isinstance(value, str):
            return text(str(value))
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            if value.bit_length() > 4096:
                return "[a huge number]"
            clean = text(str(int(value)))
            return value if clean == str(int(value)) else clean
        if isinstance(value, bytes | bytearray):
            return self.data(bytes(value))
        if depth < MAX_DEPTH:
            if isinstance(value, Mapping):
                return {
                    self._key(k, depth + 1): self._walk(v, depth + 1, text)
                    for k, v in value.items()
                }
            if isinstance(value, list | tuple):
                items = [self._walk(v, depth + 1, text) for v in value]
                return items if isinstance(value, list) else tuple(items)
        return f"[{type(value).__name__}]"

    def _key(self, key: Any, depth: int) -> Any:
        return self._walk(key, depth, self.text)

    def stream(self) -> StreamRedactor:
        """For bytes that come in pieces."""
        return StreamRedactor(self)

    def _find(self, data: bytes) -> tuple[list[tuple[int, int, str]], int]:
        table = self._table
        return table.find(data), table.longest


def _gather(value: Any, texts: list[str], keys: list[str], depth: int) -> bool:
    """Collect the texts of a structure; False when it holds what needs another look."""
    if isinstance(value, str):
        texts.append(value)
        return True
    if value is None or isinstance(value, bool | float):
        return True
    if isinstance(value, int):
        texts.append(str(value) if value.bit_length() <= 64 else "")
        return value.bit_length() <= 64
    if depth >= MAX_DEPTH:
        return False
    if isinstance(value, dict):
        return all(
            _gather(k, keys, keys, depth + 1) and _gather(v, texts, keys, depth + 1)
            for k, v in value.items()
        )
    if type(value) in (list, tuple):
        return all(_gather(v, texts, keys, depth + 1) for v in value)
    return False


class StreamRedactor:
    """Redacts bytes that come in pieces, also where a secret lies across them (LOG-03).

    It holds back as much as the longest form, so what comes out lags behind what went in.
    """

    def __init__(self, redactor: Redactor) -> None:
        """Hold nothing."""
        self._redactor = redactor
        self._tail = b""
        self._masked = 0  # bytes at the head of the tail that belong to a secret already masked

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return those that are safe by now."""
        return self._next(data, last=False)

    def finish(self) -> bytes:
        """The rest.  The stream may then be used anew."""
        return self._next(b"", last=True)

    def _next(self, data: bytes, *, last: bool) -> bytes:
        data = self._tail + data
        spans, longest = self._redactor._find(data)  # noqa: SLF001  its own other half
        # A form that begins before `safe` ends within the data, so it was found.
        safe = len(data) if last else max(0, len(data) - max(0, longest - 1))
        begin, out = min(self._masked, safe), []
        covered = self._masked
        for start, end, name in spans:
            if start >= safe:
                break
            if start >= covered:
                out += [data[begin:start], b"[secret:%b]" % name.encode()]
            covered = max(covered, end)
            begin = min(covered, safe)
        out.append(data[begin:safe])
        self._tail, self._masked = data[safe:], max(0, covered - safe)
        return b"".join(out)


# -- display -------------------------------------------------------------------------------------

_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_ODD: Final = re.compile(r"[^ -~]")


def _escaped(found: re.Match[str]) -> str:
    char = found.group()
    if unicodedata.category(char) not in _UNPRINTABLE:
        return char
    return char.encode("unicode_escape").decode()


def printable(text: str) -> str:
    """`text` on one line, with every control, bidi and invisible character spelt out (LOG-07).

    They are shown, not taken out: taking a character out could join the two halves of a secret.
    """
    return text if text.isprintable() else _ODD.sub(_escaped, text)
