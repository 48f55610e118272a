"""The forms that a secret may take on its way through encoders, dumps and other people's software."""

from __future__ import annotations

import base64
import contextlib
import html
import json
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote_from_bytes, quote_plus

__all__ = ["forms_of", "parts"]

MAX_TWICE: Final = 4 * 1024  # bytes of a value whose forms are looked for two deep

_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def parts(value: bytes) -> Iterator[bytes]:
    """The value, its lines, and the strings of a JSON value with their lines."""
    yield value
    yield from _lines(value)
    if value.lstrip()[:1] in (b"{", b"["):
        try:
            todo = [json.loads(value)]
        except (ValueError, RecursionError):
            return
        while todo:
            node = todo.pop()
            if isinstance(node, dict):
                todo += node.values()
            elif isinstance(node, list):
                todo += node
            elif isinstance(node, str):
                part = node.encode("utf-8", "surrogatepass")
                yield part
                yield from _lines(part)


def _lines(value: bytes) -> Iterator[bytes]:
    # The dashed lines of a PEM file are the same in all of them.
    return (line.strip() for line in value.splitlines() if not line.startswith(b"-----"))


def _base64(value: bytes) -> Iterator[bytes]:
    """The characters that depend on `value` alone, for each place it may have in a longer text.

    And the lines of 64 (PEM) and 76 (MIME) characters into which its own encoding is often broken.
    """
    whole = base64.b64encode(value)
    yield whole
    for width in (64, 76):
        yield from (whole[at : at + width] for at in range(0, len(whole), width))
    yield from _cores(value)


# What encoders leave as it is, besides letters, digits and `_.-~`: none; a path; JavaScript's
# encodeURIComponent and encodeURI; the query of a URL.
_SAFE: Final = ("", "/", "!*'()", ";,/?:@&=+$!*'()#", "!$&'()*+,-./:;=?@")
# What JSON encoders escape besides what they must: Go and Rails; .NET.
_CAREFUL: Final = ("<>&", "<>&'+`")


def _percent(value: bytes) -> Iterator[str]:
    for safe in _SAFE:
        text = quote_from_bytes(value, safe=safe)
        yield from (text, text.replace("%", "%25"))
    form = quote_plus(value)
    # A browser's form keeps `*`, and takes `~` for a sign to encode.
    yield from (form, quote_plus(value, safe="*").replace("~", "%7E"))
    yield "".join(f"%{byte:02x}" for byte in value)


def _json(plain: str) -> Iterator[str]:
    once = json.dumps(plain)[1:-1]
    yield from (once, json.dumps(plain, ensure_ascii=False)[1:-1], once.replace("/", r"\/"))
    yield json.dumps(once)[1:-1]  # JSON within JSON
    for careful in _CAREFUL:
        for text in (once, once.replace('\\"', r"\u0022")):
            yield text.translate({ord(c): f"\\u{ord(c):04x}" for c in careful})
    units = memoryview(plain.encode("utf-16-be", "surrogatepass"))
    yield "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _html(plain: str) -> Iterator[str]:
    bare = html.escape(plain, quote=False)
    yield bare
    for apostrophe in ("&#x27;", "&#39;", "&apos;"):
        for quote in ("&quot;", "&#34;"):
            text = bare.replace("'", apostrophe).replace('"', quote)
            yield from (text, text.replace("+", "&#43;"))


def _spelt(value: bytes) -> Iterator[str]:
    """Byte by byte, as dumps and debuggers do."""
    yield from (value.hex(":"), value.hex(" "), value.hex("-"))
    yield "".join(f"\\x{byte:02x}" for byte in value)
    yield from (",".join(map(str, value)), ", ".join(map(str, value)))
    yield "".join(f"&#{byte};" for byte in value)
    yield "".join(f"&#x{byte:x};" for byte in value)


def _cores(value: bytes) -> Iterator[bytes]:
    """Of base64, what depends on `value` alone, in both alphabets."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + value)
        core = text[-(-before * 8 // 6) : (before + len(value)) * 8 // 6]
        yield from {core, core.translate(_URL_SAFE)}


def _twice(value: bytes) -> Iterator[bytes]:
    """Encoded, and then hex, base64 or percent-encoded once more, as tokens and headers are."""
    inner = {value.hex().encode(), value.hex().upper().encode(), *_cores(value)}
    inner |= {quote_from_bytes(value, safe="").encode(), *_utf16(value)}
    with contextlib.suppress(UnicodeDecodeError):
        inner.add(json.dumps(value.decode())[1:-1].encode())
    inner.discard(value)
    for text in inner:
        yield text.hex().encode()
        yield from _cores(text)
        yield quote_from_bytes(text, safe="").encode()
        yield text.replace(b"/", rb"\/")


def _utf16(value: bytes) -> Iterator[bytes]:
    # Without the outermost byte, which is 0 in a plain text: so it is the same in either order.
    with contextlib.suppress(UnicodeDecodeError):
        text = value.decode()
        yield from {text.encode("utf-16-le")[:-1], text.encode("utf-16-be")[1:]}


def forms_of(value: bytes) -> Iterator[bytes]:
    """All of them; not in lower case yet, and some of them more than once."""
    yield from (value, value[::-1], value.hex().encode(), *_utf16(value))
    yield from (text.encode() for text in _spelt(value))
    if len(value) <= MAX_TWICE:
        yield from _twice(value)
    for text in _base64(value):
        yield from (text, text.translate(_URL_SAFE))
    yield from (text.encode() for text in _percent(value))
    yield repr(value)[2:-1].encode()
    try:
        plain = value.decode()
    except UnicodeDecodeError:
        return
    python = plain.encode("unicode_escape")
    for escaped in (plain[::-1], repr(plain)[1:-1], *_json(plain), *_html(plain)):
        yield escaped.encode("utf-8", "surrogatepass")
    yield from (python, python.replace(b"'", b"\\'"))
