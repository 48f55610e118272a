"""A program that was taken over, by its input or from the start: what it can't do from where it is.

The same interpreter does outside of the sandbox, or within it where it may, what it is refused here.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from capwasm.caps.exec import ExecClause
from capwasm.isolation.commands import Commands

from .desk import ATTACKER, CAT, Desk, descendants, gone, python

REACHES = """
import os, sys
for path in {paths!r}:
    for flags in (os.O_RDONLY, os.O_PATH, os.O_RDONLY | os.O_DIRECTORY):
        try: os.open(path, flags)
        except OSError: continue
        print(path, flags)
"""


@pytest.mark.case("NAT-02", "NAT-14")
def test_refuses_every_file_that_is_not_named(attacker: Desk, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    paths = [
        *("/etc/passwd", "/etc/shadow", "/home", "/var", "/tmp", "/run", "/boot"),
        *(
            "/proc",
            "/proc/self/environ",
            "/proc/1/root",
            "/sys",
            "/dev/zero",
            "/dev/tty",
            "/bin/sh",
        ),
        *("/usr/bin/env", "/../etc/passwd", "/usr/lib/../../etc/passwd", "/etc/hosts"),
        *("/proc/self/fd/0", "/dev/stdin", str(tmp_path / "secret"), str(Path.cwd())),
    ]

    assert attacker.attack(REACHES.format(paths=paths)) == ""
    assert attacker.attack(REACHES.format(paths=["/"])) != ""
    assert "secret" not in attacker.attack("import os; print(list(os.walk('/tmp')))")


def test_allows_a_file_that_policy_names_and_refuses_its_neighbour(
    spawner: Commands, tmp_path: Path
) -> None:
    for name in ("fonts", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    named = ATTACKER.reads or frozenset()
    desk = Desk(spawner, tmp_path, python(reads=named | {str(tmp_path / "fonts")}))
    read = "try: print(open({!r}).read())\nexcept OSError as e: print(e.strerror)"

    assert desk.attack(read.format(str(tmp_path / "fonts/a"))) == "fonts\n"
    assert "No such file" in desk.attack(read.format(str(tmp_path / "other/a")))
    assert "No such file" in desk.attack(read.format(str(tmp_path / "fonts/../other/a")))
    write = "try: open({!r}, 'a')\nexcept OSError as e: print('no')"
    assert desk.attack(write.format(str(tmp_path / "fonts/a"))) == "no\n"


@pytest.mark.case("NAT-16")
def test_refuses_to_write_anywhere(attacker: Desk) -> None:
    code = """
import os, sys
places = ["/", "/tmp", "/usr/lib", "/lib", "/etc", os.path.dirname(os.__file__), "/dev/shm"]
for place in places:
    for act in (lambda: open(place + "/x", "w"), lambda: os.mkdir(place + "/d"),
                lambda: os.symlink("/etc/passwd", place + "/l"), lambda: os.mkfifo(place + "/f"),
                lambda: os.link(sys.executable, place + "/h"), lambda: os.chmod(place, 0o777)):
        try: act()
        except OSError: continue
        print(place)
"""
    assert attacker.attack(code) == ""


def test_allows_one_device_that_keeps_nothing(attacker: Desk) -> None:
    code = """
import os
fd = os.open("/dev/null", os.O_RDWR)
print(os.write(fd, b"x"), os.read(fd, 1))
try: os.mknod("/dev/x", 0o20666, os.makedev(1, 5)); print("made")
except OSError: pass
"""
    assert attacker.attack(code) == "1 b''\n"


@pytest.mark.case("NAT-01", "NAT-03", "SEC-01")
def test_finds_no_environment_and_no_descriptor(
    attacker: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPWASM_TEST_TOKEN", "t0k3n")
    code = """
import os
print(dict(os.environ), os.getcwd(), os.umask(0o22) != 0)
for fd in range(1024):
    try: os.fstat(fd)
    except OSError: continue
    print(fd, end=" ")
"""
    assert attacker.attack(code) == "{'LANG': 'C.UTF-8'} / True\n0 1 2 "


@pytest.mark.case("NAT-12", "NAT-04")
def test_refuses_every_network(attacker: Desk) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        code = f"""
import socket
for family in range(0, 45):
    for kind in (1, 2, 3, 5):
        try: s = socket.socket(family, kind)
        except OSError: continue
        print(family, kind)
try: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 1); print("connected")
except OSError: pass
try: socket.getaddrinfo("localhost", 80); print("resolved")
except OSError: pass
"""
        # The same connection can be made from here.
        socket.create_connection(server.getsockname(), 5).close()
        assert attacker.attack(code).replace("resolved\n", "") == ""


@pytest.mark.case("NAT-10")
def test_refuses_to_execute_anything_else(spawner: Commands, tmp_path: Path) -> None:
    attacker = Desk(spawner, tmp_path, python(processes=4))
    code = """
