"""`wasi:keyvalue`, `wasi:config` and `wasi:logging`: a component of others, on our own capabilities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from capwasm.caps.log import PluginRecord
from capwasm.errors import LinkError
from capwasm.plugin import Plugin
from tests.kit import World, guest

TABLES = "[kv]\n[config]\nkeys = ['greeting']\n[log]\n"
POLICY = (
    '[plugins."test.guest".kv]\nquota = "4KiB"\nkeys = 1500\n[plugins."test.guest".log]\n'
    '[plugins."test.guest".config]\nvalues = { greeting = "hello" }\n'
)


@pytest.fixture(params=["in-process", "process"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.said = []
    world.options["on_log"] = world.said.append
    world.way = '[isolation]\nprocess = ["test.*"]\n' if request.param == "process" else ""
    yield world
    world.close()


@pytest.fixture
def plugin(world: World) -> Plugin:
    world.policy(POLICY + world.way)
    return world.load(guest("drafts"), TABLES)


@pytest.mark.parametrize("draft", ["old", "new"])
def test_allows_what_the_kv_capability_allows(plugin: Plugin, draft: str) -> None:
    def do(deed: str, *words: str) -> Any:
        return plugin.call(draft, deed, list(words))

    assert do("get", "a") == "Ok(None)"
    assert do("set", "a", "x") == "Ok(())"
    assert do("get", "a") == "Ok(Some([120]))"
    assert (do("exists", "a"), do("exists", "b")) == ("Ok(true)", "Ok(false)")
    assert do("delete", "a") == do("delete", "a") == "Ok(())"
    assert do("increment", "n", "5") == "Ok(5)"
    assert do("increment", "n", "2") == "Ok(7)"
    assert do("set-many", "p", "q") == "Ok(())"
    assert do("get-many", "p", "none") == 'Ok([Some(("p", [112])), None])'
    assert do("delete-many", "p", "q") == "Ok(())"
    assert do("open", "") == "opened"


@pytest.mark.parametrize("draft", ["old", "new"])
def test_refuses_what_the_kv_capability_refuses(plugin: Plugin, draft: str) -> None:
    def do(deed: str, *words: str) -> Any:
        return plugin.call(draft, deed, list(words))

    assert do("open", "other-store") == "Error::NoSuchStore"
    assert do("set", "", "x") == 'Err(Error::Other("invalid"))'
    assert do("set", "a", "x" * 5000) == 'Err(Error::Other("quota"))'
    assert do("increment", "n", "9" * 18) == f"Ok({'9' * 18})"
    assert do("get-many", *["k"] * 1001) == 'Err(Error::Other("too-large"))'

    plugin.revoke("kv", "enough")
    assert do("get", "n") == "Err(Error::AccessDenied)"


def test_refuses_a_number_that_the_store_has_not(plugin: Plugin) -> None:
    assert plugin.call("old", "increment", ["n", str(2**63)]) == 'Err(Error::Other("invalid"))'
    assert plugin.call("new", "increment", ["n", "-3"]) == "Ok(-3)"
    # The older draft has no way to say it.
    assert plugin.call("old", "increment", ["n", "1"]) == 'Err(Error::Other("invalid"))'


@pytest.mark.parametrize("draft", ["old", "new"])
def test_all_keys_are_listed_a_page_at_a_time(world: World, draft: str) -> None:
    world.policy(POLICY.replace("4KiB", "1MiB") + world.way)
    plugin = world.load(guest("drafts"), TABLES)
    for start in (0, 600):
        words = [f"key-{n:04}" for n in range(start, start + 600)]
        assert plugin.call(draft, "set-many", words) == "Ok(())"

    assert plugin.call(draft, "count", []) == "1200"


def test_a_value_is_swapped_if_it_has_not_changed(plugin: Plugin) -> None:
    assert plugin.call("new", "swap", ["k", "one"]) == "swapped None"
    assert plugin.call("new", "swap", ["k", "two"]).startswith("swapped Some")
    failed = plugin.call("new", "swap", ["k", "three", "between"])
    assert failed == f"failed, Some({list(b'between')}), then true"


def test_allows_the_settings_and_the_log(world: World, plugin: Plugin) -> None:
    assert plugin.call("setting", "greeting") == 'Ok(Some("hello"))'
    assert plugin.call("settings") == 'Ok([("greeting", "hello")])'
    plugin.call("say", "trace", "", "first")
    plugin.call("say", "critical", "here", "second")

    said: list[PluginRecord] = world.said
    assert [(r.level, r.message, dict(r.fields)) for r in said] == [
        ("debug", "first", {}),
        ("error", "second", {"context": "here"}),
    ]


def test_refuses_what_was_not_granted_and_records_it(world: World) -> None:
    world.policy(world.way)
    plugin = world.load(guest("drafts"))

    assert plugin.call("old", "get", ["a"]) == "Error::AccessDenied"
    assert plugin.call("new", "get", ["a"]) == "Error::AccessDenied"
    assert plugin.call("setting", "greeting") == 'Err(Error::Upstream("denied"))'
    plugin.call("say", "warn", "", "unheard")

    assert world.said == []
    denied = {(e["action"], e["details"]["table"]) for e in world.events("wasi")}
    assert denied == {
        ("wasi:keyvalue/store.open", "kv"),
        ("wasi:config/store.get", "config"),
        ("wasi:logging/logging.log", "log"),
    }


def test_refuses_a_setting_that_is_not_among_them(plugin: Plugin, world: World) -> None:
    assert plugin.call("setting", "other") == "Ok(None)"
    assert [e["target"] for e in world.events("config")] == ["other"]


@pytest.mark.parametrize(
    ("interface", "told"),
    [
        ("wasi:keyvalue/store@0.2.0-draft3", "0.2.0-draft and 0.2.0-draft2"),
        ("wasi:keyvalue/store@0.2.0", "0.2.0-draft2"),
        ("wasi:keyvalue/watcher@0.2.0-draft2", "capwasm:kv"),
        ("wasi:config/runtime@0.2.0-draft", "wasi:config/store@0.2.0-rc.1"),
        ("wasi:logging/logging@0.1.0", "this runtime offers wasi:logging/logging"),
    ],
)
def test_refuses_other_drafts_and_says_which_it_has(
    world: World, interface: str, told: str
) -> None:
    text = f'(component (import "{interface}" (instance)))'

    with pytest.raises(LinkError, match=told):
        world.load(bytes(wasmtime.wat2wasm(text)))
