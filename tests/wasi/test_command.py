"""Programs: unmodified commands with arguments, variables and streams that the core chooses."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm import run_command
from capwasm.command import runs_as_command
from capwasm.errors import (
    CallInterrupted,
    CapError,
    DeadlineExceeded,
    LinkError,
    OutputLimitExceeded,
)
from capwasm.plugin import Plugin
from capwasm.registry.health import is_failure
from tests.kit import World, guest

CLOCK = "[clock]\n"
POLICY = '[plugins."test.guest".clock]\n[plugins."test.guest".log]\n[plugins."test.guest".random]\n'


@pytest.fixture(params=["in-process", "process"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    way = '[isolation]\nprocess = ["test.*"]\n' if request.param == "process" else ""
    world.policy(POLICY + way)
    yield world
    world.close()


def shout(world: World, tables: str = "") -> Plugin:
    return world.load(guest("shout"), CLOCK + tables)


def test_allows_what_it_is_given_and_each_run_its_own(world: World) -> None:
    plugin = shout(world)
    out, err = io.BytesIO(), io.BytesIO()

    args = ["shout", "--var", "WHO"]
    assert (
        run_command(plugin, args, env={"WHO": "ada"}, stdin=b"hello\n", stdout=out, stderr=err) == 0
    )
    assert (out.getvalue(), err.getvalue()) == (b'WHO=Some("ada")\nHELLO\n', b"")

    again = io.BytesIO()
    assert run_command(plugin, args, stdout=again) == 0
    assert again.getvalue() == b"WHO=None\n"


def test_refuses_a_file_that_it_was_not_given_in_words_of_its_own_library(world: World) -> None:
    out, err = io.BytesIO(), io.BytesIO()

    status = run_command(shout(world), ["shout", "/etc/passwd"], stdout=out, stderr=err)

    assert status == 1
    assert out.getvalue() == b""
    assert err.getvalue().startswith(b"shout: ")


def test_an_exit_is_no_crash_and_no_failure_of_the_plugin(world: World) -> None:
    plugin = shout(world)

    # WASI 0.2 tells only whether it went well.
    assert run_command(plugin, ["shout", "--status", "3"]) == 1
    world.runtime.recorder.flush()
    reasons = [e["reason"] for e in world.events() if e["kind"] == "call" and e["reason"]]
    assert reasons == ["guest.exit"]
    assert not [e for e in world.events() if e["kind"] == "crash"]
    assert not is_failure("guest.exit")
    assert is_failure("guest.trap")


def test_a_megabyte_goes_through_and_counts_as_output(world: World) -> None:
    plugin = shout(world, "[limits]\noutput-bytes = 2000000\n")
    out = io.BytesIO()
    assert run_command(plugin, ["shout"], stdin=b"abcd" * 250_000, stdout=out) == 0
    assert out.getvalue() == b"ABCD" * 250_000

    with pytest.raises(OutputLimitExceeded):
        run_command(plugin, ["shout"], stdin=b"abcd" * 600_000, stdout=io.BytesIO())


class Stalled:
    """Input that never comes."""

    def read(self, _size: int, /) -> bytes | None:
        return b""

    def wait(self, seconds: float, /) -> None:
        time.sleep(seconds)


def test_refuses_to_wait_for_input_for_ever(world: World) -> None:
    plugin = shout(world, "[limits]\nhost-call-ms = 100\n")

    with pytest.raises(DeadlineExceeded, match="host-call-ms"):
        run_command(plugin, ["shout"], stdin=Stalled())


def test_a_program_that_waits_for_input_can_be_killed(world: World) -> None:
    plugin = shout(world)
    threading.Timer(0.2, lambda: plugin.kill("enough")).start()
    began = time.monotonic()

    with pytest.raises(CallInterrupted, match="enough"):
        run_command(plugin, ["shout"], stdin=Stalled())
    assert time.monotonic() - began < 4  # a call's own limit is 5 s


class Broken:
    """A pipe whose reader has gone."""

    def write(self, _data: bytes, /) -> None:
        raise CapError("closed")


def test_a_program_is_told_that_nobody_reads(world: World) -> None:
    err = io.BytesIO()

    assert run_command(shout(world), ["shout"], stdin=b"x", stdout=Broken(), stderr=err) == 1
    assert err.getvalue().startswith(b"shout: ")


def test_refuses_words_that_no_program_can_have(world: World) -> None:
    plugin = shout(world)

    for args, env in ((["a\0b"], {}), (["\ud800"], {}), ([], {"": "x"}), ([], {"a=b": "x"})):
        with pytest.raises(ValueError, match="not fit"):
            run_command(plugin, args, env=env)


def test_refuses_a_library(world: World) -> None:
    plugin = world.load(guest("slugs"), "[random]\n")

    assert not runs_as_command(plugin)
    with pytest.raises(LinkError) as caught:
        run_command(plugin)
    assert caught.value.code == "link.export"
