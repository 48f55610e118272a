"""Feeds and plugins that run: stopped in time, never loaded again, and the core is told."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from capwasm import lifecycle
from capwasm.errors import (
    AuditError,
    CallInterrupted,
    CapwasmError,
    InstanceClosedError,
    VerificationError,
)
from capwasm.home import Home
from capwasm.lifecycle import Lifecycle, LifecycleKind
from capwasm.loading import Loader
from capwasm.plugin import Plugin
from capwasm.registry.model import State
from capwasm.registry.registry import Registry
from capwasm.revocation import watch
from capwasm.revocation.guard import Guard
from capwasm.runtime import Runtime
from tests.caps.net.servers import Got, Origin, http
from tests.kit import Refused, World, guest
from tests.revocation.desk import ANN, EVE, fresh, wait_for
from tests.stages.test_stopping import ENDLESS, SPINNING_START

ID = "test.guest"
ALL = {"plugins": {"*": "stop"}}
OLD = {"versions": {ID: {"<1.1": "leaks keys"}}}
WHO: dict[str, Any] = {"who": "ann", "why": "a test"}


class Site(World):
    """A world that trusts Ann as a revoker."""

    def trust(self) -> None:
        super().trust()
        with (self.home / "trust.toml").open("a") as file:
            file.write(
                f'[[key]]\nname = "ann"\npublic = "{ANN.public.base64()}"\n'
                'roles = ["revoker"]\nids = ["*"]\n'
            )

    def drop(self, data: bytes, name: str = "feed.json") -> None:
        """As a tool of the operator's would: beside it first, then by its name."""
        inbox = self.home / "revocations"
        inbox.mkdir(exist_ok=True)
        (inbox / ".new").write_bytes(data)
        (inbox / ".new").rename(inbox / name)

    def told(self, action: str) -> list[dict[str, Any]]:
        return [e for e in self.events("revocation") if e["action"] == action]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def spinning(plugin: Plugin) -> tuple[threading.Thread, list[BaseException]]:
    """A call that never ends by itself, under way."""
    caught: list[BaseException] = []

    def work() -> None:
        try:
            plugin.call("spin")
        except BaseException as exc:
            caught.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(plugin.under_way)
    return thread, caught


def code_of(work: Any, *args: Any) -> str | None:
    try:
        work(*args)
    except CapwasmError as exc:
        return exc.code
    return None


def test_a_file_stops_what_runs_within_a_second_and_says_why(site: Site) -> None:
    plugin = site.load(guest("hostile"), ENDLESS)
    other = site.load(guest("hostile"), ENDLESS, id="test.other")
    thread, caught = spinning(plugin)
    data = fresh(1, deny=OLD)
    began = time.monotonic()
    site.drop(data)
    thread.join(20)

    assert not thread.is_alive()
    assert time.monotonic() - began < 5, "a second is promised, on a machine that is not busy"
    assert isinstance(caught[0], CallInterrupted)
    why = f"revoked by feed 1: version {ID} <1.1: leaks keys"
    assert why in str(caught[0])
    with pytest.raises(InstanceClosedError, match="leaks keys"):
        plugin.call("divide", 4, 2)
    assert other.call("divide", 4, 2) == 2
    assert site.runtime.plugins == (other,)
    evicted = [e for e in site.events("kill") if e["action"] == "evict"]
    assert [(e["plugin"], e["reason"]) for e in evicted] == [(f"{ID}@1.0.0", why)]
    assert [e["target"] for e in site.told("accepted")] == ["feed 1"]


@pytest.mark.parametrize("lists", [{"deny": ALL}, {"allow": {}}, {"allow": {"plugins": ["x.*"]}}])
def test_a_feed_stops_everything(site: Site, lists: Any) -> None:
    plugins = [site.load(guest("hostile"), id=f"test.p{n}") for n in range(3)]
    site.drop(fresh(1, **lists))
    wait_for(lambda: not site.runtime.plugins)
    assert [p.alive for p in plugins] == [False] * 3
    assert code_of(site.load, guest("hostile")) == "verify.revoked"


def test_an_allow_list_lets_on_it_run_on(site: Site) -> None:
    plugin = site.load(guest("hostile"))
    site.drop(fresh(1, allow={"plugins": ["test.*"]}))
    wait_for(lambda: site.told("accepted"))
    assert plugin.call("divide", 4, 2) == 2
    site.load(guest("hostile")).close()


