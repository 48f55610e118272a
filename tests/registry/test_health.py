"""The error budget: a new version that fails too often goes back, once, and nobody else does."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from capwasm.caps import standard_capabilities
from capwasm.errors import CapwasmError, GuestError, InstanceClosedError
from capwasm.events import ALLOWED, DENIED, FAILED, Event
from capwasm.grants.updates import ErrorBudget
from capwasm.home import Home
from capwasm.lifecycle import Lifecycle
from capwasm.registry.health import WHO as BUDGET
from capwasm.registry.health import Health, is_failure
from capwasm.registry.model import State
from capwasm.registry.registry import Registry
from tests.helpers import ListRecorder
from tests.kit import World, guest
from tests.registry.shop import ACME, GLOBEX, ID, KEYS, NOW, Shop, capsule

ROOT = Path(__file__).resolve().parents[2]
WHO: dict[str, Any] = {"who": "ann", "why": "a test"}
NAME = f"{ID}@1.1.0"
TRAP = Event("call", FAILED, NAME, "f", reason="guest.trap")


def eventually(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + 30
    while not (found := what()) and time.monotonic() < until:
        time.sleep(0.01)
    return found


class Trial:
    """A registry with 1.0.0 and 1.1.0, and somebody who watches the latter."""

    def __init__(self, shop: Shop, *versions: str, now: Any = lambda: NOW, **budget: int) -> None:
        self.registry = shop.registry()
        self.now, self.budget = now, budget
        for version in versions or ("1.0.0", "1.1.0"):
            self.registry.install(capsule(version), **WHO)
        self.told: list[tuple[str, str, str]] = []

    @contextlib.contextmanager
    def health(self) -> Iterator[Health]:
        budget = ErrorBudget(**{"calls": 10, "failures": 3, **self.budget})
        health = Health(self.registry, budget, lambda *told: self.told.append(told), now=self.now)
        try:
            plugin = self.registry.show(ID)
            assert plugin.active is not None
            health.watch(plugin.active)
            yield health
        finally:
            health.close()

    def after(self, *events: Event) -> str | None:
        """The version that serves when these were observed, by a process of their own."""
        with self.health() as health:
            for event in events:
                health.observe(event)
        return self.registry.show(ID).serving


def good(calls: int = 1) -> Event:
    return Event("call", ALLOWED, NAME, "f", details={"calls": calls} if calls > 1 else {})


# -- what is counted ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "counts"),
    [
        ("guest.trap", True),
        ("limit.fuel", True),
        ("limit.memory", True),
        ("internal", True),
        ("limit.concurrency", False),
        ("limit.capacity", False),
        ("guest.interrupted", False),
        ("guest.closed", False),
        ("TypeError", False),
        ("audit.sink", False),
    ],
)
def test_counts_what_the_plugin_did_and_nothing_of_the_core(reason: str, counts: bool) -> None:
    assert is_failure(reason) is counts


def test_sends_back_at_the_last_failure_of_the_budget(shop: Shop, recorder: ListRecorder) -> None:
    trial = Trial(shop)

    assert trial.after(good(4), TRAP, good(), TRAP, TRAP) == "1.0.0"
    plugin = trial.registry.show(ID)
    left = plugin.version("1.1.0")
    assert left is not None
    assert left.state is State.SUSPENDED
    assert (left.changed.who, left.changed.why) == (BUDGET, "3 of its first 8 calls failed")
    assert trial.told == [(ID, "1.1.0", "3 of its first 8 calls failed")]
    assert [(e.action, e.plugin) for e in recorder.of(ALLOWED)][-1] == (
        "rolled-back",
        f"{ID}@1.0.0",
    )
    assert [s.action for s in trial.registry.history(ID)][-1] == "rollback"
    assert trial.registry.serving(ID)[0].version == "1.0.0"


@pytest.mark.parametrize(
    "events",
    [
        [TRAP, TRAP],
        [good(11), TRAP, TRAP, TRAP],
        [TRAP, TRAP, good(8), TRAP],
        [Event("call", FAILED, NAME, "f", reason="limit.concurrency")] * 5,
        [Event("call", FAILED, f"{ID}@1.0.0", "f", reason="guest.trap")] * 5,
        [Event("crash", FAILED, NAME, "f", reason="guest.trap")] * 5,
    ],
)
def test_refuses_to_send_back_for_less(shop: Shop, events: list[Event]) -> None:
    assert Trial(shop).after(*events) == "1.1.0"


def test_refuses_to_send_back_when_its_hours_are_over(shop: Shop) -> None:
    later = NOW + timedelta(hours=24)

    assert Trial(shop, now=lambda: later).after(TRAP, TRAP, TRAP) == "1.1.0"


def test_a_budget_of_no_failures_is_none(shop: Shop) -> None:
    trial = Trial(shop, failures=0)

    assert trial.after(*[TRAP] * 9) == "1.1.0"
    assert not (shop.home / "health.db").exists()


# -- together, and over time ----------------------------------------------------------------------------


def test_what_was_counted_outlives_the_process(shop: Shop) -> None:
    trial = Trial(shop)

    assert trial.after(TRAP) == "1.1.0"
    assert trial.after(good(3), TRAP) == "1.1.0"
    assert trial.after(TRAP) == "1.0.0"


def test_a_version_that_was_good_for_long_enough_stays(shop: Shop) -> None:
    trial = Trial(shop)

    assert trial.after(TRAP, TRAP, good(8)) == "1.1.0"
    assert trial.after(*[TRAP] * 5) == "1.1.0"


SCRIPT = f"""
import sys
from pathlib import Path
from capwasm.grants.updates import ErrorBudget
from capwasm.registry.health import Health
from tests.registry.shop import NOW, Shop
from tests.registry.test_health import TRAP
registry = Shop(Path(sys.argv[1])).registry()
health = Health(registry, ErrorBudget(calls=100, failures=8), lambda *_: None, now=lambda: NOW)
record = registry.show({ID!r}).active
print("ready", flush=True)
sys.stdin.readline()
health.watch(record)
for _ in range(2):
    health.observe(TRAP)
