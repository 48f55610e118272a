"""Each word of `[isolation]`, and each other wish, by what a real load then does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import GrantDeniedError, ShimError
from capwasm.plugin import Plugin
from capwasm_shim.layers import DEFAULT_REQUIRED, Layer
from capwasm_shim.probe import probe
from tests.isolation.ways import library, native_capsule
from tests.kit import World, guest

NUMBERS = "hostile"  # imports nothing
HAD = {status.layer for status in probe() if status.applied}
LACKS = sorted(set(Layer) - HAD)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def loaded(world: World) -> dict[str, object]:
    """The details of the last load on record."""
    details: dict[str, object] = world.events("load")[-1]["details"]
    return details


def missing(world: World) -> list[str]:
    """The layers that the last process lacks, as recorded."""
    world.runtime.recorder.flush()  # type: ignore[attr-defined]
    (told,) = [e for e in world.events("instance") if e["action"] == "sandbox"]
    names: list[str] = told["details"]["missing"]
    return names


def apart(plugin: Plugin) -> bool:
    """Whether it has a process, by the process itself."""
    code = plugin._opener.code
    return bool(getattr(code, "supervisor", None) and code.supervisor.processes)  # type: ignore[union-attr]


def test_a_component_is_in_process_unless_somebody_wants_otherwise(world: World) -> None:
    plugin = world.load(guest(NUMBERS))

    assert not apart(plugin)
    assert "process" not in loaded(world)


@pytest.mark.parametrize(
    ("policy", "manifest", "core", "by"),
    [
        (
            '[isolation]\nprocess = ["test.*"]\n',
            "in-process",
            "in-process",
            'isolation.process "test.*"',
        ),
        ("", "process", "in-process", "plugin.isolation"),
        ("", "in-process", "process", "the core"),
    ],
    ids=["policy", "plugin", "core"],
)
def test_anyone_can_have_it_run_in_a_process(
    world: World, policy: str, manifest: str, core: str, by: str
) -> None:
    world.policy(policy)
    capsule = world.capsule(guest(NUMBERS), f'isolation = "{manifest}"\n')

    plugin = world.runtime.load(capsule, isolation=core)  # type: ignore[arg-type]

    assert apart(plugin)
    assert loaded(world)["process"] == [by]


@pytest.mark.parametrize("word", ["Process", "proces", "", None, True])
def test_refuses_a_wish_for_a_place_that_there_is_not(world: World, word: Any) -> None:
    capsule = world.capsule(guest("hostile"))
    world.consent(capsule)
    with pytest.raises(ValueError, match="isolation must be one of in-process, process"):
        world.runtime.load(capsule, isolation=word)
    assert world.runtime.plugins == ()


def test_refuses_native_code_by_default_and_the_line_lets_it_run(world: World) -> None:
    capsule = native_capsule(world, library("prober"))
    with pytest.raises(GrantDeniedError) as caught:
        world.runtime.load(capsule)
    assert caught.value.code == "grant.native"
    line = caught.value.faults[0].fix
    assert line is not None
    world.close()

    world.policy(line)

    assert apart(world.runtime.load(capsule))


@pytest.mark.case("NAT-13")
@pytest.mark.skipif(not LACKS, reason="this machine has every layer")
def test_refuses_where_a_required_layer_can_not_be_had_and_the_line_does_without(
    world: World,
) -> None:
    """Both ways are on record: the refusal, and what a process that started lacks."""
    lacking = LACKS[0]
    names = '", "'.join([*sorted(DEFAULT_REQUIRED & HAD), lacking])
    world.policy(f'[isolation]\nprocess = ["test.*"]\nrequire = ["{names}"]\n')
    with pytest.raises(ShimError) as caught:
        world.load(guest(NUMBERS))
    assert caught.value.code == "shim.layer"
    fault = next(f for f in caught.value.faults if f.path == lacking)
    assert fault.fix is not None
    assert world.events("load")[-1]["reason"] == "shim.layer"
    world.close()

    line = fault.fix.partition("  #")[0]
    world.policy(f'[isolation]\nprocess = ["test.*"]\n{line}\n')

    assert apart(world.load(guest(NUMBERS)))
    assert lacking in missing(world)


def test_a_layer_that_can_be_had_is_there_also_where_none_is_required(world: World) -> None:
    world.policy('[isolation]\nprocess = ["test.*"]\nrequire = []\n')

    world.load(guest(NUMBERS))

    assert set(missing(world)) == set(LACKS)
