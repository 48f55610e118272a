"""Starting the fork server's process, with nothing of this one's in it but a socket."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capwasm.errors import ShimError

if TYPE_CHECKING:
    import subprocess

__all__ = ["launch"]

# What the server and its children import; each brings the directory that it is in.  The last two are
# in a component's process, and so are what they import in turn, which is installed beside them.
_PACKAGES: Final = ("capwasm_shim", "msgpack", "capwasm", "wasmtime")
# Without it a layer of the sandbox is missing, and the sandbox says so.
_OPTIONAL: Final = ("pyseccomp",)

# The message is `[FAILED, 0, "", "", text]`, by hand: msgpack may be what is missing.
_BOOTSTRAP: Final = """\
import os, sys
sys.path += sys.argv[3:]
try:
    from capwasm_shim.server import main
except BaseException as exc:
    text = f"{type(exc).__name__}: {exc}".encode("ascii", "replace")[:255]
    os.write(int(sys.argv[1]), b"\\x95\\x03\\x00\\xa0\\xa0\\xd9" + bytes([len(text)]) + text)
    os._exit(1)
main(int(sys.argv[1]), int(sys.argv[2]))
"""


def launch() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A new fork server, and the socket that leads to it.

    Raises:
        ShimError: `shim.unavailable`: not on this platform; `shim.start`: it can't be started.
    """
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        raise ShimError("confined processes need Linux", code="shim.unavailable")
    if not sys.executable:
        raise ShimError("no Python is known to start it with", code="shim.unavailable")
    directories = _directories()
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                return _execute(theirs.fileno(), directories), ours
            except BaseException:
                ours.close()
                raise
    except OSError as exc:
        raise ShimError(f"the fork server can't be started: {exc.strerror}") from exc


def _execute(fd: int, directories: list[str]) -> subprocess.Popen[bytes]:
    import subprocess  # who has no plugin in another process never needs it

    # -I, -S: no PYTHON* variables, no site-packages and their .pth files, no sitecustomize, no
    # current directory on the path; -B: it never writes there either.
    argv = [sys.executable, "-I", "-S", "-B", "-c", _BOOTSTRAP]
    argv += [str(fd), str(os.getpid()), *directories]
    return subprocess.Popen(  # noqa: S603 - fixed argv, no shell
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=True,
        pass_fds=(fd,),
        cwd="/",
        env={},
        start_new_session=True,  # Ctrl-C in the terminal is not for it
        umask=0o077,
    )


def _directories() -> list[str]:
    """Where the packages are, without those that Python itself knows."""
    found: dict[str, None] = {}
    for name in (*_PACKAGES, *_OPTIONAL):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None:
            if name in _OPTIONAL:
                continue
            raise ShimError(f"the package {name} is not installed", code="shim.unavailable")
        place = Path(spec.origin).resolve()
        found[str(place.parents[1] if spec.submodule_search_locations else place.parent)] = None
    return list(found)
