"""What is carried inside: other programs, archives and scripts, and data that looks packed or encrypted."""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from capwasm.review.finding import Finding, Severity

from .model import Context, Rule, Scanner
from .subject import Subject

__all__ = ["SCANNERS"]

PROGRAM: Final = Rule(
    "embedded.program",
    Severity.HIGH,
    "A native program is carried inside: nothing in a sandbox can run it, so it is meant for outside.",
    "Take it out; what must run outside is asked for by name, with [[exec]].",
)
WASM: Final = Rule(
    "embedded.wasm",
    Severity.MEDIUM,
    "Another WebAssembly module is carried as data, where no scanner looks into it.",
    "Compose components at build time: wasm-tools compose.",
)
ARCHIVE: Final = Rule(
    "embedded.archive",
    Severity.MEDIUM,
    "A compressed archive is carried as data, where no scanner looks into it.",
    "Store the files as they are, below assets/.",
)
SCRIPT: Final = Rule(
    "embedded.script",
    Severity.MEDIUM,
    "A script for a shell is carried as data: nothing in a sandbox runs one.",
    "Take it out; what must run outside is asked for by name, with [[exec]].",
)
PACKED: Final = Rule(
    "data.packed",
    Severity.MEDIUM,
    "A large part of the data looks packed or encrypted, so nobody can see what it is.",
    "Carry data as it is; if it is compressed, say so in the README.",
)

_BLOCK: Final = 4096
_PACKED_BITS: Final = 7.6
_PACKED_BYTES: Final = 32 * 1024


def _elf(data: memoryview, at: int) -> bool:
    """ELF: class, order and version of its ident, then a type and a machine (System V ABI)."""
    if len(data) - at < 20 or data[at + 4] not in (1, 2) or data[at + 5] not in (1, 2):
        return False
    type_, machine = struct.unpack_from("<HH" if data[at + 5] == 1 else ">HH", data, at + 16)
    return data[at + 6] == 1 and 1 <= type_ <= 4 and machine != 0


def _pe(data: memoryview, at: int) -> bool:
    """PE: the DOS header says where the signature stands."""
    if len(data) - at < 64:
        return False
    (offset,) = struct.unpack_from("<I", data, at + 0x3C)
    return offset < 4096 and bytes(data[at + offset : at + offset + 4]) == b"PE\0\0"


def _macho(data: memoryview, at: int) -> bool:
    """Mach-O, 64 bits: a processor and a type of file that there are."""
    if len(data) - at < 16:
        return False
    cpu, _, kind = struct.unpack_from("<III", data, at + 4)
    return cpu in (0x01000007, 0x0100000C) and 1 <= kind <= 12


def _zip(data: memoryview, at: int) -> bool:
    """A local header: a version that there is, a method, and a name that can be read."""
    if len(data) - at < 34:
        return False
    version, _, method = struct.unpack_from("<HHH", data, at + 4)
    (size,) = struct.unpack_from("<H", data, at + 26)
    name = bytes(data[at + 30 : at + 30 + min(size, 64)])
    return version <= 63 and method in (0, 8, 9, 12, 14, 93) and 0 < size < 512 and name.isascii()


def _gzip(data: memoryview, at: int) -> bool:
    """A member's header (RFC 1952): no reserved flag, an operating system that there is."""
    if len(data) - at < 18:
        return False
    return (
        data[at + 3] & 0xE0 == 0
        and data[at + 8] in (0, 2, 4)
        and data[at + 9] in (0, 3, 7, 11, 255)
    )


def _always(_data: memoryview, _at: int) -> bool:
    return True


