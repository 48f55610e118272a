"""A program in plain Go, with `os` and nothing of capwasm, under a grant of files."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm import run_command
from capwasm.authoring.builders.go import find_go
from capwasm.authoring.componentizer import command
from capwasm.plugin import Plugin
from tests.builds import CACHE, compiled, share
from tests.kit import World

SOURCES = Path(__file__).with_name("programs")
ASKS = '[[fs]]\nmount = "/data"\nbind = "app"\naccess = "{0}"\n[clock]\n[random]\n'
POLICY = (
    '[[plugins."test.guest".fs]]\nbind = "app"\npath = "{root}/data"\naccess = "{access}"\n'
    '[plugins."test.guest".clock]\n[plugins."test.guest".random]\n{way}'
)
PROCESS = '[isolation]\nprocess = ["test.*"]\n'


@pytest.fixture(scope="session")
def program() -> bytes:
    """The component, built once."""
    found = find_go()
    if found is None:
        pytest.skip("go is not installed: apt-get install golang")
    digest = hashlib.sha256(found[1].encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.read_bytes())
    kept = CACHE / "go-programs" / f"{digest.hexdigest()[:24]}.wasm"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_suffix(f".{os.getpid()}")
        subprocess.run(
            [found[0], "build", "-o", str(fresh), "."],
            cwd=SOURCES,
            env={**os.environ, "GOOS": "wasip1", "GOARCH": "wasm", "GOFLAGS": "-trimpath"},
            check=True,
            timeout=600,
        )
        fresh.rename(kept)
    return command(kept.read_bytes(), compiled())


@pytest.fixture(params=["in-process", "process"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/one.txt").write_text("a few words\n")
    (tmp_path / "secret.txt").write_text("not for guests")
    world = World(tmp_path)
    world.way = PROCESS if request.param == "process" else ""
    share(compiled(), world.home / "cache")
    yield world
    share(world.home / "cache", compiled())
    world.close()


def load(world: World, program: bytes, root: Path, access: str) -> Plugin:
    world.policy(POLICY.format(root=root, access=access, way=world.way))
    return world.load(program, ASKS.format(access))


def test_allows_the_directory_that_it_was_given(
    world: World, program: bytes, tmp_path: Path
) -> None:
    plugin = load(world, program, tmp_path, "read-write")
    out, err = io.BytesIO(), io.BytesIO()

    args = ["count", "-copy-to", "/data/copy.txt", "/data"]
    assert run_command(plugin, args, stdout=out, stderr=err) == 0, err.getvalue()
    assert out.getvalue() == b"12 /data/one.txt\n"
    assert (tmp_path / "data/copy.txt").read_text() == "a few words\n"


def test_refuses_the_rest_in_words_of_its_own_library(
    world: World, program: bytes, tmp_path: Path
) -> None:
    plugin = load(world, program, tmp_path, "read")

    for args, told in (
        (["/data/../secret.txt"], b"count: open /data/../secret.txt: "),
        (["/etc/passwd"], b"count: open /etc/passwd: "),
        (["-copy-to", "/data/copy.txt", "/data/one.txt"], b"count: open /data/copy.txt: "),
    ):
        err = io.BytesIO()
        assert run_command(plugin, ["count", *args], stdout=io.BytesIO(), stderr=err) == 1
        assert err.getvalue().startswith(told)
    assert not (tmp_path / "data/copy.txt").exists()
    # What it was refused beneath the directory that it has is on record.
    denied = [(e["action"], e["reason"]) for e in world.events("fs") if e["verdict"] == "denied"]
    assert ("open", "read-only") in denied
