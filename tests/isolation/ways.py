"""The same prober, run three ways: in this process, in a process of its own, and as native code."""

from __future__ import annotations

import platform
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.pack import pack, sign_capsule
from capwasm.plugin import Plugin
from tests.caps.net.servers import Answer, Origin, http
from tests.kit import HEAD, OPTIONAL, Refused, World, guest

NATIVE = Path(__file__).parents[1] / "native"
TRIPLE = f"{platform.machine()}-linux-gnu"
WAYS = ("in-process", "process", "native")

Probe = Callable[..., str]
Call = Callable[..., Any]


def library(name: str) -> bytes:
    """The committed native plugin of that name; skips where there is none for this machine."""
    path = NATIVE / TRIPLE / f"{name}.so"
    if not sys.platform.startswith("linux") or not path.exists():
        pytest.skip(f"no {name}.so for {TRIPLE}: python native-shim/build.py makes it")
    return path.read_bytes()


def native_capsule(
    world: World,
    code: bytes,
    manifest: str = "",
    *,
    id: str = "test.guest",  # noqa: A002
    version: str = "1.0.0",
    instance: str = "single",
) -> bytes:
    """A signed capsule of native code for this machine."""
    head = HEAD.format(id=id, version=version, instance=instance, requires=">=0")
    head = head.replace('kind = "component"', 'kind = "native"')
    members = {"plugin.toml": (head + manifest).encode(), f"lib/{TRIPLE}/plugin.so": code}
    return sign_capsule(read_artifact(pack(members)), world.key)


def load_native(world: World, code: bytes, manifest: str = "", **about: Any) -> Plugin:
    """Sign, consent, load; the policy must let it run."""
    capsule = native_capsule(world, code, manifest, **about)
    world.consent(capsule)
    return world.runtime.load(capsule)


def packed(*arguments: str) -> bytes:
    """Arguments as the native prober takes them."""
    parts = [a.encode() for a in arguments]
    return b"".join(struct.pack("<I", len(p)) + p for p in parts)


def component_probe(plugin: Plugin, call: Call | None = None) -> Probe:
    """Calls the component's `run`."""
    invoke = call or plugin.call

    def probe(operation: str, *arguments: str) -> str:
        result = invoke("run", operation, list(arguments))
        if not result.ok:
            raise Refused(result.error.strip('"'))
        return str(result.value)

    return probe


def native_probe(plugin: Plugin, call: Call | None = None) -> Probe:
    """Calls the native handler."""
    invoke = call or plugin.call

    def probe(operation: str, *arguments: str) -> str:
        result = invoke("handle", operation, packed(*arguments))
        if not result.ok:
            raise Refused(result.error)
        return bytes(result.value).decode()

    return probe


def policy_for(way: str) -> str:
    """What lets the plugin run that way."""
    lines = {
        "in-process": "",
        "process": '[isolation]\nprocess = ["test.*"]\n',
        "native": '[isolation]\nnative = ["test.*"]\n',
    }
    return lines[way]


def load_way(world: World, way: str, manifest: str = "", **about: Any) -> tuple[Plugin, Probe]:
    """The prober with that manifest, and all else that it imports as optional."""
    rest = "".join(text for word, text in OPTIONAL.items() if word not in manifest)
    if way == "native":
        plugin = load_native(world, library("prober"), manifest + rest, **about)
        return plugin, native_probe(plugin)
    plugin = world.load(guest("prober"), manifest + rest, **about)
    return plugin, component_probe(plugin)


GRANTED = """
[[fs]]
mount = "/data"
bind = "app"
access = "read-write"
quota = 100000
[[fs]]
mount = "/fixed"
bind = "fixed"
access = "read"
[[net]]
allow = "http://127.0.0.1:{port}/open/*"
methods = ["GET", "POST"]
[[secret]]
name = "shown"
use = "reveal"
[[secret]]
name = "sent"
use = "inject"
for = ["http://127.0.0.1:{port}"]
header = "Authorization: Bearer {{}}"
[log]
[clock]
[random]
[kv]
keys = 20
[config]
keys = ["colour"]
"""

POLICY = """
[[plugins."test.guest".fs]]
bind = "app"
path = "{root}/data"
access = "read-write"
[[plugins."test.guest".fs]]
bind = "fixed"
path = "{root}/fixed"
access = "read"
[[plugins."test.guest".net]]
allow = "http://127.0.0.1:{port}"
methods = ["*"]
addresses = ["127.0.0.1/32"]
[[plugins."test.guest".secret]]
name = "shown"
use = "reveal"
[[plugins."test.guest".secret]]
name = "sent"
use = "inject"
for = ["http://127.0.0.1:{port}"]
header = "Authorization: Bearer {{}}"
[plugins."test.guest".log]
[plugins."test.guest".clock]
[plugins."test.guest".random]
[plugins."test.guest".kv]
[plugins."test.guest".config.values]
colour = "red"
"""


def answer(got: Any) -> bytes:
    """The request's line, what it brought to prove itself, and its body."""
    told = got.all("authorization")
    return http(" ".join([got.line.rpartition(" ")[0], *told, ""]).encode() + got.body)


@contextmanager
def granted_world(
    root: Path, way: str, *, policy: str = POLICY, answer: Answer = answer
) -> Iterator[tuple[World, Origin]]:
    """A world in which the prober is granted something of everything."""
    (root / "data").mkdir()
    (root / "fixed").mkdir()
    (root / "data/a.txt").write_text("hello")
    (root / "fixed/a.txt").write_text("fixed")
    (root / "secret.txt").write_text("not for guests")
    (root / "data/out").symlink_to(root / "secret.txt")
    with Origin(answer) as origin:
        world = World(root, resolver=lambda _name, _port: ["127.0.0.1"])
        world.vault(shown="s3cret-value", sent="t0ken-value")
        world.policy(policy.format(root=root, port=origin.port) + policy_for(way))
        try:
            yield world, origin
        finally:
            world.close()
