# ruff: noqa: PTH101, PTH115, PTH123, PTH208, SIM115, T201
# It lives in sandboxes, and talks by lines.
"""What runs in sandboxes under test: a server that prepares, and the attacks that its children try.

Run as a program: `boxed.py MODE`; jobs come as lines of JSON, answers go the same way.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import pty
import resource
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyseccomp  # noqa: F401  an ordinary user can't read where it is installed

from capwasm_shim import sandbox
from capwasm_shim.layers import LayerError, Spec

USER = 1000
libc = ctypes.CDLL(None, use_errno=True)
# Left open, exported and mapped on purpose: what a child must not find.
LEFT: dict[str, Any] = {}


def sys_call(name: str, *args: Any) -> str:
    """`ok`, or the name of the error that libc's function ended with."""
    result = getattr(libc, name)(*args)
    return "ok" if result != -1 else errno.errorcode[ctypes.get_errno()]


def number(nr: int, *args: int) -> str:
    return sys_call("syscall", *(ctypes.c_long(a) for a in (nr, *args)))


def use_left_descriptor() -> str:
    return os.pread(LEFT["fd"], 6, 0).decode()


def read_environment() -> str:
    libc.getenv.restype = ctypes.c_char_p
    return (libc.getenv(b"TOKEN") or b"").decode()


def open_terminal() -> str:
    os.close(os.open("/dev/tty", os.O_RDWR))
    return "ok"


def signals_left() -> str:
    return f"{signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL} {len(signal.pthread_sigmask(signal.SIG_BLOCK, ()))}"


def run_setuid(path: str) -> str:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.dup2(writer, 1)
        os.execv(path, [path, "-u"])
    os.wait()
    return "root" if os.read(reader, 99) == b"0\n" else "another"


def sleep_on() -> str:
    time.sleep(60)
    return "woke"


def parent_memory() -> str:
    """A process beside it, of the same user, opens its memory."""
    me, (reader, writer) = os.getpid(), os.pipe()
    if os.fork() == 0:
        os.write(writer, attempt(lambda: open_file(f"/proc/{me}/mem")).encode())
        os._exit(0)
    os.wait()
    return os.read(reader, 99).decode()


def server_memory() -> str:
    return open_file(f"/proc/{LEFT['server']}/mem")


def open_file(path: str) -> str:
    os.close(os.open(path, os.O_RDONLY))
    return "ok"


def write_file(path: str, size: int = 1) -> str:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.pwrite(fd, b"x", size - 1)
    return "ok"


def map_memory(size: int) -> str:
    mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    return "ok"


def touch_memory(size: int) -> str:
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        for offset in range(0, size, 4096):
            area[offset] = 1
    return "ok"


def fork_often(times: int) -> str:
    children = []
    try:
        for _ in range(times):
            pid = os.fork()
            if pid == 0:
                time.sleep(10)
                os._exit(0)
            children.append(pid)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return "ok"


def open_often(times: int) -> str:
    for _ in range(times):
        os.dup(2)
    return "ok"


def core_limit() -> str:
    return str(resource.getrlimit(resource.RLIMIT_CORE))


def burn(seconds: float) -> str:
    """How much of the time it got: `much`, or `little`."""
    end, before = time.monotonic() + seconds, time.process_time()
    while time.monotonic() < end:
        pass
    return "much" if time.process_time() - before > seconds * 0.3 else "little"


def who() -> str:
    return f"{os.getuid()} {os.getgid()} {sorted(os.getgroups())}"


def signal_server() -> str:
    os.kill(LEFT["server"], 0)
    return "ok"


def own_pid() -> str:
    return str(os.getpid() == 1)


def list_root() -> str:
    return " ".join(os.listdir("/"))


def read_own(name: str) -> str:
    with open(sandbox.path_of(name)) as file:
        return file.read()


def change_own(name: str) -> str:
    os.chmod(sandbox.path_of(name), 0o777)
    return "ok"


def remount() -> str:
    return sys_call("mount", None, b"/", None, 0x20, None)


def abstract_socket(name: str) -> str:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\0" + name)
    return "ok"


def tcp(port: int) -> str:
    with socket.socket() as s:
        s.settimeout(5)
        s.connect(("127.0.0.1", port))
    return "ok"


def shared_memory() -> str:
    return sys_call("shmat", LEFT["shm"], None, 0)


def host_name() -> str:
    return os.uname().nodename


def set_host_name() -> str:
    name = os.uname().nodename.encode()  # if it works, nothing has changed
    return sys_call("sethostname", name, len(name))


def cgroup_paths() -> str:
    return " ".join(
        sorted({line.split(":")[2] for line in open("/proc/self/cgroup").read().split()})
    )


def capability_sets() -> str:
    lines = open("/proc/self/status").read().splitlines()
    return " ".join(sorted({line.split()[1] for line in lines if line.startswith("Cap")}))


def compat_entry() -> str:
    """getpid by `int 0x80`, the 32-bit way in."""
    code = b"\x53\xb8\x14\x00\x00\x00\xcd\x80\x5b\xc3"
    area = mmap.mmap(-1, 4096, prot=7)
    area.write(code)
    call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(area)))
    return "ok" if call() > 0 else "refused"


def start_program() -> str:
    os.execv("/bin/true", ["/bin/true"])
    return "ok"


