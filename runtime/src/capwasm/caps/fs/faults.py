"""What can go wrong with a file: one table from the system's words to the guest's.

Handles speak errno, the richest common vocabulary: `capwasm:fs` needs one word of it and
`wasi:filesystem` another, so each keeps its own table from the same number.
"""

from __future__ import annotations

import errno
import os
from typing import NoReturn, Self

from capwasm.errors import CapError

__all__ = ["WORDS", "FsError", "refuse"]

# errno -> the word of `capwasm:fs/files.error`; whatever is not here is the device's fault.
WORDS: dict[int, str] = {
    errno.EPERM: "denied",
    errno.EACCES: "denied",
    errno.EROFS: "denied",
    errno.ELOOP: "denied",
    errno.EXDEV: "denied",
    errno.EBADF: "denied",
    errno.EBUSY: "denied",
    errno.ENXIO: "denied",
    errno.ENOENT: "not-found",
    errno.EEXIST: "exists",
    errno.ENOTDIR: "not-directory",
    errno.EISDIR: "is-directory",
    errno.ENOTEMPTY: "not-empty",
    errno.EINVAL: "invalid",
    errno.EILSEQ: "invalid",
    errno.ENAMETOOLONG: "invalid",
    errno.EDQUOT: "quota",
    errno.EFBIG: "quota",
    errno.E2BIG: "too-large",
}


class FsError(CapError):
    """A refused or failed operation on a file.

    Attributes:
        word: the guest's word in `capwasm:fs/files.error`.
        errno: the same, as `errno` spells it; `wasi:filesystem` maps this.
        reason: a stable word for the audit log (`read-only`, `link`, `quota`, `ENOENT`).  Never a
            host path.
    """

    def __init__(self, number: int, reason: str = "") -> None:
        """Keep the number, and say it in the guest's words."""
        self.errno = number
        self.reason = reason or errno.errorcode.get(number, str(number))
        super().__init__(WORDS.get(number, "unavailable"), f"{self.reason}: {os.strerror(number)}")

    @classmethod
    def of(cls, exc: OSError) -> Self:
        """The same failure, without the paths that an `OSError` carries."""
        number = exc.errno or errno.EIO
        return cls(number, "link" if number == errno.ELOOP else "")


def refuse(number: int, reason: str) -> NoReturn:
    """Refuse an operation.

    Raises:
        FsError: always.
    """
    raise FsError(number, reason)
