"""The bytes of a capsule in which text may stand: as they are, and what is written in UTF-16 in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from .subject import Subject

__all__ = ["DOCUMENTS", "Text", "texts"]

DOCUMENTS: Final = ("README.md", "LICENSE", "wit/", "sbom.cdx.json", "plugin.toml")
"""Members that people write and read: an address in these is no address that code goes to."""

# Visible ASCII in UTF-16, little endian: what engines of JavaScript and .NET keep of it.
_WIDE: Final = re.compile(rb"(?:[\x20-\x7e]\x00){12,4096}")


@dataclass(frozen=True, slots=True)
class Text:
    """Some bytes of a member.

    Attributes:
        name: the member.   data: the bytes.   offset: where they lie in it.
        step: how many bytes of the member each of these stands for.
    """

    name: str
    data: bytes | memoryview = field(repr=False)
    offset: int = 0
    step: int = 1

    @property
    def is_document(self) -> bool:
        """Whether it is one of `DOCUMENTS`."""
        return self.name.startswith(DOCUMENTS)

    def place(self, at: int) -> str:
        """`plugin.wasm@0x1f3`."""
        return f"{self.name}@{self.offset + at * self.step:#x}"


def texts(subject: Subject) -> Iterator[Text]:
    """All members, each followed by what of it is wide text."""
    for name in sorted(subject.members):
        data = subject.members[name]
        yield Text(name, data)
        for found in _WIDE.finditer(data):
            yield Text(name, bytes(found[0])[::2], found.start(), 2)
