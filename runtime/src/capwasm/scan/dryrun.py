"""A dry run: the code runs in the sandbox with nothing granted, and what it tries is held to its manifest.

It is strict mode, as for a file without a manifest: a process of its own behind every required layer, an
empty directory, the smallest limits, no secret, no network.  Its exported functions are called with
empty values.  It is refused everything, so it may stop at its first wish: what is found is a lower bound
of what it wants, and finding nothing proves nothing.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from capwasm._files import write_file
from capwasm.capsule.target import this_triple
from capwasm.errors import (
    CapwasmError,
    GrantDeniedError,
    GuestError,
    LimitExceeded,
    LinkError,
    PolicyError,
    ShimError,
)
from capwasm.grants.manifest import Manifest
from capwasm.learning import Learner
from capwasm.learning.attempt import Attempt, Table
from capwasm.review.finding import Finding, Severity

from .model import Context, NotLooked, Rule, Scanner
from .samples import sample
from .subject import Subject

if TYPE_CHECKING:
    from capwasm.engine.exports import Export
    from capwasm.plugin import Plugin

__all__ = ["SCANNERS"]

SECONDS: Final = 15.0
"""For all calls together; each has the limits of strict mode besides."""
MAX_CALLS: Final = 24
_PLACE: Final = "dry run"
_S = Severity

UNDECLARED: Final = Rule(
    "dryrun.undeclared", _S.MEDIUM, "When it ran, it tried what its manifest does not ask for.",
    "Ask for it in plugin.toml, with a why, or leave it.",
)  # fmt: skip
NOBODY: Final = Rule(
    "dryrun.ungrantable", _S.LOW, "When it ran, it tried what no permission gives.",
    "Do without; docs/wasi.md tells what there is.",
)  # fmt: skip
KILLED: Final = Rule(
    "dryrun.sandbox", _S.HIGH,
    "When it ran, the sandbox ended it for a system call that only an attack makes.",
    "Find out what makes it; no plugin needs it.",
)  # fmt: skip
START: Final = Rule(
    "dryrun.start", _S.MEDIUM, "It failed at its start, so nothing of it could be tried.",
    "A plugin starts also where it is granted nothing.",
)  # fmt: skip
LIMIT: Final = Rule(
    "dryrun.limit", _S.LOW, "With empty arguments it used up its time or memory.",
    "Say in [limits] what it needs, and why in README.md.",
)  # fmt: skip
CRASH: Final = Rule(
    "dryrun.crash", _S.NOTE, "With empty arguments it crashed, where it could have returned an error.",
)  # fmt: skip
RULES: Final = (UNDECLARED, NOBODY, KILLED, START, LIMIT, CRASH)

_NAMED: Final = {"secret": "name", "exec": "command", "config": "", "net": ""}
_REFUSED: Final = "grant.denied"
# What reaches out of the sandbox, or starts something.
_GRAVE: Final = frozenset({"net", "fs", "exec", "secret"})


@dataclass
class _Seen:
    """What happened in a run."""

    learner: Learner
    ends: dict[Rule, list[str]] = field(default_factory=dict)
    called: int = 0

    def ended(self, exc: CapwasmError, otherwise: Rule, what: str = "") -> None:
        """Keep why a start or a call ended badly."""
        if exc.code == _REFUSED:
            return  # what it was refused is told of by itself
        rule = otherwise
        if "SIGSYS" in exc.message:
            rule = KILLED
        elif isinstance(exc, LimitExceeded):
            rule = LIMIT
        text = f"{what}: {exc.message}" if what else exc.message
        self.ends.setdefault(rule, []).append(text)


def _scan(subject: Subject, context: Context) -> Iterator[Finding]:
    if not context.rule.dry_run:
        raise NotLooked("nobody wants a dry run: --dry-run, or [scan] dry-run")
    manifest = subject.manifest
    if manifest is None:
        raise NotLooked("its manifest can't be read, so there is nothing to hold it to")
    seen = _Seen(Learner(subject.capabilities, manifest))
    _run(_code(subject), seen)
    yield from _findings(seen, manifest)


def _code(subject: Subject) -> bytes:
    if subject.is_component:
        return bytes(subject.code)
    name = subject.libraries.get(this_triple())
    if name is None:
        raise NotLooked(f"it has no code for this machine, {this_triple()}")
    return bytes(subject.members[name])


def _run(code: bytes, seen: _Seen) -> None:
    """Load it and call what it exports, in a home that is made for it and removed.

    Raises:
        NotLooked: this machine can't confine it, or its code can't be loaded at all.
    """
    from capwasm.runtime import Runtime

    digest = hashlib.sha256(code).hexdigest()
    policy = f'schema = 1\nowner = "capwasm scan"\n\n[isolation]\nlegacy = ["sha256:{digest}"]\n'
    with tempfile.TemporaryDirectory(prefix="capwasm-dry-run-") as place:
        home = Path(place)
        home.chmod(0o700)
        write_file(
            home / "policy.toml", policy.encode(), PolicyError, code="policy.unreadable", mode=0o600
        )
        try:
            with Runtime.open(home, core_version="0.0.0", hook=seen.learner.record) as runtime:
                plugin = runtime.load_legacy(code)
                _call_all(plugin, seen)
        except (GuestError, LinkError) as exc:
            seen.ended(exc, START)
        except (ShimError, GrantDeniedError) as exc:
            faults = "; ".join(str(fault) for fault in exc.faults[:2])
            raise NotLooked(f"this machine can't confine it: {exc.message}; {faults}") from None
        except CapwasmError as exc:
            raise NotLooked(f"it can't be run here: [{exc.code}] {exc.message}") from None


def _call_all(plugin: Plugin, seen: _Seen) -> None:
    until = time.monotonic() + SECONDS
    for export in plugin.functions:
        if seen.called == MAX_CALLS or time.monotonic() > until:
            return
        values = _values(export)
        if values is None:
            continue
        seen.called += 1
        try:
            plugin.call(export.whole, *values)
        except GuestError as exc:
            seen.ended(exc, CRASH, export.short)


def _values(export: Export) -> list[Any] | None:
    """Empty arguments; None where one is a handle, which nobody can make up."""
    values = [sample(type_) for _, type_ in export.type.params]
    return None if any(value is None for value in values) else [v[0] for v in values if v]


def _findings(seen: _Seen, manifest: Manifest) -> Iterator[Finding]:
    words = manifest.plugin.model_dump(by_alias=True, exclude_defaults=True)
    proposal = seen.learner.propose(words)
    for table in proposal.tables:
        tried = [a for a in proposal.attempts if a.kind == table.capability]
        if not _is_declared(table, tried, manifest):
            yield UNDECLARED.at(
                f"{_PLACE}:{table.capability}",
                "; ".join(map(str, tried[:3])),
                severity=_S.HIGH if table.capability in _GRAVE else None,
                fix=f"{UNDECLARED.fix} It would be [{table.capability}] {_told(table.words)}",
            )
    for attempt in proposal.attempts:
        if attempt.kind == "wasi":
            yield NOBODY.at(f"{_PLACE}:wasi", str(attempt))
    for rule, reasons in seen.ends.items():
        yield rule.at(_PLACE, "; ".join(dict.fromkeys(reasons)))


def _is_declared(table: Table, tried: Sequence[Attempt], manifest: Manifest) -> bool:
    """Whether the manifest asks for it in words that a refusal can't tell.

    How a secret is sent, and which program a command is, only its author knows; and where nothing
    was named, whatever the manifest names is meant.
    """
    request = manifest.requests.get(table.capability)
    if request is None or table.capability not in _NAMED:
        return False
    asked = {c.to_toml().get(_NAMED[table.capability]) for a in request.asked for c in a.clauses}
    named = table.words.get(_NAMED[table.capability])
    return (named is not None and named in asked) or not any(a.target for a in tried)


def _told(words: Mapping[str, Any]) -> str:
    return ", ".join(f"{word} = {value!r}" for word, value in words.items())


# Most of it is compiling the plugin, which is kept nowhere.
SCANNERS: Final = (Scanner("dry-run", _scan, RULES, seconds=300.0),)
