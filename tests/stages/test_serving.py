"""What an instance is served: opened by the first call, closed once, and nothing after."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from capwasm.capability import Interface
from capwasm.caps import standard_capabilities
from capwasm.caps.clock import Clock, ClockClause
from capwasm.errors import CapabilityError, InternalError
from capwasm.grants.manifest import parse_manifest
from capwasm.limits import DEFAULTS
from capwasm.serving import Serving, Terms
from tests.helpers import ListRecorder, grant_of
from tests.kit import HEAD, World, guest

CLOCK = "capwasm:clock/clock@0.1.0"
MONOTONIC = "wasi:clocks/monotonic-clock@0.2.12"


class Told(Clock):
    """A clock that tells when it is opened and closed."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def open(self, grant: Any, ctx: Any) -> Any:
        self.told.append("open")
        return super().open(grant, ctx)

    def serve(self, state: Any) -> Sequence[Interface]:
        self.told.append("serve")
        return super().serve(state)

    def close(self, state: Any) -> None:
        self.told.append("close")
        super().close(state)


@pytest.fixture
def clock() -> Told:
    return Told()


@pytest.fixture
def terms(clock: Told, tmp_path: Path) -> Terms:
    capabilities = tuple(clock if c.name == "clock" else c for c in standard_capabilities())
    head = HEAD.format(id="test.guest", version="1.0.0", requires=">=0", instance="per-call")
    return Terms(
        capabilities=capabilities,
        manifest=parse_manifest(f"{head}[clock]\n[kv]\noptional = true\n".encode(), capabilities),
        granted={"clock": grant_of(ClockClause())},
        limits=DEFAULTS,
        name="test.guest@1.0.0",
        recorder=ListRecorder(),
        data_dir=tmp_path,
    )


def test_opens_nothing_until_something_is_called(terms: Terms, clock: Told) -> None:
    serving = Serving(terms)
    assert clock.told == []
    serving.function(CLOCK, "monotonic")
    serving.function(CLOCK, "now")
    assert clock.told == ["open", "serve"]
    serving.function(MONOTONIC, "now")  # on the same clock
    assert clock.told == ["open", "serve"]
    serving.close()
    assert clock.told == ["open", "serve", "close"]


def test_closing_what_was_never_used_opens_nothing(terms: Terms, clock: Told) -> None:
    serving = Serving(terms)
    serving.close()
    serving.close()
    assert clock.told == []


@pytest.mark.case("LIFE-06")
@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("interface", [CLOCK, MONOTONIC, "wasi:io/streams@0.2.12"])
def test_refuses_to_serve_a_closed_instance(
    terms: Terms, clock: Told, interface: str, used: bool
) -> None:
    serving = Serving(terms)
    if used:
        serving.function(CLOCK, "monotonic")
    serving.close()
    before = list(clock.told)
    with pytest.raises(InternalError):
        serving.function(interface, "now")
    with pytest.raises(InternalError):
        serving.everything()
    serving.close()
    assert clock.told == before


def test_a_capability_that_can_not_be_closed_leaves_nothing_to_call(
    terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = Serving(terms)
    serving.function(CLOCK, "monotonic")

    def stuck(_self: Any, _state: Any) -> None:
        raise CapabilityError("stuck", code="capability.bind")

    monkeypatch.setattr(Clock, "close", stuck)
    with pytest.raises(CapabilityError):
        serving.close()
    with pytest.raises(InternalError):
        serving.function(CLOCK, "monotonic")


def test_two_instances_share_no_state(terms: Terms) -> None:
    one, other = Serving(terms), Serving(replace(terms))
    numbers = set()
    for serving in (one, other):
        function: Any = serving.function(CLOCK, "monotonic")
        numbers.add(function.__self__._ctx.instance)
    assert len(numbers) == 2
    assert one.function(CLOCK, "now") != other.function(CLOCK, "now")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_calls_leave_nothing_behind_even_for_the_garbage_collector(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.policy('[plugins."test.*".clock]\n[plugins."test.*".random]\n')
    plugin = world.load(guest("starter"), "[clock]\n[random]\n[limits]\nfuel = 2000000000\n")
    plugin._ready._slow = False

    def some(count: int) -> None:
        # Each starts an instance, which asks the clock and the random source.
        for _ in range(count):
            assert plugin.call("count") == 1

    some(200)
    gc.collect()
    gc.disable()
    try:
        before, objects = _resident(), len(gc.get_objects())
        some(400)
        assert len(gc.get_objects()) - objects < 400
        assert _resident() - before < 4 << 20
    finally:
        gc.enable()
        world.close()
