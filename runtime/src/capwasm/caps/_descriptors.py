"""The process's file descriptors: guests share most of them, the host keeps the rest (RES-14).

Each plugin's handles are bounded by its limits, but the sum over plugins and calls is not, and a
process without a free descriptor can't accept, open or log anything.  The kernel gives the lowest
free number, so a number near the end of the table tells that it is nearly full, whoever filled it.
"""

from __future__ import annotations

import os
import sys
from typing import Final

__all__ = ["is_reserved", "none_to_spare"]

# A quarter of the table, so that the usual 1,024 leave the host 256; never more than this.
_MOST_RESERVED: Final = 1024


def is_reserved(fd: int) -> bool:
    """Whether a descriptor that was just opened is one of those kept for the host."""
    if sys.platform == "win32":
        return False
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit != resource.RLIM_INFINITY and fd >= limit - min(limit // 4, _MOST_RESERVED)


def none_to_spare(like: int) -> bool:
    """Whether a guest's next descriptor would be one of the host's, or there is none at all.

    Args:
        like: any open descriptor; it is duplicated for a moment.
    """
    try:
        fd = os.dup(like)
    except OSError:
        return True
    os.close(fd)
    return is_reserved(fd)
