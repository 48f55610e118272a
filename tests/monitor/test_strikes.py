"""Strikes: each row of the policy has its effect, and nobody else is stopped."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import CapwasmError, GuestError, InstanceClosedError, RegistryError
from capwasm.events import ALLOWED, DENIED, FAILED, Event
from capwasm.grants.policy import Policy
from capwasm.grants.strikes import Points, StrikesRule
from capwasm.home import Home
from capwasm.monitor.docket import Docket
from capwasm.monitor.strikes import WHO, Strikes
from capwasm.monitor.told import Lifecycle, LifecycleKind
from capwasm.registry.model import State
from capwasm.registry.registry import Registry
from tests.helpers import ListRecorder
from tests.kit import World, guest
from tests.registry.shop import ID, NOW, Shop, capsule

NAME = f"{ID}@1.0.0"
BY: dict[str, Any] = {"who": "ann", "why": "a test"}
DENIAL = Event("fs", DENIED, NAME, "open", "/data", "not-granted")
LIMIT = Event("limit", DENIED, NAME, "f", reason="limit.fuel")
CRASH = Event("crash", FAILED, NAME, "f", reason="guest.trap")
PROTOCOL = Event("crash", FAILED, NAME, "f", reason="guest.protocol")


def eventually(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + 20
    while not (found := what()) and time.monotonic() < until:
        time.sleep(0.01)
    return found


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path / "home", ListRecorder())
    shop.home.mkdir(mode=0o700)
    yield shop
    shop.close()


def made(**words: Any) -> StrikesRule:
    return StrikesRule(**{word.replace("_", "-"): value for word, value in words.items()})


class Court:
    """Strikes of one home, and what they came to."""

    def __init__(self, shop: Shop, registry: Registry | None = None, **rule: Any) -> None:
        rule = {"suspend": 5, "points": Points(denial=1, limit=2, crash=3)} | rule
        self.home, self.registry, self.rule = shop.home, registry, made(**rule)
        self.recorder = ListRecorder()
        self.clock = NOW.timestamp()
        self.told: list[Lifecycle] = []
        self.ended: list[Lifecycle] = []

    def after(self, *events: Event) -> list[str]:
        """What was ended when a process of its own had seen these."""
        before = len(self.ended)
        docket = Docket(self.home)
        strikes = Strikes(
            docket, self.rule, self.recorder, self.registry,
            on_strike=self.told.append, on_end=self.ended.append, now=lambda: self.clock,
        )  # fmt: skip
        for event in events:
            strikes.observe(event)
        strikes.close()
        docket.close()
        return [str(e.kind) for e in self.ended[before:]]

    def held(self) -> list[str]:
        with contextlib.closing(Docket(self.home)) as docket:
            return sorted(docket.holds())


def installed(shop: Shop, *versions: str) -> Registry:
    registry = shop.registry()
    for version in versions or ("1.0.0",):
        registry.install(capsule(version), **BY)
    return registry


# -- each row of the policy -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "stopped"),
    [
        ([DENIAL] * 5, True),
        ([DENIAL] * 4, False),
        ([LIMIT] * 3, True),
        ([LIMIT] * 2, False),
        ([CRASH] * 2, True),
        ([CRASH], False),
        ([DENIAL, LIMIT, LIMIT], True),
        ([CRASH, DENIAL], False),
    ],
)
def test_row_suspend_and_points(shop: Shop, events: list[Event], stopped: bool) -> None:
    court = Court(shop)

    assert court.after(*events) == (["suspended"] if stopped else [])
    assert court.held() == ([ID] if stopped else [])


@pytest.mark.parametrize(
    "event",
    [
        Event("fs", ALLOWED, NAME, "open", "/data"),
        Event("net", FAILED, NAME, "GET", "https://x", "timeout"),
        Event("limit", DENIED, NAME, "call", reason="limit.concurrency"),
        Event("limit", DENIED, NAME, "call", reason="limit.capacity"),
        Event("call", FAILED, NAME, "f", reason="guest.trap"),
        Event("load", DENIED, NAME, "load", reason="grant.denied"),
        Event("kill", DENIED, NAME, "kill", reason="a person's"),
        Event("revoke", DENIED, NAME, "net"),
        Event("instance", FAILED, NAME, "back-off", reason="guest.backoff"),
        Event("config", DENIED, NAME, "get", "colour", "not granted"),
        Event("clock", DENIED, NAME, "now", reason="not-granted"),
        Event("random", DENIED, NAME, "bytes", reason="not-granted"),
        Event("fs", DENIED, "", "open", "/data", "not-granted"),
        Event("fs", DENIED, "acme.other@1.0.0", "open", "/data", "not-granted"),
    ],
)
def test_refuses_to_count_what_is_no_misdeed_or_another_s(shop: Shop, event: Event) -> None:
    court = Court(shop)

    court.after(*[event] * 100)
    assert ID not in court.held()


def test_row_suspend_0_is_never(shop: Shop) -> None:
    assert Court(shop, suspend=0).after(*[CRASH] * 100) == []


@pytest.mark.parametrize("points", [{"denial": 0}, {"limit": 0}, {"crash": 0}])
def test_row_points_0_is_no_strike(shop: Shop, points: dict[str, int]) -> None:
    (word,) = points
    event = {"denial": DENIAL, "limit": LIMIT, "crash": CRASH}[word]
    court = Court(shop, points=Points(**{"denial": 5, "limit": 5, "crash": 5, **points}))

    assert court.after(*[event] * 50) == []
    assert court.after(DENIAL if word != "denial" else CRASH) == ["suspended"]


def test_row_minutes_lets_strikes_grow_old(shop: Shop) -> None:
    court = Court(shop, minutes=10)
    court.after(*[DENIAL] * 4)
    court.clock += 599
    assert court.after() == []
    court.clock += 2

    assert court.after(*[DENIAL] * 4) == []
    court.clock += 60
    assert court.after(DENIAL) == ["suspended"]


def test_rows_evict_after_and_evict_days(shop: Shop) -> None:
    registry = installed(shop)
    court = Court(shop, registry, evict_after=2, evict_days=30)
    assert court.after(*[DENIAL] * 5) == ["suspended"]
    registry.activate(ID, **BY)
    court.clock += 31 * 24 * 3600
    assert court.after(*[DENIAL] * 5) == ["suspended"]
    registry.activate(ID, **BY)
    court.clock += 24 * 3600

    assert court.after(*[DENIAL] * 5) == ["evicted"]
    assert registry.show(ID).state is State.REVOKED
    with pytest.raises(CapwasmError) as caught:
        registry.serving(ID)
    assert caught.value.code == "verify.revoked"


def test_row_evict_after_0_is_never(shop: Shop) -> None:
    registry = installed(shop)
    court = Court(shop, registry)
    for _ in range(4):
        assert court.after(*[DENIAL] * 5) == ["suspended"]
        registry.activate(ID, **BY)


@pytest.mark.parametrize("word", ["guest.protocol", "crash"])
def test_row_grave_evicts_at_once(shop: Shop, word: str) -> None:
    registry = installed(shop)
    court = Court(shop, registry, suspend=0, grave=(word,))

    assert court.after(*[DENIAL] * 50) == []
    assert court.after(PROTOCOL) == ["evicted"]
    assert registry.show(ID).state is State.REVOKED


def test_row_eviction_suspend_leaves_a_way_back(shop: Shop) -> None:
    registry = installed(shop)
    court = Court(shop, registry, grave=("guest.protocol",), eviction="suspend")

    assert court.after(PROTOCOL) == ["evicted"]
    assert registry.show(ID).state is State.SUSPENDED
    registry.activate(ID, **BY)


def test_the_words_are_read_from_a_policy() -> None:
    text = (
        b"schema = 1\n[strikes]\nsuspend = 7\nminutes = 2\npoints = { crash = 9 }\n"
        b'evict-after = 3\nevict-days = 4\ngrave = ["guest.protocol", "exec"]\neviction = "suspend"\n'
    )
    assert Policy.load(text, ()).strikes == made(
        suspend=7, minutes=2, points=Points(crash=9), evict_after=3, evict_days=4,
        grave=("guest.protocol", "exec"), eviction="suspend",
    )  # fmt: skip
    for wrong in (b"suspend = -1", b"minutes = 0", b'grave = ["No Word"]', b'eviction = "no"'):
        with pytest.raises(CapwasmError, match=r"policy\.toml"):
            Policy.load(b"schema = 1\n[strikes]\n" + wrong + b"\n", ())


# -- where it is kept -------------------------------------------------------------------------------------


def test_an_installed_version_is_suspended_by_us_with_the_reason(shop: Shop) -> None:
    registry = installed(shop)
    court = Court(shop, registry)
    court.after(*[DENIAL] * 5)

    record = registry.show(ID).versions[0]
    assert record.state is State.SUSPENDED
    assert record.changed.who == WHO
    assert record.changed.why == "5 strikes in 10 minutes, last: fs not-granted"
    assert court.held() == []
    with pytest.raises(RegistryError, match="it is suspended"):
        registry.serving(ID)
    registry.activate(ID, **BY)
    assert court.after(DENIAL) == [], "a person's word begins anew"


def test_an_older_version_that_runs_on_is_the_one_that_is_suspended(shop: Shop) -> None:
    registry = installed(shop, "1.0.0", "1.1.0")
    Court(shop, registry).after(*[DENIAL] * 5)

    plugin = registry.show(ID)
    assert [(v.version, v.state) for v in plugin.versions] == [
        ("1.0.0", State.SUSPENDED),
        ("1.1.0", State.ACTIVE),
    ]


def test_a_version_that_the_registry_does_not_know_is_held(shop: Shop) -> None:
    registry = installed(shop, "0.9.0")
    court = Court(shop, registry)

    court.after(*[DENIAL] * 5)
    assert registry.show(ID).state is State.ACTIVE
    assert court.held() == [ID]
    assert [(e.kind, e.action) for e in court.recorder.events] == [("kill", "hold")]


def test_what_a_person_suspended_before_is_not_counted_as_ours(shop: Shop) -> None:
    registry = installed(shop)
    registry.suspend(ID, **BY)
    court = Court(shop, registry)

    court.after(*[DENIAL] * 5)
    assert registry.show(ID).changed.who == "ann"
    with contextlib.closing(Docket(shop.home)) as docket:
        assert docket.ends() == ()


def test_many_watchers_count_together_and_stop_it_once(shop: Shop) -> None:
    court = Court(shop, suspend=40)
    others = [Court(shop, suspend=40) for _ in range(8)]
    threads = [threading.Thread(target=c.after, args=[DENIAL] * 5) for c in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert court.held() == [ID]
    with contextlib.closing(Docket(shop.home)) as docket:
        assert len(docket.ends(ID)) == 1
    assert sum(len(c.ended) for c in others) >= 1


def test_real_processes_count_together_and_stop_it_once(shop: Shop) -> None:
    registry = installed(shop)
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from tests.monitor.test_strikes import *\n"
        "shop = Shop(Path(sys.argv[1]), ListRecorder())\n"
        "court = Court(shop, shop.registry(), suspend=40)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(*court.after(*[DENIAL] * 10))\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", code, str(shop.home), root],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
            )
            for _ in range(4)
        ]  # fmt: skip
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        said = "".join(process.communicate("go\n", timeout=60)[0] for process in processes)

    assert "suspended" in said
    assert registry.show(ID).state is State.SUSPENDED
    suspensions = [s for s in registry.history(ID) if s.action == "suspend"]
    assert [(s.mark.who, s.mark.why.partition(",")[0]) for s in suspensions] == [
        (WHO, "40 strikes in 10 minutes")
    ]
    with contextlib.closing(Docket(shop.home)) as docket:
        assert [(e.kind, e.held) for e in docket.ends()] == [("suspended", False)]


def test_a_hold_outlives_the_process_until_it_is_forgiven(shop: Shop) -> None:
    Court(shop).after(*[DENIAL] * 5)
    look = (
        "import sys; from pathlib import Path; from capwasm.monitor.docket import Docket;"
        f"Docket(Path(sys.argv[1])).check({ID!r})"
    )
    run = subprocess.run(
        [sys.executable, "-c", look, str(shop.home)], capture_output=True, text=True, check=False
    )
    assert "strikes.held" in run.stderr or "was suspended for its strikes" in run.stderr

    with contextlib.closing(Docket(shop.home)) as docket:
        docket.check("acme.other")
        assert docket.forgive(ID)
        docket.check(ID)
        assert not docket.forgive(ID)


def test_a_hold_that_nobody_of_us_wrote_refuses(shop: Shop) -> None:
    Court(shop).after(*[DENIAL] * 5)
    (shop.home / "strikes.key").unlink()

    with (
        contextlib.closing(Docket(shop.home)) as docket,
        pytest.raises(RegistryError) as caught,
    ):
        docket.check(ID)
    assert caught.value.code == "registry.tampered"


def test_points_that_nobody_of_us_wrote_count_for_nothing(shop: Shop) -> None:
    court = Court(shop)
    court.after(*[DENIAL] * 4)
    (shop.home / "strikes.key").unlink()

    assert court.after(DENIAL) == []


def test_what_runs_is_ended_though_nothing_can_be_written(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    court = Court(shop)

    def full(*_words: Any, **_more: Any) -> bool:
        raise RegistryError("no room", code="registry.unusable")

    monkeypatch.setattr(Docket, "end", full)
    assert set(court.after(*[DENIAL] * 5)) == {"suspended"}


def test_the_core_is_told_of_strikes_once_a_batch(shop: Shop) -> None:
    court = Court(shop, suspend=500)
    court.after(*[DENIAL] * 300)

    (told,) = court.told
    assert told.kind is LifecycleKind.STRIKE
    assert told.reason == "300 of 500 strikes in 10 minutes, last: fs not-granted"
    assert told.text == f"{ID} did what it may not do."


# -- in a running core -------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def suspended(world: World, plugin_id: str = "test.guest") -> bool:
    with world_registry(world) as registry:
        return registry.show(plugin_id).state is State.SUSPENDED


@contextlib.contextmanager
def world_registry(world: World) -> Iterator[Registry]:
    place = Home(world.home)
    with (
        place.commands_recorder() as recorder,
        place.registry(
            recorder, trust=place.trust(), policy=world.runtime.policy,
            capabilities=world.runtime.capabilities,
        ) as registry,
    ):  # fmt: skip
        yield registry


def test_a_plugin_that_traps_again_and_again_is_suspended_and_ended(world: World) -> None:
    world.policy("[strikes]\nsuspend = 10\npoints = { crash = 5 }\n")
    with world_registry(world) as registry:
        registry.install(world.capsule(guest("hostile")), **BY)
    plugin = world.runtime.load_installed("test.guest")
    got: list[Lifecycle] = []
    world.runtime.subscribe(got.append)
    with pytest.raises(GuestError):
        plugin.call("trap")
    with pytest.raises(GuestError):
        plugin.call("trap")

    assert eventually(lambda: not plugin.alive)
    assert suspended(world)
    with pytest.raises(InstanceClosedError, match="strikes"):
        plugin.call("trap")
    for load in (
        lambda: world.runtime.load_installed("test.guest"),
        lambda: world.runtime.load(world.capsule(guest("hostile"))),
    ):
        with pytest.raises(RegistryError) as caught:
            load()
        assert caught.value.code == "registry.state"
    assert eventually(lambda: LifecycleKind.SUSPENDED in [e.kind for e in got])
    assert eventually(lambda: LifecycleKind.STRIKE in [e.kind for e in got])
    with world_registry(world) as registry:
        registry.activate("test.guest", **BY)
    world.runtime.load_installed("test.guest").call("bytes", 3)
    assert eventually(lambda: LifecycleKind.RESUMED in [e.kind for e in got])


def test_a_plugin_from_a_file_is_held_through_a_restart(world: World) -> None:
    world.policy("[strikes]\nsuspend = 2\npoints = { crash = 1 }\n")
    plugin = world.load(guest("hostile"))
    other = world.load(guest("hostile"), id="test.other")
    for _ in range(2):
        with pytest.raises(GuestError):
            plugin.call("trap")
    assert eventually(lambda: not plugin.alive)
    assert other.alive

    for _ in range(2):
        with pytest.raises(RegistryError, match=r"capwasm strikes forgive test\.guest") as caught:
            world.load(guest("hostile"))
        assert caught.value.code == "strikes.held"
        world.close()  # and again, in a core that was restarted
    assert world.load(guest("hostile"), id="test.other").call("bytes", 2)
    with contextlib.closing(Docket(world.home)) as docket:
        docket.forgive("test.guest")
    assert world.load(guest("hostile")).call("bytes", 2)


def test_a_hold_by_another_process_ends_what_runs_here(world: World) -> None:
    plugin, other = world.load(guest("hostile")), world.load(guest("hostile"), id="test.other")
    got: list[Lifecycle] = []
    world.runtime.subscribe(got.append)
    with contextlib.closing(Docket(world.home)) as docket:
        docket.end("test.guest", "1.0.0", "evicted", "elsewhere", int(time.time()), held=True)

        assert eventually(lambda: not plugin.alive)
        assert other.alive
        docket.forgive("test.guest")
    assert eventually(lambda: LifecycleKind.RESUMED in [e.kind for e in got])
    assert LifecycleKind.EVICTED in [e.kind for e in got if e.running]


@pytest.mark.case("LIFE-01")
def test_a_kill_ends_what_runs_and_leaves_it_loaded(world: World) -> None:
    manifest = f"[limits]\nfuel = {2**50}\nwall-ms = 60000\n"
    plugin = world.load(guest("hostile"), manifest)
    other = world.load(guest("hostile"), manifest, id="test.other")
    got: list[Lifecycle] = []
    world.runtime.subscribe(got.append)
    errors: list[str] = []

    def spin(each: Any) -> None:
        try:
            each.call("spin")
        except GuestError as exc:
            errors.append(str(exc))

    threads = [threading.Thread(target=spin, args=[p]) for p in (plugin, other)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: plugin.under_way() and other.under_way())
    with world_registry(world) as registry:
        outcome = registry.kill("test.guest", who="ann", why="hangs")
    threads[0].join(20)

    assert outcome.action == "killed"
    assert len(errors) == 1
    assert "killed by ann: hangs" in errors[0]
    assert threads[1].is_alive(), "nobody else is ended"
    assert plugin.call("bytes", 2), "it may be called again"
    assert [e.kind for e in got if e.running] == [LifecycleKind.KILLED]
    assert world.load(guest("hostile"), version="1.0.1").call("bytes", 2)
    time.sleep(0.5)  # two more looks
    assert [e.kind for e in got if e.running] == [LifecycleKind.KILLED], "once is once"
    other.kill("enough")
    threads[1].join(20)
