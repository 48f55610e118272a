"""Host calls on record, and played back.

A cassette is a JSON file.  It holds, for each instance of the plugin in the order in which they were
made, every host call that it made: WASI's as well as ours, those of its start as well.  What is played
back opens no file, makes no connection and asks no clock: each call gets the recorded result, and the
first that is another than the recorded one ends the test.
"""

from __future__ import annotations

import difflib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from capwasm import errors
from capwasm._files import read_file, write_file
from capwasm.call import current_call
from capwasm.capability import HostFunc
from capwasm.errors import ArtifactError, CapError, CapwasmError
from capwasm.handles import Handle
from capwasm.instance import Served
from capwasm.serving import Terms
from capwasm.wasi import GuestExit

from .errors import BenchError, ReplayMismatchError
from .plain import Handles, Secrets, from_plain, pieces, to_plain

__all__ = ["Recording", "Replay"]

FORMAT: Final = 1
MAX_BYTES: Final = 64 * 1024 * 1024
_AROUND: Final = 3  # calls shown before the one that differs
# Told besides: what is logged in a replay is what the plugin says then.
_LET_THROUGH: Final = frozenset({"capwasm:log/log write"})

Call = dict[str, Any]
Resources = Callable[[Terms], Mapping[str, type[Handle]]]


def _title(interface: str, name: str) -> str:
    """`capwasm:kv/store get`; without the version, so that a cassette outlives it."""
    return f"{interface.partition('@')[0]} {name}"


def _outcome_of(error: Exception, secrets: Secrets) -> Call | None:
    """How a host function ended other than by returning; None for what is not the plugin's affair."""
    if isinstance(error, CapError):
        return {"refused": error.word, "detail": secrets.redactor.text(error.detail)}
    if isinstance(error, GuestExit):
        return {"exit": error.status}
    if isinstance(error, CapwasmError):
        message = secrets.redactor.text(error.message)
        return {"ends": type(error).__name__, "code": error.code, "message": message}
    return None


def _raise(call: Call) -> None:
    """End a host call as it ended when it was recorded; returns if it did not."""
    match call:
        case {"refused": str(word), "detail": str(detail)}:
            raise CapError(word, detail)
        case {"exit": int(status)}:
            raise GuestExit(status)
        case {"ends": str(kind), "code": str(code), "message": str(message)}:
            found = getattr(errors, kind, None)
            if not isinstance(found, type) or not issubclass(found, CapwasmError):
                raise BenchError(f"the cassette has an error {kind!a}, which there is not")
            raise found(message, code=code)


# -- recording ----------------------------------------------------------------------------------


class Recording:
    """Writes down what instances call."""

    def __init__(self, plugin: str, resources: Resources, secrets: Secrets) -> None:
        """Nothing yet.

        Args:
            plugin: its id and version.
            resources: knows the resources that are served.
            secrets: those that must not be written.
        """
        self._plugin, self._resources, self.secrets = plugin, resources, secrets
        self._instances: list[list[Call]] = []
        self._lock = threading.Lock()

    def enter(self, serving: Served, terms: Terms) -> Served:
        """See `served.Between`."""
        calls: list[Call] = []
        handles = Handles(self._resources(terms))
        with self._lock:
            self._instances.append(calls)
        return _Recorded(serving, calls, handles, self.secrets)

    def save(self, path: Path) -> None:
        """Write the cassette.

        Raises:
            BenchError: a secret would stand in it, in pieces; or it can't be written.
        """
        instances = [list(calls) for calls in self._instances]
        self._check(instances)
        text = _text(self._plugin, instances)
        if not self.secrets.redactor.clean([text]):
            raise BenchError("a secret would stand in the cassette; nothing was written")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, text.encode(), ArtifactError, code="artifact.unreadable")
        except (OSError, ArtifactError) as exc:
            raise BenchError(f"{path} can't be written: {exc}") from None

    def _check(self, instances: list[list[Call]]) -> None:
        """Refuse a secret that crossed in pieces, each of which says nothing."""
        joined: dict[str, list[bytes]] = {}
        for call in (c for calls in instances for c in calls):
            values = {str(n): arg for n, arg in enumerate(call["args"])}
            for place, piece in pieces(values | {"result": call.get("result")}):
                joined.setdefault(f"{call['call']} {place}", []).append(piece)
        for name, found in joined.items():
            data = b"".join(found)
            if self.secrets.redactor.data(data) is not data:
                raise BenchError(
                    f"a secret crossed {name.rpartition(' ')[0]} in pieces, so the cassette would hold it; nothing was"
                    " written"
                )


class _Recorded:
    """A `Served` that writes down each call and how it ended."""

    def __init__(
        self, served: Served, calls: list[Call], handles: Handles, secrets: Secrets
    ) -> None:
        self._served, self._calls, self._handles, self._secrets = served, calls, handles, secrets

    def function(self, interface: str, name: str) -> HostFunc:
        function = self._served.function(interface, name)
        title, handles, secrets = _title(interface, name), self._handles, self._secrets

        def recorded(*args: Any) -> Any:
            call: Call = {"in": current_call().function, "call": title}
            call["args"] = [to_plain(arg, handles, secrets) for arg in args]
            try:
                value = function(*args)
            except Exception as exc:
                outcome = _outcome_of(exc, secrets)
                if outcome is not None:
                    self._calls.append(call | outcome)
                raise
            self._calls.append(call | {"result": to_plain(value, handles, secrets)})
            return value

        return recorded

    def close(self) -> None:
        self._served.close()