def test_refuses_every_way_to_load_what_is_denied(site: Site, tmp_path: Path) -> None:
    old, new = (site.capsule(guest("hostile"), version=v) for v in ("1.0.0", "1.1.0"))
    for capsule in (old, new):
        site.consent(capsule)
    registry = site.runtime.registry
    assert isinstance(registry, Registry)
    registry.install(old, **WHO)
    path = tmp_path / "old.capsule"
    path.write_bytes(old)
    site.runtime.load(path).close()
    site.drop(fresh(1, deny=OLD))
    wait_for(lambda: site.told("accepted"))

    assert code_of(site.runtime.load, path) == "verify.revoked"
    assert code_of(site.runtime.load, old) == "verify.revoked"
    assert code_of(site.runtime.load_installed, ID) == "verify.revoked"
    assert code_of(lambda: registry.install(old, **WHO)) == "verify.revoked"
    site.runtime.load(new).close()
    if registry.install(new, **WHO).action == "pending":
        registry.activate(ID, **WHO)
    site.runtime.load_installed(ID).close()
    denied = [e for e in site.events("load") if e["verdict"] == "denied"]
    assert {e["reason"] for e in denied} == {"verify.revoked"}


def test_what_is_installed_and_denied_becomes_revoked_with_a_step(site: Site) -> None:
    registry = site.runtime.registry
    assert isinstance(registry, Registry)
    for version in ("1.0.0", "1.0.1"):
        registry.install(site.capsule(guest("hostile"), version=version), **WHO)
    registry.install(site.capsule(guest("hostile"), id="test.other"), **WHO)
    site.runtime.subscribe(lambda _event: None)  # the watch begins
    site.drop(fresh(3, deny=OLD))

    wait_for(lambda: all(v.state is State.REVOKED for v in registry.show(ID).versions))
    step = registry.history(ID)[-1]
    assert (step.after, step.mark.who) == (State.REVOKED, "revocation feed 3")
    assert step.mark.why == f"version {ID} <1.1: leaks keys"
    assert registry.show("test.other").state is State.ACTIVE
    site.drop(fresh(4))
    wait_for(lambda: len(site.told("accepted")) == 2)
    assert code_of(site.runtime.load_installed, ID) == "verify.revoked", "for good"


def test_the_registry_is_gone_through_once_a_feed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = lifecycle.settle_once

    def counted(registry: Registry, guard: Guard, stop: Any) -> Any:
        if guard.feed is not None and not guard.keeper.is_settled(guard.feed.digest):
            calls.append(guard.feed.sequence)
        return real(registry, guard, stop)

    monkeypatch.setattr(lifecycle, "settle_once", counted)
    settled = site.home / "revocations/kept/settled"
    for sequence, expected in ((1, [1]), (1, [1]), (2, [1, 2])):
        site.drop(
            fresh(sequence)
            if expected != calls
            else (site.home / "revocations/feed.json").read_bytes()
        )
        site.load(guest("hostile")).close()
        wait_for(settled.exists)
        wait_for(lambda n=sequence: calls[-1] == n)  # type: ignore[misc]
        site.close()
        assert calls == expected


def test_a_denied_signer_suspends_until_it_is_signed_anew(site: Site) -> None:
    registry = site.runtime.registry
    assert isinstance(registry, Registry)
    registry.install(site.capsule(guest("hostile")), **WHO)
    site.runtime.subscribe(lambda _event: None)
    site.drop(fresh(1, deny={"signers": {site.key.public.key_id: "stolen"}}))
    wait_for(lambda: registry.show(ID).state is State.SUSPENDED)
    assert code_of(site.runtime.load_installed, ID) is not None
    assert code_of(lambda: registry.activate(ID, **WHO)) == "verify.revoked"


def test_a_denied_capability_is_taken_from_what_runs_and_refuses_loads(site: Site) -> None:
    site.policy('[plugins."*".random]\n[plugins."*".kv]\n')
    probe = site.prober("[random]\n[kv]\n")
    probe("random", "8")
    site.drop(fresh(1, deny={"capabilities": [{"capability": "random", "reason": "weak"}]}))
    wait_for(lambda: site.events("revoke"))

    assert probe.plugin.alive
    with pytest.raises(Refused):
        probe("random", "8")
    [revoked] = site.events("revoke")
    assert (revoked["action"], revoked["reason"]) == (
        "random", "revoked by feed 1: capability random: weak",
    )  # fmt: skip
    with pytest.raises(VerificationError, match="capability random: weak"):
        site.load(guest("hostile"), "[random]\n", id="test.other")
    site.load(guest("hostile"), "[kv]\n", id="test.another").close()