import ctypes, os, sys
elf = open(sys.executable, "rb").read()
for path in ("/bin/sh", "/usr/bin/env", "/bin/cat", "/usr/lib/x"):
    for how in (os.execv, lambda p, a: os.posix_spawn(p, a, {})):
        try: how(path, [path])
        except OSError: continue
        print(path)
try:
    fd = os.memfd_create("x"); os.write(fd, elf); os.execve(fd, ["x"], {}); print("memfd")
except OSError: pass
seen = 0
for place, _, names in os.walk("/usr/lib"):
    for path in (os.path.join(place, n) for n in names):
        if seen == 30 or not os.access(path, os.X_OK): continue
        seen += 1
        pid = os.fork()
        if pid == 0:
            try: os.execv(path, [path])
            except OSError: os._exit(0)
        if os.waitpid(pid, 0)[1]: print(path)
print(seen)
"""
    assert int(attacker.attack(code)) > 5


@pytest.mark.case("NAT-15", "NAT-17")
def test_refuses_a_fork_bomb_more_than_its_processes(spawner: Commands, tmp_path: Path) -> None:
    desk = Desk(spawner, tmp_path, python(processes=5, threads=4))
    code = """
import os, time
made = 0
try:
    while made < 100:
        if os.fork() == 0:
            os.setsid() if made % 2 else None
            while True: time.sleep(60)
        made += 1
except OSError as e: print(made, e.strerror)
"""
    before = descendants()
    made, _, why = desk.attack(code).partition(" ")

    assert 1 <= int(made) <= 7  # eight tasks in all, and it is one
    assert "unavailable" in why
    assert gone(descendants() - before)


@pytest.mark.case("NAT-15")
def test_refuses_any_other_process_unless_it_is_granted(attacker: Desk) -> None:
    code = """
import os, subprocess, sys
for how in (os.fork, lambda: os.posix_spawn(sys.executable, ["x"], {}),
            lambda: subprocess.run([sys.executable])):
    try: how()
    except OSError as e: print(e.errno)
"""
    assert attacker.attack(code).split() == ["1"] * 3


@pytest.mark.case("NAT-15", "NAT-16")
def test_refuses_more_threads_and_memory_than_granted(spawner: Commands, tmp_path: Path) -> None:
    desk = Desk(spawner, tmp_path, python(threads=4, memory=384 * 2**20))
    code = """
import threading, time
n = 0
try:
    for n in range(100): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
except RuntimeError: print(n)
try: bytearray(400 << 20)
except MemoryError: print("no memory")
print(len(bytearray(20 << 20)))
import os, sys; sys.stdout.flush(); os._exit(0)  # without the threads
"""
    threads, *rest = desk.attack(code).split()

    assert int(threads) <= 4
    assert rest == ["no", "memory", str(20 << 20)]


@pytest.mark.case("NAT-17", "NAT-08")
def test_refuses_signals_to_and_looks_at_others(attacker: Desk) -> None:
    code = f"""
import ctypes, os
for pid in ({os.getpid()}, {os.getppid()}, -1, 2, 3):
    try: os.kill(pid, 0)
    except OSError: continue
    print("kill", pid)
print(os.getppid(), os.getpid())
try: os.setuid(0); print("root")
except OSError: pass
"""
    assert attacker.attack(code) == "0 1\n"
    out = attacker(
        "attacker", data=b"import ctypes; ctypes.CDLL(None).ptrace(0, 0, 0, 0); print(1)"
    )
    assert (out.code, out.stdout) == (None, b"")  # killed for asking


@pytest.mark.case("NAT-09")
@pytest.mark.parametrize("call", ["unshare(0x10000000)", "unshare(0x20000)", "chroot(b'/usr')"])
def test_refuses_other_namespaces_and_roots(attacker: Desk, call: str) -> None:
    out = attacker("attacker", data=f"import ctypes; ctypes.CDLL(None).{call}; print(1)".encode())

    assert (out.code, out.stdout) == (None, b"")


def test_refuses_options_and_files_through_an_argument(spawner: Commands, tmp_path: Path) -> None:
    place = tmp_path / "open"
    place.mkdir()
    (place / "a").write_text("a")
    open_ = ExecClause("cat", CAT.program, (("{name:.*}",),), frozenset({str(place)}))
    desk = Desk(spawner, tmp_path, open_)

    assert desk("cat", str(place / "a")).stdout == b"a"
    for option in ("-n", "--help", "--version", "-"):
        assert desk.word("cat", option) == "denied"
    for text in ("$(id)", "`id`", ";id", "|id", "&&id", "*", "~", "/etc/passwd", "/proc/self/maps"):
        out = desk("cat", text)
        assert (out.code, out.stdout) == (1, b"")
