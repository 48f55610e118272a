from __future__ import annotations

from pathlib import Path

from capwasm.caps.clock import Clock, ClockClause
from tests.helpers import grant_of, in_call, open_context

from .test_handle import Virtual


def test_allows_the_whole_interface_from_a_given_source() -> None:
    source = Virtual()
    clock = Clock(source)
    state = clock.open(grant_of(ClockClause(1000)), open_context(Path("/nowhere")))
    [interface] = clock.serve(state)

    with in_call():
        before = interface.functions["now"]()
        interface.functions["sleep"](2_000_000_000)
        assert interface.functions["now"]() == before + 2_000_000_000
        assert interface.functions["monotonic"]() == 2_000_000_000
    assert interface.name in Clock.interfaces
    assert not interface.resources
    clock.close(state)