@pytest.mark.parametrize("wait", [0.0, 0.1, 0.4, 1.0])  # it may be compiling, or starting
def test_a_feed_that_comes_while_a_plugin_starts_stops_the_start(site: Site, wait: float) -> None:
    site.runtime
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(code_of, site.load, SPINNING_START, ENDLESS)
        wait_for(lambda: [e for e in site.events("load") if e["verdict"] == "allowed"])
        time.sleep(wait)
        site.drop(fresh(1, deny=ALL))
        assert loading.result(20) == "verify.revoked"
    assert site.runtime.plugins == ()


def test_a_feed_between_the_check_and_the_start_is_seen_even_if_nobody_watches(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch.Watch, "look", lambda _self: None)
    runtime = site.runtime
    record, data = Loader.record_load, fresh(1, deny=ALL)

    def accept_and_record(loader: Loader, *args: Any) -> None:
        place = Home(site.home)
        words = {"trust": runtime.trust, "policy": runtime.policy, "capabilities": ()}
        place.guard(runtime.recorder, **words).take(data, "a file")  # type: ignore[arg-type]
        record(loader, *args)

    monkeypatch.setattr(Loader, "record_load", accept_and_record)
    assert code_of(site.load, guest("hostile")) == "verify.revoked"
    assert runtime.plugins == ()
    assert not site.events("call"), "not even its start ran"


def test_between_a_load_and_a_feed_there_is_no_gap(site: Site) -> None:
    """Many loads and feeds at once: in the end nothing runs that the last feed denies."""
    capsules = [site.capsule(guest("hostile"), id=f"test.p{n}") for n in range(4)]
    for capsule in capsules:
        site.consent(capsule)
    loaded: list[Plugin] = []
    stop = threading.Event()

    def load(capsule: bytes) -> None:
        while not stop.is_set():
            try:
                loaded.append(site.runtime.load(capsule))
            except VerificationError as exc:
                assert exc.code == "verify.revoked"  # noqa: PT017

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(load, capsule) for capsule in capsules]
        for n in range(1, 12):
            site.drop(fresh(n, deny=ALL if n % 2 else {}))
            wait_for(lambda n=n: len(site.told("accepted")) == n)  # type: ignore[misc]
            time.sleep(0.02)
        # The last one denies everything; whatever was under way has to see it.
        wait_for(lambda: not site.runtime.plugins)
        stop.set()
        for job in jobs:
            job.result(20)
    assert len(loaded) > 4
    assert [p for p in loaded if p.alive] == []


def test_two_runtimes_follow_one_file(site: Site, tmp_path: Path) -> None:
    """Two homes, one of them another process, and one feed for both."""
    twin = Site(tmp_path / "twin") if (tmp_path / "twin").mkdir() is None else site
    shutil.copy(site.home / "trust.toml", twin.home / "trust.toml")
    twin.key = site.key
    try:
        one, two = site.load(guest("hostile")), twin.load(guest("hostile"))
        data = fresh(1, deny=OLD)
        site.drop(data)
        wait_for(lambda: not one.alive)
        assert two.alive
        twin.drop(data)
        wait_for(lambda: not two.alive)
    finally:
        twin.close()


