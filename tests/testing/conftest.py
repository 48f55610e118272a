"""A project of the prober: it tries anything that it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from capwasm.testing import Bench
from capwasm.values import Err
from tests.kit import HEAD, OPTIONAL, guest

ASKED = """
[kv]
[log]
[clock]
[random]
[[net]]
allow = "https://api.example.com/*"
methods = ["GET", "POST"]
[[secret]]
name = "key"
use = "reveal"
[[fs]]
mount = "/data"
bind = "notes"
access = "read-write"
[config]
keys = ["city"]
"""


def project(
    place: Path,
    asked: str = ASKED,
    instance: str = "per-call",
    isolation: str = "in-process",
    code: str = "prober",
) -> Path:
    head = HEAD.format(id="test.guest", version="1.0.0", requires=">=0", instance=instance)
    head += f'isolation = "{isolation}"\n'
    rest = "".join(text for word, text in OPTIONAL.items() if word not in asked)
    place.mkdir(exist_ok=True)
    (place / "plugin.wasm").write_bytes(guest(code))
    (place / "plugin.toml").write_text(head + asked + rest)
    return place


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for the session, and none of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    with ExitStack() as stack:

        def make(asked: str = ASKED, **options: Any) -> Bench:
            options = {"secrets": {"key": "s3cr3t-v4lue"}, "config": {"city": "Oslo"}} | options
            return stack.enter_context(Bench(project(tmp_path / "p", asked), **options))

        yield make


@pytest.fixture
def prober(make: Callable[..., Bench]) -> Bench:
    return make()


def run(bench: Bench, operation: str, *words: str) -> Any:
    """What the prober says to it, or the word that it was refused with."""
    result = bench.call("run", operation, list(words))
    return result.error.strip('"') if isinstance(result, Err) else result.value
