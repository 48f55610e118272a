"""What both ends of the lane agree on, and what it takes: names, sizes, bounds.

Whoever links or starts a laned plugin needs no more than this, and nothing of what made it.
"""

from __future__ import annotations

from capwasm.engine import types as t

from .layout import RBASE

__all__ = [
    "ADDED_INSTANCES",
    "ADDED_MEMORIES",
    "GROUP",
    "LANE_EXPORTS",
    "LANE_IMPORTS",
    "MEMORY_LIMIT",
    "MODULE",
    "PACKED",
    "PAGE",
    "VALUE_LIMIT",
    "VERSION",
    "NotLaned",
    "function_name",
    "is_lane",
    "most_bytes",
    "pages_for",
    "without_lane",
]

# Raised whenever the wire, the choice of functions or what is appended to a plugin changes: it is part
# of the key of the compile cache.
VERSION = 2

# Where the lane's own functions stand in a laned plugin; no plugin may use these names.
_PACKAGE = "capwasm:lane/"
LANE_EXPORTS, LANE_IMPORTS = f"{_PACKAGE}exports@0.1.0", f"{_PACKAGE}imports@0.1.0"

# Names that traps in the lane's code show in a backtrace: of every module, and of what an allocation
# that is refused calls.
MODULE = "capwasm-lane"
VALUE_LIMIT, MEMORY_LIMIT = "lane-value-limit", "lane-memory-limit"

# What the lane adds to an instance.
ADDED_MEMORIES, ADDED_INSTANCES = 1, 2

# So many bytes of a block are so many of the string.
GROUP, PACKED = 16, 19
# A block is somewhat larger than its values: padding, and the empty places of options.
_ROOM, _ROOM_FACTOR = 1 << 16, 4

PAGE = 1 << 16


class NotLaned(Exception):
    """The plugin runs as it is; the message says why."""


def function_name(k: int) -> str:
    """What the function of that number is called in the lane's interfaces."""
    return f"f{k}"


def is_lane(interface: str) -> bool:
    """Whether that is a name of ours, which no plugin may use."""
    return interface.startswith(_PACKAGE)


def without_lane(types: t.ComponentTypes) -> t.ComponentTypes:
    """The types of the plugin in a laned one."""
    return t.ComponentTypes(
        tuple(i for i in types.imports if not is_lane(i.name)),
        tuple(i for i in types.exports if not is_lane(i.name)),
    )


def most_bytes(limit: int) -> int:
    """The size of the largest block there is for values of at most `limit` bytes."""
    return limit * _ROOM_FACTOR + _ROOM


def pages_for(value_bytes: int) -> int:
    """How large the lane's memory may become, for values of at most so many bytes.

    It holds the arguments or the result, as a block and then in its place as a string.  The sizes are
    few, since each is a component of its own.
    """
    block = most_bytes(1 << (value_bytes - 1).bit_length())
    return -(-(block // GROUP * PACKED + RBASE) // PAGE) + 1
