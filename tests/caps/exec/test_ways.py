"""Commands from a plugin, whichever way it runs: the same answers, refusals, records and ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.errors import CapwasmError
from tests.isolation.ways import WAYS, load_way, policy_for
from tests.kit import Refused, World

from .desk import descendants, executing, gone
from .test_guest import ASKS, BOTH, LONG, POLICY


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(way: str, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.policy(POLICY + policy_for(way))
    yield world
    world.close()


@pytest.mark.case("IPC-10")
def test_a_command_answers_the_same_way(world: World, way: str) -> None:
    _, probe = load_way(world, way, BOTH)

    assert probe("exec", "echo", "hällo") == "0 (false, false)\nhällo\n"
    assert probe("exec.flood", "300000", "echo") == "300000 false"
    assert probe("exec.loop", "16", "echo") == ""
    world.close()
    assert "hällo" not in str(world.events())
    ran = [(e["verdict"], e["action"], e["target"]) for e in world.events("exec")]
    assert ran == [("allowed", "run", "echo"), ("allowed", "end", "echo")] * 18


@pytest.mark.case("IPC-10")
def test_a_command_is_refused_with_the_same_word(world: World, way: str) -> None:
    _, probe = load_way(world, way, ASKS.format("echo"))

    for words, word in {
        ("exec", "wait", ""): "denied",
        ("exec", "/bin/sh", ""): "denied",
        ("exec", "", ""): "denied",
        ("exec", "echo", "", "/etc/passwd"): "denied",
        ("exec", "echo", "", "a\nb"): "invalid",
        ("exec.flood", "1048577", "echo"): "too-large",
        ("exec.loop", "17", "echo"): "denied",
    }.items():
        with pytest.raises(Refused) as caught:
            probe(*words)
        assert caught.value.word == word, words


@pytest.mark.case("LIFE-01", "LIFE-05")
@pytest.mark.parametrize("how", ["close", "revoke", "kill"])
def test_a_running_command_ends_with_its_grant_or_its_plugin(
    world: World, way: str, how: str
) -> None:
    plugin, probe = load_way(world, way, BOTH + LONG)
    probe("exec", "echo", "")
    before, ended = descendants(), []

    def work() -> None:
        try:
            probe("exec", "wait", "")
        except (CapwasmError, Refused) as exc:
            ended.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    until = time.monotonic() + 30
    while not (pids := {p for p in executing(before) if sleeps(p)}):
        assert time.monotonic() < until
        time.sleep(0.01)
    if how == "close":
        plugin.close()
    elif how == "revoke":
        plugin.revoke("exec", reason="a test")
    else:
        plugin.kill("a test")
    thread.join(30)
    assert not thread.is_alive()
    assert ended
    if how == "revoke":
        assert isinstance(ended[0], Refused)
        assert ended[0].word == "closed"
    assert gone(pids)


def sleeps(pid: int) -> bool:
    try:
        return b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
