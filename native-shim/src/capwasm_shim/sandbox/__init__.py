"""The walls around one process, built by it before anything untrusted is in it.

`prepare` once in the fork server; then for each process `spawn`, in the child `enter`, and in the
server `forget` when it was reaped.
"""

from __future__ import annotations

from collections.abc import Sequence

from capwasm_shim.layers import Report, Spec

__all__ = ["enter", "forget", "prepare", "spawn"]


def prepare() -> None:
    """Do once, before any fork, what is slow or can't be done later.

    The process must have one thread.  Afterwards it may be in a user namespace of its own.  What
    can't be had is no error here: `enter` reports it.
    """
    raise NotImplementedError


def spawn(spec: Spec) -> int:
    """Fork; the pid in the server, 0 in the child, which is in its pid namespace and cgroups.

    The child MUST call `enter` next and nothing else.

    Raises:
        OSError: there is no child.
    """
    raise NotImplementedError


def enter(spec: Spec, files: Sequence[int], keep: Sequence[int]) -> Report:
    """Build all other layers, in the child; when it returns, untrusted code may run.

    Args:
        spec: as given to `spawn`.
        files: memfds, as many as `spec.files`; they are read, and closed.
        keep: the only descriptors that are open afterwards, besides 0, 1 and 2, which are
            `/dev/null` if they are not among them.

    Raises:
        LayerError: one that is required can't be had.  The process MUST end.
    """
    raise NotImplementedError


def forget(pid: int) -> None:
    """Remove the cgroups of a process that was reaped; never raises."""
    raise NotImplementedError
