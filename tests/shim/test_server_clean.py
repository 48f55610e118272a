"""The fork server starts clean: nothing of the host's is in it, or in what it forks."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from capwasm.errors import ShimError
from capwasm.isolation import launch
from capwasm.isolation.server import ShimServer
from capwasm_shim.layers import Layer
from tests.shim.servers import MISFIT, Plugin, bootstrapped, descriptors, holds, misfit, native

TRAP = """\
import os
with open({marker!r}, "a") as file:
    file.write(f"{{os.getpid()}} {{__name__}}\\n")
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture
def traps(tmp_path: Path, marker: Path) -> Path:
    """A directory of modules that leave a mark when somebody imports them."""
    place = tmp_path / "traps"
    place.mkdir()
    for name in ("sitecustomize", "usercustomize", "resource", "msgpack", "capwasm_shim", "select"):
        (place / f"{name}.py").write_text(TRAP.format(marker=str(marker)))
    (place / "trap.pth").write_text(f"import os; open({str(marker)!r}, 'a').write('pth')\n")
    return place


@pytest.mark.case("NAT-03")
def test_no_variable_of_python_reaches_the_server(
    traps: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(traps))
    monkeypatch.setenv("PYTHONSTARTUP", str(traps / "resource.py"))
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    with ShimServer() as server, Plugin(server) as plugin:
        plugin.hello()
        assert Path(f"/proc/{server.pid}/environ").read_bytes() == b""
        assert plugin.ask("environment") in {"ok:", "ok:0:"}
    assert not marker.exists()
    # The traps do snap: under an ordinary Python they are what is imported.
    subprocess.run([sys.executable, "-c", "import resource"], check=True)
    assert " resource\n" in marker.read_text()


@pytest.mark.case("NAT-03")
def test_no_other_home_of_python_reaches_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    with ShimServer() as server:
        Plugin(server).close()
    assert subprocess.run([sys.executable, "-c", ""], check=False, capture_output=True).returncode


