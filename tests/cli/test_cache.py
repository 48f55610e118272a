"""`capwasm cache`, and what `capwasm call` tells of a compilation that takes long."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from capwasm.cli import capwasm
from capwasm.cli._progress import CompileLine
from capwasm.engine.cache import CodeCache, entries
from capwasm.engine.compile import Compiling
from capwasm.engine.sealed import Sealed


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose cache holds three entries of 100 bytes, `a` used longest ago."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    cache = CodeCache(home / "cache", 2**20)
    for age, name in enumerate("abc"):
        with Sealed.holding(b"x" * 72) as sealed:
            cache.keep(f"{name}.cwasm", sealed)
        os.utime(home / "cache" / f"{name}.cwasm", (86_400 + age, 86_400 + age))
    return home


def run(home: Path, *words: str) -> Result:
    return CliRunner().invoke(capwasm, ["cache", *words, "--home", str(home)])


def test_allows_to_list_what_is_kept(home: Path) -> None:
    done = run(home, "list")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[-1] for line in lines[:3]] == ["a.cwasm", "b.cwasm", "c.cwasm"]
    assert lines[0].startswith("1970-01-02 00:00")
    assert lines[3].startswith("3 entries, 0.00 MB")
    data = json.loads(run(home, "list", "--json").stdout)
    assert data["bytes"] == 300
    assert data["entries"][0] == {
        "name": "a.cwasm",
        "size": 100,
        "used": "1970-01-02T00:00:00+00:00",
    }


def test_allows_to_prune_to_a_size_and_to_clear(home: Path) -> None:
    assert run(home, "prune", "--to", "1KiB").stdout == "removed 0 entries, 0.00 MB\n"
    data = json.loads(run(home, "prune", "--to", "200B", "--json").stdout)
    assert [e["name"] for e in data["removed"]] == ["a.cwasm"]
    assert run(home, "clear").stdout.startswith("removed 2 entries")
    assert entries(home / "cache") == []
    assert (home / "cache" / "key").exists()
    # And nothing of it makes a home that is not there.
    assert run(home / "missing", "list").exit_code == 0
    assert run(home / "missing", "clear").exit_code == 0
    assert not (home / "missing").exists()


@pytest.mark.parametrize("size", ["many", "-1", "1.5GiB", "5 MB", ""])
def test_refuses_what_is_no_size(home: Path, size: str) -> None:
    done = run(home, "prune", "--to", size)
    assert done.exit_code == 2
    assert "not a size" in done.stderr or "No such option" in done.stderr
    assert run(home, "prune").exit_code == 2
    assert len(entries(home / "cache")) == 3


def test_refuses_a_cache_that_is_a_link_or_a_file(home: Path, tmp_path: Path) -> None:
    (home / "cache").rename(tmp_path / "real")
    (home / "cache").symlink_to(tmp_path / "real")
    for words in (["list"], ["clear"], ["prune", "--to", "0"]):
        done = run(home, *words, "--json")
        assert done.exit_code == 1
        assert json.loads(done.stdout)["code"] == "artifact.unreadable"
    assert len(entries(tmp_path / "real")) == 3


def test_shows_the_name_of_an_entry_fit_for_a_terminal(home: Path) -> None:
    (home / "cache" / "\x1b[2J\n.cwasm").touch()
    done = run(home, "list")
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 5


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


HOW = [Compiling(18_900_000, 0.5), Compiling(18_900_000, 1.25), Compiling(18_900_000, 9.1, True)]


def test_allows_a_line_that_moves_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    line = CompileLine()
    for how in HOW:
        line(how)
    told = terminal.getvalue()
    assert "\n" not in told
    first, second, _ = told.split("\r")[1:4]
    assert first.strip() == "compiling 18.9 MB of WebAssembly, once: 0.5 s"
    assert second.strip() == "compiling 18.9 MB of WebAssembly, once: 1.2 s"
    assert told.endswith("\r" + " " * len(first) + "\r")  # nothing is left of it


def test_allows_plain_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", pipe := io.StringIO())
    line = CompileLine()
    for how in HOW:  # what is over before it was worth a line
        line(how)
    line(Compiling(18_900_000, 2.5, elsewhere=True))
    line(Compiling(18_900_000, 2.6))
    line(HOW[-1])
    line(Compiling(18_900_000, 2.5))
    line(HOW[-1])
    assert pipe.getvalue().splitlines() == [
        "waiting for another process, which compiles the same",
        "compiled in 9.1 s",
        "compiling 18.9 MB of WebAssembly, once",
        "compiled in 9.1 s",
    ]
