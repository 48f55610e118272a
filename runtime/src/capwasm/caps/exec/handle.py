"""The commands of one instance: what is asked before one runs, and what is recorded of it."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from capwasm.call import CallRecord, current_call
from capwasm.capability import Grant, GrantedClause, OpenContext
from capwasm.caps._paths import overlap
from capwasm.errors import CapError, ShimError
from capwasm.events import ALLOWED, DENIED, FAILED
from capwasm_shim.layers import NULL, Limits, Spec

from .model import ExecClause
from .pattern import MAX_VALUE, MAX_WORDS
from .program import Program, Unusable, opened
from .running import NotRun, Outcome, OutOfTime, Spawner, run

__all__ = ["ExecState", "Output", "spec_of"]

MAX_ERRORS: Final = 64 * 1024
"""Bytes of standard error that are kept."""

RUN_FUEL: Final = 1_000_000
"""What a run costs, besides its bytes: a process is some milliseconds of the host's work."""

# Where the loader looks by itself.  Nothing in there can be executed but the loader.
_LIBRARIES: Final = (
    *("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64"),
    "/etc/ld.so.cache",
)
# No PATH, no HOME, no LD_*: nothing of the host's (SEC-01).
_ENVIRONMENT: Final = (("LANG", "C.UTF-8"),)
_FILES: Final = 64  # descriptors at a time
_RECORD_BYTES: Final = 512
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Output:
    """WIT `output`."""

    code: int | None
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool
    stderr_truncated: bool


def spec_of(clause: ExecClause, program: Program, arguments: Sequence[str]) -> Spec:
    """The sandbox of one run.

    Args:
        clause: says what it may use.
        program: which the clause names.
        arguments: that follow the program.

    Raises:
        Unusable: a path that it should see is not there.
    """
    assert clause.program is not None
    executables = [clause.program]
    binds = [clause.program, NULL, *(clause.reads or ())]
    for path in clause.reads or ():
        if not os.path.exists(path):  # noqa: PTH110  also where this user may not look
            raise Unusable(f"{path} is not there")
    if program.loader is not None:
        executables.append(program.loader)
        binds += [program.loader, *filter(os.path.exists, _LIBRARIES)]
    most = clause.in_force
    return Spec(
        kind="exec",
        limits=Limits(
            memory=most.memory,
            # Its time is over long before; this holds where nobody is left to say so.
            cpu_seconds=math.ceil(most.timeout_ms / 1000) * most.processes + 1,
            # The kernel counts both alike.
            threads=most.threads + most.processes - 1,
            processes=most.processes,
            files=_FILES,
        ),
        argv=(clause.program, *arguments),
        env=_ENVIRONMENT,
        binds=_outermost(binds),
        executables=tuple(executables),
    )


def _outermost(paths: Sequence[str]) -> tuple[str, ...]:
    """These paths, without those that lie in another of them."""
    kept: list[str] = []
    for path in sorted(set(paths)):  # what holds others comes before them
        if not any(overlap(other, path) for other in kept):
            kept.append(path)
    return tuple(kept)


