"""What happens at the edges of a plugin's life: destructors, finalizers, busy neighbours, switches."""

from __future__ import annotations

import gc
import inspect
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import capwasm
from capwasm.capsule.trust import TrustStore
from capwasm.capsule.verify import verify
from capwasm.errors import (
    CapwasmError,
    DeadlineExceeded,
    GuestTrap,
    InstanceClosedError,
    VerificationError,
)
from capwasm.grants.policy import Policy
from capwasm.runtime import Runtime
from tests.kit import World, guest

SOURCES = sorted(Path(capwasm.__file__).parent.rglob("*.py"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def test_a_resource_of_the_guest_lives_until_it_is_dropped(world: World) -> None:
    with world.load(guest("resource")).session() as session:
        thing = session.call("make", 42)
        assert session.call("number", thing) == 42
        session.drop(thing)
        with pytest.raises(ValueError, match="dropped"):
            session.call("number", thing)
        assert session.call("number", session.call("make", 8)) == 8


@pytest.mark.case("LIFE-09")
def test_a_trap_in_a_destructor_ends_the_instance(world: World) -> None:
    with world.load(guest("resource")).session() as session:
        odd = session.call("make", 41)
        with pytest.raises(GuestTrap):
            session.drop(odd)
        with pytest.raises(InstanceClosedError):
            session.call("make", 2)


@pytest.mark.case("LIFE-07", "TYP-08")
def test_refuses_a_resource_of_another_instance(world: World) -> None:
    plugin = world.load(guest("resource"))
    with plugin.session() as one, plugin.session() as two:
        thing = one.call("make", 42)
        with pytest.raises(ValueError, match="another instance"):
            two.call("number", thing)
        with pytest.raises(ValueError, match="another instance"):
            two.drop(thing)
        assert one.call("number", thing) == 42


@pytest.mark.case("LIFE-12")
def test_finalizers_on_another_thread_do_no_harm(world: World) -> None:
    plugin = world.load(guest("resource"))
    stop = threading.Event()
    errors: list[BaseException] = []

    def collect() -> None:
        while not stop.is_set():
            gc.collect()

    def work() -> None:
        try:
            for n in range(60):
                with plugin.session() as session:
                    session.call("make", n * 2)  # forgotten: its finalizer runs wherever it likes
                    assert session.call("number", session.call("make", n * 2)) == n * 2
        except BaseException as exc:
            errors.append(exc)

    collector = threading.Thread(target=collect)
    workers = [threading.Thread(target=work) for _ in range(3)]
    for thread in (collector, *workers):
        thread.start()
    for thread in workers:
        thread.join(60)
    stop.set()
    collector.join(10)
    assert errors == []


@pytest.mark.case("RES-05")
def test_a_busy_neighbour_does_not_stop_the_clock(world: World) -> None:
    # Lifting a large list holds the interpreter's lock; the size limit bounds for how long.
    greedy = world.load(guest("hostile"), id="test.greedy")
    spinner = world.load(guest("hostile"), f"[limits]\nfuel = {2**50}\nwall-ms = 200\n")
    stop = threading.Event()

    def convert() -> None:
        while not stop.is_set():
            assert len(greedy.call("bytes", 1_000_000)) == 1_000_000

    neighbours = [threading.Thread(target=convert) for _ in range(2)]
    for thread in neighbours:
        thread.start()
    try:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            spinner.call("spin")
        assert time.monotonic() - began < 3.0
    finally:
        stop.set()
        for thread in neighbours:
            thread.join(30)


@pytest.mark.case("RES-05")
def test_no_pattern_of_a_guest_reaches_the_regex_engine() -> None:
    # A pattern is compiled from text of our own or escaped text, never from a guest's argument.
    hosts = [f for f in SOURCES if f.parent.name == "wasi" or f.name in {"host.py", "handle.py"}]
    assert hosts
    for file in hosts:
        assert not re.search(r"\bre\.(compile|match|search|sub)\((?![rf]*\")", file.read_text())


@pytest.mark.case("SIG-24")
def test_nothing_turns_verification_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("CAPWASM_ALLOW_UNSIGNED", "CAPWASM_DEV", "CAPWASM_INSECURE", "CAPWASM_DEBUG"):
        monkeypatch.setenv(word, "1")
    capsule = world.capsule(guest("hostile"))
    (world.home / "trust.toml").unlink()
    with pytest.raises(VerificationError):
        world.runtime.load(capsule)
    for function in (Runtime.__init__, Runtime.open, Runtime.load, verify):
        words = " ".join(inspect.signature(function).parameters)
        assert not re.search("unsigned|insecure|unsafe|skip|dev|debug|allow", words)
    assert not TrustStore.empty().keys


@pytest.mark.case("SIG-24", "SEC-01", "SEC-02")
def test_the_environment_is_read_by_the_command_line_alone() -> None:
    for file in SOURCES:
        # What authors build their plugins with is run by the command line, on their own sources.
        if {"cli", "authoring", "testing"} & set(file.parts):
            continue
        found = re.search(
            r"os\.environ|getenv|environb",
            re.sub(r'""".*?"""|#.*', "", file.read_text(), flags=re.DOTALL),
        )
        assert found is None, f"{file.name}: {found}"


@pytest.mark.case("SIG-24")
def test_no_policy_can_ask_for_unsigned_plugins() -> None:
    for text in (
        "[trust]\nrequire = []",
        '[trust]\nrequire = ["unsigned"]',
        "[trust]\nunsigned = true",
    ):
        with pytest.raises(CapwasmError):
            Policy.load(f"schema = 1\n{text}\n".encode(), [])