_MAGICS: Final[tuple[tuple[bytes, str, Rule, Callable[[memoryview, int], bool]], ...]] = (
    (b"\x7fELF", "ELF", PROGRAM, _elf),
    (b"MZ", "PE", PROGRAM, _pe),
    (b"\xcf\xfa\xed\xfe", "Mach-O", PROGRAM, _macho),
    (b"\0asm\x01\0\0\0", "module of WebAssembly", WASM, _always),
    (b"\0asm\x0d\0\x01\0", "component of WebAssembly", WASM, _always),
    (b"PK\x03\x04", "zip", ARCHIVE, _zip),
    (b"\x1f\x8b\x08", "gzip", ARCHIVE, _gzip),
    (b"\xfd7zXZ\0", "xz", ARCHIVE, _always),
    (b"7z\xbc\xaf\x27\x1c", "7z", ARCHIVE, _always),
)
# The same in base64, as far as each is the same in all of its kind.
_ENCODED: Final = (
    (b"f0VMRgIBAQ", "ELF, in base64", PROGRAM),
    (b"TVqQAAMAAAAEAAAA", "PE, in base64", PROGRAM),
    (b"AGFzbQEAAAAB", "module of WebAssembly, in base64", WASM),
    (b"AGFzbQ0AAQAH", "component of WebAssembly, in base64", WASM),
    (b"H4sIAAAAAAAA", "gzip, in base64", ARCHIVE),
)
_SCRIPT: Final = re.compile(
    rb"#![ ]?/(?:usr/)?(?:local/)?bin/(?:env[ ]+)?(?:ba|da|z|k)?sh\b[^\n]{0,60}\n"
    rb"|(?i:powershell(?:\.exe)?\s[^\n]{0,80}-e(?:nc|ncodedcommand)?\s+[A-Za-z0-9+/=]{20})"
    rb"|(?:curl|wget)\s[^\n|;]{0,200}\|\s{0,3}(?:sudo\s)?(?:ba|da|z)?sh\b"
    rb"|/dev/tcp/[\w.-]{1,64}/\d{1,5}"
)


def _parts(subject: Subject) -> Iterator[tuple[str, int, memoryview]]:
    """What holds data: the segments and unknown sections of a component, and other members.

    Each with its name, and where it begins in it.
    """
    code = "plugin.wasm"
    for segment in subject.outline.data:
        yield code, segment.offset, segment.payload
    for custom in subject.outline.customs:
        yield code, custom.offset, custom.payload
    for name, data in subject.members.items():
        if name != code:
            yield name, 0, data


def _embedded(subject: Subject, _context: Context) -> Iterator[Finding]:
    native = set(subject.libraries.values())
    for name, offset, data in _parts(subject):
        whole = bytes(data)
        for magic, what, rule, is_it in _MAGICS:
            at = whole.find(magic, 1 if name in native else 0)
            while at >= 0:
                if is_it(data, at):
                    yield rule.at(f"{name}@{offset + at:#x}", what)
                at = whole.find(magic, at + 1)
        for text, what, rule in _ENCODED:
            if (at := whole.find(text)) >= 0:
                yield rule.at(f"{name}@{offset + at:#x}", what)
        if not name.startswith(("README.md", "LICENSE")):
            for found in _SCRIPT.finditer(whole):
                yield SCRIPT.at(
                    f"{name}@{offset + found.start():#x}", found[0].decode("ascii", "replace")
                )


def _packed(subject: Subject, _context: Context) -> Iterator[Finding]:
    for name, offset, data in _parts(subject):
        # A picture is packed, and says so.
        if name.startswith("assets/") and bytes(data[:4]) in _PICTURES:
            continue
        blocks = [at for at in range(0, len(data), _BLOCK) if _is_packed(data[at : at + _BLOCK])]
        if len(blocks) * _BLOCK >= _PACKED_BYTES:
            share = 100 * len(blocks) * _BLOCK // len(data)
            yield PACKED.at(
                f"{name}@{offset + blocks[0]:#x}",
                f"{len(blocks) * _BLOCK} bytes, {min(share, 100)} %",
            )


_PICTURES: Final = (b"\x89PNG", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1", b"GIF8", b"RIFF", b"wOF2")


def _is_packed(block: memoryview) -> bool:
    if len(block) < _BLOCK:
        return False
    counts = Counter(bytes(block)).values()
    return -sum(n / _BLOCK * math.log2(n / _BLOCK) for n in counts) > _PACKED_BITS


SCANNERS: Final = (
    Scanner("embedded", _embedded, (PROGRAM, WASM, ARCHIVE, SCRIPT), seconds=60.0),
    Scanner("packed", _packed, (PACKED,), seconds=60.0),
)
