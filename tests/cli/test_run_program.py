"""`capwasm run tool.wasm -- args`: a component that nobody wrote a manifest for."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from capwasm.authoring.tool import Asks, tool_capsule
from capwasm.cli._program import _Screen
from capwasm.errors import ArtifactError, BuildError
from tests.kit import guest

CAPWASM = (sys.executable, "-c", "from capwasm.cli import main; main()")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "shout.wasm").write_bytes(guest("shout"))
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/one.txt").write_text("a word\n")
    return tmp_path


def run(
    place: Path, *words: str, stdin: bytes = b"", status: int = 0
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [*CAPWASM, "run", "--yes", *words],
        cwd=place,
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert b"Traceback" not in done.stderr
    return done


def test_allows_a_program_its_words_its_variables_and_its_streams(place: Path) -> None:
    done = run(place, "--env", "A=b", "shout.wasm", "--", "--var", "A", stdin=b"hello\x1b\n")

    assert done.stdout == b'A=Some("b")\nHELLO\x1b\n'  # a pipe gets what was written


def test_allows_a_directory_that_is_named_and_refuses_the_others(place: Path) -> None:
    assert (
        run(place, "--read", "samples:/data", "shout.wasm", "/data/one.txt").stdout == b"A WORD\n"
    )
    assert run(place, "--read", "samples", "shout.wasm", "/samples/one.txt").stdout == b"A WORD\n"

    refused = run(place, "shout.wasm", "samples/one.txt", status=1)
    assert refused.stdout == b""
    assert b"shout: " in refused.stderr
    assert run(place, "--read", "samples:/data", "shout.wasm", "/data/../x", status=1).stdout == b""


def test_its_status_is_ours(place: Path) -> None:
    run(place, "shout.wasm", "--status", "9", status=1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--read", "nowhere:/data", "shout.wasm"], "no directory"),
        (["--read", "samples:/d", "--write", "samples:/d", "shout.wasm"], "one of them will do"),
        (["--limit", "fuel=much", "shout.wasm"], "WORD=NUMBER"),
        (["--limit", "speed=1", "shout.wasm"], "unknown limit"),
        (["--env", "A", "shout.wasm"], "NAME="),
        (["--net", "ftp://x", "shout.wasm"], "net"),
        (["--read", "samples", "."], "for a component"),
    ],
)
def test_refuses_what_it_can_t_take_at_its_word(place: Path, words: list[str], told: str) -> None:
    done = subprocess.run(
        [*CAPWASM, "run", "--yes", *words],
        cwd=place,
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )
    assert done.returncode in {1, 2}
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_limit_holds(place: Path) -> None:
    done = run(place, "--limit", "fuel=1000", "shout.wasm", status=1)
    assert b"limit.fuel" in done.stderr


def test_asks_before_it_gives(place: Path) -> None:
    done = subprocess.run(
        [*CAPWASM, "run", "--read", "samples:/data", "shout.wasm"],
        cwd=place,
        input=b"n\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert b"read files under /data" in done.stderr
    assert done.stdout == b""


def test_a_terminal_is_not_commanded() -> None:
    ours, theirs = pty.openpty()
    screen = _Screen(theirs)
    screen.write("é\x1b[2J\u202e".encode()[:1])
    screen.write("é\x1b[2J\u202e\n".encode()[1:])
    assert os.read(ours, 100).decode().replace("\r\n", "\n") == "é\\x1b[2J\\u202e\n"
    for fd in (ours, theirs):
        os.close(fd)


def test_refuses_what_is_no_component() -> None:
    with pytest.raises(ArtifactError):
        tool_capsule(b"\0asm\x0d\0\1\0rest", "odd", Asks())
    with pytest.raises(BuildError):
        tool_capsule(guest("shout"), "shout", Asks(read={"/a": Path("/nowhere-at-all")}))


OLD = """
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 8) "from before\\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 8))
    (i32.store (i32.const 4) (i32.const 12))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64)))))
"""


def test_allows_a_program_of_preview_1(place: Path) -> None:
    (place / "old.wasm").write_bytes(wasmtime.wat2wasm(OLD))

    assert run(place, "old.wasm").stdout == b"from before\n"


@pytest.mark.parametrize(
    "text",
    [
        '(module (import "env" "anything" (func)) (memory (export "memory") 1) (func (export "_start")))',
        "(module)",
    ],
)
def test_refuses_a_module_that_is_no_program(place: Path, text: str) -> None:
    (place / "odd.wasm").write_bytes(wasmtime.wat2wasm(text))

    assert b"[build.failed]" in run(place, "odd.wasm", status=1).stderr


def test_refuses_a_module_that_is_cut_off(place: Path) -> None:
    (place / "odd.wasm").write_bytes(bytes(wasmtime.wat2wasm(OLD))[:60])

    assert b"[build.failed]" in run(place, "odd.wasm", status=1).stderr
