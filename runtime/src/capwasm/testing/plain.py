"""Values of host calls as JSON, both ways, without any secret.

==============  ============================================================================
Python          JSON
==============  ============================================================================
text, numbers   themselves; {"$float": "nan"} for those that JSON lacks
bytes           {"$text": "…"} where they are text, else {"$bytes": base64}
list, tuple     an array
set             an array of its words, sorted
record          an object
Variant         {"$case": name, "value": …}
Some, Ok, Err   {"$some": …}, {"$ok": …}, {"$err": …}
Handle          {"$handle": number, "of": resource}; numbers count up in each instance
a secret        {"$secret": name}; within other text the redactor's [secret:name]
==============  ============================================================================
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from capwasm.capability import Interface
from capwasm.handles import Handle, Lease
from capwasm.record.redact import MIN_SECRET, Redactor
from capwasm.values import Err, Ok, Some, Variant

from .errors import BenchError

__all__ = ["Handles", "Secrets", "from_plain", "to_plain"]

_LEAST_NUMBER: Final = 10**5  # smaller ones are no secret that could be masked


class Secrets:
    """Knows the secrets of a bench, so that none of them is written down."""

    def __init__(self, values: Mapping[str, bytes], names: Iterable[str] = ()) -> None:
        """Know these values.

        Args:
            values: name → value.
            names: others that the plugin asks for; a placeholder stands for each.

        Raises:
            BenchError: one can't be told from ordinary text.
        """
        stand_ins = {name: f"placeholder-of-{name}".encode() for name in names}
        self.values = stand_ins | dict(values)
        self.redactor = Redactor()
        for name, value in self.values.items():
            if not self.redactor.register(name, value):
                raise BenchError(
                    f"the secret {name} can't be kept out of a cassette: give the bench one of at"
                    f" least {MIN_SECRET} characters that are not all alike"
                )

    def name_of(self, value: bytes) -> str | None:
        """Of which secret that is the whole value."""
        return next((name for name, known in self.values.items() if known == value), None)


class Handles:
    """The handles of one instance, by numbers that are the same in each run."""

    def __init__(self, resources: Mapping[str, type[Handle]]) -> None:
        """Know the resources of the interfaces that are served: name → class."""
        self._resources = resources
        self._names = {kind: name for name, kind in resources.items()}
        self._numbers: dict[int, int] = {}
        self._held: dict[int, Handle] = {}  # also so that none takes another's place in memory

    @classmethod
    def resources_of(cls, served: Iterable[Interface]) -> dict[str, type[Handle]]:
        """`capwasm:fetch/client.response` → its class."""
        return {
            f"{interface.name.partition('@')[0]}.{name}": kind
            for interface in served
            for name, kind in interface.resources.items()
        }

    def number(self, handle: Handle) -> int:
        """Its number; a new one for one that was not seen yet."""
        number = self._numbers.setdefault(id(handle), len(self._numbers) + 1)
        self._held[number] = handle
        return number

    def name(self, handle: Handle) -> str:
        """The resource that it is one of."""
        return next((self._names[k] for k in type(handle).__mro__ if k in self._names), "")

    def stand_in(self, number: int, name: str) -> Handle:
        """A handle of that resource that holds nothing; one for each number.

        Raises:
            BenchError: there is no such resource.
        """
        found, kind = self._held.get(number), self._resources.get(name)
        if kind is None or (found is not None and not isinstance(found, kind)):
            raise BenchError(f"the cassette has a handle of {name!a}, which is not served")
        if found is None:
            found = _stand_in(kind)
            self._numbers[id(found)] = number
            self._held[number] = found
        return found


def _stand_in(kind: type[Handle]) -> Handle:
    def begin(self: Handle) -> None:
        Handle.__init__(self, Lease())

    def nothing(_self: Handle) -> None:
        """There is nothing to free."""

    body = {"__slots__": (), "__init__": begin, "release": nothing}
    made: Handle = type(kind.__name__, (kind,), body)()
    return made


# -- out ----------------------------------------------------------------------------------------


def to_plain(value: Any, handles: Handles, secrets: Secrets) -> Any:  # noqa: C901  a case a type
    """A value that crosses, fit for `json.dumps`, without secrets.

    Raises:
        BenchError: it is of a type that does not cross.
    """

    def plain(inner: Any) -> Any:
        return to_plain(inner, handles, secrets)

    match value:
        case None | bool():
            return value
        case int():
            return secrets.redactor.value(value) if abs(value) >= _LEAST_NUMBER else value
        case float():
            return value if math.isfinite(value) else {"$float": str(value)}
        case str():
            name = secrets.name_of(value.encode("utf-8", "surrogatepass"))
            return secrets.redactor.text(str(value)) if name is None else {"$secret": name}
        case bytes() | bytearray() | memoryview():
            return _bytes(bytes(value), secrets)
        case Handle():
            return {"$handle": handles.number(value), "of": handles.name(value)}
        case Variant(case, inner):
            return {"$case": case, "value": plain(inner)}
        case Some(inner):
            return {"$some": plain(inner)}
        case Ok(inner):
            return {"$ok": plain(inner)}
        case Err(inner):
            return {"$err": plain(inner)}
        case list() | tuple():
            return [plain(x) for x in value]
        case set() | frozenset():
            return sorted(plain(str(x)) for x in value)
        case Mapping():
            return {str(k): plain(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise BenchError(f"a value of {type(value).__name__} can't be recorded")


def _bytes(value: bytes, secrets: Secrets) -> dict[str, Any]:
    name = secrets.name_of(value)
    if name is not None:
        return {"$text": {"$secret": name}}
    clean = secrets.redactor.data(value)
    try:
        text = clean.decode()
    except UnicodeDecodeError:
        return {"$bytes": base64.b64encode(clean).decode()}
    return {"$text": text}


# -- in -----------------------------------------------------------------------------------------


def from_plain(plain: Any, handles: Handles, secrets: Secrets) -> Any:
    """The value that `to_plain` wrote so, with the secrets of this bench.

    Raises:
        BenchError: it wrote no such thing.
    """

    def value(inner: Any) -> Any:
        return from_plain(inner, handles, secrets)

    match plain:
        case list():
            return [value(x) for x in plain]
        case {"$float": str(text)}:
            return float(text)
        case {"$secret": str(name)}:
            return _secret(name, secrets).decode()
        case {"$text": {"$secret": str(name)}}:
            return _secret(name, secrets)
        case {"$text": str(text)}:
            return text.encode()
        case {"$bytes": str(text)}:
            return base64.b64decode(text)
        case {"$handle": int(number), "of": str(name)}:
            return handles.stand_in(number, name)
        case {"$case": str(case), "value": inner}:
            return Variant(case, value(inner))
        case {"$some": inner}:
            return Some(value(inner))
        case {"$ok": inner}:
            return Ok(value(inner))
        case {"$err": inner}:
            return Err(value(inner))
        case dict():
            return {k: value(v) for k, v in plain.items()}
    return plain


def _secret(name: str, secrets: Secrets) -> bytes:
    value = secrets.values.get(name)
    if value is None:
        raise BenchError(f"the cassette has the secret {name}, and plugin.toml asks for none so")
    return value


def pieces(plain: Any, path: str = "") -> Iterator[tuple[str, bytes]]:
    """All text and bytes of a plain value, in order, each with its place; of a list there is one."""
    match plain:
        case str():
            yield path, plain.encode("utf-8", "surrogatepass")
        case {"$bytes": str(text)}:
            yield path, base64.b64decode(text)
        case list():
            for inner in plain:
                yield from pieces(inner, path)
        case dict():
            for name, inner in plain.items():
                yield from pieces(inner, f"{path}.{name}")
