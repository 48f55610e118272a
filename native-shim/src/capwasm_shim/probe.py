"""Which layers of the sandbox this machine has, found out by building them all around a process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .layers import DEFAULT_REQUIRED, Layer, Spec

__all__ = ["LayerStatus", "probe"]

_STOPS: Final = {
    Layer.CLEAN_START: "inherited descriptors, environment and signal handlers",
    Layer.SESSION: "typing into the terminal, signals to the process group",
    Layer.NO_NEW_PRIVS: "more power through setuid programs",
    Layer.PARENT_DEATH: "processes that outlive the host",
    Layer.NON_DUMPABLE: "core files, and debuggers of the same user",
    Layer.RLIMITS: "exhaustion of memory, threads, descriptors, disk and processor time",
    Layer.OWN_USER: "whatever the host's user may do",
    Layer.USER_NAMESPACE: "what processes of one user can do to each other",
    Layer.PID_NAMESPACE: "seeing, signalling and tracing other processes; leftovers",
    Layer.MOUNT_NAMESPACE: "opening the host's files by any name",
    Layer.NET_NAMESPACE: "network access of every kind, and abstract sockets of the host",
    Layer.IPC_NAMESPACE: "shared memory and queues of the host",
    Layer.UTS_NAMESPACE: "learning the host's name",
    Layer.CGROUP_NAMESPACE: "learning which service or container it is in",
    Layer.NO_CAPABILITIES: "every power of root, in any namespace",
    Layer.LANDLOCK_FILES: "files beyond its own, should a way out of the private root be found",
    Layer.LANDLOCK_NET: "TCP, should a network be in reach",
    Layer.LANDLOCK_SCOPE: "signals and abstract sockets that lead out",
    Layer.SECCOMP: "system calls that it has no need of",
    Layer.CGROUP_MEMORY: "memory of every kind, the kernel's included",
    Layer.CGROUP_PIDS: "fork and thread bombs",
    Layer.CGROUP_CPU: "taking the processors from the host",
}
_SECONDS: Final = 20.0
_BOOTSTRAP: Final = (
    "import sys; sys.path += sys.argv[1:]; from capwasm_shim.probe import tell; tell()"
)


@dataclass(frozen=True, slots=True)
class LayerStatus:
    """One layer, and what came of it.

    Attributes:
        layer: which.   stops: what it is there for.
        applied: whether it was built.   why_not: what is missing, if it was not.
        required: whether nothing runs without it, unless policy says so.
    """

    layer: Layer
    stops: str
    applied: bool
    why_not: str
    required: bool


def probe() -> list[LayerStatus]:
    """Build every layer around a throw-away process, from a throw-away server; about 0.1 s.

    Changes nothing in this process, and never raises: what goes wrong is why a layer is missing.
    """
    missing: dict[str, str] = {}
    failed = ""
    try:
        missing = _ask()
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        failed = f"it could not be tried: {type(exc).__name__}"
    return [
        LayerStatus(
            layer=layer,
            stops=_STOPS[layer],
            applied=not failed and layer not in missing,
            why_not=failed or missing.get(layer, ""),
            required=layer in DEFAULT_REQUIRED,
        )
        for layer in Layer
    ]


def tell() -> None:
    """Be the throw-away server: a line for each layer that is missing, then a line "done"."""
    from . import sandbox

    # None is required, so that each says for itself whether it can be had.
    spec = Spec("native", required=frozenset())
    reader, writer = os.pipe()
    sandbox.prepare()
    pid = sandbox.spawn(spec)
    if pid == 0:
        try:
            report = sandbox.enter(spec, (), (writer,))
            lines = [f"{layer}\t{why}" for layer, why in report.missing.items()]
            os.write(writer, "\n".join([*lines, "done"]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        sys.stdout.buffer.write(pipe.read())
    os.waitpid(pid, 0)
    sandbox.forget(pid)
    sandbox.finish()


def _ask() -> dict[str, str]:
    here = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(  # noqa: S603  this interpreter and a fixed text
        [sys.executable, "-I", "-S", "-B", "-c", _BOOTSTRAP, here, *filter(None, sys.path)],
        check=True,
        timeout=_SECONDS,
        env={},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    *lines, end = done.stdout.decode().split("\n")
    if end != "done":
        raise ValueError("the probe ended early")
    return dict(line.split("\t", 1) for line in lines)
