"""Every way out of every command: one block for people, one object for programs, one code each."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from capwasm.cli import COMMANDS, EXIT_CODES, capwasm
from capwasm.cli._output import json_option
from capwasm.errors import Fault, GrantDeniedError, InternalError

PROGRAM = [sys.executable, "-c", "from capwasm.cli import main; main()"]
HEAVY = {
    "asyncio",
    "certifi",
    "cryptography",
    "h11",
    "httpx",
    "msgpack",
    "prometheus_client",
    "pydantic",
    "rich",
    "structlog",
    "wasmtime",
}


def run(*args: str) -> Result:
    return CliRunner().invoke(capwasm, args)


def walk() -> Iterator[tuple[str, ...]]:
    """The path of every command, groups too."""

    def below(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, ...]]:
        yield path
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                yield from below((*path, name), child)

    context = click.Context(capwasm)
    for name in COMMANDS:
        command = capwasm.get_command(context, name)
        assert command is not None
        yield from below((name,), command)


def find(path: tuple[str, ...]) -> click.Command:
    command: Any = capwasm.get_command(click.Context(capwasm), path[0])
    for name in path[1:]:
        command = command.commands[name]
    return command


PATHS = list(walk())
LEAVES = [p for p in PATHS if not isinstance(find(p), click.Group)]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command of its own that ends by raising."""

    def call(error: BaseException, *args: str, typed: str | None = None) -> Result:
        @click.command("ends")
        @json_option
        def command(as_json: bool) -> None:
            raise error

        monkeypatch.setitem(sys.modules, "capwasm.cli.ends", SimpleNamespace(commands=[command]))
        monkeypatch.setitem(COMMANDS, "ends", ("ends", "Raises."))
        return CliRunner().invoke(capwasm, ["ends", *args], input=typed)

    return call


# -- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_allows_every_command_to_explain_itself_with_an_example(path: tuple[str, ...]) -> None:
    done = run(*path, "--help")

    assert done.exit_code == 0
    assert f"Example:\n    capwasm {' '.join(path)}" in done.output
    assert all(len(line) <= 100 for line in done.output.splitlines())


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_allows_every_command_to_name_its_exit_codes(path: tuple[str, ...]) -> None:
    text = " ".join(run(*path, "--help").output.split())

    assert "Exit codes: 0" in text
    assert "2 wrong usage" in text


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_allows_json_from_every_command_that_prints_data(path: tuple[str, ...]) -> None:
    # A schema is JSON already.
    assert path[-1] == "schema" or json_option_of(find(path)) is not None


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_refuses_an_unknown_option_of_every_command_with_2(path: tuple[str, ...]) -> None:
    done = run(*path, "--no-such-option")

    assert done.exit_code == 2
    assert "--no-such-option" in done.stderr


def test_allows_one_home_for_every_command_that_has_one(own_home: Path) -> None:
    options = [p for path in LEAVES for p in find(path).params if "--home" in p.opts]

    assert len(options) > 10
    assert {(p.name, p.envvar) for p in options} == {("home_path", "CAPWASM_HOME")}
    assert {p.get_default(click.Context(capwasm)) for p in options} == {
        Path(click.get_app_dir("capwasm"))
    }
    run("vault", "init")
    assert (own_home / "vault").exists()
    run("vault", "init", "--home", str(own_home / "other"))
    assert (own_home / "other/vault").exists()


def json_option_of(command: click.Command) -> click.Parameter | None:
    return next((p for p in command.params if "--json" in p.opts), None)


def test_allows_help_of_the_program_with_every_command_and_every_exit_code() -> None:
    text = run("--help").output

    assert all(f"  {name} " in text and about in text for name, (_, about) in COMMANDS.items())
    assert all(f"  {code} " in text for code in EXIT_CODES)
    assert all(find_spec(f"capwasm.cli.{module}") for module, _ in COMMANDS.values())