def clone_flags(flags: int) -> str:
    pid = libc.syscall(*(ctypes.c_long(a) for a in (56, flags, 0, 0, 0, 0)))
    if pid == 0:
        os._exit(0)
    return "ok" if pid > 0 else errno.errorcode[ctypes.get_errno()]


def fcntl_call(command: int, argument: int) -> str:
    fcntl.fcntl(2, command, argument)
    return "ok"


def ioctl_high(request: int) -> str:
    return number(16, 2, request, 0)


def many_threads(count: int) -> str:
    """Threads as the interpreter makes them."""
    seen: list[int] = []
    threads = [threading.Thread(target=seen.append, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return str(len(seen))


def keep_threads(count: int) -> str:
    """Threads that all live at the same time."""
    stop = threading.Event()
    started = 0
    try:
        for _ in range(count):
            threading.Thread(target=stop.wait).start()
            started += 1
    finally:
        stop.set()
    return str(started)


def stop_itself() -> str:
    for number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL) if number != signal.SIGSTOP else None
        os.kill(os.getpid(), number)
    return "goes on"


def open_descriptors() -> str:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{name}").partition(":")[0])
    return " ".join(sorted(found))


def attempt(attack: Any) -> str:
    try:
        return str(attack())
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))
    except MemoryError:
        return "ENOMEM"
    except RuntimeError as exc:
        return str(exc)


def say(writer: int, what: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody is there to hear
        os.write(writer, json.dumps(what).encode() + b"\n")


def child(spec: Spec, job: dict[str, Any], files: list[int], writer: int) -> None:
    """The child's whole life."""
    try:
        if job.get("threads"):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        if job.get("orphan"):
            select.select([sandbox._server.itself], [], [], 10)
        keep = [writer, *([LEFT["fd"]] if job.get("keep") else [])]
        files, keep = job.get("raw", (files, keep))
        report = sandbox.enter(spec, files, keep)
        say(writer, {"report": report.to_map()})
        made = attempt(lambda: globals()[job["attack"]](*job["args"]))
        say(writer, {"result": made})
    except LayerError as exc:
        failed = [str(exc.layer), errno.errorcode.get(exc.errno, ""), exc.text]
        say(writer, {"failed": failed})
    except BaseException as exc:
        say(writer, {"result": repr(exc)})
    finally:
        os._exit(0)


def serve(job: dict[str, Any]) -> dict[str, Any]:
    spec = Spec.from_map(job["spec"])
    files = []
    for text in job.get("files", ()):
        files.append(os.memfd_create("file"))
        os.write(files[-1], text.encode())
    reader, writer = os.pipe()
    pid = sandbox.spawn(spec)
    if pid == 0:
        child(spec, job, files, writer)
    for fd in (*files, writer):
        os.close(fd)
    if job.get("tell"):
        print(json.dumps({"pid": pid}), flush=True)
    answer: dict[str, Any] = {}
    with os.fdopen(reader) as pipe:
        for line in pipe:
            answer |= json.loads(line)
    _, status = os.waitpid(pid, 0)
    answer["starved"] = sandbox.forget(pid)
    if os.WIFSIGNALED(status):
        answer["result"] = f"killed:{signal.Signals(os.WTERMSIG(status)).name}"
    return answer


def confine(mode: str) -> None:
    """Become the kind of machine and user that is under test."""
    if mode in {"bare", "container"}:
        ready, go = os.pipe(), os.pipe()
        outer = os.getpid()
        if os.fork() == 0:  # maps of several users are written from outside
            os.read(ready[0], 1)
            size = 2**16 if mode == "container" else USER + 1
            for kind in ("uid", "gid"):
                Path(f"/proc/{outer}/{kind}_map").write_text(f"0 {2**30} {size}")
            os.write(go[1], b".")
            os._exit(0)
        libc.unshare(0x10000000)
        os.write(ready[1], b".")
        os.read(go[0], 1)
        os.wait()
        for fd in (*ready, *go):
            os.close(fd)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    if mode == "bare":
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    if mode in {"bare", "user"}:
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    libc.prctl(4, 1, 0, 0, 0)  # as after an exec


def main(mode: str) -> None:
    confine(mode)
    os.setsid()
    _, slave = pty.openpty()
    with contextlib.suppress(OSError):
        fcntl.ioctl(slave, 0x540E, 0)  # TIOCSCTTY
    LEFT["fd"] = os.memfd_create("left")
    os.write(LEFT["fd"], b"secret")
    LEFT["server"] = os.getpid()
    LEFT["shm"] = libc.shmget(0, 4096, 0o600)
    # Held by its use alone from here on, so that it ends with this process.
    libc.shmat(LEFT["shm"], None, 0)
    libc.shmctl(LEFT["shm"], 0, None)  # IPC_RMID
    os.environ["TOKEN"] = "hunter2"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    sandbox.prepare()
    print(json.dumps({"pid": os.getpid()}), flush=True)
    try:
        for line in sys.stdin:
            print(json.dumps(serve(json.loads(line))), flush=True)
    finally:
        if os.getpid() == LEFT["server"]:
            libc.shmctl(LEFT["shm"], 0, None)
            sandbox.finish()


if __name__ == "__main__":
    main(sys.argv[1])
