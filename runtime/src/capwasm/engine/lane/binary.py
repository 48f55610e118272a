"""The outside of a component's binary form: its sections, and a skeleton of it.

Nothing here decodes a type, a name or an instruction; only lengths are read.  The bytes are not
trusted: every length is checked against what is there, the work is linear in the bytes, and
whatever looks odd is refused, not guessed at.  (Binary format of core modules and of the component
model: a preamble of eight bytes, then sections of an id, a length in LEB128 and so many bytes.)
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = [
    "COMPONENT",
    "MAX_NESTING",
    "OddBinary",
    "read_leb",
    "sections",
    "skeleton",
]

# Components nest no deeper than this; those of composition tools nest two or three levels.
MAX_NESTING = 16

COMPONENT = b"\0asm\x0d\0\x01\0"
_CORE = b"\0asm\x01\0\0\0"
# Section ids of a component, and of a core module.
_CUSTOM, _CORE_MODULE, _NESTED = 0, 1, 4
_CODE, _DATA, _DATA_COUNT = 10, 11, 12
# A function body: three bytes long, no locals, `unreachable`, `end`.
_BODY = b"\x03\x00\x00\x0b"
# The shortest body there can be: its length, no locals, `end`.
_MIN_BODY = 3


class OddBinary(Exception):
    """The bytes are not framed as expected.  Says nothing of whether an engine would take them."""


def skeleton(code: bytes | memoryview) -> bytes:
    """The same component without what its functions do: the same types, to be compiled in no time.

    Every function of every core module in it becomes `unreachable`; data and custom sections go.

    Raises:
        OddBinary: it is not framed like a component.
    """
    return b"".join(_component(memoryview(code), 0))


def _component(code: memoryview, depth: int) -> list[bytes | memoryview]:
    if depth > MAX_NESTING:
        raise OddBinary(f"components nest deeper than {MAX_NESTING}")
    out: list[bytes | memoryview] = [COMPONENT]
    for kind, start, payload, end in sections(code, COMPONENT):
        if kind == _CUSTOM:
            continue
        if kind == _CORE_MODULE:
            out += _framed(kind, _module(payload))
        elif kind == _NESTED:
            out += _framed(kind, _component(payload, depth + 1))
        else:
            out.append(code[start:end])
    return out


def _module(code: memoryview) -> list[bytes | memoryview]:
    out: list[bytes | memoryview] = [_CORE]
    for kind, start, payload, end in sections(code, _CORE):
        if kind == _CODE:
            count, at = read_leb(payload, 0)
            # Checked before anything of that size is made.
            if count * _MIN_BODY > len(payload) - at:
                raise OddBinary("more functions than there is room for")
            out += _framed(kind, [_leb(count), _BODY * count])
        elif kind not in (_CUSTOM, _DATA, _DATA_COUNT):
            out.append(code[start:end])
    return out


def _framed(kind: int, parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
    return [bytes([kind]), _leb(sum(map(len, parts))), *parts]


def sections(code: memoryview, preamble: bytes) -> Iterator[tuple[int, int, memoryview, int]]:
    """Each section's id, where it begins, its payload, and where it ends."""
    if code[: len(preamble)] != preamble:
        raise OddBinary("not the expected preamble")
    at = len(preamble)
    while at < len(code):
        start, kind = at, code[at]
        length, at = read_leb(code, at + 1)
        end = at + length
        if end > len(code):
            raise OddBinary("a section is longer than what holds it")
        yield kind, start, code[at:end], end
        at = end


def read_leb(code: memoryview, at: int) -> tuple[int, int]:
    """An unsigned number of 32 bits at `at`, and where it ends."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(code):
            raise OddBinary("a number is cut off")
        byte = code[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 32:
                break
            return value, at
    raise OddBinary("a number of more than 32 bits")


def _leb(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
