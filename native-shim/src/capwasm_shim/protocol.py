"""What is said on a lane between the host and a shim process, and between the host and the fork server.

Every message is one msgpack array, sent as one datagram (see `frames`).  A lane is strictly half
duplex::

    host   CALL ─────────────────▶ shim        one call at a time
    shim   ASK ──▶ host ANSWER ──▶ shim        as often as the plugin uses a capability
    shim   RETURN ───────────────▶ host

What is out of order, unknown or of another shape is a `ProtocolFault`; the host then kills the
process.  Who the peer is, is decided by the socket, and never by a field (IPC-07).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = ["VERSION", "Answer", "Kind", "Outcome", "ServerKind"]

VERSION: Final = 1
"""Said once, in the HELLO; another one is a fault (IPC-12)."""


class Kind(IntEnum):
    """The first element of a message on a lane."""

    CALL = 1
    """host: `[CALL, call, name, args]`; `name` is "handle" or the number of an export."""

    ANSWER = 2
    """host: `[ANSWER, seq, Answer, value, cost]`; `cost` is host work in units of fuel."""

    OPEN = 3
    """host: `[OPEN, call]`: make and start an instance on this lane; components only."""

    CLOSE = 4
    """host: `[CLOSE]`: drop the lane's instance; not answered; components only."""

    DROP = 5
    """host: `[DROP, call, resource]`: end a resource of the guest's own, as a call; components only."""

    INTERRUPT = 6
    """host, on the side socket: `[INTERRUPT, lane, call]`; components only."""

    HELLO = 8
    """shim, first, on lane 0: `[HELLO, VERSION, description]`: the code was loaded."""

    ASK = 9
    """shim: `[ASK, seq, function, args, drops]`; `seq` counts from 0 within the call, `function` is a
    place in the served table, `drops` are handles that the guest gave up since the last message."""

    RETURN = 10
    """shim: `[RETURN, call, Outcome, value, drops, stats]`; `stats` is `[fuel, memory bytes]`;
    a component's memory is 0 when its instance is closed."""

    LOADFAIL = 11
    """shim, in place of the HELLO: `[LOADFAIL, code, message]`: the code can't be loaded."""


class Answer(IntEnum):
    """How a request was answered."""

    VALUE = 0
    """`value` is what the function returned, also where that is an error of its own type."""

    ABORT = 1
    """The call must end; nothing more is answered in it."""


class Outcome(IntEnum):
    """How a call ended."""

    VALUE = 0
    """`value` is by the WIT type of the result."""

    FAILED = 1
    """`value` is `[code, message]` of a guest's error."""

    MISUSED = 2
    """`value` is `["type" | "value", message]`: an argument did not fit; nothing ran."""

    ABORTED = 3
    """It ended because a request was answered with ABORT."""


class ServerKind(IntEnum):
    """The first element of a message between the host and the fork server, which trust each other."""

    START = 1
    """host: `[START, id, spec, names]` with descriptors: a sealed memory file with what the child alone
    may know, then those that `names` lists, in that order."""

    STARTED = 2
    """server: `[STARTED, id, pid, report]` with a pidfd: the sandbox holds, and nothing was loaded yet."""

    FAILED = 3
    """server: `[FAILED, id, layer, errno name, text]`: nothing was loaded, and the process is gone.
    With id 0 it is the server itself that can't start."""

    ENDED = 4
    """server: `[ENDED, id, how, number, cpu ms, max rss KiB, starved]`; `how` is "exited" or "signalled",
    `starved` is whether the kernel killed it for the memory that it took."""

    WARM = 5
    """host: `[WARM]`: import what components need, so that later starts are short."""

    MORE = 6
    """host: `[MORE, id]` with descriptors: the next of a START that is still to come."""
