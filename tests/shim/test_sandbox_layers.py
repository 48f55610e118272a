"""Each layer of the sandbox alone: with it an attack is stopped, without it the attack works."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm_shim.layers import Layer, Spec

from .boxes import Box, small

L = Layer
ROOT = os.geteuid() == 0
pytestmark = pytest.mark.skipif(not ROOT, reason="the servers under test start as root")


@pytest.fixture(scope="module")
def root() -> Iterator[Box]:
    box = Box("root")
    yield box
    box.close()


@pytest.fixture(scope="module")
def user() -> Iterator[Box]:
    box = Box("user")
    yield box
    box.close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def name() -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0capwasm-test-{os.getpid()}")
        server.listen(16)
        yield server.getsockname()[1:].decode()


def differs(
    box: Box, layer: Layer, attack: str, *args: object, base: set[Layer], spec: Spec | None = None
) -> tuple[str | None, str | None]:
    """What comes of the attack without the layer, and with it; all else is the same."""
    without = box.try_(attack, *args, layers=base, spec=spec)
    with_ = box.try_(attack, *args, layers=[*base, layer], spec=spec)
    assert with_.report is not None
    assert layer in with_.report.applied, with_.report.missing
    return without.result, with_.result


ALONE = [
    pytest.param(L.CLEAN_START, "use_left_descriptor", (), "secret", "EBADF", marks=pytest.mark.case("NAT-01", "NAT-14")),
    pytest.param(L.CLEAN_START, "read_environment", (), "hunter2", "", marks=pytest.mark.case("NAT-03")),
    pytest.param(L.CLEAN_START, "signals_left", (), "True 1", "False 0"),
    pytest.param(L.SESSION, "open_terminal", (), "ok", "ENXIO", marks=pytest.mark.case("NAT-06")),
    pytest.param(L.RLIMITS, "map_memory", (2**30,), "ok", "ENOMEM", marks=pytest.mark.case("NAT-16")),
    pytest.param(L.RLIMITS, "open_often", (64,), "ok", "EMFILE", marks=pytest.mark.case("NAT-16")),
    pytest.param(L.RLIMITS, "write_file", ("/tmp/capwasm-never", 2**20), "ok", "EFBIG", marks=pytest.mark.case("NAT-16")),
    pytest.param(L.RLIMITS, "core_limit", (), None, "(1, 1)", marks=pytest.mark.case("NAT-19")),
    pytest.param(L.OWN_USER, "open_file", ("/etc/shadow",), "ok", "EACCES", marks=pytest.mark.case("NAT-02")),
    pytest.param(L.OWN_USER, "server_memory", (), "ok", "EACCES", marks=pytest.mark.case("NAT-02")),
    pytest.param(L.PID_NAMESPACE, "signal_server", (), "ok", "ESRCH", marks=pytest.mark.case("NAT-17")),
    pytest.param(L.PID_NAMESPACE, "own_pid", (), "False", "True"),
    pytest.param(L.MOUNT_NAMESPACE, "open_file", ("/etc/passwd",), "ok", "ENOENT", marks=pytest.mark.case("NAT-02")),
    pytest.param(L.MOUNT_NAMESPACE, "open_file", ("/proc/self/mem",), "ok", "ENOENT", marks=pytest.mark.case("NAT-24")),
    pytest.param(L.MOUNT_NAMESPACE, "write_file", ("/tmp/capwasm-never",), "ok", "ENOENT", marks=pytest.mark.case("NAT-16")),
    pytest.param(L.NET_NAMESPACE, "tcp", ("PORT",), "ok", "ENETUNREACH", marks=pytest.mark.case("NAT-12")),
    pytest.param(L.NET_NAMESPACE, "abstract_socket", ("NAME",), "ok", "ECONNREFUSED", marks=pytest.mark.case("NAT-04")),
    pytest.param(L.IPC_NAMESPACE, "shared_memory", (), "ok", "EINVAL"),
    pytest.param(L.UTS_NAMESPACE, "host_name", (), platform.node(), "plugin"),
    pytest.param(L.NO_CAPABILITIES, "set_host_name", (), "ok", "EPERM", marks=pytest.mark.case("NAT-09")),
    pytest.param(L.NO_CAPABILITIES, "capability_sets", (), None, "0" * 16, marks=pytest.mark.case("NAT-24")),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "attack", "args", "without", "with_"), ALONE)
def test_refuses_what_its_layer_stops(
    root: Box,
    port: int,
    name: str,
    layer: Layer,
    attack: str,
    args: tuple[object, ...],
    without: str | None,
    with_: str,
) -> None:
    given = [{"PORT": port, "NAME": name}.get(str(a), a) for a in args]
    found = differs(root, layer, attack, *given, base=set(), spec=small(memory=2**26, files=32))
    Path("/tmp/capwasm-never").unlink(missing_ok=True)

    assert found[1] == with_
    assert found[0] != with_ if without is None else found[0] == without


NNP = {L.NO_NEW_PRIVS}
FILTERED = [
    pytest.param(L.LANDLOCK_FILES, "open_file", ("/etc/passwd",), "ok", "EACCES", marks=pytest.mark.case("NAT-13", "NAT-14")),
    pytest.param(L.LANDLOCK_FILES, "write_file", ("/tmp/capwasm-never",), "ok", "EACCES", marks=pytest.mark.case("NAT-13")),
    pytest.param(L.LANDLOCK_NET, "tcp", ("PORT",), "ok", "EACCES", marks=pytest.mark.case("NAT-12")),
    pytest.param(L.LANDLOCK_SCOPE, "abstract_socket", ("NAME",), "ok", "EPERM", marks=pytest.mark.case("NAT-04")),
    pytest.param(L.LANDLOCK_SCOPE, "signal_server", (), "ok", "EPERM", marks=pytest.mark.case("NAT-17")),
    pytest.param(L.SECCOMP, "tcp", ("PORT",), "ok", "EPERM", marks=pytest.mark.case("NAT-12")),
    pytest.param(L.SECCOMP, "write_file", ("/tmp/capwasm-never",), "ok", "EPERM"),
    pytest.param(L.SECCOMP, "start_program", (), None, "EPERM", marks=pytest.mark.case("NAT-10")),
    pytest.param(L.SECCOMP, "fork_often", (1,), "ok", "EPERM", marks=pytest.mark.case("NAT-15")),
    pytest.param(L.SECCOMP, "sys_call", ("ptrace", 0, 0, 0, 0), "ok", "killed:SIGSYS", marks=pytest.mark.case("NAT-08")),
    pytest.param(L.SECCOMP, "sys_call", ("unshare", 0x10000000), "ok", "killed:SIGSYS", marks=pytest.mark.case("NAT-09")),
    pytest.param(L.SECCOMP, "sys_call", ("memfd_create", None, 0), "EFAULT", "EPERM", marks=pytest.mark.case("NAT-10")),
    pytest.param(L.SECCOMP, "sys_call", ("prctl", 4, 1, 0, 0, 0), "ok", "EPERM", marks=pytest.mark.case("NAT-11")),
    pytest.param(L.SECCOMP, "fcntl_call", (8, 1), "ok", "EPERM"),  # F_SETOWN
]  # fmt: skip
X86 = [
    pytest.param("number", (425, 0, 0), "EFAULT", "ENOSYS", marks=pytest.mark.case("NAT-07")),  # io_uring_setup
    pytest.param("number", (435, 0, 0), "EINVAL", "ENOSYS", marks=pytest.mark.case("NAT-09")),  # clone3
    pytest.param("number", (250, 0, 0), None, "killed:SIGSYS", marks=pytest.mark.case("NAT-08")),  # keyctl
    pytest.param("number", (323, 1), None, "killed:SIGSYS", marks=pytest.mark.case("NAT-08")),  # userfaultfd
    pytest.param("number", (321, 0, 0, 0), None, "killed:SIGSYS", marks=pytest.mark.case("NAT-08")),  # bpf
    pytest.param("number", (317, 1, 0, 0), "EFAULT", "EPERM", marks=pytest.mark.case("NAT-11")),  # seccomp
    pytest.param("number", (0x40000000 + 39,), None, "killed:SIGSYS", marks=pytest.mark.case("NAT-05")),
    pytest.param("compat_entry", (), None, "killed:SIGSYS", marks=pytest.mark.case("NAT-05")),
    pytest.param("ioctl_high", (0x5412,), None, "EPERM", marks=pytest.mark.case("NAT-06")),  # TIOCSTI
    pytest.param("ioctl_high", (0x5412 | 0x123 << 32,), None, "EPERM", marks=pytest.mark.case("NAT-06")),
    pytest.param("ioctl_high", (0x5421 | 0x123 << 32,), "EFAULT", "EFAULT"),  # FIONBIO stays
    pytest.param("clone_flags", (0x20000011,), "ok", "EPERM", marks=pytest.mark.case("NAT-09")),
    pytest.param("clone_flags", (0x3D0F00 | 0x10000000,), None, "EPERM", marks=pytest.mark.case("NAT-09")),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "attack", "args", "without", "with_"), FILTERED)
def test_refuses_what_landlock_and_seccomp_stop(
    root: Box,
    port: int,
    name: str,
    layer: Layer,
    attack: str,
    args: tuple[object, ...],
    without: str | None,
    with_: str,
) -> None:
    given = [{"PORT": port, "NAME": name}.get(str(a), a) for a in args]
    found = differs(root, layer, attack, *given, base=NNP)
    Path("/tmp/capwasm-never").unlink(missing_ok=True)

    assert found[1] == with_
    assert found[0] != with_ if without is None else found[0] == without


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")
@pytest.mark.parametrize(("attack", "args", "without", "with_"), X86)
def test_refuses_system_calls_by_number(
    root: Box, attack: str, args: tuple[int, ...], without: str | None, with_: str
) -> None:
    found = differs(root, L.SECCOMP, attack, *args, base=NNP)

    assert found[1] == with_
    assert without is None or found[0] == without


@pytest.mark.case("NAT-11", "NAT-24")
def test_refuses_power_from_a_setuid_program(root: Box) -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to others
        Path(directory).chmod(0o755)
        program = Path(directory, "id")
        shutil.copy("/usr/bin/id", program)
        program.chmod(0o4755)
        found = differs(root, L.NO_NEW_PRIVS, "run_setuid", str(program), base={L.OWN_USER})

    assert found == ("root", "another")


@pytest.mark.case("NAT-02", "NAT-19")
def test_refuses_the_memory_of_a_process_to_others_of_its_user(user: Box) -> None:
    assert differs(user, L.NON_DUMPABLE, "parent_memory", base=set()) == ("ok", "EACCES")


@pytest.mark.case("NAT-02")
def test_refuses_the_servers_memory_where_both_have_one_user(user: Box) -> None:
    assert differs(user, L.USER_NAMESPACE, "server_memory", base=set()) == ("ok", "EACCES")


@pytest.mark.case("NAT-15")
def test_refuses_a_fork_bomb_by_rlimit_and_counts_each_process_apart(root: Box, user: Box) -> None:
    for box, base in (
        (root, {L.OWN_USER, L.NO_CAPABILITIES}),
        (user, {L.USER_NAMESPACE, L.NO_CAPABILITIES}),
    ):
        spec = small(threads=4)
        assert differs(box, L.RLIMITS, "fork_often", 8, base=base, spec=spec) == ("ok", "EAGAIN")
        assert box.try_("fork_often", 3, layers=[*base, L.RLIMITS], spec=spec).result == "ok"


@pytest.mark.case("NAT-15", "NAT-16")
def test_refuses_bombs_by_cgroup(root: Box) -> None:
    spec = small(memory=2**25, threads=4)

    assert differs(root, L.CGROUP_PIDS, "fork_often", 8, base=set(), spec=spec) == ("ok", "EAGAIN")
    found = differs(root, L.CGROUP_MEMORY, "touch_memory", 2**27, base=set(), spec=spec)
    assert found == ("ok", "killed:SIGKILL")
    assert root.try_("touch_memory", 2**27, layers=[L.CGROUP_MEMORY], spec=spec).starved
    assert root.try_("touch_memory", 2**24, layers=[L.CGROUP_MEMORY], spec=spec).result == "ok"


@pytest.mark.case("NAT-17")
def test_refuses_more_of_a_processor_than_its_cgroup_has(root: Box) -> None:
    spec = small(cpu_percent=10)

    assert differs(root, L.CGROUP_CPU, "burn", 0.5, base=set(), spec=spec) == ("much", "little")


def test_refuses_to_tell_the_cgroup(root: Box) -> None:
    without, with_ = differs(root, L.CGROUP_NAMESPACE, "cgroup_paths", base={L.CGROUP_PIDS})

    assert "capwasm-" in (without or "")
    assert "capwasm-" not in (with_ or "")
