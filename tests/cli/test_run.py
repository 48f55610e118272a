"""`capwasm run`: a plugin in a home of its own, with what it asks for and nothing else."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.authoring.devhome import throwaway_home
from capwasm.authoring.project import build_cache
from capwasm.cli import capwasm
from tests.caps.net.servers import Origin, http
from tests.kit import HEAD, OPTIONAL, guest

FS = '[[fs]]\nmount = "/data"\nbind = "data"\naccess = "read-write"\n'
SECRET = '[[secret]]\nname = "token"\nuse = "reveal"\n'


class Shell:
    """A project with a ready component: the prober, which tries anything."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.project = root / "prober"
        self.project.mkdir()
        (self.project / "plugin.wasm").write_bytes(guest("prober"))
        self.asks("")

    def asks(self, tables: str, without: str = "") -> None:
        """Write plugin.toml; what else the prober imports is optional."""
        head = HEAD.format(id="test.prober", version="1.0.0", requires=">=0", instance="per-call")
        rest = "".join(t for w, t in OPTIONAL.items() if w not in tables and w != without)
        (self.project / "plugin.toml").write_text(head + tables + rest)

    def __call__(self, *words: str, typed: str | None = None, source: Path | None = None) -> Result:
        args = [w for w in words if w.startswith("-")]
        rest = words[len(args) :]
        return CliRunner().invoke(
            capwasm, ["run", *args, str(source or self.project), *rest], input=typed
        )

    def probe(self, operation: str, *arguments: str, options: tuple[str, ...] = ()) -> Result:
        return self("--yes", *options, "run", operation, json.dumps(arguments))

    def value(self, operation: str, *arguments: str, options: tuple[str, ...] = ()) -> Any:
        done = self.probe(operation, *arguments, options=options)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)["ok"]

    def error(self, *words: str) -> dict[str, Any]:
        done = self("--json", *words)
        assert done.exit_code == 1, done.output
        # Questions and what a plugin logs are on stderr.
        error: dict[str, Any] = json.loads(done.stdout)
        return error


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path)


# -- a call ----------------------------------------------------------------------------------------


def test_allows_to_list_the_functions_with_their_types(shell: Shell, own_home: Path) -> None:
    done = shell("--yes")

    assert done.exit_code == 0, done.output
    assert done.stdout == (
        "probe.run(operation: string, arguments: list<string>) -> result<string, string>\n"
    )
    assert not own_home.exists()
    assert sorted(p.name for p in shell.project.iterdir()) == ["plugin.toml", "plugin.wasm"]


def test_allows_a_call_and_shows_what_the_plugin_logs(shell: Shell) -> None:
    shell.asks("[log]\n")

    done = shell.probe("log", "warn", "look \x1b[2J")

    assert done.exit_code == 0, done.output
    assert "log warn: look" in done.stderr
    assert "\x1b" not in done.stderr
    assert "stdout: hello" in shell.probe("std.print", "hello").stderr


def test_refuses_what_was_not_asked_for_and_ends_with_1(shell: Shell) -> None:
    done = shell.probe("fs.read", "/etc/passwd")

    assert done.exit_code == 1
    assert json.loads(done.stdout)["err"] == '"denied"'
    assert "denied: fs open /etc/passwd (not-granted)" in done.stderr


def test_allows_a_capsule(shell: Shell) -> None:
    built = CliRunner().invoke(
        capwasm, ["build", str(shell.project), "-o", str(shell.root / "x.capsule")]
    )
    assert built.exit_code == 0, built.output

    done = shell("--yes", "run", "random", '["4"]', source=shell.root / "x.capsule")

    assert json.loads(done.stdout) == {"ok": "4"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--yes", "run", "fs.read", "[1]"), "arguments[0]"),
        (("--yes", "run", "fs.read"), "takes 2 arguments, got 1"),
        (("--secret", "token=s3cr3t"), "could be seen by others"),
        (("--bind", "data"), "NAME="),
    ],
)
def test_refuses_wrong_words_with_2(shell: Shell, words: tuple[str, ...], said: str) -> None:
    options = words[:2] if words[0] != "--yes" else words[:1]
    done = CliRunner().invoke(
        capwasm, ["run", *options, str(shell.project), *words[len(options) :]]
    )

    assert done.exit_code == 2, done.output
    assert said in done.stderr