health.close()
"""


@pytest.mark.case("PER-06")
def test_several_processes_spend_one_budget(shop: Shop, tmp_path: Path, monkeypatch: Any) -> None:
    trial = Trial(shop)
    ACME.save(tmp_path / "acme.key")
    GLOBEX.save(tmp_path / "globex.key")
    monkeypatch.setenv(KEYS, str(tmp_path))
    serving = []
    for _ in range(2):  # four failures are not enough, eight are
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(shop.home)],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            process.communicate(timeout=60)
            assert process.returncode == 0
        serving.append(trial.registry.show(ID).serving)

    assert serving == ["1.1.0", "1.0.0"]
    assert [s.action for s in trial.registry.history(ID)].count(
        "rollback"
    ) == 2  # one went, one came


def test_refuses_counts_that_somebody_wrote(shop: Shop) -> None:
    trial = Trial(shop)
    assert trial.after(TRAP) == "1.1.0"
    with contextlib.closing(sqlite3.connect(shop.home / "health.db")) as db:
        assert db.execute("UPDATE trials SET failures = 99").rowcount == 1
        db.commit()

    assert trial.after(TRAP) == "1.1.0"


# -- where it goes, and that it does not come again --------------------------------------------------------


@pytest.mark.case("SIG-15")
def test_what_was_sent_back_is_not_taken_again_without_a_person(shop: Shop) -> None:
    trial = Trial(shop)
    assert trial.after(TRAP, TRAP, TRAP) == "1.0.0"

    again = trial.registry.install(capsule("1.1.0"), **WHO)
    assert (again.action, again.plugin.serving) == ("unchanged", "1.0.0")
    assert trial.after(*[TRAP] * 9) == "1.0.0"  # and what serves now is not new
    trial.registry.activate(ID, "1.1.0", **WHO)
    assert trial.after(TRAP, TRAP) == "1.1.0"  # it has a budget again
    assert trial.after(TRAP) == "1.0.0"
    assert trial.registry.install(capsule("1.2.0"), **WHO).action == "updated"


def test_goes_by_a_version_that_was_revoked(shop: Shop) -> None:
    trial = Trial(shop, "0.9.0", "1.0.0", "1.1.0")
    trial.registry.revoke(ID, "1.0.0", **WHO)

    assert trial.after(TRAP, TRAP, TRAP) == "0.9.0"


@pytest.mark.parametrize("how", ["first", "revoked", "pinned"])
def test_stays_where_there_is_no_way_back(shop: Shop, recorder: ListRecorder, how: str) -> None:
    trial = Trial(shop, "1.1.0") if how == "first" else Trial(shop)
    with trial.health() as health:
        eventually(lambda: (shop.home / "health.db").exists() or how == "first")
        if how == "revoked":
            trial.registry.revoke(ID, "1.0.0", **WHO)
        elif how == "pinned":
            trial.registry.pin(ID, "1.1.0", **WHO)
        for _ in range(9):
            health.observe(TRAP)
    reasons = [e.reason for e in recorder.of(DENIED)]

    assert trial.registry.serving(ID)[0].version == "1.1.0"
    assert trial.told == []
    assert (
        reasons
        == {"first": [], "revoked": ["registry.unknown"], "pinned": ["registry.pinned"]}[how]
    )
    trial.after(*[TRAP] * 9)
    assert len(recorder.of(DENIED)) == len(reasons)  # told once


def test_a_person_who_was_faster_is_left_alone(shop: Shop) -> None:
    trial = Trial(shop)
    with trial.health() as health:
        eventually((shop.home / "health.db").exists)
        trial.registry.install(capsule("1.2.0"), **WHO)
        for _ in range(3):
            health.observe(TRAP)

    assert trial.registry.show(ID).serving == "1.2.0"
    assert trial.told == [(ID, "1.1.0", "1.1.0 serves no more")]


# -- within a runtime --------------------------------------------------------------------------------------

BUDGETED = "[updates]\nerror-budget = { calls = 50, failures = 3 }\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.policy(BUDGETED)
    yield world
    world.close()


def installed(world: World, *codes: bytes) -> Registry:
    registry = world.runtime.registry
    assert isinstance(registry, Registry)
    for number, code in enumerate(codes):
        made = world.capsule(code, version=f"1.{number}.0")
        world.consent(made)
        registry.install(made, **WHO)
    return registry


def test_a_running_plugin_ends_and_the_good_version_is_loaded(world: World) -> None:
    registry = installed(world, guest("hostile"), guest("hostile"))
    told: list[Lifecycle] = []
    world.runtime.subscribe(told.append)
    plugin = world.runtime.load_installed("test.guest")
    assert plugin.call("divide", 6, 2) == 3
    for _ in range(3):
        with pytest.raises(GuestError):
            plugin.call("trap")

    assert eventually(lambda: not plugin.alive)
    with pytest.raises(InstanceClosedError, match="sent back: 3 of its first"):
        plugin.call("divide", 6, 2)
    assert registry.show("test.guest").serving == "1.0.0"
    with world.runtime.load_installed("test.guest") as good:
        assert (good.version, good.call("divide", 6, 2)) == ("1.0.0", 3)
    assert eventually(lambda: {str(t.kind) for t in told} == {"suspended", "activated"})
    assert {(str(t.kind), t.version, t.running) for t in told} == {
        ("suspended", "1.1.0", True),
        ("activated", "1.0.0", False),
    }
    done = [e for e in world.events("install") if e["action"] == "rolled-back"]
    assert [e["plugin"] for e in done] == ["test.guest@1.0.0"]
    assert "error budget" in done[0]["details"]["who"]


def test_a_version_that_does_not_start_goes_back_as_well(world: World) -> None:
    broken = bytes(
        wasmtime.wat2wasm(
            "(component (core module $m (func $f unreachable) (start $f))"
            " (core instance (instantiate $m)))"
        )
    )
    installed(world, guest("hostile"), broken)
    for _ in range(3):
        with pytest.raises(GuestError):
            world.runtime.load_installed("test.guest")

    def loads() -> bool:
        with contextlib.suppress(CapwasmError):
            world.runtime.load_installed("test.guest").close()
            return True
        return False

    assert eventually(loads)


def test_ends_what_runs_when_another_process_sent_it_back(world: World) -> None:
    installed(world, guest("hostile"), guest("hostile"))
    plugin = world.runtime.load_installed("test.guest")
    script = "import sys; from tests.registry import test_health as t; t.send_back(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, str(world.home)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    assert eventually(lambda: not plugin.alive)
    assert "suspended here" in repr(plugin)


def send_back(home: str) -> None:
    """What another process does: it counts the failures of its own instances."""
    place, known = Home(Path(home)), standard_capabilities()
    with (
        place.commands_recorder() as recorder,
        place.registry(
            recorder, trust=place.trust(), policy=place.policy(known), capabilities=known
        ) as registry,
    ):
        health = Health(registry, registry.policy.updates.error_budget, lambda *_: None)
        record = registry.show("test.guest").active
        assert record is not None
        health.watch(record)
        for _ in range(3):
            health.observe(Event("call", FAILED, record.name, "f", reason="limit.fuel"))
        health.close()
        assert registry.show("test.guest").serving == "1.0.0"