class ExecState:
    """The commands that one instance may run."""

    __slots__ = ("_call", "_ctx", "_grant", "_runs", "_spawner")

    def __init__(self, grant: Grant[ExecClause], ctx: OpenContext, spawner: Spawner | None) -> None:
        """Serve what `grant` holds; without a spawner it must hold nothing."""
        self._grant = grant
        self._ctx = ctx
        self._spawner = spawner
        # Runs are counted for each call; calls of one instance never overlap.
        self._call: CallRecord | None = None
        self._runs: dict[str, int] = {}

    def run(self, command: str, arguments: Sequence[str], data: bytes) -> Output:
        """Run a command to its end.

        Raises:
            CapError: `denied`, `invalid`, `too-large`, `timeout`, `closed`, `unavailable`; each but
                `invalid` is on record.
            CapwasmError: the call must end; the command was killed.
        """
        call = current_call()
        call.charge_host_work(RUN_FUEL + len(data))
        _check_form(command, arguments)
        granted = self._find(command)
        clause = granted.clause
        filled = clause.fill(arguments)
        if filled is None:
            self._refuse(command, "denied", "these arguments are not granted")
        if len(data) > clause.in_force.input_bytes:
            self._refuse(command, "too-large", f"{len(data)} bytes, more than input-bytes")
        self._count(call, command, clause.in_force.runs)
        outcome = self._run(call, command, granted, filled, bytes(data))
        call.charge_host_work(len(outcome.stdout) + len(outcome.stderr))
        return Output(
            outcome.code,
            outcome.stdout,
            outcome.stderr,
            outcome.stdout_truncated,
            outcome.stderr_truncated,
        )

    def _find(self, command: str) -> GrantedClause[ExecClause]:
        found = self._grant.find(lambda c: c.command == command)
        if found is not None:
            return found
        revoked = any(g.clause.command == command and not g.lease.alive for g in self._grant.allow)
        word, reason = ("closed", "revoked") if revoked else ("denied", "not granted")
        # What the guest asked for is its own text; only a piece of it goes on record.
        return self._refuse(command[:64], word, reason)

    def _count(self, call: CallRecord, command: str, most: int) -> None:
        if self._call is not call:
            self._call, self._runs = call, {}
        runs = self._runs[command] = self._runs.get(command, 0) + 1
        if runs > most:
            self._refuse(command, "denied", f"more than {most} runs in one call")

    def _run(
        self,
        call: CallRecord,
        command: str,
        granted: GrantedClause[ExecClause],
        arguments: Sequence[str],
        data: bytes,
    ) -> Outcome:
        """Start it, wait for it, and record both its start and its end."""
        clause, spawner = granted.clause, self._spawner
        assert clause.program is not None
        assert spawner is not None
        # What crosses at once is bounded as a whole, and the record takes its part.
        room = max(0, call.limits.value_bytes - _RECORD_BYTES)
        errors = min(MAX_ERRORS, room // 4)
        most = min(clause.in_force.output_bytes, room - errors), errors
        number = next(_NUMBERS)
        about = {"run": number, "program": clause.program, "arguments": _digest(arguments)}
        self._ctx.record("exec", ALLOWED, action="run", target=command, details=about)
        started = time.monotonic()
        until = started + min(call.remaining(), clause.in_force.timeout_ms / 1000)
        outcome: Outcome | None = None
        reason, detail = "interrupted", ""

        def tick() -> None:
            call.check()
            granted.lease.check()

        try:
            tick()
            with opened(clause.program) as program:
                spec = spec_of(clause, program, arguments)
                outcome = run(spawner, spec, program.fd, data, most, until, tick)
        except OutOfTime:
            reason = "timeout"
            call.check()  # its own time may be over as well, and then it ends
            raise CapError("timeout", "the command was killed") from None
        except CapError as exc:
            reason, detail = exc.word, exc.detail
            raise
        except (Unusable, NotRun, ShimError, OSError) as exc:
            reason, detail = "unavailable", _why(exc)
            call.check()
            raise CapError("unavailable", detail) from None
        finally:
            end = about | {"ms": round((time.monotonic() - started) * 1000), "in": len(data)}
            if outcome is not None:
                reason = "" if outcome.code == 0 else "exit" if outcome.code else "signal"
                end |= _told(outcome)
            elif detail:
                end["detail"] = detail[:300]
            verdict = ALLOWED if outcome is not None else DENIED if reason == "closed" else FAILED
            self._ctx.record(
                "exec", verdict, action="end", target=command, reason=reason, details=end
            )
        return outcome

    def _refuse(self, command: str, word: str, reason: str) -> NoReturn:
        self._ctx.record("exec", DENIED, action="run", target=command, reason=reason)
        raise CapError(word, reason)


_NUMBERS: Final = itertools.count(1)
"""Numbers of runs, unique within the process: the record of an end says of which start."""


def _check_form(command: str, arguments: Sequence[str]) -> None:
    """Pass if all of it is text that can stand in an argument.

    Raises:
        CapError: `invalid`.
    """
    if len(arguments) > MAX_WORDS:
        raise CapError("invalid", "too many arguments")
    for text in (command, *arguments):
        if len(text) > MAX_VALUE or _CONTROL.search(text):
            raise CapError("invalid", "an argument is too long, or holds a control character")
        try:
            size = len(text.encode())
        except (
            UnicodeEncodeError
        ):  # a lone surrogate: no text of a guest, but perhaps of a native one
            raise CapError("invalid", "an argument is not Unicode") from None
        if size > MAX_VALUE:
            raise CapError("invalid", "an argument is too long")


def _digest(arguments: Sequence[str]) -> str:
    """What tells two runs apart in the log, without what a guest put into them."""
    return hashlib.sha256("\0".join(arguments).encode()).hexdigest()


def _told(outcome: Outcome) -> Mapping[str, int | bool]:
    told: dict[str, int | bool] = {
        "out": len(outcome.stdout),
        "err": len(outcome.stderr),
        "cpu-ms": outcome.cpu_ms,
    }
    if outcome.code is None:
        told["signal"] = outcome.signal
    else:
        told["code"] = outcome.code
    if outcome.stdout_truncated or outcome.stderr_truncated:
        told["truncated"] = True
    return told


def _why(exc: Exception) -> str:
    faults = "; ".join(f"{f.path}: {f.message}" for f in getattr(exc, "faults", ()))
    text = exc.message if isinstance(exc, ShimError) else str(exc)
    return f"{text} ({faults})" if faults else text