# -- what it is given ------------------------------------------------------------------------------


def test_asks_before_it_runs_with_the_risk_of_each(shell: Shell) -> None:
    shell.asks(FS)
    call = ("run", "fs.write", '["/data/a", "x"]')

    no = shell(*call, typed="n\n")
    assert no.exit_code == 1
    assert "high   read and change files under /data (data)" in no.stderr
    assert "grant.denied" in no.stderr
    assert no.stdout == ""
    assert shell(*call).exit_code == 1  # nobody answers
    yes = shell(*call, typed="y\n")
    assert yes.exit_code == 0, yes.output


def test_a_bind_is_an_empty_directory_that_goes_with_the_home(shell: Shell) -> None:
    shell.asks(FS)
    (shell.root / "data").mkdir()
    (shell.root / "data/mine.txt").write_text("mine")

    assert shell.value("fs.list", "/data") == ""
    shell.value("fs.write", "/data/a.txt", "x")
    assert shell.value("fs.list", "/data") == ""
    assert not list((build_cache().parent / "dev").iterdir())


def test_allows_a_directory_that_the_author_names(shell: Shell) -> None:
    shell.asks(FS)
    (shell.root / "data").mkdir()
    (shell.root / "data/mine.txt").write_text("mine")

    given = ("--bind=data=data",)
    assert shell.value("fs.read", "/data/mine.txt", options=given) == "mine"


def test_refuses_a_path_of_this_machine_that_the_manifest_names(shell: Shell) -> None:
    (shell.root / "secret.txt").write_text("not for plugins")
    path = f'[[fs]]\nmount = "/data"\npath = "{shell.root}"\naccess = "read"\n'
    shell.asks(path)

    error = shell.error("--yes")

    assert error["code"] == "grant.denied"
    shell.asks(path + "optional = true\n")
    done = shell.probe("fs.read", "/data/secret.txt")
    assert json.loads(done.stdout) == {"err": '"denied"'}
    assert "not given" in done.stderr


def test_refuses_a_command_that_no_policy_describes(shell: Shell) -> None:
    shell.asks('[[exec]]\ncommand = "shout"\n')

    error = shell.error("--yes")

    assert error["code"] == "grant.denied"
    assert [f["path"] for f in error["faults"]] == ["exec[0]"]


def test_allows_secrets_from_a_file_or_from_a_question(shell: Shell) -> None:
    shell.asks(SECRET)
    (shell.root / "t").write_text("s3cr3t\n")

    assert shell.value("secret.reveal", "token", options=("--secret=token=@t",)) == "s3cr3t"
    call = ("run", "secret.reveal", '["token"]')
    asked = shell(*call, typed="y\nanother\n")
    assert json.loads(asked.stdout) == {"ok": "another"}
    assert "another" not in asked.stderr
    assert "--secret token=@FILE" in shell.error("--yes", *call)["message"]


def test_allows_settings(shell: Shell) -> None:
    shell.asks('[config]\nkeys = ["units", "other"]\n')

    assert shell.value("config", "units", options=("--config=units=metric",)) == "metric"
    assert shell.value("config", "other", options=("--config=units=metric",)) == "(none)"


def test_refuses_all_that_it_does_not_ask_for_at_once(shell: Shell) -> None:
    (shell.root / "t").write_text("s3cr3t")
    given = ("--secret=tokn=@t", "--config=colour=red", f"--bind=dat={shell.root}")
    shell.asks(SECRET)

    error = shell.error("--yes", *given)

    assert [f["path"] for f in error["faults"]] == ["--bind", "--config", "--secret"]
    assert "it asks for token" in error["faults"][2]["message"]


