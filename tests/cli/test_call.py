"""`capwasm call`: a capsule loaded from a home directory as a core would, and called."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.cli import capwasm
from capwasm.errors import AuditError
from tests.kit import OPTIONAL, World, guest

ASKS = '[[fs]]\nmount = "/data"\nbind = "data"\naccess = "read"\n' + "".join(
    text for word, text in OPTIONAL.items() if word != "[[fs]]"
)


class Shell:
    """`capwasm call …` on a world's home, with the prober as a capsule file."""

    def __init__(self, root: Path) -> None:
        self.world = World(root)
        self.data = root / "data"
        self.data.mkdir()
        (self.data / "a.txt").write_text("hello\n\x1b[2J")
        self.file = root / "prober.capsule"
        self.file.write_bytes(self.world.capsule(guest("prober"), ASKS))
        self.world.policy(
            f'[[plugins."*".fs]]\nbind = "data"\npath = "{self.data}"\naccess = "read"\n'
        )

    def __call__(self, *words: str, options: tuple[str, ...] = ()) -> Result:
        home = str(self.world.home)
        args = ["call", "--home", home, *options, str(self.file), *words]
        return CliRunner().invoke(capwasm, args)

    def run(self, operation: str, *arguments: str, options: tuple[str, ...] = ()) -> Result:
        return self("run", operation, json.dumps(arguments), options=options)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    made.world.close()


def test_allows_to_list_the_functions_with_their_signatures(shell: Shell) -> None:
    signature = "probe.run(operation: string, arguments: list<string>) -> result<string, string>"

    assert shell().output == f"{signature}\n"
    [data] = json.loads(shell(options=("--json",)).output)
    assert data == {
        "name": "probe.run",
        "whole": "test:prober/probe@0.1.0#run",
        "signature": signature,
        "lane": True,
        "params": [
            {"name": "operation", "type": "string"},
            {"name": "arguments", "type": "list<string>"},
        ],
        "result": "result<string, string>",
    }


@pytest.mark.case("LOG-07")
def test_allows_a_call_and_escapes_what_came_back(shell: Shell) -> None:
    done = shell.run("fs.read", "/data/a.txt")

    assert done.exit_code == 0
    assert done.stdout == '{\n  "ok": "hello\\n\\u001b[2J"\n}\n'
    assert done.stderr == ""


def test_allows_json_and_what_the_call_used(shell: Shell) -> None:
    data = json.loads(shell.run("fs.read", "/data/a.txt", options=("--json",)).stdout)

    assert (data["denied"], data["value"]) == ([], {"ok": "hello\n\x1b[2J"})
    assert data["function"] == "test:prober/probe@0.1.0#run"
    assert data["stats"]["host-calls"] > 0
    assert data["stats"]["fuel"] > 0
    told = shell.run("fs.read", "/data/a.txt", options=("-v",)).stderr
    assert f"{data['stats']['host-calls']} host calls" in told


def test_refuses_what_was_not_granted_and_ends_with_1(shell: Shell) -> None:
    done = shell.run("fs.read", "/etc/passwd")

    assert done.exit_code == 1
    assert json.loads(done.stdout)["err"] == '"denied"'
    assert done.stderr == "denied: fs open /etc/passwd (not-granted)\n"
    data = json.loads(shell.run("fs.read", "/etc/passwd", options=("--json",)).stdout)
    assert data["denied"] == [
        {"kind": "fs", "action": "open", "target": "/etc/passwd", "reason": "not-granted"}
    ]


def test_refuses_a_load_with_all_that_is_missing_and_the_lines_that_allow_it(shell: Shell) -> None:
    shell.world.policy("")
    done = shell.run("fs.read", "/data/a.txt")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "error [grant.denied] test.guest 1.0.0: 1 thing missing" in done.stderr
    assert "fs[0]: policy: no rule allows" in done.stderr
    assert "To mend it, write or run:" in done.stderr
    assert '\n[[plugins."test.guest".fs]]\n' in done.stderr
    lines = done.stderr.split("# fs[0]\n")[1]
    data = json.loads(shell.run("x", options=("--json",)).stdout)
    assert (data["code"], data["faults"][0]["path"]) == ("grant.denied", "fs[0]")

    # Those very lines mend it, once they name the directory that only the operator knows.
    shell.world.policy(re.sub(r'path = ".*"', f'path = "{shell.data}"', lines))
    assert shell.run("fs.read", "/data/a.txt").exit_code == 0, lines


def test_refuses_a_capsule_that_nobody_trusted_signed(shell: Shell) -> None:
    (shell.world.home / "trust.toml").unlink()

    done = shell.run("fs.read", "/data/a.txt")
    assert done.exit_code == 1
    assert "error [verify.no-trust-store]" in done.stderr