def test_a_command_in_another_process_stops_what_runs(site: Site, tmp_path: Path) -> None:
    plugin = site.load(guest("hostile"))
    path = tmp_path / "feed.json"
    path.write_bytes(fresh(1, deny=OLD))
    done = subprocess.run(
        [sys.executable, "-c", "from capwasm.cli import main; main()",
         "revocations", "add", str(path), "--home", str(site.home)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wait_for(lambda: not plugin.alive)


def test_a_version_that_is_revoked_here_stops_what_runs(site: Site) -> None:
    registry = site.runtime.registry
    assert isinstance(registry, Registry)
    capsule = site.capsule(guest("hostile"), ENDLESS)
    site.consent(capsule)
    registry.install(capsule, **WHO)
    thread, caught = spinning(site.runtime.load_installed(ID))
    place = Home(site.home)
    with (
        place.commands_recorder() as recorder,
        place.registry(
            recorder, trust=place.trust(), policy=site.runtime.policy,
            capabilities=site.runtime.capabilities,
        ) as other,
    ):  # fmt: skip
        other.revoke(ID, "1.0.0", who="ann", why="found out")
    thread.join(20)
    assert not thread.is_alive()
    assert "found out" in str(caught[0])


@pytest.mark.case("SIG-19", "SIG-16")
def test_a_feed_is_fetched_and_a_server_that_lies_or_fails_is_told_of(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"body": fresh(1, deny={}), "status": 200}

    def serve(_: Got) -> Iterator[bytes]:
        yield http(answers["body"], status=answers["status"])

    with Origin(serve) as origin:
        site.policy(f'[revocation]\nurl = "http://127.0.0.1:{origin.port}/feed"\n')
        real = threading.Event.wait
        monkeypatch.setattr(  # every minute, in a hurry
            watch.threading.Event, "wait",
            lambda self, timeout=None: real(self, min(timeout or 0.05, 0.05)),
        )  # fmt: skip
        plugin = site.load(guest("hostile"))
        wait_for(lambda: site.told("accepted"))
        answers["status"] = 500
        wait_for(lambda: site.told("watch"))
        answers |= {"status": 200, "body": fresh(9, keys=[EVE], deny=ALL)}
        wait_for(lambda: site.told("refused"))
        assert plugin.alive
        answers["body"] = fresh(2, deny=OLD)
        wait_for(lambda: not plugin.alive)
    codes = {e["reason"] for e in site.told("watch")}
    assert "repository.status" in codes
    assert [e["target"] for e in site.told("accepted")] == ["feed 1", "feed 2"]


def test_offline_the_last_accepted_feed_serves_also_after_a_restart(site: Site) -> None:
    site.drop(fresh(2, deny=OLD))
    assert code_of(site.load, guest("hostile")) == "verify.revoked", "read before the first load"
    site.close()
    (site.home / "revocations/feed.json").unlink()
    site.policy('[revocation]\nurl = "http://127.0.0.1:9/feed"\nstale = "refuse"\n')
    assert code_of(site.load, guest("hostile")) == "verify.revoked"
    site.load(guest("hostile"), version="1.1.0").close()
    site.drop(fresh(1))
    wait_for(lambda: site.told("refused"))
    assert site.told("refused")[-1]["reason"] == "revocation.rollback"
    assert code_of(site.load, guest("hostile")) == "verify.revoked"


@pytest.mark.parametrize(("stale", "code"), [("refuse", "revocation.stale"), ("report", None)])
def test_without_a_feed_loads_go_as_policy_says(site: Site, stale: str, code: str | None) -> None:
    site.policy(f'[revocation]\nstale = "{stale}"\n')
    assert code_of(site.load, guest("hostile")) == code
    site.drop(fresh(1))
    wait_for(lambda: site.told("accepted"))
    assert code_of(site.load, guest("hostile")) is None


@pytest.mark.case("PER-03")
def test_a_file_that_is_no_feed_is_told_of_once_and_the_watch_goes_on(site: Site) -> None:
    plugin = site.load(guest("hostile"))
    site.drop(b"{", "a.json")
    site.drop(fresh(7, keys=[EVE], deny=ALL), "b.json")
    (site.home / "revocations/c.json").mkdir()
    wait_for(lambda: len(site.told("watch")) == 3)
    time.sleep(0.6)
    assert {e["reason"] for e in site.told("watch")} == {
        "verify.envelope", "verify.untrusted-key", "revocation.unreadable",
    }  # fmt: skip
    assert len(site.told("watch")) == 3
    assert plugin.alive
    site.drop(fresh(1, deny=OLD), "d.json")
    wait_for(lambda: not plugin.alive)


def test_a_file_that_is_being_written_is_read_when_it_is_whole(site: Site) -> None:
    plugin = site.load(guest("hostile"))
    data = fresh(1, deny=OLD)
    path = site.home / "revocations/feed.json"
    path.parent.mkdir(exist_ok=True)
    with path.open("wb", buffering=0) as file:
        for at in range(0, len(data), len(data) // 4):
            file.write(data[at : at + len(data) // 4])
            time.sleep(0.1)
    wait_for(lambda: not plugin.alive)


def test_what_fails_in_the_watch_is_told_and_it_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = [site.load(guest("hostile"), id=f"test.p{n}") for n in range(2)]
    real, failed = Plugin.evict, threading.Event()

    def evict(self: Plugin, reason: str) -> None:
        real(self, reason)
        if not failed.is_set():
            failed.set()
            raise AuditError("no room", code="audit.sink")

    monkeypatch.setattr(Plugin, "evict", evict)
    site.drop(fresh(1, deny=ALL))
    wait_for(lambda: not any(p.alive for p in plugins))
    wait_for(lambda: site.told("watch"))
    assert site.told("watch")[0]["reason"] == "audit.sink"


def test_the_core_is_told_what_becomes_of_plugins_whoever_did_it(site: Site) -> None:
    got: list[Lifecycle] = []
    end = site.runtime.subscribe(got.append)
    site.runtime.subscribe(lambda _event: 1 / 0)  # type: ignore[arg-type, return-value]
    place = Home(site.home)

    def next_is(kind: LifecycleKind, version: str, reason: str = "a test") -> None:
        event = wait_for(lambda: got and got.pop(0))
        assert (event.kind, event.plugin, event.version, event.reason) == (
            kind, ID, version, reason,
        )  # fmt: skip

    with (
        place.commands_recorder() as recorder,
        place.registry(
            recorder, trust=place.trust(), policy=site.runtime.policy,
            capabilities=site.runtime.capabilities,
        ) as other,
    ):  # fmt: skip
        other.install(site.capsule(guest("hostile")), **WHO)
        next_is(LifecycleKind.INSTALLED, "1.0.0")
        wider = "[random]\noptional = true\n"
        other.install(site.capsule(guest("hostile"), wider, version="1.1.0"), **WHO)
        next_is(LifecycleKind.PENDING, "1.1.0")
        other.activate(ID, **WHO)
        next_is(LifecycleKind.ACTIVATED, "1.1.0")
        other.suspend(ID, **WHO)
        next_is(LifecycleKind.SUSPENDED, "1.1.0")
        other.activate(ID, **WHO)
        next_is(LifecycleKind.RESUMED, "1.1.0")
        other.revoke(ID, "1.1.0", **WHO)
        next_is(LifecycleKind.REVOKED, "1.1.0")
        other.remove(ID, **WHO)
        next_is(LifecycleKind.REMOVED, "1.1.0")
    assert got == []
    assert {e["reason"] for e in site.told("subscriber")} == {"ZeroDivisionError"}

    site.load(guest("hostile"), id="test.other")
    site.drop(fresh(1, deny=ALL))
    event = wait_for(lambda: got and got.pop(0))
    assert (event.kind, event.plugin, event.running) == (LifecycleKind.REVOKED, "test.other", True)
    end()
    assert event.reason == "revoked by feed 1: plugin *: stop"


def test_a_subscriber_may_close_the_runtime(site: Site) -> None:
    runtime = site.runtime
    plugin = site.load(guest("hostile"))
    closed = threading.Event()

    def close(_event: Lifecycle) -> None:
        runtime.close()
        closed.set()

    runtime.subscribe(close)
    site.drop(fresh(1, deny=ALL))
    assert closed.wait(20)
    assert not plugin.alive


def test_closing_ends_the_watch(site: Site) -> None:
    def watching() -> int:
        return sum(t.name == "capwasm-revocations" for t in threading.enumerate())

    before = watching()
    site.runtime
    assert watching() == before, "nothing watches where nothing was loaded"
    site.load(guest("hostile"))
    wait_for(lambda: watching() == before + 1)
    site.close()
    assert watching() == before


def _child(runtime: Runtime, pipe: Any) -> None:
    refused = []
    for work in (lambda: runtime.load(b""), lambda: runtime.subscribe(print)):
        try:
            work()
        except RuntimeError as exc:
            refused.append(str(exc))
    runtime.close()
    pipe.send(refused)


@pytest.mark.case("LIFE-10")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_child_loads_nothing_and_closes_at_once(site: Site) -> None:
    plugin = site.load(guest("hostile"))
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(site.runtime, theirs))
    child.start()
    assert ours.poll(20)
    assert ["fork" in text for text in ours.recv()] == [True, True]
    child.join(20)
    site.drop(fresh(1, deny=OLD))
    wait_for(lambda: not plugin.alive)