def test_allows_the_one_origin_that_it_asks_for(shell: Shell) -> None:
    with Origin(lambda _got: http(b"hello")) as origin:
        shell.asks(f'[[net]]\nallow = "http://127.0.0.1:{origin.port}/open/*"\n')

        assert shell.value("fetch", "GET", f"http://127.0.0.1:{origin.port}/open/a") == "200 hello"
        refused = shell.probe("fetch", "GET", f"http://127.0.0.1:{origin.port}/other")
        assert json.loads(refused.stdout) == {"err": '"denied"'}


# -- the home --------------------------------------------------------------------------------------


def test_allows_a_home_that_stays_and_whose_policy_is_the_authors(shell: Shell) -> None:
    shell.asks(FS + SECRET + "[kv]\n")
    (shell.root / "t").write_text("s3cr3t")
    keep = ("--keep",)

    shell.value("fs.write", "/data/a.txt", "x", options=(*keep, "--secret=token=@t"))
    place = shell.project / ".capwasm"
    assert (place / "files/data/a.txt").read_text() == "x"
    assert (place / ".gitignore").read_text() == "*\n"
    assert shell.value("fs.read", "/data/a.txt", options=keep) == "x"
    assert shell.value("secret.reveal", "token", options=keep) == "s3cr3t"  # asked for once

    policy = place / "home/policy.toml"
    policy.write_text("schema = 1\n")
    assert shell.error("--yes", *keep)["code"] == "grant.denied"
    assert policy.read_text() == "schema = 1\n"


def test_a_home_that_a_killed_process_left_is_removed_and_one_in_use_is_not() -> None:
    base = build_cache().parent / "dev"
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    (base / "run-left/home").mkdir(parents=True)

    with throwaway_home() as first, throwaway_home():
        assert first.place.exists()
        assert not (base / "run-left").exists()
    assert not first.place.exists()


# -- errors that authors meet ----------------------------------------------------------------------


def test_a_function_that_is_not_there_is_told_with_those_that_are(shell: Shell) -> None:
    error = shell.error("--yes", "rum")

    assert error["code"] == "guest.no-such-export"
    assert "there are: probe.run" in error["message"]


def test_an_import_that_is_not_declared_is_told_with_the_lines(shell: Shell) -> None:
    shell.asks("", without="[kv]")

    error = shell.error("--yes")

    assert error["code"] == "link.undeclared-import"
    assert error["faults"][0]["fix"] == "[kv]"


def test_a_trap_is_told_with_the_plugins_own_functions_and_what_it_printed(shell: Shell) -> None:
    shell.asks("[log]\n")

    done = shell.probe("panic", "it broke")

    assert done.exit_code == 1
    assert "stderr: it broke" in done.stderr
    assert "src/lib.rs:" in done.stderr
    assert "[guest.trap]" in done.stderr
    assert "  at " in done.stderr
    told = done.stderr.partition("[guest.trap]")[2]
    assert told.partition(": ")[2].startswith("it broke\n    at src/lib.rs:")
    assert "prober" in told


def test_the_functions_of_a_trap_and_the_limit_of_a_stack_are_told(shell: Shell) -> None:
    (shell.project / "plugin.wasm").write_bytes(guest("hostile"))

    trap, deep = shell.error("--yes", "trap"), shell.error("--yes", "recurse")

    assert "wasm function" in trap["message"] or "!" in trap["message"]
    assert deep["code"] == "limit.stack"
    assert "too deep" in deep["faults"][0]["message"]


def test_a_trap_without_a_log_is_told_with_the_table_that_is_missing(shell: Shell) -> None:
    from capwasm.authoring.advice import advise
    from capwasm.authoring.project import read_manifest
    from capwasm.errors import GuestTrap

    shell.asks("", without="[log]")
    manifest = read_manifest(shell.project / "plugin.toml")

    [fault] = advise(GuestTrap("unreachable"), manifest).faults

    assert fault.fix == "[log]"


