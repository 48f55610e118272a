from __future__ import annotations

from pathlib import Path

from capwasm.caps.random import Random, RandomClause, SeededBytes
from tests.helpers import grant_of, in_call, open_context


def functions(random: Random):
    state = random.open(grant_of(RandomClause()), open_context(Path("/nowhere")))
    [interface] = random.serve(state)
    assert interface.name in Random.interfaces
    return interface.functions


def test_allows_the_whole_interface() -> None:
    served = functions(Random())
    with in_call():
        assert len(served["bytes"](32)) == 32
        assert 0 <= served["next-u64"]() < 2**64


def test_allows_two_instances_of_one_seed_no_shared_bytes() -> None:
    random = Random(SeededBytes(b"seed"))
    first, second = functions(random), functions(random)
    with in_call():
        assert first["bytes"](32) != second["bytes"](32)
