"""`Runtime.load`: the whole way, and what stops it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm import (
    AuditError,
    GrantDeniedError,
    LinkError,
    MemoryLimitExceeded,
    VerificationError,
)
from capwasm.errors import HandleLimitExceeded
from capwasm.events import Event
from tests.kit import OPTIONAL, World, guest

LOG = '[plugins."test.guest".log]\n'


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.mark.case("SIG-01", "PER-03")
def test_refuses_to_load_a_capsule_of_which_any_byte_changed(world: World) -> None:
    capsule = world.capsule(guest("hostile"))
    world.consent(capsule)
    world.runtime.load(capsule).close()
    dice = random.Random(7)
    places = [*range(64), *(dice.randrange(len(capsule)) for _ in range(400)), len(capsule) - 1]
    for at in places:
        changed = bytearray(capsule)
        changed[at] ^= 1 << dice.randrange(8)
        with pytest.raises(VerificationError):
            world.runtime.load(bytes(changed))
    assert world.runtime.plugins == ()


def test_loads_from_a_file_and_records_who_signed(world: World, tmp_path: Path) -> None:
    path = tmp_path / "guest.capsule"
    capsule = world.capsule(guest("hostile"))
    world.consent(capsule)
    path.write_bytes(capsule)
    plugin = world.runtime.load(path)
    assert (plugin.id, plugin.version, plugin.name) == ("test.guest", "1.0.0", "test.guest@1.0.0")
    loaded = world.events("load")[-1]
    assert loaded["verdict"] == "allowed"
    assert loaded["target"] == plugin.digest
    assert "test" in str(loaded["details"]["signers"])
    assert world.runtime.plugins == (plugin,)


@pytest.mark.case("MAN-10")
def test_refuses_other_code_under_an_old_consent(world: World) -> None:
    world.policy('[plugins."test.guest".fs]\n'.replace(".fs]", ".kv]"))
    old = world.capsule(guest("hostile"), "[kv]\n")
    (world.home / "policy.toml").write_text(
        (world.home / "policy.toml").read_text().replace('"kv",', "")
    )
    world.consent(old)
    world.runtime.load(old).close()
    for changed in (
        world.capsule(guest("caller"), "[kv]\n"),
        world.capsule(guest("hostile"), '[kv]\nquota = "2MiB"\n'),
        world.capsule(guest("hostile"), "[kv]\n", version="1.0.1"),
    ):
        with pytest.raises(GrantDeniedError) as caught:
            world.runtime.load(changed)
        assert any("consent" in (f.fix or "") for f in caught.value.faults)


def test_refuses_a_plugin_for_another_core(world: World) -> None:
    assert world.load(guest("hostile"), requires=">=1,<2").call("count") == 1
    capsule = world.capsule(guest("hostile"), requires=">=2")
    world.consent(capsule)
    with pytest.raises(GrantDeniedError) as caught:
        world.runtime.load(capsule)
    assert caught.value.code == "grant.core-version"


@pytest.mark.case("LOG-09")
def test_refuses_to_load_when_the_audit_log_can_not_be_written(world: World) -> None:
    capsule = world.capsule(guest("hostile"))
    world.consent(capsule)
    runtime = world.runtime

    class Broken:
        def record(self, event: Event) -> None:
            raise AuditError(f"no room for {event.kind}")

    before, runtime.recorder = runtime.recorder, Broken()
    try:
        with pytest.raises(AuditError):
            runtime.load(capsule)
    finally:
        runtime.recorder = before
    assert runtime.plugins == ()


def test_plugins_do_not_see_each_others_stores(world: World) -> None:
    world.policy("".join(f'[plugins."test.{n}".kv]\n' for n in ("one", "two")))
    one = world.prober("[kv]\n", id="test.one")
    two = world.prober("[kv]\n", id="test.two")
    one("kv.set", "k", "mine")
    assert one("kv.get", "k") == "mine"
    assert two("kv.get", "k") == "(none)"


def test_two_threads_load_at_once(world: World) -> None:
    capsule = world.capsule(guest("hostile"))
    world.consent(capsule)
    runtime = world.runtime
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(runtime.load(capsule).call("count")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [1] * 6
    assert len(runtime.plugins) == 6


def test_the_audit_of_a_whole_life_verifies(world: World) -> None:
    from capwasm import verify_log

    world.policy(LOG)
    probe = world.prober("[log]\n")
    probe("log", "info", "hello")
    probe.plugin.evict("done")
    world.close()
    report = verify_log(world.home / "audit")
    assert report.ok, report
    kinds = {e["kind"] for e in world.events()}
    assert {"runtime.start", "load", "grant", "call", "kill"} <= kinds


ONLY_NET = """(component
  (import "capwasm:secrets/store@0.1.0" (instance $store
    (export "secret" (type (sub resource)))))
  (alias export $store "secret" (type $secret))
  (import "capwasm:fetch/client@0.1.0" (instance
    (alias outer 1 $secret (type $s))
    (export "secret" (type (eq $s))))))"""


def test_allows_the_network_without_asking_for_secrets(world: World) -> None:
    # `capwasm:fetch` uses the type of a secret's handle, so each of its users imports the store.
    import wasmtime

    world.policy('[[plugins."test.guest".net]]\nallow = "https://a.example/"\n')
    code = bytes(wasmtime.wat2wasm(ONLY_NET))
    manifest = '[[net]]\nallow = "https://a.example/"\n'
    assert world.load(code, manifest).alive
    with pytest.raises(LinkError, match=r"\[\[secret\]\]"):
        world.load(code, "[kv]\noptional = true\n")


def test_refuses_to_reveal_where_only_the_network_was_asked_for(world: World) -> None:
    world.policy('[[plugins."test.guest".net]]\nallow = "https://none.example/"\n')
    rest = "".join(text for word, text in OPTIONAL.items() if word not in {"[[net]]", "[[secret]]"})
    with pytest.raises(LinkError) as caught:
        world.load(guest("prober"), rest + '[[net]]\nallow = "https://none.example/"\n')
    assert [f.path for f in caught.value.faults] == ["capwasm:secrets/reveal@0.1.0"]


def test_refuses_a_real_guest_more_memory_than_its_limit(world: World) -> None:
    probe = world.prober(f"[limits]\nmemory = {32 * 2**20}\n")
    assert probe("alloc", "8") == "8"
    with pytest.raises(MemoryLimitExceeded):
        probe("alloc", "64")
    assert probe("alloc", "8") == "8"


@pytest.mark.case("RES-14")
def test_refuses_a_real_guest_more_handles_than_its_limit(world: World, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("hello")
    world.policy(
        f'[[plugins."test.guest".fs]]\nbind = "app"\npath = "{tmp_path}/data"\naccess = "read"\n'
    )
    probe = world.prober(
        '[[fs]]\nmount = "/data"\nbind = "app"\naccess = "read"\n[limits]\nhandles = 20\n'
    )
    assert probe("fs.hold", "/data/a.txt", "10") == "10"
    with pytest.raises(HandleLimitExceeded):
        probe("fs.hold", "/data/a.txt", "30")
