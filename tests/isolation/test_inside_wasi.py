"""WASI in a component's own process: the same program does the same with the same files, clocks, streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import CapwasmError
from tests.kit import Prober, Refused, World

MANIFEST = """
[[fs]]
mount = "/data"
bind = "data"
access = "read-write"
[log]
[clock]
[random]
"""
POLICY = """
[[plugins."test.guest".fs]]
bind = "data"
path = "{root}/data"
access = "read-write"
[plugins."test.guest".log]
[plugins."test.guest".clock]
[plugins."test.guest".random]
"""
# Streams move 64 KiB at a time, so this takes several turns of pollables and buffers.
LARGE = "0123456789abcdef" * 12_000

PROGRAM: list[tuple[str, ...]] = [
    ("std.read", "/data/a.txt"),
    ("std.read", "/data/large.txt"),
    ("std.write", "/data/new.txt", "fresh"),
    ("std.append", "/data/new.txt", " and more"),
    ("std.read", "/data/new.txt"),
    ("std.write", "/data/big.txt", LARGE),
    ("std.len", "/data/big.txt"),
    ("std.mkdir", "/data/sub"),
    ("std.rename", "/data/new.txt", "/data/sub/old.txt"),
    ("std.list", "/data"),
    ("std.list", "/data/sub"),
    ("std.truncate", "/data/sub/old.txt"),
    ("std.set-len", "/data/big.txt", "10"),
    ("std.len", "/data/big.txt"),
    ("std.hard-link", "/data/big.txt", "/data/sub/link"),
    ("std.remove", "/data/sub/old.txt"),
    ("std.rmdir", "/data/sub"),
    ("std.read", "/data/missing"),
    ("std.read", "/etc/passwd"),
    ("std.read", "/data/../../etc/passwd"),
    ("std.read", "/data/out"),
    ("std.env",),
    ("std.args",),
    ("std.stdin",),
    ("std.print", "hello", "world"),
    ("std.sleep", "20"),
    ("fs.list", "/data"),
    ("std.exit", "3"),
    ("panic", "on purpose"),
    ("std.print-flood", "3000000"),
    ("clock.sleep", "20"),
    ("std.list", "/data"),
]


@pytest.fixture
def prober(tmp_path: Path) -> Iterator[Any]:
    """Loads the prober in a world of its own, one way or the other."""
    worlds = []

    def load(way: str) -> tuple[World, Prober]:
        root = tmp_path / way
        (root / "data").mkdir(parents=True)
        (root / "data/a.txt").write_text("hello")
        (root / "data/large.txt").write_text(LARGE)
        (root / "secret").write_text("not for guests")
        (root / "data/out").symlink_to(root / "secret")
        world = World(root)
        worlds.append(world)
        own = '[isolation]\nprocess = ["test.*"]\n' if way == "process" else ""
        world.policy(POLICY.format(root=root) + own)
        return world, world.prober(MANIFEST, instance="pooled")

    yield load
    for world in worlds:
        world.close()


def run(prober: Prober, step: tuple[str, ...]) -> str:
    try:
        return f"gives {prober(*step)}"
    except Refused as exc:
        return f"refuses {exc.word}"
    except CapwasmError as exc:
        return f"ends {type(exc).__name__} {exc.code} {exc.message}"


@pytest.mark.case("IPC-10")
def test_a_program_does_the_same_in_both_processes(prober: Any, tmp_path: Path) -> None:
    told: dict[str, list[str]] = {}
    for way in ("in-process", "process"):
        _, probe = prober(way)
        told[way] = [run(probe, step) for step in PROGRAM]
    for step, here, there in zip(PROGRAM, told["in-process"], told["process"], strict=True):
        assert here == there, step
    kinds = [line.split()[0] for line in told["process"]]
    assert {"gives", "refuses", "ends"} == set(kinds)
    made = {
        way: sorted(p.name for p in (tmp_path / way / "data").iterdir())
        for way in ("in-process", "process")
    }
    assert made["in-process"] == made["process"]


def test_what_went_on_is_on_record_as_for_any_other(prober: Any) -> None:
    kept = {}
    for way in ("in-process", "process"):
        world, probe = prober(way)
        for step in PROGRAM[-5:-2]:
            run(probe, step)
        world.runtime.close()
        kept[way] = [
            (e["kind"], e["verdict"], e.get("action"), e.get("reason"))
            for e in world.events()
            if e["kind"] in {"crash", "limit", "kill", "log"}
        ]
    assert kept["in-process"] == kept["process"] != []