@pytest.mark.case("NAT-03")
def test_no_module_of_the_current_directory_reaches_the_server(
    traps: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(traps)
    with ShimServer() as server:
        server.warm()
        Plugin(server).close()
        assert Path(f"/proc/{server.pid}/cwd").readlink() == Path("/")
    assert not marker.exists()
    subprocess.run([sys.executable, "-c", "import resource"], check=True, env={})
    assert " resource\n" in marker.read_text()


@pytest.mark.case("NAT-03")
def test_site_is_not_run_even_where_the_packages_are(
    traps: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("resource", "msgpack", "capwasm_shim", "select"):
        (traps / f"{name}.py").unlink()
    genuine = launch._directories()
    monkeypatch.setattr(launch, "_directories", lambda: [str(traps), *genuine])
    with ShimServer() as server:
        Plugin(server).close()
    assert not marker.exists()


@pytest.mark.case("NAT-03")
def test_nothing_is_preloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "preload.so"
    library.write_bytes(misfit("e"))  # its constructor ends the process
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with ShimServer() as server, Plugin(server) as plugin:
        plugin.hello()
        assert str(library) not in Path(f"/proc/{server.pid}/maps").read_text()
    assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 3
    assert MISFIT.exists()


@pytest.mark.case("NAT-01", "NAT-14")
def test_no_descriptor_of_the_host_reaches_the_server_or_a_plugin(tmp_path: Path) -> None:
    files = [os.open(tmp_path, os.O_RDONLY), os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY)]
    try:
        for fd in files:
            os.set_inheritable(fd, True)
        with ShimServer() as server, Plugin(server) as plugin:
            plugin.hello()
            ours = set(descriptors("self").values())
            theirs = descriptors(server.pid or 0)
            assert {theirs[n] for n in range(3)} == {"/dev/null"}
            assert not any(str(tmp_path) in name for name in theirs.values())
            assert not {n for n in theirs.values() if n.startswith(("socket:", "pipe:"))} & ours
            held = descriptors(plugin.pid)
            assert {held.pop(n) for n in range(3)} == {"/dev/null"}
            [lane] = held.values()  # and that is all
            assert lane.startswith("socket:")
    finally:
        for fd in files:
            os.close(fd)


@pytest.mark.case("NAT-06")
def test_the_server_has_a_session_of_its_own_without_a_terminal() -> None:
    with ShimServer() as server:
        server.warm()
        assert server.pid is not None
        assert os.getsid(server.pid) == server.pid
        assert os.getpgid(server.pid) == server.pid
        terminal = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[4]
        assert terminal == "0"


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> bytes:
    token = secrets.token_hex(24)
    monkeypatch.setenv("CAPWASM_TEST_SECRET", token)
    return token.encode()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads another process's memory")
@pytest.mark.case("NAT-02", "NAT-03")
def test_no_secret_of_the_host_is_in_the_memory_of_the_server(secret: bytes) -> None:
    with ShimServer() as server, Plugin(server) as plugin:
        plugin.hello()
        assert holds(os.getpid(), secret)
        assert not holds(server.pid or 0, secret)
        assert not holds(plugin.pid, secret)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads another process's memory")
@pytest.mark.case("NAT-02")
def test_what_one_process_was_given_is_not_in_the_memory_of_the_next() -> None:
    token = secrets.token_hex(24)
    with ShimServer() as server:
        spec = native()
        with Plugin(server) as other:
            fds: list[tuple[str, int]] = [("side", other.lane.sock.fileno())]
            # It never gets to its loader, for lack of files, but its sandbox does not know that.
            with pytest.raises(ShimError):
                server.start(spec, fds, {"limit": 1, "token": token})
            other.hello()
            assert holds(os.getpid(), token.encode())
            assert not holds(server.pid or 0, token.encode())
        with Plugin(server) as next_one:
            next_one.hello()
            assert not holds(next_one.pid, token.encode())


@pytest.mark.case("NAT-23")
def test_refuses_where_a_layer_that_is_required_can_not_be_had() -> None:
    # Nobody has both.
    both = frozenset({Layer.OWN_USER, Layer.USER_NAMESPACE})
    with ShimServer() as server:
        with pytest.raises(ShimError) as caught:
            Plugin(server, native(required=both | {Layer.SECCOMP}))
        assert caught.value.code == "shim.layer"
        [fault] = caught.value.faults
        assert fault.path in both
        assert fault.fix is not None
        [left] = both - {fault.path}
        assert fault.fix == f'[isolation]\nrequire = ["{left}", "seccomp"]'
        # The same without that line starts.
        with Plugin(server, native(required=frozenset({left, Layer.SECCOMP}))) as plugin:
            assert plugin.hello()
            assert fault.path in plugin.started.report.missing


def test_says_why_the_server_can_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with ShimServer() as server:
        with monkeypatch.context() as patch:
            bootstrapped(patch, 'sys.modules["msgpack"] = None')
            with pytest.raises(ShimError, match=r"ModuleNotFoundError.*msgpack"):
                Plugin(server)
        with monkeypatch.context() as patch:
            bootstrapped(
                patch,
                "import capwasm_shim.sandbox\ndef no(): raise OSError(1, 'no')\n"
                "capwasm_shim.sandbox.prepare = no",
            )
            with pytest.raises(ShimError, match=r"PermissionError: .* no"):
                Plugin(server)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nonexistent")
            with pytest.raises(ShimError, match="No such file"):
                Plugin(server)
            patch.setattr(sys, "executable", "")
            with pytest.raises(ShimError) as caught:
                Plugin(server)
            assert caught.value.code == "shim.unavailable"
            patch.undo()
            patch.setattr(sys, "platform", "darwin")
            with pytest.raises(ShimError) as caught:
                Plugin(server)
            assert caught.value.code == "shim.unavailable"
        with Plugin(server) as plugin:  # none of that lasts
            assert plugin.hello()


def test_refuses_a_server_with_a_second_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrapped(
        monkeypatch,
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
    )
    with ShimServer() as server, pytest.raises(ShimError, match="more than one thread"):
        Plugin(server)
