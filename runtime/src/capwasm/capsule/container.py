"""The container: how a capsule's bytes are laid out, byte for byte.  See docs/capsule-format.md.

    magic · format version · envelope length · envelope · archive

There is exactly one way to write given files.  `read_archive` takes nothing else: it walks the
local headers, writes anew what each header and the whole directory must be, and compares.  It never
looks a file up through the directory, so there are not two tables that could tell two stories
(FS-28), and never decompresses, so nothing can unpack to more than it is.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Mapping
from typing import Final, NamedTuple, NoReturn

from capwasm.errors import Fault, VerificationError

from .members import MAX_MEMBERS, name_fault

__all__ = [
    "MAGIC",
    "MAX_ENVELOPE_BYTES",
    "join",
    "places",
    "read_archive",
    "split",
    "write_archive",
]

# Not text, not zip, and broken by a transfer that changes line ends or strips the eighth bit.
MAGIC: Final = b"\x89CAPS\r\n\x1a"
FORMAT_VERSION: Final = 1
MAX_ENVELOPE_BYTES: Final = 64 * 1024

_HEADER: Final = struct.Struct("<8sII")
_LOCAL: Final = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL: Final = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END: Final = struct.Struct("<4sHHHHIIH")
_LOCAL_MAGIC, _CENTRAL_MAGIC, _END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"

# The fields that never differ: version 2.0, made on Unix, no flags, stored, 1 January 1980 at
# midnight, a plain file of mode 0644.
_VERSION: Final = 20
_MADE_BY: Final = 3 << 8 | _VERSION
_STORED: Final = 0
_TIME: Final = 0
_DATE: Final = 1 << 5 | 1
_MODE: Final = (stat.S_IFREG | 0o644) << 16


class Split(NamedTuple):
    """The two parts of a capsule, as views of its bytes."""

    envelope: memoryview
    archive: memoryview


def split(data: bytes) -> Split:
    """Find the envelope and the archive; parse neither.

    Raises:
        VerificationError: `verify.not-a-capsule`, `verify.format`, `verify.truncated`,
            `verify.envelope-too-large`.
    """
    if data[: len(MAGIC)] != MAGIC:
        _refuse("verify.not-a-capsule", "the bytes do not begin as a capsule does")
    if len(data) < _HEADER.size:
        _refuse("verify.truncated", "the header is cut short")
    _, version, length = _HEADER.unpack_from(data)
    if version != FORMAT_VERSION:
        _refuse("verify.format", f"format {version}; this runtime knows {FORMAT_VERSION}")
    if length > MAX_ENVELOPE_BYTES:
        _refuse("verify.envelope-too-large", f"an envelope of {length} bytes; at most 64 KiB")
    start = _HEADER.size + length
    if len(data) < start:
        _refuse("verify.truncated", "the capsule ends within its envelope")
    view = memoryview(data)
    return Split(view[_HEADER.size : start], view[start:])


def join(envelope: bytes, archive: bytes | memoryview) -> bytes:
    """Put a capsule together.

    Raises:
        ValueError: if the envelope is too large.
    """
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise ValueError(f"an envelope of {len(envelope)} bytes; at most {MAX_ENVELOPE_BYTES}")
    return b"".join([_HEADER.pack(MAGIC, FORMAT_VERSION, len(envelope)), envelope, archive])


class _Entry(NamedTuple):
    name: bytes
    crc: int
    size: int
    offset: int

    def local(self) -> bytes:
        return (
            _LOCAL.pack(
                _LOCAL_MAGIC, _VERSION, 0, _STORED, _TIME, _DATE,
                self.crc, self.size, self.size, len(self.name), 0,
            )
            + self.name
        )  # fmt: skip

    def central(self) -> bytes:
        return (
            _CENTRAL.pack(
                _CENTRAL_MAGIC, _MADE_BY, _VERSION, 0, _STORED, _TIME, _DATE,
                self.crc, self.size, self.size, len(self.name), 0, 0, 0, 0, _MODE, self.offset,
            )
            + self.name
        )  # fmt: skip


def _directory(entries: list[_Entry], offset: int) -> bytes:
    """All that follows the last file."""
    central = b"".join(e.central() for e in entries)
    count = len(entries)
    return central + _END.pack(_END_MAGIC, 0, 0, count, count, len(central), offset, 0)


def write_archive(members: Mapping[str, bytes]) -> bytes:
    """The one archive that holds these files, sorted by name.  Names must have been checked."""
    parts: list[bytes] = []
    entries: list[_Entry] = []
    offset = 0
    for name in sorted(members):
        data = members[name]
        entry = _Entry(name.encode("ascii"), zlib.crc32(data), len(data), offset)
        entries.append(entry)
        parts += [entry.local(), data]
        offset += _LOCAL.size + len(entry.name) + entry.size
    return b"".join([*parts, _directory(entries, offset)])


def places(sizes: Mapping[str, int]) -> dict[str, slice]:
    """Where each file lies in the one archive that holds files of these names and sizes.

    Any names will do: what no archive can hold is nowhere, or at a place of something else.
    """
    found: dict[str, slice] = {}
    offset = 0
    for name in sorted(sizes):
        offset += _LOCAL.size + len(name.encode("utf-8", "surrogatepass"))
        found[name] = slice(offset, offset + sizes[name])
        offset += sizes[name]
    return found


def read_archive(archive: memoryview) -> dict[str, memoryview]:
    """The files of an archive that is what `write_archive` would have written, as views of it.

    Raises:
        VerificationError: `verify.bomb` (compressed, too many files), `verify.member-name`,
            `verify.member-duplicate`, `verify.member-link`, else `verify.zip`.
    """
    members: dict[str, memoryview] = {}
    entries: list[_Entry] = []
    offset, last = 0, ""
    while archive[offset : offset + 4] == _LOCAL_MAGIC:
        if len(entries) == MAX_MEMBERS:
            _refuse("verify.bomb", f"more than {MAX_MEMBERS} files")
        entry, name, data = _read_entry(archive, offset)
        if name in members:
            _refuse("verify.member-duplicate", "a name stands twice", ascii(name))
        if name <= last:
            _refuse("verify.zip", "the names are not sorted", name)
        entries.append(entry)
        members[name] = data
        offset += _LOCAL.size + len(entry.name) + entry.size
        last = name
    if archive[offset:] != _directory(entries, offset):
        _refuse_directory(archive[offset:])
    return members


def _read_entry(archive: memoryview, offset: int) -> tuple[_Entry, str, memoryview]:
    start = offset + _LOCAL.size
    if start > len(archive):
        _refuse("verify.zip", "a file's header is cut short")
    _, _, _, method, _, _, _, _, size, name_length, _ = _LOCAL.unpack_from(archive, offset)
    raw = bytes(archive[start : start + name_length])
    name = raw.decode("ascii", "backslashreplace")
    if method != _STORED:
        _refuse("verify.bomb", "a file is compressed; a capsule stores its files", ascii(name))
    if (wrong := name_fault(name)) is not None:
        _refuse("verify.member-name", wrong, ascii(name))
    start += name_length
    data = archive[start : start + size]
    entry = _Entry(raw, zlib.crc32(data), size, offset)
    if len(data) != size or archive[offset:start] != entry.local():
        _refuse("verify.zip", "a file's header is not in canonical form", name)
    return entry, name, data


def _refuse_directory(tail: memoryview) -> NoReturn:
    """Say what is wrong with a directory.  That something is, is certain already."""
    offset = 0
    while tail[offset : offset + 4] == _CENTRAL_MAGIC and offset + _CENTRAL.size <= len(tail):
        fields = _CENTRAL.unpack_from(tail, offset)
        file_type = stat.S_IFMT(fields[15] >> 16)
        if file_type not in (0, stat.S_IFREG):
            _refuse("verify.member-link", "a link, a directory or a special file")
        offset += _CENTRAL.size + fields[10] + fields[11] + fields[12]
    _refuse(
        "verify.zip", "the directory is not the canonical one of these files, or bytes follow it"
    )


def _refuse(code: str, message: str, path: str = "") -> NoReturn:
    raise VerificationError(message, code=code, faults=[Fault(path, message)] if path else ())
