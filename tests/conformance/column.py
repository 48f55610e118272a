"""One language's column: its conformance component, through the whole table in a real runtime."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from capwasm.errors import CapwasmError, GuestError, GuestTrap
from capwasm.plugin import Plugin
from tests.builds import compiled, share
from tests.caps.net.servers import Origin, http
from tests.isolation.ways import granted_world
from tests.kit import OPTIONAL, World

from .cases import (
    BARE,
    BARE_POLICY,
    CALLS,
    ENDS,
    GIVES,
    GRANTED,
    POLICY,
    REFUSES,
    TYPES,
    UNGRANTED,
    Limit,
    plain,
)

__all__ = ["PARTS", "ROWS", "Cell", "run_part"]

LARGE: Final = 50_000


@dataclass
class Cell:
    """How a language does in a row.

    Attributes:
        shown: what the matrix says besides a mark: another end than the row names.
        faults: what went wrong; none is a pass.
    """

    shown: str = ""
    faults: list[str] = field(default_factory=list)


Part = dict[str, Cell]


def rows() -> dict[str, list[str]]:
    """Part → its rows, in the order of the table."""
    return {
        "types": list(dict.fromkeys([f.function for f in TYPES] + [c[0] for c in CALLS])),
        "operations": list(dict.fromkeys(case[0][0] for case in (*GIVES, *REFUSES))),
        "ungranted": list(dict.fromkeys(case[0][0] for case in UNGRANTED)),
        "limits": [limit.name for limit in ENDS],
    }


ROWS: Final = rows()
PARTS: Final = tuple(ROWS)


def run_part(part: str, language: str, code: bytes) -> Part:
    """Every row of a part.

    Args:
        part: one of `PARTS`.   language: whose own rules count.   code: the component.
    """
    found = {row: Cell() for row in ROWS[part]}
    with _world(BARE_POLICY if part == "ungranted" else POLICY) as (world, origin):
        granted = GRANTED.format(port=origin.port)
        match part:
            case "types":
                _types(_load(world, code, granted), found)
            case "operations":
                _operations(_load(world, code, granted), origin, found)
            case "ungranted":
                _told(_load(world, code, BARE), UNGRANTED, origin, found)
            case _:
                _limits(world, code, granted, language, found)
    return found


def _answer(got: Any) -> bytes:
    method, path, *_ = got.line.split(" ")
    if path.endswith("/large"):
        return http(b"x" * LARGE)
    told = got.all("authorization")
    body = " ".join([method, path, *told, ""]).encode() + got.body
    return http(body, headers=[("X-Kind", "test")])


@contextmanager
def _world(policy: str) -> Iterator[tuple[World, Origin]]:
    """A world with something of everything, which compiles no component twice."""
    with tempfile.TemporaryDirectory(prefix="capwasm-conformance-") as name:
        root = Path(name)
        with granted_world(root, "in-process", policy=policy, answer=_answer) as (world, origin):
            cache = world.home / "cache"
            shutil.rmtree(cache, ignore_errors=True)
            share(compiled(), cache)
            try:
                yield world, origin
            finally:
                share(cache, compiled())


def _load(world: World, code: bytes, manifest: str, version: str = "1.0.0") -> Plugin:
    rest = "".join(text for word, text in OPTIONAL.items() if word not in manifest)
    return world.load(code, manifest + rest, version=version)


def _types(plugin: Plugin, found: Part) -> None:
    for feature in TYPES:
        for value in feature.values:
            with _noting(found[feature.function], f"{value!r:.60}"):
                seen = feature.seen(plugin.call(feature.function, value))
                wanted = plain(feature, value)
                assert seen == wanted, f"gave {seen!r:.200}"
                assert type(seen) is type(wanted), f"gave a {type(seen).__name__}"
    for function, arguments, wanted in CALLS:
        with _noting(found[function], f"{arguments!r:.60}"):
            given = plugin.call(function, *arguments)
            assert given == wanted, f"gave {given!r:.200}"


def _operations(plugin: Plugin, origin: Origin, found: Part) -> None:
    with _log() as logged:
        for arguments, wanted in GIVES:
            with _noting(found[arguments[0]], f"{arguments!r:.100}"):
                result = _run(plugin, arguments, origin)
                assert result.ok, f"the error {result.error!r:.100}"
                if isinstance(wanted, str):
                    assert result.value == wanted, f"gave {result.value!r:.200}"
                else:
                    assert wanted(result.value), f"gave {result.value!r:.200}"
    _told(plugin, REFUSES, origin, found)
    # What the guest can't be asked: the origin had the secret, and the log the records.
    with _noting(found["fetch"], "the secret at the origin"):
        sent = [v for got in origin.got for v in got.all("authorization")]
        assert sent == ["Bearer t0ken-value"], f"{len(sent)} of them"
    with _noting(found["fetch"], "the secret's value in the answer"):
        assert [g.body for g in origin.got if g.line.startswith("POST /open/x")] == [b"some"]
    with _noting(found["log"], "the record in the log"):
        assert [line for line in logged if "a line" in line and "from=guest" in line], logged
    with _noting(found["std.print"], "the line in the log"):
        assert [line for line in logged if "printed" in line], logged


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _log() -> Iterator[list[str]]:
    """What plugins write to the log meanwhile."""
    logger, kept = logging.getLogger("capwasm.plugin"), _Lines()
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel("DEBUG")
    try:
        yield kept.lines
    finally:
        logger.setLevel(level)
        logger.removeHandler(kept)


def _told(plugin: Plugin, cases: Any, origin: Origin, found: Part) -> None:
    """The word that the guest is told, case by case."""
    for arguments, word in cases:
        with _noting(found[arguments[0]], f"{arguments!r:.100}"):
            result = _run(plugin, arguments, origin)
            assert not result.ok, f"gave {result.value!r:.100}"
            assert result.error == word, f"the error {result.error!r:.100}, not {word!r}"


def _limits(world: World, code: bytes, granted: str, language: str, found: Part) -> None:
    loaded: dict[str, Plugin] = {}
    for limit in ENDS:
        if limit.limits not in loaded:
            text = granted + (f"[limits]\n{limit.limits}" if limit.limits else "")
            loaded[limit.limits] = _load(world, code, text, f"1.0.{len(loaded)}")
        _end(loaded[limit.limits], limit, language, found[limit.name])


def _end(plugin: Plugin, limit: Limit, language: str, cell: Cell) -> None:
    own = limit.instead.get(language)
    with _noting(cell, f"{limit.call}"), _log() as logged:
        ended: Any = None
        try:
            plugin.call("run", limit.call[0], list(limit.call[1:]))
        except GuestError as exc:
            ended = exc
        assert type(ended) is (GuestTrap if own else limit.error), f"{type(ended)}: {ended}"
        if own:
            assert [line for line in logged if own in line], logged
            cell.shown = f"The language's own `{own}` comes before the engine's limit."
        # The next call is served as if nothing had been.
        assert plugin.call("echo-u8", 7) == 7


def _run(plugin: Plugin, arguments: tuple[str, ...], origin: Origin) -> Any:
    put: Callable[[str], str] = lambda text: text.replace("PORT", str(origin.port))
    return plugin.call("run", arguments[0], [put(a) for a in arguments[1:]])


@contextmanager
def _noting(cell: Cell, case: str) -> Iterator[None]:
    """A case; what goes wrong is kept, so that the others run, too."""
    try:
        yield
    except (AssertionError, CapwasmError, TypeError, ValueError) as exc:
        first = str(exc).partition("\n")[0]
        name = "" if isinstance(exc, AssertionError) else f"{type(exc).__name__}: "
        cell.faults.append(f"{case}: {name}{first}")
