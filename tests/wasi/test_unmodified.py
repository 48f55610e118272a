"""Components that nobody made for capwasm: a command and a library of WASI's own world, under grants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime

from capwasm.errors import GrantDeniedError, GuestError, LinkError
from capwasm.plugin import Plugin
from tests.kit import World, guest

FILES = '[[fs]]\nmount = "/data"\nbind = "app"\naccess = "{access}"\n'
TIME_AND_LOG = '[plugins."test.guest".log]\n[plugins."test.guest".clock]\n'
POLICY = '[[plugins."test.guest".fs]]\nbind = "app"\npath = "{root}/data"\naccess = "{access}"\n'
POLICY += TIME_AND_LOG


@pytest.fixture(params=["in-process", "process"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/one.txt").write_text("a few words\non two lines\n")
    (tmp_path / "data/two.txt").write_text("more\n")
    (tmp_path / "secret.txt").write_text("not for guests")
    world = World(tmp_path)
    world.way = '[isolation]\nprocess = ["test.*"]\n' if request.param == "process" else ""
    yield world
    world.close()


def command(world: World, root: Path, access: str, granted: str | None = None) -> Plugin:
    """The command, which asks for that access to its files, and is granted another if told so."""
    world.policy(POLICY.format(root=root, access=granted or access) + world.way)
    return world.load(guest("wordcount"), FILES.format(access=access) + "[log]\n[clock]\n")


def ended_well(plugin: Plugin) -> bool:
    """Whether the command says that it went well; one that breaks off does not."""
    try:
        return bool(plugin.call("run").ok)
    except GuestError:
        return False


def test_allows_a_command_what_it_was_granted(world: World, tmp_path: Path) -> None:
    assert command(world, tmp_path, "read-write").call("run").ok
    report = (tmp_path / "data/report.txt").read_text()
    assert report == "2 6 25 /data/one.txt\n1 1 5 /data/two.txt\n"


def test_refuses_a_command_to_write_where_it_may_only_read(world: World, tmp_path: Path) -> None:
    # The program's own library tells it so, and it ends as its author has it end: not well.
    assert not ended_well(command(world, tmp_path, "read"))
    assert not (tmp_path / "data/report.txt").exists()
    assert (tmp_path / "secret.txt").read_text() == "not for guests"


def test_refuses_a_command_a_directory_that_it_was_not_given(world: World) -> None:
    world.policy(TIME_AND_LOG + world.way)
    plugin = world.load(guest("wordcount"), "[log]\n[clock]\n")

    assert not ended_well(plugin)


def test_refuses_more_than_the_policy_has(world: World, tmp_path: Path) -> None:
    with pytest.raises(GrantDeniedError):
        command(world, tmp_path, "read-write", granted="read")


def test_allows_a_library_all_that_it_needs(world: World) -> None:
    world.policy('[plugins."test.guest".random]\n' + world.way)
    plugin = world.load(guest("slugs"), "[random]\n")

    slug = plugin.exports.slugs.make("A Title, of Words!").unwrap()
    assert (slug.text, slug.words) == ("a-title-of-words", 4)
    assert plugin.call("make", "!?").error == "nothing is left of it"
    assert plugin.call("frequent", ["a b", "b c", "B"], 2) == [("b", 3), ("a", 1)]


def test_refuses_a_library_chance_that_it_was_not_given(world: World) -> None:
    world.policy(world.way)
    plugin = world.load(guest("slugs"))

    assert plugin.call("make", "Still Works").unwrap().text == "still-works"
    with pytest.raises(GuestError):  # the standard library breaks off without its keys
        plugin.call("frequent", ["a"], 1)


def test_refuses_what_is_no_part_of_wasi_02(world: World) -> None:
    text = '(component (import "wasi:tls/types@0.2.0-draft" (instance)))'

    with pytest.raises(LinkError, match=r"capwasm:fetch|not a version"):
        world.load(bytes(wasmtime.wat2wasm(text)))