def test_help_of_the_program_imports_nothing_that_it_does_not_need() -> None:
    script = (
        "import sys; from capwasm.cli import capwasm\n"
        "capwasm.main(['--help'], standalone_mode=False)\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    modules = set(done.stderr.split())

    assert not {m.split(".")[0] for m in modules} & HEAVY
    assert {m for m in modules if m.startswith("capwasm")} == {
        "capwasm",
        "capwasm.cli",
        "capwasm.cli._output",
    }


# -- what was refused ----------------------------------------------------------------------------

DENIED = GrantDeniedError(
    "2 things missing",
    context="acme.weather 1.2.0",
    faults=[
        Fault("net[0]", "no rule allows it", fix="[[net]]\nallow = 'https://a.example/'"),
        Fault("net[0]", "no consent", fix="capwasm consent give x.capsule"),
        Fault("kv", "no consent", fix="capwasm consent give x.capsule"),
        Fault("", "\x1b[2Jodd"),
    ],
)


def test_refuses_with_every_fault_and_each_fix_once_ready_to_copy(
    ends: Callable[..., Result],
) -> None:
    done = ends(DENIED)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        "error [grant.denied] acme.weather 1.2.0: 2 things missing\n"
        "  net[0]: no rule allows it\n"
        "  net[0]: no consent\n"
        "  kv: no consent\n"
        "  \\x1b[2Jodd\n"
        "\n"
        "To mend it, write or run:\n"
        "\n"
        "# net[0]\n"
        "[[net]]\n"
        "allow = 'https://a.example/'\n"
        "\n"
        "# net[0], kv\n"
        "capwasm consent give x.capsule\n"
    )


def test_refuses_as_json_on_stdout(ends: Callable[..., Result]) -> None:
    done = ends(DENIED, "--json")

    assert (done.exit_code, done.stderr) == (1, "")
    assert json.loads(done.stdout) == DENIED.to_dict()


def on_terminal(*args: str, **env: str) -> str:
    """What the program writes to stderr when that is a terminal."""
    ours, theirs = pty.openpty()
    base = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    subprocess.run(
        [*PROGRAM, *args], stderr=theirs, check=False, env={**base, "TERM": "xterm", **env}
    )
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 65536):
            text += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    return text.decode()


def test_allows_colour_on_a_terminal_unless_it_is_not_wanted() -> None:
    assert "\x1b[1;31merror" in on_terminal("inspect", "none.capsule")
    assert "error [artifact.unreadable]" in on_terminal("inspect", "none.capsule", NO_COLOR="1")


# -- defects -------------------------------------------------------------------------------------


def test_a_foreign_exception_is_one_line_without_its_text(
    ends: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (RuntimeError("token s3cr3t"), MemoryError("s3cr3t"), RecursionError("s3cr3t")):
        done = ends(error)
        assert (done.exit_code, done.stdout) == (70, "")
        assert done.stderr.startswith(f"error [internal] {type(error).__name__} at __init__.py:")
        assert "please report it" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "s3cr3t" not in done.stderr

    data = json.loads(ends(RuntimeError("s3cr3t"), "--json").stdout)
    assert (data["error"], data["code"]) == ("InternalError", "internal")

    monkeypatch.setenv("CAPWASM_DEBUG", "1")
    debug = ends(RuntimeError("told in full")).stderr
    assert "Traceback" in debug
    assert "told in full" in debug


def test_a_defect_of_ours_tells_its_own_message(ends: Callable[..., Result]) -> None:
    done = ends(InternalError("the epoch clock has stopped"))

    assert done.exit_code == 70
    assert "the epoch clock has stopped: a defect of capwasm" in done.stderr


# -- interrupts and pipes ------------------------------------------------------------------------


def test_an_interrupt_ends_with_130(ends: Callable[..., Result]) -> None:
    done = ends(KeyboardInterrupt())

    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_an_unanswered_question_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(capwasm, ["keygen", str(tmp_path / "k"), "--encrypt"], input="")

    assert done.exit_code == 1
    assert "without an answer" in done.stderr


@pytest.mark.case("LIFE-13")
def test_ctrl_c_ends_a_command_that_waits(own_home: Path) -> None:
    from capwasm.events import ALLOWED, Event
    from capwasm.record.audit import AuditLog
    from capwasm.record.redact import Redactor

    with AuditLog.open(own_home / "audit", Redactor()) as log:
        log.record(Event("load", ALLOWED))
    process = subprocess.Popen(
        [*PROGRAM, "audit", "tail", "--follow", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (130, "interrupted\n")


@pytest.mark.parametrize("args", [["manifest", "schema"], ["--help"], ["vault", "--help"]])
def test_a_reader_that_went_away_is_no_error(args: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, *args], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)

    assert done.stderr == ""
    assert done.returncode in (1, 141)  # 1: click's own help of the program


def test_refuses_an_unknown_command() -> None:
    assert run("nonsense").exit_code == 2
    assert set(EXIT_CODES) == {0, 1, 2, 70, 130, 141}
