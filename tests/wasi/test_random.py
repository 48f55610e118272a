"""Random bytes come from the random capability or not at all."""

from __future__ import annotations

import pytest

from capwasm.errors import GuestTrap, ValueLimitExceeded
from tests.helpers import in_call

from .served import Wasi, random_state

ALL = [
    "random/random.get-random-bytes",
    "random/random.get-random-u64",
    "random/insecure.get-insecure-random-bytes",
    "random/insecure.get-insecure-random-u64",
    "random/insecure-seed.insecure-seed",
]


def test_allows_random_bytes_where_granted() -> None:
    wasi = Wasi({"random": random_state()})

    with in_call():
        for name in ("random/random.get-random-bytes", "random/insecure.get-insecure-random-bytes"):
            assert wasi[name](0) == b""
            assert len(wasi[name](64 * 1024)) == 64 * 1024
            assert wasi[name](16) != wasi[name](16)
        for name in ("random/random.get-random-u64", "random/insecure.get-insecure-random-u64"):
            values = {wasi[name]() for _ in range(8)}
            assert len(values) == 8
            assert all(0 <= v < 2**64 for v in values)
        seed = wasi["random/insecure-seed.insecure-seed"]()
        assert len(seed) == 2
        assert all(0 <= v < 2**64 for v in seed)


@pytest.mark.case("RES-15")
@pytest.mark.parametrize("length", [64 * 1024 + 1, 2**40, 2**64 - 1])
@pytest.mark.parametrize("function", [n for n in ALL if n.endswith("bytes")])
def test_refuses_more_than_64_kib_at_a_time(function: str, length: int) -> None:
    wasi = Wasi({"random": random_state()})

    with in_call(), pytest.raises(ValueLimitExceeded):
        wasi[function](length)


@pytest.mark.case("RES-15")
def test_refuses_free_random_bytes_each_is_charged() -> None:
    wasi = Wasi({"random": random_state()})

    with in_call() as call:
        for _ in range(10):
            wasi["random/random.get-random-bytes"](1000)

    assert call.host_fuel >= 10_000


@pytest.mark.parametrize("function", ALL)
def test_refuses_randomness_that_is_not_granted_and_names_the_table(function: str) -> None:
    wasi = Wasi()

    for _ in range(3):
        with in_call(), pytest.raises(GuestTrap) as caught:
            wasi[function](8) if function.endswith("bytes") else wasi[function]()

    assert caught.value.code == "grant.denied"
    assert caught.value.faults[0].fix == "[random]"
    assert [e.action for e in wasi.events] == [f"wasi:{function}"]


def test_refuses_randomness_after_it_was_revoked() -> None:
    state = random_state()
    wasi = Wasi({"random": state})
    for granted in state._grant.allow:
        granted.lease.revoke("test")

    with in_call(), pytest.raises(GuestTrap):
        wasi["random/random.get-random-u64"]()
