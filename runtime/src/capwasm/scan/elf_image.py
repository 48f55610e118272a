"""A shared object as the dynamic loader will see it.  See the ELF gABI, chapter 5, and elf(5).

The loader reads program headers and what they lead to, and never a section header.  A reader that
believes section headers can be shown other imports than those that are bound.  So they are taken away
before the library parses the file, tables are looked up by address as the loader does it, and imports are
taken from the relocations too, which name symbols that no hash table need count.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

__all__ = ["Image", "OddElf", "Segment", "read_image"]

MAX_SEGMENTS: Final = 64
MAX_TAGS: Final = 1024
MAX_SYMBOLS: Final = 200_000
MAX_RELOCATIONS: Final = 2_000_000
MAX_NAME: Final = 1024
MAX_MEMORY: Final = 2**32

EXECUTE, WRITE = 1, 2

_HEADER_BYTES: Final = 64
_PAGE: Final = 4096
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QQq")
_TAG: Final = struct.Struct("<QQ")
_IFUNC, _LOCAL, _DEFAULT = 10, 0, 0  # a symbol's type, binding and visibility

# Tags by number: elf(5), and the GNU ones of glibc's elf.h.
NEEDED, HASH, STRTAB, SYMTAB, RELA, RELASZ, RELAENT, STRSZ, SYMENT = 1, 4, 5, 6, 7, 8, 9, 10, 11
INIT, SONAME, RPATH, REL, PLTREL, TEXTREL, JMPREL, BIND_NOW = 12, 14, 15, 17, 20, 22, 23, 24
PLTRELSZ, INIT_ARRAY, INIT_ARRAYSZ, RUNPATH, FLAGS = 2, 25, 27, 29, 30
GNU_HASH, FLAGS_1, AUXILIARY, FILTER = 0x6FFFFEF5, 0x6FFFFFFB, 0x7FFFFFFD, 0x7FFFFFFF
_SEVERAL: Final = frozenset({NEEDED, AUXILIARY, FILTER})


class OddElf(ValueError):
    """It is not the file that a loader would take; the message says why."""


class Segment(NamedTuple):
    """A program header.

    Attributes:
        kind: `PT_LOAD`, or its number if it has no name.   flags: 1 execute, 2 write, 4 read.
        address, size: in memory.   offset, filled: in the file.
    """

    kind: str
    flags: int
    address: int
    size: int
    offset: int
    filled: int


@dataclass(frozen=True)
class Image:
    """What was read.

    Attributes:
        kind: `ET_DYN`.   machine: `EM_X86_64`.   bits: 32 or 64.   little: its byte order.
        segments: all of them, as they stand.
        tags: of the dynamic table, by number.
        needed: libraries that are loaded along, also as filters.
        search: where they are looked for: RPATH and RUNPATH, each with its word.
        imports: symbols that are bound from elsewhere.   exports: symbols that it defines.
        ifuncs: whether it has functions that choose a function, which run before constructors.
        oddities: what no linker makes.
        sections: names of its sections, as it says; nothing relies on them.
    """

    kind: str
    machine: str
    bits: int
    little: bool
    segments: tuple[Segment, ...] = ()
    tags: dict[int, int] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    search: tuple[tuple[str, str], ...] = ()
    imports: frozenset[str] = frozenset()
    exports: frozenset[str] = frozenset()
    ifuncs: bool = False
    oddities: tuple[str, ...] = ()
    sections: frozenset[str] = frozenset()

    @property
    def loads(self) -> tuple[Segment, ...]:
        """The segments that are mapped."""
        return tuple(s for s in self.segments if s.kind == "PT_LOAD")

    def has(self, kind: str) -> Segment | None:
        """The first segment of a kind, if there is one."""
        return next((s for s in self.segments if s.kind == kind), None)


def read_image(data: memoryview) -> Image:
    """Read a shared object.  Of one that is not 64 bits and little-endian, only what it is for.

    Raises:
        OddElf: it is cut short, or its tables contradict each other.
        ImportError: there is no pyelftools.
    """
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    if len(data) < _HEADER_BYTES:
        raise OddElf(f"it has {len(data)} bytes, fewer than its header")
    try:
        found = ELFFile(io.BytesIO(_without_sections(data)))
        what = (
            str(found["e_type"]),
            str(found["e_machine"]),
            int(found.elfclass),
            bool(found.little_endian),
        )
        if what[2:] != (64, True):
            return Image(*what)
        count = int(found["e_phnum"])
        if not 0 < count <= MAX_SEGMENTS:
            raise OddElf(f"{count} program headers; 1 to {MAX_SEGMENTS} are sane")
        segments = tuple(_segment(found.get_segment(n).header) for n in range(count))
    except OddElf:
        raise
    # Beside its own errors, the library lets out what hostile numbers do to it.
    except (
        ELFError,
        ConstructError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        OverflowError,
    ) as exc:
        raise OddElf(f"its headers can't be read: {type(exc).__name__}") from None
    return _Reader(data, segments).image(what)


def _without_sections(data: memoryview) -> bytearray:
    """A copy in which the header tells of no section: offset, size, count and index of names."""
    copy = bytearray(data)
    if copy[4] == 2:
        copy[0x28:0x30] = bytes(8)
        copy[0x3A:0x40] = bytes(6)
    else:
        copy[0x20:0x24] = bytes(4)
        copy[0x2E:0x34] = bytes(6)
    return copy


def _segment(header: Any) -> Segment:
    return Segment(
        str(header["p_type"]),
        int(header["p_flags"]),
        int(header["p_vaddr"]),
        int(header["p_memsz"]),
        int(header["p_offset"]),
        int(header["p_filesz"]),
    )


class _Reader:
    """Follows one file's tables by address."""

    def __init__(self, data: memoryview, segments: tuple[Segment, ...]) -> None:
        self.data, self.segments = data, segments
        self.loads = [s for s in segments if s.kind == "PT_LOAD"]
        self.oddities: list[str] = []
        self.tags: dict[int, int] = {}
        self.several: list[tuple[int, int]] = []
        self.fixed: list[range] = []

    def image(self, what: tuple[str, str, int, bool]) -> Image:
        self._check_loads()
        self._read_tags()
        count = self._symbol_count()
        bound, highest = self._relocations()
        imports, exports, ifuncs = self._symbols(max(count, highest + 1), bound)
        return Image(
            *what,
            segments=self.segments,
            tags=self.tags,
            needed=tuple(self._text(at) for _, at in self.several),
            search=tuple(
                (word, self._text(self.tags[tag]))
                for word, tag in (("RPATH", RPATH), ("RUNPATH", RUNPATH))
                if tag in self.tags
            ),
            imports=imports,
            exports=exports,
            ifuncs=ifuncs,
            oddities=tuple(dict.fromkeys(self.oddities)),
            sections=_section_names(self.data),
        )

    def _check_loads(self) -> None:
        if not self.loads:
            raise OddElf("nothing of it is mapped")
        end = 0
        for load in self.loads:
            if load.offset + load.filled > len(self.data):
                raise OddElf("it is cut short: a segment ends after the file")
            if load.filled > load.size or load.address + load.size > MAX_MEMORY:
                raise OddElf("a segment is larger in the file than in memory, or beyond 4 GiB")
            # Whole pages are mapped: a later one hides what an earlier one has in a page of both.
            if load.address - load.address % _PAGE < end:
                raise OddElf("segments overlap, or share a page, so that one hides another")
            end = load.address + load.size

    def at(self, address: int, size: int) -> memoryview:
        """What is mapped there from the file.

        Raises:
            OddElf: nothing is.
        """
        for load in self.loads:
            start = address - load.address
            if start >= 0 and start + size <= load.filled:
                return self.data[load.offset + start : load.offset + start + size]
        raise OddElf(f"a table of {size} bytes at {address:#x} lies in no segment")

    def _read_tags(self) -> None:
        dynamic = [s for s in self.segments if s.kind == "PT_DYNAMIC"]
        if len(dynamic) != 1:
            raise OddElf(f"{len(dynamic)} dynamic tables; a shared object has one")
        # By its address, as the loader: the offset of that header may say something else.
        size = min(dynamic[0].size, MAX_TAGS * _TAG.size)
        table = self.at(dynamic[0].address, size - size % _TAG.size)
        for tag, value in _TAG.iter_unpack(table):
            if tag == 0:
                break
            if tag in _SEVERAL:
                self.several.append((tag, value))
            elif tag in self.tags:
                # A loader takes the last one, many readers the first.
                self.oddities.append(f"the dynamic table has tag {tag:#x} twice")
                self.tags[tag] = value
            else:
                self.tags[tag] = value
        else:
            raise OddElf(f"the dynamic table does not end, or has more than {MAX_TAGS} entries")
        missing = [t for t in (STRTAB, STRSZ, SYMTAB) if t not in self.tags]
        if missing:
            raise OddElf("it has no table of dynamic symbols")
        if self.tags.get(SYMENT, _SYMBOL.size) != _SYMBOL.size:
            raise OddElf("its symbols are not of their one size")
        self.names = self.at(self.tags[STRTAB], self.tags[STRSZ])
        self.fixed = [
            range(dynamic[0].address, dynamic[0].address + dynamic[0].size),
            range(self.tags[STRTAB], self.tags[STRTAB] + self.tags[STRSZ]),
        ]

    def _text(self, at: int) -> str:
        if at >= len(self.names):
            raise OddElf("a name begins after the table of names")
        raw = bytes(self.names[at : at + MAX_NAME])
        text, end, _ = raw.partition(b"\0")
        if not end:
            raise OddElf(f"a name does not end within {MAX_NAME} bytes")
        return text.decode("utf-8", "backslashreplace")

    def _symbol_count(self) -> int:
        """How many symbols its hash tables tell of."""
        counts = [0]
        if HASH in self.tags:
            counts.append(int.from_bytes(self.at(self.tags[HASH] + 4, 4), "little"))
        if GNU_HASH in self.tags:
            counts.append(self._gnu_count(self.tags[GNU_HASH]))
        if max(counts) > MAX_SYMBOLS:
            raise OddElf(f"more than {MAX_SYMBOLS} symbols")
        return max(counts)

    def _gnu_count(self, address: int) -> int:
        buckets, first, bloom, _ = struct.unpack("<IIII", self.at(address, 16))
        if buckets > MAX_SYMBOLS or bloom > MAX_SYMBOLS:
            raise OddElf(f"a hash table of {buckets} buckets")
        start = address + 16 + 8 * bloom
        heads = struct.unpack(f"<{buckets}I", self.at(start, 4 * buckets))
        last = max(heads, default=0)
        if last < first:
            return int(first)
        chain = start + 4 * buckets
        for index in range(last, last + MAX_SYMBOLS):
            if self.at(chain + 4 * (index - first), 4)[0] & 1:
                return index + 1
        raise OddElf("a chain of its hash table does not end")

    def _relocations(self) -> tuple[set[int], int]:
        """The symbols that relocations name, and the highest of them."""
        bound: set[int] = set()
        for start, size in ((RELA, RELASZ), (JMPREL, PLTRELSZ)):
            if start not in self.tags:
                continue
            length = self.tags.get(size, 0)
            if length % _RELOCATION.size or self.tags.get(RELAENT, 24) != _RELOCATION.size:
                raise OddElf("its relocations are not of their one size")
            if length > MAX_RELOCATIONS * _RELOCATION.size:
                raise OddElf(f"more than {MAX_RELOCATIONS} relocations")
            table = self.at(self.tags[start], length)
            for place, info, _ in _RELOCATION.iter_unpack(table):
                bound.add(info >> 32)
                if any(place in fixed for fixed in self.fixed):
                    self.oddities.append("a relocation rewrites the tables that the loader reads")
        if REL in self.tags:
            self.oddities.append(
                "it has relocations of a kind that this machine's loader does not read"
            )
        bound.discard(0)
        highest = max(bound, default=0)
        if highest > MAX_SYMBOLS:
            raise OddElf("a relocation names a symbol beyond any table")
        return bound, highest

    def _symbols(self, count: int, bound: set[int]) -> tuple[frozenset[str], frozenset[str], bool]:
        imports: set[str] = set()
        exports: set[str] = set()
        ifuncs = False
        table = self.at(self.tags[SYMTAB], count * _SYMBOL.size)
        for index, (name, info, other, section, _, _) in enumerate(_SYMBOL.iter_unpack(table)):
            if index == 0 or name == 0:
                continue
            ifuncs = ifuncs or info & 15 == _IFUNC
            # What it defines itself is looked up in the process first, if others may replace it: a
            # `system` of its own is the C library's.
            replaceable = index in bound and info >> 4 != _LOCAL and other & 3 == _DEFAULT
            if not section or replaceable:
                imports.add(self._text(name))
            if section:
                exports.add(self._text(name))
        return frozenset(imports), frozenset(exports), ifuncs


def _section_names(data: memoryview) -> frozenset[str]:
    """Names of sections, for what they tell of how it was made; nothing if they are odd."""
    return frozenset(_names_of_sections(data))


def _names_of_sections(data: memoryview) -> Iterator[str]:
    offset = int.from_bytes(data[0x28:0x30], "little")
    size, count, names = struct.unpack("<HHH", data[0x3A:0x40])
    if size != 64 or not names < count <= 4096 or offset + size * count > len(data):
        return
    heads = [struct.unpack_from("<IIQQQQ", data, offset + 64 * n) for n in range(count)]
    table = bytes(data[heads[names][4] : heads[names][4] + min(heads[names][5], 2**16)])
    for head in heads:
        text = table[head[0] : head[0] + 64].partition(b"\0")[0]
        if text:
            yield text.decode("ascii", "backslashreplace")
