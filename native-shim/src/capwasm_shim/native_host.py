"""The tables of functions that a native plugin is given, and what happens when it calls one of them.

A call of a function is one question to the host and its answer.  Nothing is decided here: what is
refused without asking is what could not be asked (text that is no text, a handle that is none), or what
came at the wrong time.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import get_ident
from typing import Any, Final, NoReturn

from .frames import PeerClosed, ProtocolFault
from .native_abi import ABI, ABORTED, BAD_ARGUMENT, OK, TOO_LARGE, Host
from .native_desk import Desk, Refusal
from .native_table import TABLES, Function, Table
from .native_values import giver, taker
from .protocol import Answer, Kind

__all__ = ["DEFECT", "HOST_GONE", "Tables", "end"]

HOST_GONE: Final = 0
"""Exit code: the host has closed the lane."""

DEFECT: Final = 70
"""Exit code: something here failed that never should; what the plugin was told is not known."""


def end(code: int) -> NoReturn:
    """End the process at once: nothing of it is worth a cleanup, and the plugin gets no say."""
    os._exit(code)


class Tables:
    """`capwasm_host` and all that it points to.

    Made before the sandbox is entered, and once for all processes that are forked from here: each
    function is a piece of machine code that ctypes writes, and a sandbox may allow no such memory.
    The functions refuse until `open` is called.
    """

    def __init__(self) -> None:
        """Write the functions.

        Raises:
            OSError: memory that can be executed is shared with another process.
        """
        self.host = Host(abi=ABI, size=ctypes.sizeof(Host))
        self.desk: Desk | None = None
        self.aborted = False
        self._thread = 0
        self._ready = False
        self._asked = 0
        # What C points at, Python must hold.
        self._held: list[Any] = []
        numbers = iter(range(1000))
        for table in TABLES:
            functions = [self._function(table, f, numbers) for f in table.functions]
            members = [("size", ctypes.c_size_t)]
            members += [
                (f.member, type(c)) for f, c in zip(table.functions, functions, strict=True)
            ]
            struct = type(table.member, (ctypes.Structure,), {"_fields_": members})
            made = struct(ctypes.sizeof(struct), *functions)
            self._held.append(made)
            setattr(self.host, table.member, ctypes.addressof(made))
        _check_own_memory()

    # -- a call ---------------------------------------------------------------------------------

    def open(self, desk: Desk) -> None:
        """Serve from now on, for a call that begins on this thread."""
        self.desk = desk
        self.aborted = False
        self._thread = get_ident()
        self._asked = 0
        self._ready = True

    def close(self) -> None:
        """Serve no longer: the call has ended."""
        self._ready = False

    # -- functions ------------------------------------------------------------------------------

    def _function(self, table: Table, function: Function, numbers: Any) -> Any:
        takers = [
            taker(kind, table.closed if function.fails else BAD_ARGUMENT) for kind in function.takes
        ]
        give = giver(function.gives)
        inputs = [t for each in takers for t in each.types]
        type_ = ctypes.CFUNCTYPE(ctypes.c_int32, *inputs, *give.types)
        if not function.name:
            return type_(self._closer(function.takes[0], table.closed))
        return type_(
            self._asker(
                next(numbers), [t.take for t in takers], give.give, len(inputs), function.fails
            )
        )

    def _closer(self, kind: str, closed: int) -> Callable[[int], int]:
        def close(handle: int) -> int:
            desk = self.desk
            if desk is None or not self._ready or get_ident() != self._thread:
                return ABORTED
            if desk.live.get(handle) != kind:
                return closed
            del desk.live[handle]
            desk.drops.append(handle)
            return OK

        return close

    def _asker(
        self,
        number: int,
        takes: Sequence[Callable[..., Any]],
        give: Callable[..., None],
        inputs: int,
        fails: bool,
    ) -> Callable[..., int]:
        def serve(*given: Any) -> int:
            # A handler of a signal may come here while this very function waits, so it is shut.
            if not self._ready or get_ident() != self._thread:
                return ABORTED
            self._ready = False
            desk = self.desk
            try:
                assert desk is not None
                if None in given[inputs:]:
                    return BAD_ARGUMENT  # nowhere to put the answer
                desk.lane.begin()
                following = iter(given).__next__
                args = [take(following, desk) for take in takes]
                value = self._ask(desk, number, args)
                if self.aborted:
                    return ABORTED
                if fails:
                    case, value = value
                    if case:
                        return int(value) + 1
                give(value, following, desk)
                return OK
            except Refusal as exc:
                return exc.status
            except UnicodeDecodeError:
                return BAD_ARGUMENT
            except PeerClosed:
                end(HOST_GONE)
            except BaseException:  # noqa: BLE001
                # Nothing may leave: ctypes would tell the plugin that all is well.
                end(DEFECT)
            finally:
                self._ready = not self.aborted

        return serve

    def _ask(self, desk: Desk, number: int, args: list[Any]) -> Any:
        try:
            desk.lane.send((Kind.ASK, self._asked, number, args, desk.drops))
        except ValueError:
            raise Refusal(TOO_LARGE) from None
        desk.drops = []
        desk.kept = []
        kind, asked, how, value, _cost = desk.lane.recv()
        if kind != Kind.ANSWER or asked != self._asked:
            raise ProtocolFault("an answer to another question")
        self._asked += 1
        if how != Answer.VALUE:
            self.aborted = True
        return value


def _check_own_memory() -> None:
    """Refuse memory for functions that a fork would share, and not copy.

    Old versions of libffi use a file for it where SELinux lets no other memory be executed.  A plugin
    could then write the functions that another one's process calls.
    """
    for line in Path("/proc/self/maps").read_text("ascii", "replace").splitlines():
        rights = line.split(maxsplit=2)[1]
        if "x" in rights and rights.endswith("s"):
            raise OSError(
                "executable memory is shared between processes: libffi uses a file for it"
            )