@pytest.mark.parametrize(
    ("limit", "call", "fix"),
    [
        ("fuel = 100000", ("alloc", "4"), "[limits]\nfuel = 400000"),
        ("memory = 16777216", ("alloc", "64"), "[limits]\nmemory = 67108864"),
        ("host-calls = 100", ("clock.loop", "1000"), "[limits]\nhost-calls = 400"),
        ("wall-ms = 50", ("clock.sleep", "1000000000"), "[limits]\nwall-ms = 200"),
    ],
)
def test_a_limit_is_told_with_the_line_that_asks_for_more(
    shell: Shell, limit: str, call: tuple[str, ...], fix: str
) -> None:
    shell.asks(f"[clock]\n[limits]\n{limit}\n")

    operation, *arguments = call
    error = shell.error("--yes", "run", operation, json.dumps(arguments))

    assert error["code"].startswith("limit.")
    assert error["faults"][0]["fix"] == fix


def test_a_bare_component_is_told_what_it_lacks(shell: Shell) -> None:
    done = shell("--yes", source=shell.project / "plugin.wasm")

    assert done.exit_code == 1
    assert "capwasm:secrets" in done.stderr
    assert "capwasm learn plugin.wasm" in done.stderr


def test_a_bare_component_that_needs_nothing_runs(shell: Shell) -> None:
    component = shell.root / "slugs.wasm"
    component.write_bytes(guest("slugs"))

    done = shell("--yes", "make", "Some Title", source=component)

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["ok"]["text"] == "some-title"


# -- again and again -------------------------------------------------------------------------------


class Watched:
    """`capwasm run --watch` as a process, read a line at a time."""

    def __init__(self, shell: Shell, *call: str) -> None:
        code = "from capwasm.cli import main; main()"
        argv = [sys.executable, "-c", code, "run", "--watch", "--yes", str(shell.project), *call]
        self.process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ)
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def until(self, word: str) -> str:
        """What it printed up to that word."""
        text = ""
        end = time.monotonic() + 60
        while word not in text:
            text += self._lines.get(timeout=max(0.1, end - time.monotonic()))
        return text

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def watched(shell: Shell, request: pytest.FixtureRequest) -> Callable[..., Watched]:
    def start(*call: str) -> Watched:
        made = Watched(shell, *call)
        request.addfinalizer(made.close)
        return made

    return start


@pytest.mark.case("LIFE-13")
def test_a_change_is_built_loaded_and_called_and_an_error_ends_nothing(
    shell: Shell, watched: Callable[..., Watched]
) -> None:
    good = (shell.project / "plugin.toml").read_text()
    run = watched("run", "config", '["units"]')
    assert '"ok": "(none)"' in run.until("watching")

    (shell.project / "plugin.toml").write_text(good.replace("[kv]", "[kw]"))
    told = run.until("watching")
    assert "changed: plugin.toml" in told
    assert "[manifest.invalid]" in told

    (shell.project / "plugin.toml").write_text(good + "# again\n")
    assert '"ok": "(none)"' in run.until("watching")
    assert run.end() == 130


@pytest.mark.case("LIFE-13")
def test_ctrl_c_ends_a_call_that_never_returns(
    shell: Shell, watched: Callable[..., Watched]
) -> None:
    (shell.project / "plugin.wasm").write_bytes(guest("hostile"))
    shell.asks("[limits]\nfuel = 1000000000000000\nwall-ms = 60000\n")
    run = watched("spin")
    run.until("It asks")
    time.sleep(1)
    assert run.process.poll() is None

    assert run.end() == 130
    assert not list((build_cache().parent / "dev").iterdir())


def test_refuses_to_watch_a_capsule(shell: Shell) -> None:
    done = shell("--watch", source=shell.project / "plugin.wasm")

    assert done.exit_code == 2
