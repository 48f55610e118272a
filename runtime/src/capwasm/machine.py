"""What this machine can enforce, found out by trying it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from .errors import CapabilityError

__all__ = ["Check", "Status", "check_machine"]

Status = Literal["ok", "lacks", "note"]

_OWN_PROCESS: Final = "sandbox of a process: against"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried.

    Attributes:
        name: a word for programs.   status: `lacks` is worse than `note`.
        value: what was found.   why: what it is for.
        required: whether nothing runs safely without it.
    """

    name: str
    status: Status
    value: str
    why: str
    required: bool = False

    @property
    def failed(self) -> bool:
        """Whether it is required and not there."""
        return self.required and self.status == "lacks"


def check_machine() -> list[Check]:
    """Try everything; takes some tenths of a second, and changes nothing."""
    return [*(check() for check in _CHECKS), *_layers()]


def _platform() -> Check:
    found = f"{platform.system()} {platform.machine()}"
    good = sys.platform.startswith("linux")
    why = "files and processes can be confined on Linux alone"
    return Check("platform", "ok" if good else "lacks", found, why, required=True)


def _kernel() -> Check:
    return Check("kernel", "ok", platform.release(), "decides on what follows")


def _python() -> Check:
    good = sys.version_info >= (3, 11)
    why = "3.11 or newer runs it; see below for its advisories"
    return Check("python", "ok" if good else "lacks", platform.python_version(), why, required=True)


def _engine() -> Check:
    why = "runs the plugins"
    try:
        from importlib.metadata import version

        import wasmtime

        from .engine.config import make_config

        wasmtime.Engine(make_config())
        found = f"wasmtime {version('wasmtime')}"
    except Exception as exc:  # noqa: BLE001  whatever it is, it says that the engine can't be had
        return Check("engine", "lacks", f"{type(exc).__name__}: {exc}", why, required=True)
    return Check("engine", "ok", found, why, required=True)


def _calls() -> Check:
    from .engine.capi import layout_faults

    why = "values cross the boundary by the layout of a wheel that was checked"
    faults = layout_faults()
    if faults:
        return Check("calls", "note", f"the slow way: {faults[0]}", why)
    return Check("calls", "ok", "the fast way", why)


def _instances() -> Check:
    from .engine.pool import Capacity, make_engine

    why = "room for instances is set aside, so that one starts in microseconds"
    try:
        made = make_engine(Capacity())
    except Exception as exc:  # noqa: BLE001  as `_engine`, which tells of it
        return Check("instances", "note", type(exc).__name__, why)
    if made.pooled:
        return Check("instances", "ok", f"a pool for {made.instances}", why)
    return Check("instances", "note", f"no pool: {made.why_not}", why)


def _files() -> Check:
    why = "a file grant can't be left through .., links or renames"
    try:
        from .caps.fs.beneath import best, by_openat2

        way = best()
    except CapabilityError as exc:
        return Check("files", "lacks", exc.message, why, required=True)
    if way is by_openat2:
        return Check("files", "ok", "openat2: the kernel confines each open", why, required=True)
    return Check("files", "note", "no openat2: a walk that follows no link", why, required=True)


def _layers() -> list[Check]:
    """One for each layer of the sandbox around a process; which of them must hold, policy says."""
    from capwasm_shim.layers import Layer
    from capwasm_shim.probe import probe

    found = probe()
    # One of the two is enough: root has users to give away, everybody else a namespace.
    others = {Layer.OWN_USER, Layer.USER_NAMESPACE}
    held = any(each.applied for each in found if each.layer in others)
    checks = []
    for each in found:
        needed = each.required or (each.layer in others and not held)
        status: Status = "ok" if each.applied else "lacks" if needed else "note"
        value = "holds" if each.applied else each.why_not
        checks.append(Check(str(each.layer), status, value, f"{_OWN_PROCESS} {each.stops}"))
    return checks


_CHECKS: Final[tuple[Callable[[], Check], ...]] = (
    _platform,
    _kernel,
    _python,
    _engine,
    _calls,
    _instances,
    _files,
)
