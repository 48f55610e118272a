"""The process around a runtime: forks, the end, and start-ups that fail."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from capwasm.errors import CapwasmError
from capwasm.runtime import Runtime
from tests.kit import World, guest
from tests.stages.test_stopping import ENDLESS, script, until


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


# -- fork, and the end of the process ----------------------------------------------------------------------


@pytest.mark.case("LIFE-10")
def test_refuses_a_call_in_a_fork_at_once(tmp_path: Path) -> None:
    run = script(
        f"""
        import os, pathlib, signal
        from tests.kit import World, guest
        world = World(pathlib.Path({str(tmp_path)!r}))
        plugin = world.load(guest("hostile"), instance="pooled")
        plugin.call("count")
        if (pid := os.fork()) == 0:
            signal.alarm(20)
            for use in (lambda: plugin.call("count"), plugin.session, lambda: world.runtime.load(b"")):
                try:
                    use()
                except RuntimeError as exc:
                    print("fork" in str(exc), flush=True)
            world.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print(plugin.call("count"))
        world.close()
        """
    )
    assert run.stdout.split() == ["True", "True", "True", "2"], run.stderr


@pytest.mark.parametrize("how", ["acall", "daemon"])
def test_an_endless_guest_does_not_keep_the_process_from_ending(tmp_path: Path, how: str) -> None:
    start = {
        "acall": """
        loop = asyncio.new_event_loop()
        async def main():
            global task
            task = loop.create_task(plugin.acall("spin"))
            await asyncio.sleep(0.3)
        loop.run_until_complete(main())
        """,
        "daemon": """
        def spin():
            try:
                plugin.call("spin")
            finally:
                os.write(1, b"returned ")
        for _ in range(3):
            threading.Thread(target=spin, daemon=True).start()
        time.sleep(0.3)
        """,
    }[how]
    began = time.monotonic()
    run = script(
        f"""
        import asyncio, os, pathlib, threading, time
        from tests.kit import World, guest
        world = World(pathlib.Path({str(tmp_path)!r}))
        plugin = world.load(guest("hostile"), {ENDLESS!r})
        {start}
        print("leaving", flush=True)
        """
    )
    assert run.returncode == 0, run.stderr
    assert "leaving" in run.stdout
    if how == "daemon":
        assert run.stdout.count("returned") == 3
    assert time.monotonic() - began < 30


# -- what is left when a start-up fails ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/dev/null/x", "/dev/null", "x" * 5_000])
def test_refuses_a_home_that_can_not_be(path: str) -> None:
    with pytest.raises(CapwasmError) as caught:
        Runtime.open(path, core_version="1.0.0")
    assert caught.value.code == "capability.bind"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize(("owner", "mode"), [(12345, 0o755), (12345, 0o777)])
def test_refuses_a_home_that_belongs_to_someone_else(world: World, owner: int, mode: int) -> None:
    world.home.chmod(mode)
    os.chown(world.home, owner, -1)
    with pytest.raises(CapwasmError, match="another user"):
        world.runtime


def test_a_runtime_that_does_not_start_leaves_nothing_running(world: World) -> None:
    threads = set(threading.enumerate())
    with (
        mock.patch("capwasm.runtime.Compiler", side_effect=RuntimeError("not today")),
        pytest.raises(RuntimeError, match="not today"),
    ):
        world.runtime
    until(lambda: set(threading.enumerate()) <= threads)
    # The audit log was let go of, or this would be refused.
    assert world.load(guest("hostile")).call("count") == 1
