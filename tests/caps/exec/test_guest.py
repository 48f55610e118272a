"""Commands from inside a component, by way of a signed capsule, a policy and a consent."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.errors import CapabilityError, CapwasmError, GrantDeniedError
from capwasm_shim.layers import Layer
from tests.kit import OPTIONAL, Refused, World, guest

from .desk import ATTACKER, CAT, SLEEP, descendants, executing, gone

ASKS = '[[exec]]\ncommand = "{}"\n'
POLICY = f"""
[[plugins."test.*".exec]]
command = "echo"
program = "{CAT.program}"
[[plugins."test.*".exec]]
command = "wait"
program = "{SLEEP.program}"
arguments = ["60"]
timeout-ms = 60000
[plugins."test.*".limits]
host-call-ms = 60000
wall-ms = 60000
"""
BOTH = ASKS.format("echo") + ASKS.format("wait")
LONG = "[limits]\nhost-call-ms = 60000\nwall-ms = 60000\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.policy(POLICY)
    yield world
    world.close()


def test_allows_a_guest_its_command_and_records_it(world: World) -> None:
    prober = world.prober(BOTH)

    assert prober("exec", "echo", "hello") == "0 (false, false)\nhello\n"
    assert prober("exec.flood", "100000", "echo") == "100000 false"
    world.close()
    run, end, *_ = world.events("exec")
    assert (run["action"], end["action"], run["target"]) == ("run", "end", "echo")
    assert end["details"]["code"] == 0
    assert "hello" not in str(world.events())


def test_refuses_a_guest_every_other_command(world: World) -> None:
    prober = world.prober(ASKS.format("echo"))

    for words in (("wait", ""), ("sh", ""), (str(CAT.program), ""), ("echo", "", "/etc/passwd")):
        with pytest.raises(Refused) as caught:
            prober("exec", *words)
        assert caught.value.word == "denied"
    with pytest.raises(Refused) as caught:
        prober("exec", "echo", "", "a\nb")
    assert caught.value.word == "invalid"


def test_refuses_a_loop_of_runs(world: World) -> None:
    prober = world.prober(BOTH)

    assert prober("exec.loop", "16", "echo") == ""
    with pytest.raises(Refused) as caught:
        prober("exec.loop", "17", "echo")
    assert caught.value.word == "denied"


@pytest.mark.parametrize("room", [600, 4096, 1 << 20])
def test_allows_as_much_output_as_can_cross_at_once(world: World, room: int) -> None:
    flood = (
        "import os,threading; t=[threading.Thread(target=lambda fd: [os.write(fd, b'x'*65536) for"
        " _ in iter(int,1)], args=(fd,)) for fd in (1,2)]; [x.start() for x in t]"
    )
    world.policy(
        f'[[plugins."*".exec]]\ncommand = "flood"\nprogram = "{ATTACKER.program}"\n'
        f'arguments = ["-I", "-S", "-B", "-c", "{flood}"]\noutput-bytes = "2MiB"\n'
        f"reads = {sorted(ATTACKER.reads or ())}\ntimeout-ms = 60000\n"
        '[plugins."*".limits]\nhost-call-ms = 60000\nwall-ms = 60000\n'
    )
    limits = LONG + f"value-bytes = {room}\n"
    size, truncated = world.prober(ASKS.format("flood") + limits)(
        "exec.flood", "0", "flood"
    ).split()

    assert 0 < int(size) < room
    assert truncated == "true"


def test_refuses_a_command_without_a_rule_and_without_a_person(world: World) -> None:
    rest = "".join(text for word, text in OPTIONAL.items() if word != "[[exec]]")
    with pytest.raises(GrantDeniedError) as caught:
        world.prober(ASKS.format("other"))
    [fault] = caught.value.faults
    assert 'command = "other"' in (fault.fix or "")
    assert 'program = "/the/program/of/other"' in (fault.fix or "")

    world.policy(POLICY + '[[plugins."*".exec]]\ncommand = "x"\nprogram = "/bin/x"\n')
    with pytest.raises(GrantDeniedError) as caught:
        world.runtime.load(world.capsule(guest("prober"), BOTH + rest))
    assert "consent: consent to run the command echo" in str(caught.value.faults)


@pytest.mark.case("LIFE-01")
@pytest.mark.parametrize("how", ["close", "revoke"])
def test_refuses_a_running_command_once_its_plugin_is_evicted(world: World, how: str) -> None:
    prober = world.prober(BOTH + LONG)
    prober("exec", "echo", "")
    before, ended = descendants(), []

    def work() -> None:
        try:
            prober("exec", "wait", "")
        except (CapwasmError, Refused) as exc:
            ended.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    until = time.monotonic() + 30
    while not (pids := executing(before)):
        assert time.monotonic() < until
        time.sleep(0.01)
    if how == "close":
        prober.plugin.close()
    else:
        prober.plugin.revoke("exec", reason="a test")
    thread.join(30)
    assert ended
    assert gone(pids)


def test_refuses_to_load_where_a_required_layer_is_missing(world: World) -> None:
    layer = Layer.USER_NAMESPACE if os.geteuid() == 0 else Layer.OWN_USER
    world.policy(POLICY + f'[isolation]\nrequire = ["{layer}"]\n')

    with pytest.raises(CapabilityError) as caught:
        world.prober(BOTH)
    assert caught.value.code == "capability.exec"
    assert layer in str(caught.value.faults)


def test_refuses_to_load_a_program_that_others_can_change(world: World, tmp_path: Path) -> None:
    program = tmp_path / "cat"
    program.write_bytes(Path(str(CAT.program)).read_bytes())
    program.chmod(0o777)
    world.policy(POLICY.replace(str(CAT.program), str(program)))

    with pytest.raises(CapabilityError, match="can't be run") as caught:
        world.prober(BOTH)
    assert "others can change" in str(caught.value.faults)
