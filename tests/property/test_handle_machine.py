"""A machine that opens, uses, gives, drops, forges and revokes handles, against a model.

What it holds: a live handle under a live lease answers with its own number; every other handle never
answers; the host's table holds exactly the live ones; and none of it depends on the thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from capwasm.call import current_call
from capwasm.capability import Interface
from capwasm.engine.compile import Compiler
from capwasm.engine.engine import PluginEngine
from capwasm.engine.link import Linked, link
from capwasm.errors import CapError, GuestTrap, HandleLimitExceeded, InstanceClosedError
from capwasm.handles import Handle, HandleTable, Lease
from capwasm.instance import Instance
from capwasm.limits import DEFAULTS
from capwasm.values import Err, Ok
from tests.kit import ListServed, guest

SLOTS = st.integers(0, 5)
LIMIT = 4


class Thing(Handle):
    """A handle that knows its number, and counts how often it was released."""

    def __init__(self, lease: Lease, number: int) -> None:
        super().__init__(lease)
        self.number_ = number
        self.released = 0

    def number(self) -> int:
        self.check()
        return self.number_

    def release(self) -> None:
        self.released += 1


class Host:
    """One engine and one linked guest, for all runs of the machine."""

    def __init__(self) -> None:
        self.engine = PluginEngine()
        self.lease = Lease()
        self.made: list[Thing] = []
        functions: dict[str, Callable[..., Any]] = {
            "open": self.open,
            "[method]thing.number": Thing.number,
            "give": self.give,
        }
        signatures = {
            "open": "func(n: u32) -> own<test:host/things.thing>",
            "[method]thing.number": (
                "func(self: borrow<test:host/things.thing>) -> result<u32, enum{closed, denied}>"
            ),
            "give": "func(t: own<test:host/things.thing>) -> u32",
        }
        self.served = [Interface("test:host/things@1.0.0", functions, {"thing": Thing}, signatures)]
        component = Compiler(self.engine, None).compile(guest("keeper"))
        self.linked: Linked = link(
            self.engine, component, self.served, owners={}, unserved=lambda _: None
        )

    def open(self, n: int) -> Thing:
        thing = Thing(self.lease, n)
        self.made.append(thing)
        return thing

    def give(self, thing: Thing) -> int:
        # The guest gave it up: it is the host's to close now.
        assert thing not in list(current_call().owner.handles)
        thing.close()
        return thing.number_

    def new(self) -> Instance:
        limits = replace(DEFAULTS, handles=LIMIT)
        instance = Instance(self.engine, self.linked, "t@1", limits, ListServed(self.served))
        instance.start()
        return instance


HOST = Host()


@dataclass
class Held:
    """What the model knows of a slot's handle."""

    number: int
    lease: Lease


def elsewhere(work: Callable[[], Any]) -> Any:
    """Run on a thread of its own, and bring back what it gave or raised."""
    out: list[Any] = []

    def body() -> None:
        try:
            out.append((True, work()))
        except BaseException as exc:
            out.append((False, exc))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(30)
    good, value = out[0]
    if good:
        return value
    raise value


