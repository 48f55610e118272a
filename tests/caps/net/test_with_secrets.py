"""The engine and the secrets capability together: what each promises holds across the two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.caps.net import RequestSpec
from capwasm.caps.secrets import MemoryVault, SecretClause, Secrets
from capwasm.errors import CapError
from capwasm.record.redact import Redactor
from tests.helpers import ListRecorder, grant_of, in_call, open_context

from .servers import Bench, Origin, http, redirect, rules

VALUE = b"s3cr3t-token-0123456789"


class Pair:
    """A plugin that may reach two origins, and holds a secret for the first."""

    def __init__(self, data_dir: Path) -> None:
        self.first, self.second, self.bench = Origin(), Origin(), Bench()
        self.url = f"http://127.0.0.1:{self.first.port}"
        self.grant = rules(
            *({"allow": f"http://127.0.0.1/32:{o.port}"} for o in (self.first, self.second))
        )
        clause = SecretClause("token", "inject", frozenset({self.url}), "Authorization: Bearer {}")
        self.granted = grant_of(clause)
        self.recorder = ListRecorder()
        self.secrets = Secrets(MemoryVault({"token": VALUE}), Redactor())
        self.state = self.secrets.open(self.granted, open_context(data_dir, recorder=self.recorder))

    def fetch(self, handle: Any, url: str) -> bytes:
        with in_call() as call:
            spec = RequestSpec("GET", url, credentials=[handle])
            response = self.bench.engine.request(self.grant, spec, call)
            try:
                return bytes(response.read_all(10_000))
            finally:
                response.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    with pair.first, pair.second, pair.bench:
        yield pair


@pytest.mark.case("SEC-07", "SEC-08", "SEC-10")
def test_allows_a_secret_to_its_origin_and_masks_the_echo(pair: Pair) -> None:
    pair.first.answer = lambda got: http(repr(got.headers).encode())
    body = pair.fetch(pair.state.get("token"), pair.url)
    assert pair.first.got[0].all("authorization") == [f"Bearer {VALUE.decode()}"]
    assert VALUE not in body
    seen = repr(pair.bench.recorder.events) + repr(pair.recorder.events)
    assert VALUE.decode() not in seen


@pytest.mark.case("SEC-09")
def test_refuses_a_secret_to_another_origin(pair: Pair) -> None:
    with pytest.raises(CapError) as caught:
        pair.fetch(pair.state.get("token"), f"http://127.0.0.1:{pair.second.port}/")
    assert caught.value.word == "denied"
    assert pair.second.connections == 0


@pytest.mark.case("NET-10", "SEC-09")
def test_a_redirect_leaves_the_secret_behind(pair: Pair) -> None:
    pair.first.answer = lambda _: redirect(f"http://127.0.0.1:{pair.second.port}/")
    assert pair.fetch(pair.state.get("token"), pair.url) == b"hello"
    assert pair.second.got[0].all("authorization") == []
    assert pair.first.got[0].all("authorization") != []


@pytest.mark.case("SEC-06")
def test_refuses_a_secret_whose_grant_was_revoked(pair: Pair) -> None:
    handle = pair.state.get("token")
    assert pair.fetch(handle, pair.url) == b"hello"
    pair.granted.allow[0].lease.revoke("operator")
    with pytest.raises(CapError) as caught:
        pair.fetch(handle, pair.url)
    assert caught.value.word in ("closed", "denied")
    assert len(pair.first.got) == 1
