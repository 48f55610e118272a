"""One authority and one certificate for all tests of TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from .doors import FetchDoor, HttpDoor
from .servers import Bench, Place, make_tls


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return make_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    with place.origin, place.bench:
        yield place


@pytest.fixture(params=[FetchDoor(), HttpDoor()], ids=["fetch", "wasi-http"])
def door(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FetchDoor | HttpDoor:
    """Every engine is asked through this door; a test that uses it runs once for each."""
    monkeypatch.setattr(Bench, "door", request.param)
    return request.param
