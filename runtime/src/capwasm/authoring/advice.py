"""What the author of a plugin can do about an error that its call ended with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from capwasm.errors import CapwasmError, Fault, GuestTrap, LimitExceeded
from capwasm.grants.manifest import Manifest
from capwasm.limits import CEILING

from .said import Said

__all__ = ["advise"]

_MOST_PLACES: Final = 5

# Code of an error → the word of plugin.toml that asks for more.
_WORDS: Final = {
    "limit.fuel": "fuel",
    "limit.deadline": "wall-ms",
    "limit.memory": "memory",
    "limit.table": "table-elements",
    "limit.host-calls": "host-calls",
    "limit.output": "output-bytes",
    "limit.value": "value-bytes",
    "limit.handles": "handles",
    "limit.net-bytes": "net-bytes",
}


def advise(error: CapwasmError, manifest: Manifest, said: Said | None = None) -> CapwasmError:
    """The same error, with its place in the author's sources and what the author can write to mend it.

    Args:
        error: what the call ended with.
        manifest: the plugin's.
        said: what the plugin printed during the call.
    """
    if isinstance(error, GuestTrap) and said is not None and said.cause:
        # Python's own frames of WebAssembly say nothing of the plugin.
        rest = [] if said.python else error.message.split("\n")
        places = [f"  at {place}" for place in dict.fromkeys(said.places)][:_MOST_PLACES]
        error.message = "\n".join([said.cause, *places, *rest])
    error.faults = (*error.faults, *_advice(error, manifest))
    return error


def _advice(error: CapwasmError, manifest: Manifest) -> Iterator[Fault]:
    if isinstance(error, LimitExceeded):
        yield from _limit(error, manifest)
    elif isinstance(error, GuestTrap) and "log" not in manifest.requests:
        yield Fault(
            "log",
            "what the plugin wrote to stderr before it ended is lost: plugin.toml has no [log]",
            "[log]",
        )


def _limit(error: LimitExceeded, manifest: Manifest) -> Iterator[Fault]:
    if error.code == "limit.stack":
        yield Fault("", "it calls itself too deep; no limit of plugin.toml gives it more stack")
        return
    word = _WORDS.get(error.code)
    limits: dict[str, Any] = manifest.limits.to_table()
    if word is None or word not in limits:
        return
    now, most = limits[word], CEILING.to_table()[word]
    if now >= most:
        yield Fault(
            f"limits.{word}", f"{now} is the most that there is; the plugin must do with it"
        )
        return
    yield Fault(
        f"limits.{word}",
        f"it has {now}; if it rightly needs more, plugin.toml can ask for more",
        f"[limits]\n{word} = {min(now * 4, most)}",
    )