class Handles(RuleBasedStateMachine):
    """The model is a table of slots."""

    @initialize()
    def begin(self) -> None:
        HOST.lease = Lease()
        HOST.made.clear()
        self.instance = HOST.new()
        self.held: dict[int, Held] = {}

    def call(self, name: str, *args: Any, away: bool = False) -> Any:
        export = HOST.linked.exports.find(name)
        if away:
            return elsewhere(lambda: self.instance.call(export, args)[0])
        return self.instance.call(export, args)[0]

    def reborn(self) -> None:
        """The instance died: all handles died with it, once each."""
        assert not self.instance.alive
        assert len(self.instance.handles) == 0
        with pytest.raises(InstanceClosedError):
            self.call("use", 0)
        self.instance = HOST.new()
        self.held.clear()

    @rule(slot=SLOTS, number=st.integers(0, 2**32 - 1), away=st.booleans())
    def open(self, slot: int, number: int, away: bool) -> None:
        if slot in self.held:
            return
        if len(self.held) == LIMIT:
            with pytest.raises(HandleLimitExceeded):
                self.call("open", slot, number, away=away)
            self.reborn()
            return
        self.call("open", slot, number, away=away)
        self.held[slot] = Held(number, HOST.lease)

    @rule(slot=SLOTS, away=st.booleans())
    def use(self, slot: int, away: bool) -> None:
        if slot not in self.held:
            return
        held = self.held[slot]
        wanted = Ok(held.number) if held.lease.alive else Err("closed")
        assert self.call("use", slot, away=away) == wanted

    @rule(slot=SLOTS, away=st.booleans())
    def drop(self, slot: int, away: bool) -> None:
        if slot in self.held:
            self.call("drop", slot, away=away)
            del self.held[slot]

    @rule(slot=SLOTS)
    def give(self, slot: int) -> None:
        if slot in self.held:
            assert self.call("give", slot) == self.held.pop(slot).number

    @rule(slot=SLOTS)
    def use_a_slot_whose_handle_is_gone(self, slot: int) -> None:
        # Its old index may be another handle's by now: that one then answers, being the guest's own.
        if slot in self.held or not self.instance.alive:
            return
        try:
            answer = self.call("use", slot)
        except GuestTrap:
            self.reborn()
        else:
            assert answer == Err("closed") or answer.unwrap() in {
                h.number for h in self.held.values() if h.lease.alive
            }

    @rule(index=st.integers(1_000, 2**32 - 1))
    def forge(self, index: int) -> None:
        with pytest.raises(GuestTrap):
            self.call("forge", index)
        self.reborn()

    @rule()
    def revoke(self) -> None:
        elsewhere(lambda: HOST.lease.revoke("a test"))
        HOST.lease = Lease()

    @rule()
    def evict(self) -> None:
        elsewhere(lambda: self.instance.close("evicted"))
        self.reborn()

    @precondition(lambda self: len(self.held) > 1)
    @rule()
    def use_all_from_threads_one_after_the_other(self) -> None:
        for slot, held in self.held.items():
            wanted = Ok(held.number) if held.lease.alive else Err("closed")
            assert self.call("use", slot, away=True) == wanted

    @invariant()
    def the_table_holds_the_live_ones(self) -> None:
        if hasattr(self, "held"):
            assert len(self.instance.handles) == len(self.held)
            assert all(t.released <= 1 for t in HOST.made)
            assert sum(not t.released for t in HOST.made) == len(self.held)

    def teardown(self) -> None:
        if hasattr(self, "instance"):
            self.instance.close()
            assert all(t.released == 1 for t in HOST.made)


Handles.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.case("LIFE-05", "LIFE-06", "LIFE-07", "TYP-08", "SEC-03", "SEC-04", "RES-14")
class TestHandles(Handles.TestCase):  # type: ignore[name-defined, misc]
    """The machine, as a test."""


@pytest.mark.case("LIFE-06")
def test_a_rep_is_never_used_twice() -> None:
    table = HandleTable(2)
    lease = Lease()
    seen = set()
    for n in range(1_000):
        rep = table.add(Thing(lease, n))
        assert rep not in seen
        seen.add(rep)
        table.drop(rep)
        with pytest.raises(CapError):
            table.get(rep, Thing)


@pytest.mark.case("LIFE-05")
def test_no_use_begins_after_a_revocation_returned() -> None:
    # Many threads use while one revokes: whatever began before may end, nothing begins after.
    for _ in range(20):
        lease = Lease()
        thing = Thing(lease, 1)
        revoked = threading.Event()
        late: list[int] = []
        go = threading.Event()

        def use(
            thing: Thing = thing,
            revoked: threading.Event = revoked,
            late: list[int] = late,
            go: threading.Event = go,
        ) -> None:
            go.wait()
            for _ in range(500):
                after = revoked.is_set()
                try:
                    thing.number()
                except CapError:
                    return
                if after:
                    late.append(1)

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        go.set()
        lease.revoke("now")
        revoked.set()
        for thread in threads:
            thread.join(10)
        assert late == []
