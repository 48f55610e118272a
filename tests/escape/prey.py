"""What a hostile plugin is let loose at: files, listeners and a process of the host, all watched."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.escape.kernelcalls import number
from tests.isolation.ways import library

LIBC = ctypes.CDLL(None, use_errno=True)

# It has no privilege that would keep an equal user away; a signal stays where the kernel shows it.
_VICTIM = """
import ctypes, os, signal, sys
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)())
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
memory = ctypes.create_string_buffer(bytes.fromhex(os.environ["TOKEN"]))
file = os.open(sys.argv[1], os.O_RDONLY)
print(ctypes.addressof(memory), file, flush=True)
while os.read(0, 1):
    while signal.sigtimedwait({signal.SIGUSR1}, 0):
        pass
    os.write(1, b"!")
"""


def _program(code: bytes) -> bytes:
    """The smallest ELF with that code."""
    head = b"\x7fELF\2\1\1" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = 120 + len(code)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 4096) + code


# mov edi, 42; mov eax, 60 (exit); syscall
ENDS_WITH_42 = _program(bytes.fromhex("bf2a000000 b83c000000 0f05"))
# mov eax, 107 (geteuid); syscall; xor edi, edi; test eax, eax; setne dil; mov eax, 60; syscall
_ENDS_WITH_0_FOR_ROOT = _program(
    bytes.fromhex("b86b000000 0f05 31ff 85c0 400f95c7 b83c000000 0f05")
)


class Prey:
    """One of each kind of thing that must not be touched.

    Attributes:
        token: 16 random bytes that nobody can guess: whoever has them, has read what holds them.
        directory: anybody may read it.   secret: a file there with the token, anybody may read.
        dropbox: a directory where anybody may write.   ours: an empty file there, of anybody.
        victim: pid of a process of this user; `address` is where the token is in its memory,
            `victim_fd` a descriptor of it that reads the token.
    """

    def __init__(self) -> None:
        self.token = secrets.token_bytes(16)
        self.directory = Path(tempfile.mkdtemp(prefix="capwasm-prey-"))
        self.directory.chmod(0o755)
        self.secret = self.directory / "secret"
        self.secret.write_bytes(self.token)
        self.secret.chmod(0o644)
        self.setuid = self.directory / "setuid"
        self.setuid.write_bytes(_ENDS_WITH_0_FOR_ROOT)
        self.setuid.chmod(0o4755)
        self.library = self.directory / "library.so"
        self.library.write_bytes(library("misfit"))
        self.library.chmod(0o755)
        self.dropbox = self.directory / "dropbox"
        self.dropbox.mkdir()
        self.dropbox.chmod(0o777)
        self._listeners: dict[str, socket.socket] = {}
        self._listen()
        self._start()
        self.hostname = socket.gethostname()
        self.processors = sum(1 << n for n in os.sched_getaffinity(0) if n < 64)
        self.core_limit = resource.prlimit(self.victim, resource.RLIMIT_CORE)
        self.nice = os.getpriority(os.PRIO_PROCESS, self.victim)
        self._share()
        self.reset()

    # -- files --------------------------------------------------------------------------------------

    @property
    def ours(self) -> Path:
        return self.dropbox / "ours"

    def reset(self) -> None:
        """Everything as at first."""
        for path in self.dropbox.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.ours.write_bytes(b"as it was")
        self.ours.chmod(0o666)
        os.utime(self.ours, (1, 1))
        self.at_first = self.state()
        for name in self._listeners:
            self.heard(name)
        self.hits()

    def state(self) -> dict[str, tuple[int, int, int, int, bytes]]:
        """All files below the dropbox, with what can be changed of them."""
        found = {}
        for path in sorted(self.dropbox.rglob("*")):
            info = path.lstat()
            data = path.read_bytes() if path.is_file() and info.st_size < 4096 else b""
            name = str(path.relative_to(self.dropbox))
            found[name] = info.st_mode, info.st_uid, info.st_size, info.st_mtime_ns, data
        return found

    def handle(self) -> bytes:
        """The secret's handle, as `open_by_handle_at` takes it."""
        handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
        mount = ctypes.c_int()
        failed = LIBC.name_to_handle_at(-100, bytes(self.secret), handle, ctypes.byref(mount), 0)
        if failed:
            return struct.pack("Ii", 8, 1) + bytes(8)
        size = struct.unpack_from("I", handle.raw)[0]
        return handle.raw[: 8 + size]

    # -- listeners ------------------------------------------------------------------------------------

    def _listen(self) -> None:
        tcp = socket.create_server(("127.0.0.1", 0))
        self.port: int = tcp.getsockname()[1]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", self.port))
        self._listeners = {"tcp": tcp, "udp": udp}
        with contextlib.suppress(OSError):
            self._listeners["tcp6"] = socket.create_server(
                ("::1", self.port), family=socket.AF_INET6
            )
        self.abstract = f"capwasm-{secrets.token_hex(8)}"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.free_port: int = free.getsockname()[1]
        self.path = self.directory / "socket"
        for name, address in (("abstract", "\0" + self.abstract), ("path", str(self.path))):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(address)
            listener.listen()
            self._listeners[name] = listener
        self.path.chmod(0o777)
        for listener in self._listeners.values():
            listener.setblocking(False)

    def heard(self, name: str) -> bool:
        """Whether somebody came to that listener since it was asked last."""
        listener = self._listeners.get(name)
        came = False
        with contextlib.suppress(BlockingIOError):
            while listener is not None:
                if name == "udp":
                    listener.recv(100)
                else:
                    listener.accept()[0].close()
                came = True
        return came

    @property
    def has_inet6(self) -> bool:
        return "tcp6" in self._listeners

    # -- shared memory and queues ----------------------------------------------------------------------

    def _share(self) -> None:
        self.shared_key = secrets.randbelow(2**30) + 1
        self.queue = f"capwasm-{self.shared_key}"
        made = 0o1000 | 0o666  # IPC_CREAT
        memory = kernel("shmget", self.shared_key, 4096, made)
        LIBC.shmat.restype = ctypes.c_void_p
        at = LIBC.shmat(memory, None, 0)
        ctypes.memmove(at, self.token, 16)
        LIBC.shmdt(ctypes.c_void_p(at))
        messages = kernel("msgget", self.shared_key, made)
        text = struct.pack("<q", 1) + self.token
        kernel("msgsnd", messages, text, 16, 0)
        semaphores = kernel("semget", self.shared_key, 1, made)
        os.close(kernel("mq_open", self.queue.encode(), os.O_CREAT | os.O_RDWR, 0o666, None))
        self._shared = memory, messages, semaphores

    def _unshare(self) -> None:
        memory, messages, semaphores = self._shared
        kernel("shmctl", memory, 0, None)
        kernel("msgctl", messages, 0, None)
        kernel("semctl", semaphores, 0, 0)
        kernel("mq_unlink", self.queue.encode())

    # -- the process ------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._victim = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _VICTIM, str(self.secret)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"TOKEN": self.token.hex()},
            cwd="/",
        )
        self.victim = self._victim.pid
        assert self._victim.stdout is not None
        self.address, self.victim_fd = map(int, self._victim.stdout.readline().split())

    def revive(self) -> None:
        """A new victim, if something was done to this one."""
        limit = resource.prlimit(self.victim, resource.RLIMIT_CORE)
        nice = os.getpriority(os.PRIO_PROCESS, self.victim)
        if not self.unharmed() or (limit, nice) != (self.core_limit, self.nice):
            self._end()
            self._start()

    def _end(self) -> None:
        self._victim.kill()
        self._victim.wait()
        for end in (self._victim.stdin, self._victim.stdout):
            assert end is not None
            end.close()

    def hits(self) -> bool:
        """Whether the victim got a signal since this was asked last."""
        status = Path(f"/proc/{self.victim}/status").read_text()
        pending = re.findall(r"^(?:SigPnd|ShdPnd):\s*(\w+)$", status, re.MULTILINE)
        if not any(int(mask, 16) & 1 << signal.SIGUSR1 - 1 for mask in pending):
            return False
        assert self._victim.stdin is not None
        assert self._victim.stdout is not None
        self._victim.stdin.write(b"?")
        self._victim.stdin.flush()
        return self._victim.stdout.read(1) == b"!"

    def unharmed(self) -> bool:
        """The victim runs, nobody traces it, and its memory is as it was."""
        if self._victim.poll() is not None:
            return False
        status = Path(f"/proc/{self.victim}/status").read_text()
        with Path(f"/proc/{self.victim}/mem").open("rb", buffering=0) as memory:
            memory.seek(self.address)
            return memory.read(16) == self.token and "TracerPid:\t0\n" in status

    def close(self) -> None:
        self._end()
        for listener in self._listeners.values():
            listener.close()
        self._unshare()
        shutil.rmtree(self.directory)


def kernel(name: str, *arguments: object) -> int:
    """A kernel call of the test itself."""
    done: int = LIBC.syscall(number(name), *arguments)
    if done < 0:
        raise OSError(ctypes.get_errno(), f"{name} failed")
    return done
