"""The bytes of a capsule in which text may stand: as they are, and what is written in UTF-16 in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["DOCUMENTS", "Text", "found_at", "texts_of"]

DOCUMENTS: Final = ("README.md", "LICENSE", "wit/", "sbom.cdx.json", "plugin.toml")
"""Members that people write and read: an address in these is no address that code goes to."""

# Visible ASCII in UTF-16, little endian: what engines of JavaScript and .NET keep of it.
_WIDE: Final = re.compile(rb"(?:[\x20-\x7e]\x00){12,4096}")
_MAX_WIDE: Final = 20_000


@dataclass(frozen=True, slots=True)
class Text:
    """Some bytes of a member.

    Attributes:
        name: the member.   data: the bytes.
        offset: where they lie in it.   step: how many bytes of it each of these stands for.
    """

    name: str
    data: bytes = field(repr=False)
    offset: int = 0
    step: int = 1

    @property
    def is_document(self) -> bool:
        """Whether it is one of `DOCUMENTS`."""
        return self.name.startswith(DOCUMENTS)

    def place(self, at: int) -> str:
        """`plugin.wasm@0x1f3`."""
        return f"{self.name}@{self.offset + at * self.step:#x}"

    def around(self, at: int, before: int, after: int) -> bytes:
        """So many bytes before a place, and so many from it on."""
        return self.data[max(0, at - before) : at + after]


def texts_of(members: Mapping[str, memoryview]) -> Iterator[Text]:
    """All members, each followed by what of it is wide text."""
    for name in sorted(members):
        data = bytes(members[name])
        yield Text(name, data)
        for count, found in enumerate(_WIDE.finditer(data)):
            if count == _MAX_WIDE:
                # Nobody writes so; each second byte of the rest is looked at, from both.
                rest = found.start()
                yield from (Text(name, data[at::2], at, 2) for at in (rest, rest + 1))
                break
            yield Text(name, found[0][::2], found.start(), 2)


def found_at(data: bytes, words: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Where each of these words stands, word by word: far quicker than a pattern of all."""
    for word in words:
        at = data.find(word)
        while at >= 0:
            yield at, word
            at = data.find(word, at + 1)
