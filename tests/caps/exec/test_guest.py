"""Commands by way of a signed capsule, a policy and a consent; `test_ways` has what they do then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.errors import CapabilityError, GrantDeniedError
from capwasm_shim.layers import Layer
from tests.kit import OPTIONAL, World, guest

from .desk import ATTACKER, CAT, SLEEP

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
