"""A native plugin in its process: loaded behind the sandbox, then called, one call at a time.

The library's constructors, `capwasm_plugin_describe` and everything after it run within the sandbox;
nothing of it is mapped before (NAT-20).  From then on the whole process is the plugin's: the host takes
no frame on trust, and this module only has to be right for plugins that mean well.
"""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Any, Final

from .frames import Lane, PeerClosed
from .native_abi import ABI, Description, Result, Span
from .native_desk import Desk, address_of, view_of
from .native_host import DEFECT, HOST_GONE, Tables, end
from .protocol import VERSION, Kind, Outcome

__all__ = ["LoadFault", "Native", "load"]

MAX_NAME: Final = 128
MAX_TOPICS: Final = 256
MAX_TOPIC: Final = 256
_MAX_WORDS: Final = 500


class LoadFault(Exception):
    """The library is no plugin that this host can call."""


class Native:
    """What runs a native plugin: made before the sandbox is entered, run within."""

    def __init__(self) -> None:
        """Make the tables of functions.

        Raises:
            OSError: memory that can be executed is shared with another process.
        """
        self._tables = Tables()

    def run(self, lane: Lane, path: str, limit: int) -> int:
        """Load the plugin, say so, and answer calls until the host has enough.

        Args:
            lane: takes descriptors.
            path: of the library, as the process sees it.
            limit: bytes of a message, a result or an argument at most: the size of the windows.

        Returns:
            An exit code for the process.
        """
        try:
            plugin = load(path, self._tables)
        except LoadFault as exc:
            lane.send((Kind.LOADFAIL, "link.instantiate", str(exc)[:_MAX_WORDS]))
            return 1
        try:
            lane.send((Kind.HELLO, VERSION, plugin.description))
            desk = Desk(lane, limit)
            while True:
                lane.send(self._call(plugin, desk, lane.recv()))
                plugin.free()
        except PeerClosed:
            return HOST_GONE

    def _call(self, plugin: Plugin, desk: Desk, frame: list[Any]) -> tuple[Any, ...]:
        """Run one call; its RETURN."""
        kind, call, name, (topic, message) = frame
        if kind != Kind.CALL or name != "handle":
            end(DEFECT)
        self._tables.open(desk)
        try:
            status = plugin.call(topic.encode(), message)
        finally:
            self._tables.close()
        desk.kept = []
        desk.lane.begin()
        outcome, value = Outcome.ABORTED, None
        if not self._tables.aborted:
            outcome, value = _outcome(status, plugin.result, desk)
        drops, desk.drops = desk.drops, []
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return (Kind.RETURN, call, outcome, value, drops, (0, memory))


class Plugin:
    """The three functions of a loaded library, and what they gave."""

    def __init__(self, library: ctypes.CDLL, description: list[Any]) -> None:
        """Use that library."""
        self.description = description
        self.result = Result()
        self._call = library.capwasm_plugin_call
        self._call.argtypes = (
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.POINTER(Result),
        )
        self._call.restype = ctypes.c_int
        self._free = library.capwasm_plugin_free
        self._free.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        self._free.restype = None

    def call(self, topic: bytes, message: bytes | memoryview) -> int:
        """Handle a message; a large one is read where the host has put it."""
        self.result.data, self.result.size = None, 0
        where = message if isinstance(message, bytes) else address_of(message)
        return int(self._call(topic, len(topic), where, len(message), self.result))

    def free(self) -> None:
        """Give the data of the last result back, if there was any."""
        data, self.result.data = self.result.data, None
        if data is not None:
            self._free(data, self.result.size)


def _outcome(status: int, result: Result, desk: Desk) -> tuple[Outcome, Any]:
    if status not in {0, 1}:
        # Not to be freed either: a plugin that breaks the one rule may have broken the other.
        result.data = None
        return Outcome.FAILED, ["guest.trap", f"capwasm_plugin_call returned {status}"]
    if result.size and result.data is None:
        return Outcome.FAILED, ["guest.trap", "the result has a size and no data"]
    if result.size > desk.limit:
        return Outcome.FAILED, ["limit.value", f"a result of {result.size} bytes"]
    if status:
        return Outcome.VALUE, [1, desk.copy(result.data, result.size).decode(errors="replace")]
    return Outcome.VALUE, [0, desk.bulk(result.data, result.size)]


# -- loading --------------------------------------------------------------------------------------


def load(path: str, tables: Tables) -> Plugin:
    """Load the library and let it describe itself.

    Raises:
        LoadFault: it is no library of this machine, lacks a function, is of another ABI, or what it
            says of itself makes no sense.
    """
    try:
        library = ctypes.CDLL(path, os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as exc:
        raise LoadFault(f"the library can't be loaded: {exc}") from None
    for name in ("capwasm_plugin_describe", "capwasm_plugin_call", "capwasm_plugin_free"):
        if not hasattr(library, name):
            raise LoadFault(f"the library does not export {name}")
    describe = library.capwasm_plugin_describe
    describe.argtypes = (ctypes.c_uint32, ctypes.c_void_p)
    describe.restype = ctypes.c_void_p
    at = describe(ABI, ctypes.addressof(tables.host))
    if at is None:
        raise LoadFault(f"the plugin was not built for version {ABI} of the ABI")
    return Plugin(library, _description(Description.from_address(at)))


def _description(said: Description) -> list[Any]:
    if said.abi != ABI:
        raise LoadFault(f"the plugin is of version {said.abi} of the ABI; this host has {ABI}")
    if said.size < ctypes.sizeof(Description):
        raise LoadFault(f"the description has {said.size} bytes, too few for version {ABI}")
    if said.topic_count > MAX_TOPICS or (said.topic_count and said.topics is None):
        raise LoadFault(f"the description has no topics, or more than {MAX_TOPICS}")
    topics = (Span * said.topic_count).from_address(said.topics) if said.topic_count else ()
    return [
        said.abi,
        _words(said.name, "the name", MAX_NAME),
        [_words(topic, "a topic", MAX_TOPIC) for topic in topics],
    ]


def _words(span: Span, what: str, longest: int) -> str:
    if span.size > longest or (span.size and span.data is None):
        raise LoadFault(f"{what} in the description is no text of at most {longest} bytes")
    try:
        return bytes(view_of(span.data, span.size)).decode() if span.size else ""
    except UnicodeDecodeError:
        raise LoadFault(f"{what} in the description is not UTF-8") from None
