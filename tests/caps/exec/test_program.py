"""Which files are programs that may be run."""

from __future__ import annotations

import os
import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from capwasm.caps.exec import ExecClause
from capwasm.caps.exec.handle import spec_of
from capwasm.caps.exec.program import Unusable, opened
from capwasm.caps.exec.running import NotRun, try_out
from capwasm.isolation.commands import Commands

from .desk import CAT, Desk

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program of our own, in a directory of our own."""
    assert CAT.program
    copy = tmp_path / "bin" / "cat"
    copy.parent.mkdir(mode=0o755)
    shutil.copy(CAT.program, copy)
    copy.chmod(0o755)
    return copy


def why_not(path: Path) -> str:
    with pytest.raises(Unusable) as caught, opened(str(path)):
        pass
    return str(caught.value)


def test_allows_a_binary_and_the_links_to_it(program: Path) -> None:
    link = program.with_name("link")
    link.symlink_to(program)

    with opened(str(link)) as found, opened(str(program)) as same:
        assert found.real == str(program)
        assert found.identity == same.identity
        assert found.loader
        assert Path(found.loader).is_file()


@pytest.mark.case("NAT-24")
@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (0o4755, "setuid"),
        (0o2755, "setuid"),
        (0o757, "others can change"),
        (0o777, "others can change"),
    ],
)
def test_refuses_rights_of_its_own_and_writers(program: Path, mode: int, why: str) -> None:
    program.chmod(mode)

    assert why in why_not(program)


def test_refuses_a_directory_above_in_which_others_may_put_another(program: Path) -> None:
    program.parent.chmod(0o757)
    assert f"others can change {program.parent} " in why_not(program)
    program.parent.chmod(0o1777)  # there a name is its owner's alone
    with opened(str(program)):
        pass


def test_refuses_a_link_to_what_others_can_change(program: Path) -> None:
    link = program.parent.parent / "link"
    link.symlink_to(program)
    program.chmod(0o757)

    assert f"others can change {program} " in why_not(link)


@root_only
def test_refuses_a_program_of_another_user_or_of_a_group(program: Path) -> None:
    os.chown(program, 12345, 0)
    assert "uid 12345" in why_not(program)
    os.chown(program, 0, 12345)
    program.chmod(0o775)
    assert "gid 12345" in why_not(program)
    os.chown(program, 0, 0)
    with opened(str(program)):
        pass


@root_only
@pytest.mark.case("NAT-24")
def test_refuses_file_capabilities(program: Path) -> None:
    # struct vfs_cap_data, revision 2: cap_net_raw, permitted.
    try:
        os.setxattr(
            program, "security.capability", struct.pack("<IIIII", 0x02000001, 0x2000, 0, 0, 0)
        )
    except OSError as exc:
        pytest.skip(f"no file capabilities here: {exc.strerror}")

    assert "file capabilities" in why_not(program)


def _script(path: Path) -> None:
    path.write_text("#!/bin/sh\nid\n")


def _text(path: Path) -> None:
    path.write_text("x" * 100)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:70])


def _foreign(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[18:20] = b"\xf3\x00" if data[18:20] != b"\xf3\x00" else b"\x3e\x00"
    path.write_bytes(data)


def _narrow(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4] = 1
    path.write_bytes(data)


def _many(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[56:58] = b"\xff\xff"
    path.write_bytes(data)


def _loader(path: Path) -> None:
    data, names = path.read_bytes(), (b"/lib64/ld-linux-x86-64.so.2", b"/lib/ld-linux-aarch64.so.1")
    [name] = [name for name in names if name in data]
    path.write_bytes(data.replace(name, b"/tmp/../x/evil".ljust(len(name), b"\0"), 1))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_script, "is a script: name its interpreter"),
        (_text, "no binary for this machine"),
        (lambda path: path.write_bytes(b""), "no binary for this machine"),
        (_foreign, "no binary for this machine"),
        (_narrow, "no binary for this machine"),
        (_many, "no binary for this machine"),
        (_cut, "cut off"),
        (_loader, "its loader"),
    ],
)
def test_refuses_what_is_no_binary(
    program: Path, change: Callable[[Path], object], why: str
) -> None:
    change(program)
    program.chmod(0o755)

    assert why in why_not(program)


@pytest.mark.parametrize("kind", ["gone", "directory", "fifo", "loop", "device"])
def test_refuses_what_is_no_file(program: Path, kind: str) -> None:
    program.unlink()
    if kind == "directory":
        program.mkdir()
    elif kind == "fifo":
        os.mkfifo(program)
    elif kind == "loop":
        program.symlink_to(program)
    elif kind == "device":
        program.symlink_to("/dev/zero")

    assert any(w in why_not(program) for w in ("can't be opened", "no regular file"))


def test_refuses_another_file_put_in_the_programs_place(program: Path, spawner: Commands) -> None:
    clause = ExecClause("cat", str(program))
    with opened(str(program)) as found:
        spec = spec_of(clause, found, ())
        try_out(spawner, spec, found.fd)
        other = program.with_name("other")
        shutil.copy(program, other)
        other.rename(program)

        with pytest.raises(NotRun, match="another file stands"):
            try_out(spawner, spec, found.fd)


@pytest.mark.parametrize("mode", [0o644, pytest.param(0o700, marks=root_only)])
def test_refuses_a_program_that_its_user_may_not_execute(
    program: Path, spawner: Commands, mode: int
) -> None:
    program.chmod(mode)
    with opened(str(program)) as found:
        spec = spec_of(ExecClause("cat", str(program)), found, ())

        with pytest.raises(NotRun, match="can't be executed"):
            try_out(spawner, spec, found.fd)


def test_refuses_a_program_that_the_kernel_will_not_execute(
    program: Path, spawner: Commands, tmp_path: Path
) -> None:
    data = bytearray(program.read_bytes())
    data[16:18] = b"\x01\x00"  # an object file
    program.write_bytes(data)
    desk = Desk(spawner, tmp_path, ExecClause("cat", str(program)))

    assert desk.word("cat") == "unavailable"
    assert "ENOEXEC" in desk.events("end")[0].details["detail"]


def test_a_sandbox_shows_the_program_and_libraries_and_each_path_once(program: Path) -> None:
    reads = frozenset({"/usr", "/usr/share", str(program.parent)})
    with opened(str(program)) as found:
        spec = spec_of(ExecClause("cat", str(program), reads=reads), found, ("x",))

    assert spec.argv == (str(program), "x")
    assert set(spec.executables) == {str(program), found.loader}
    assert {"/usr", str(program.parent), "/lib"} <= set(spec.binds)
    assert not {"/usr/lib", "/usr/share", str(program)} & set(spec.binds)
    assert not stat.S_IMODE(program.stat().st_mode) & 0o022