def test_refuses_arguments_that_do_not_fit_with_every_fault(shell: Shell) -> None:
    done = shell("run", "fs.read", '[1, "x", null]')

    assert (done.exit_code, done.stdout) == (2, "")
    assert "arguments[0]: expected string, got int" in done.stderr
    assert "arguments[2]: expected string, got NoneType" in done.stderr
    assert "expected JSON of list<string>" in shell("run", "fs.read", "/data").stderr
    few = shell("run", "fs.read")
    assert (few.exit_code, "takes 2 arguments, got 1" in few.stderr) == (2, True)


def test_takes_nothing_after_the_capsule_for_an_option(shell: Shell) -> None:
    done = shell("run", "--home=/nowhere", "[]")
    assert json.loads(done.stdout)["err"].startswith("no operation --home")

    late = shell("run", "fs.read", "[]", "--json")
    assert late.exit_code == 2
    assert "options stand before SOURCE" in late.stderr


def test_refuses_a_function_that_is_not_there_and_names_those_that_are(shell: Shell) -> None:
    done = shell("jump")

    assert done.exit_code == 1
    assert "error [guest.no-such-export] no export 'jump'; there are: probe.run" in done.stderr


@pytest.mark.parametrize("limit", ["fuel", "wall-ms", "memory"])
def test_refuses_to_raise_a_limit(shell: Shell, limit: str) -> None:
    done = shell.run("fs.read", "/data/a.txt", options=(f"--{limit}", str(2**35)))

    assert done.exit_code == 2
    assert "it can only lower it" in done.stderr or "must be from 1 to" in done.stderr


def test_allows_to_lower_a_limit_which_then_holds(shell: Shell) -> None:
    done = shell.run("fs.read", "/data/a.txt", options=("--fuel", "1000"))

    assert done.exit_code == 1
    assert "error [limit.fuel]" in done.stderr
    data = json.loads(shell.run("x", options=("--fuel", "1000", "--json")).stdout)
    assert (data["error"], data["code"]) == ("FuelExhausted", "limit.fuel")
    assert "[limit.memory]" in shell.run("x", options=("--memory", "65536")).stderr


def test_refuses_another_core_and_no_version(shell: Shell) -> None:
    capsule = shell.world.capsule(guest("prober"), ASKS)
    assert capsule == shell.file.read_bytes()
    changed = shell.world.capsule(guest("prober"), ASKS, version="2.0.0")
    shell.file.write_bytes(changed)

    assert shell.run("x", options=("--core", "9.0.0")).exit_code == 1
    assert shell.run("x", options=("--core", "nine")).exit_code == 2


class Endless:
    """A guest that runs for ever, as a capsule file on a world's home."""

    def __init__(self, root: Path) -> None:
        self.world = World(root)
        self.file = root / "hostile.capsule"
        limits = f"[limits]\nfuel = {2**60}\nwall-ms = 60_000\n"
        capsule = self.world.capsule(guest("hostile"), limits)
        self.world.policy(f'[plugins."*".limits]\nfuel = {2**60}\nwall-ms = 60_000\n')
        self.world.consent(capsule)
        self.world.close()
        self.file.write_bytes(capsule)

    def args(self, *options: str) -> list[str]:
        return ["call", "--home", str(self.world.home), *options, str(self.file)]


@pytest.mark.case("LIFE-13", "RES-01")
def test_ctrl_c_ends_a_call_that_would_never_return(tmp_path: Path) -> None:
    endless = Endless(tmp_path)
    script = "from capwasm.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *endless.args(), "spin"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while "load" not in {r["kind"] for r in recorded(endless)} and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)  # it compiles after it was recorded
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out, err) == (130, "", "interrupted\n")
    assert time.monotonic() - began < 20
    kinds = {(r["kind"], r.get("reason")) for r in recorded(endless)}
    assert ("kill", "KeyboardInterrupt in the core") in kinds


def recorded(endless: Endless) -> list[dict[str, Any]]:
    with contextlib.suppress(AuditError):
        return endless.world.events()
    return []


@pytest.mark.case("RES-01")
def test_allows_to_end_an_endless_call_by_time(tmp_path: Path) -> None:
    endless = Endless(tmp_path)
    done = CliRunner().invoke(capwasm, [*endless.args("--wall-ms", "100", "--json"), "spin"])

    assert done.exit_code == 1
    assert json.loads(done.stdout)["code"] == "limit.deadline"


def test_allows_numbers_and_no_value_at_all(tmp_path: Path) -> None:
    endless = Endless(tmp_path)

    def call(*words: str) -> Result:
        return CliRunner().invoke(capwasm, [*endless.args(), *words])

    assert call("divide", "84", "2").stdout == "42\n"
    assert call("divide", "-1", "2").exit_code == 2
    trapped = call("divide", "1", "0")
    assert (trapped.exit_code, "error [guest.trap]" in trapped.stderr) == (1, True)