# -- replay -------------------------------------------------------------------------------------


class Replay:
    """Answers host calls as a cassette has them."""

    def __init__(self, path: Path, resources: Resources, secrets: Secrets) -> None:
        """Read the cassette.

        Args:
            path: of the file.
            resources: knows the resources that are served.
            secrets: what the plugin is given where a secret was.

        Raises:
            BenchError: it can't be read, or is none.
        """
        self._path, self._resources, self._secrets = path, resources, secrets
        self._tapes = [_Tape(path, n, calls) for n, calls in enumerate(_read(path))]
        self._next = iter(self._tapes)
        self._made = 0
        self._lock = threading.Lock()

    def enter(self, serving: Served, terms: Terms) -> Served:
        """See `served.Between`.  Nothing of what would be served is used."""
        with self._lock:
            tape = next(self._next, None) or _Tape(self._path, self._made, [])
            self._made += 1
        return _Replayed(serving, tape, Handles(self._resources(terms)), self._secrets)

    def check_done(self) -> None:
        """Pass if all that was recorded was called.

        Raises:
            ReplayMismatchError: with the first calls that were not.
        """
        left = [line for tape in self._tapes for line in tape.left()]
        if left:
            shown = "\n".join(f"- {line}" for line in left[:10])
            more = f"\n  … and {len(left) - 10} more" if len(left) > 10 else ""
            raise ReplayMismatchError(
                f"{self._path.name}: {len(left)} host calls were recorded and not made:\n{shown}{more}"
            )


class _Tape:
    """The calls of one instance."""

    def __init__(self, path: Path, number: int, calls: list[Call]) -> None:
        self._path, self._number, self._calls, self._at = path, number, calls, 0

    def take(self, made: Call) -> Call:
        """The recorded call, which must be the one that is made.

        Raises:
            ReplayMismatchError: with what was recorded, and what was called.
        """
        expected = self._calls[self._at] if self._at < len(self._calls) else None
        if expected is not None and all(expected.get(k) == made[k] for k in ("call", "args")):
            self._at += 1
            return expected
        before = [_line(c) for c in self._calls[max(0, self._at - _AROUND) : self._at]]
        old = [] if expected is None else _spelled(expected)
        diff = [d for d in difflib.ndiff(old, _spelled(made)) if not d.startswith("?")]
        where = f"call {self._at + 1} of instance {self._number + 1}, in {made['in']}"
        wanted = "nothing more was recorded" if expected is None else "another was recorded"
        raise ReplayMismatchError(
            "\n".join(
                [
                    f"{self._path.name}: {where}: {wanted} (- recorded, + called)",
                    *(f"  {line}" for line in before),
                    *(line.rstrip() for line in diff),
                ]
            )
        )

    def left(self) -> Iterator[str]:
        """The calls that were not made."""
        return map(_line, self._calls[self._at :])


class _Replayed:
    """A `Served` that serves nothing but what is on the tape."""

    def __init__(self, served: Served, tape: _Tape, handles: Handles, secrets: Secrets) -> None:
        self._served, self._tape, self._handles, self._secrets = served, tape, handles, secrets

    def function(self, interface: str, name: str) -> HostFunc:
        title, handles, secrets = _title(interface, name), self._handles, self._secrets

        def replayed(*args: Any) -> Any:
            made: Call = {"in": current_call().function, "call": title}
            made["args"] = [to_plain(arg, handles, secrets) for arg in args]
            call = self._tape.take(made)
            _raise(call)
            if title in _LET_THROUGH:
                self._served.function(interface, name)(*args)
            return from_plain(call.get("result"), handles, secrets)

        return replayed

    def close(self) -> None:
        self._served.close()


def _text(plugin: str, instances: list[list[Call]]) -> str:
    """The file, a call a line, so that its changes can be read."""
    tapes = [
        ",\n".join(f"   {json.dumps(call, ensure_ascii=False)}" for call in calls)
        for calls in instances
    ]
    inner = ",\n".join(f"  [\n{tape}\n  ]" if tape else "  []" for tape in tapes)
    head = f'{{\n "cassette": {FORMAT},\n "plugin": {json.dumps(plugin)},\n "instances": ['
    return f"{head}\n{inner}\n ]\n}}\n"


def _line(call: Call) -> str:
    args = ", ".join(json.dumps(arg, ensure_ascii=False) for arg in call["args"])
    return f"{call['call']}({args})"[:200]


def _spelled(call: Call) -> list[str]:
    args = json.dumps(call["args"], indent=2, ensure_ascii=False).splitlines()
    return [call["call"], *(f"  {line}" for line in args)]


def _read(path: Path) -> list[list[Call]]:
    data = _bytes_of(path)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise BenchError(f"{path} is no cassette: it is not JSON") from None
    match document:
        case {"cassette": 1, "instances": list(instances)} if all(map(_is_tape, instances)):
            return instances
        case {"cassette": int(version)} if version != FORMAT:
            raise BenchError(f"{path} is of another version of capwasm; record it again")
    raise BenchError(f"{path} is no cassette; record it again")


def _is_tape(calls: Any) -> bool:
    return isinstance(calls, list) and all(
        isinstance(c, dict) and isinstance(c.get("call"), str) and isinstance(c.get("args"), list)
        for c in calls
    )


def _bytes_of(path: Path) -> bytes:
    try:
        return read_file(path, MAX_BYTES, ArtifactError, code="artifact.unreadable")
    except ArtifactError as exc:
        raise BenchError(f"{path} can't be read: {exc.message}; record it first") from None
