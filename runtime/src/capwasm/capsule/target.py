"""Which of a native plugin's libraries is for this machine."""

from __future__ import annotations

import platform
import sysconfig

from capwasm.errors import ArtifactError, Fault

from .legacy import Proven
from .members import library_name, triple_of

__all__ = ["library_of", "this_triple"]


def this_triple() -> str:
    """The target that this Python was built for, as its C compiler names it: `x86_64-linux-gnu`.

    A library runs with the C library of the process that loads it, and so musl is another target.
    """
    # Debian's name for it, and the one of most builds; others are for glibc.
    named = sysconfig.get_config_var("MULTIARCH")
    return str(named) if named else f"{platform.machine()}-linux-gnu"


def library_of(plugin: Proven, triple: str | None = None) -> bytes:
    """A native plugin's code for this machine, or for another target.

    Raises:
        ArtifactError: `artifact.platform`, which tells the targets that it has.
    """
    triple = triple or this_triple()
    library = plugin.library(triple)
    if library is None:
        there = sorted(filter(None, map(triple_of, plugin.digests)))
        raise ArtifactError(
            f"the plugin has no code for this machine, {triple}",
            code="artifact.platform",
            context=str(plugin.identity),
            faults=[Fault(library_name(triple), f"is not there; it has {', '.join(there)}")],
        )
    return library
