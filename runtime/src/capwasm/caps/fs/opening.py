"""How a file is to be opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, TypedDict

__all__ = ["CALM", "ENTER", "HOLD", "LOOK", "How", "Want"]

# Named with getattr so that the module can be imported, if not used, on systems without them.
_PATH: Final = getattr(os, "O_PATH", 0)
_DIRECTORY: Final = getattr(os, "O_DIRECTORY", 0)
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)

LOOK: Final = _PATH | _NOFOLLOW
"""At a name, without opening what it stands for; at a link, the link itself."""

HOLD: Final = _PATH | _DIRECTORY
"""A directory, to act on the names in it."""

ENTER: Final = os.O_RDONLY | _DIRECTORY
"""A directory, to list it."""

CALM: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""Beside the rest: never wait for a FIFO's other end, never take a terminal (FS-15)."""


class How(TypedDict, total=False):
    """The words that `Dir.open_file` and `Dir.open_at` take; what is left out is false."""

    read: bool
    """To read."""
    write: bool
    """To write where one says."""
    append: bool
    """To write at the end."""
    create: bool
    """Make the file if it isn't there."""
    exclusive: bool
    """With `create`: fail if it is there."""
    truncate: bool
    """Empty it; needs `write` or `append`."""


@dataclass(frozen=True, slots=True)
class Want:
    """`How`, in full."""

    read: bool = False
    write: bool = False
    append: bool = False
    create: bool = False
    exclusive: bool = False
    truncate: bool = False

    @property
    def writes(self) -> bool:
        """Whether the file is open for writing afterwards."""
        return self.write or self.append

    @property
    def changes(self) -> bool:
        """Whether a read-only mount must refuse it (FS-07)."""
        return self.writes or self.create or self.truncate

    @property
    def flags(self) -> int:
        """For open(2).  Never O_TRUNC: what is emptied is looked at first."""
        how = (os.O_RDWR if self.read else os.O_WRONLY) if self.writes else os.O_RDONLY
        return how | CALM | (os.O_APPEND if self.append else 0)
