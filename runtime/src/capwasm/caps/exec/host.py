"""The exec capability: `capwasm:exec/commands`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from capwasm.capability import Grant, GrantedClause, Interface, OpenContext, Risk, Side
from capwasm.caps._paths import overlap
from capwasm.caps._tables import ByTables, Table
from capwasm.errors import CapabilityError, Fault, ShimError
from capwasm.events import DENIED
from capwasm_shim.layers import Spec

from .handle import ExecState, spec_of
from .model import AskedCommand, ConsentedCommand, ExecClause, GivenCommand
from .program import Identity, Program, Unusable, identity, opened
from .running import NotRun, Spawner, try_out

__all__ = ["Exec"]

INTERFACE = "capwasm:exec/commands@0.1.0"


class Exec(ByTables[ExecClause, ExecState]):
    """Commands that the operator named, each in a sandbox of its own."""

    name: ClassVar = "exec"
    title: ClassVar = "Commands"
    repeated: ClassVar = True
    interfaces: ClassVar = (INTERFACE,)
    clause: ClassVar = ExecClause
    asked: ClassVar = AskedCommand
    given: ClassVar = GivenCommand

    def __init__(self, spawner: Spawner | None = None, protected: Iterable[Path] = ()) -> None:
        """Make the capability.

        Args:
            spawner: starts processes in sandboxes; without one no command can be granted.
            protected: the runtime's own files and directories; no command may see one (FS-21).
        """
        self._spawner = spawner
        self._protected = [str(path) for path in protected]
        self._tried: set[Spec] = set()
        self._lock = threading.Lock()

    def _form(self, side: Side) -> type[Table]:
        return ConsentedCommand if side == "consent" else super()._form(side)

    def policy_table(self, clause: ExecClause) -> dict[str, Any]:
        """The table, with a program: only the operator knows what a name stands for."""
        table = clause.to_toml()
        if clause.program is None:
            table["program"] = f"/the/program/of/{clause.command or 'this-command'}"
            table["arguments"] = list[str]()
        return table

    def risk(self, clause: ExecClause) -> tuple[Risk, str]:  # noqa: ARG002  all alike
        """High."""
        return Risk.HIGH, "It has a program of the host work on data that it chooses."

    def open(self, grant: Grant[ExecClause], ctx: OpenContext) -> ExecState:
        """Judge each granted program; one that a rule denies is left out, and recorded.

        What a command will find is tried out once: its sandbox is built, and its program looked at
        from inside.

        Raises:
            CapabilityError: `capability.exec`, with all faults: a command can't be run here.
        """
        faults: list[Fault] = []
        kept: list[GrantedClause[ExecClause]] = []
        for granted in grant.allow:
            try:
                if self._usable(granted.clause, grant):
                    kept.append(granted)
                else:
                    ctx.record(
                        "exec",
                        DENIED,
                        action="open",
                        target=granted.clause.command or "",
                        reason="denied-by-rule",
                    )
            except Unusable as exc:
                faults.append(Fault("exec", f"{granted.clause.command}: {exc}"))
            except ShimError as exc:
                faults.append(Fault("exec", f"{granted.clause.command}: {exc.message}"))
                faults += exc.faults
        names = [g.clause.command for g in kept]
        faults += [
            Fault("exec", f"{name}: the policy says twice what it is, and each time otherwise")
            for name in sorted({n for n in names if n is not None and names.count(n) > 1})
        ]
        if faults:
            raise CapabilityError(
                "a command can't be run",
                code="capability.exec",
                context=ctx.plugin,
                faults=faults,
            )
        return ExecState(Grant(tuple(kept), grant.deny), ctx, self._spawner)

    def serve(self, state: ExecState) -> Sequence[Interface]:
        """The one interface."""
        return [Interface(INTERFACE, {"run": state.run})]

    def _usable(self, clause: ExecClause, grant: Grant[ExecClause]) -> bool:
        """Whether no rule denies the program, by whatever name.

        Raises:
            Unusable, ShimError: it can't be run.
        """
        if self._spawner is None:
            raise Unusable("this runtime starts no processes")
        if clause.command is None or clause.program is None:
            raise Unusable("the policy names no program for it")
        with opened(clause.program) as program:
            denied = (d.program for d in grant.deny if d.command in (None, clause.command))
            if any(path is not None and _identity(path) == program.identity for path in denied):
                return False
            spec = spec_of(clause, program, ())
            self._check_apart(spec)
            self._try(spec, program)
        return True

    def _check_apart(self, spec: Spec) -> None:
        for path in spec.binds:
            for own in self._protected:
                if overlap(os.path.realpath(path), os.path.realpath(own)):
                    raise Unusable(f"{path} overlaps {own}, which is the runtime's own")

    def _try(self, spec: Spec, program: Program) -> None:
        """Build the command's sandbox, if that was not done before."""
        assert self._spawner is not None
        with self._lock:
            if spec in self._tried:
                return
        try:
            try_out(self._spawner, spec, program.fd)
        except (NotRun, OSError) as exc:
            raise Unusable(str(exc)) from None
        with self._lock:
            self._tried.add(spec)


def _identity(path: str) -> Identity | None:
    try:
        return identity(os.stat(path))  # noqa: PTH116  text
    except OSError:
        return None
