from __future__ import annotations

import pytest

from capwasm.capability import Risk
from capwasm.caps.kv import Kv, KvClause


def test_allows_an_empty_table_with_the_defaults() -> None:
    [clause] = Kv().parse([{}], "manifest").clauses

    assert clause == KvClause()
    assert clause.holds(1024 * 1024, 1000)
    assert not clause.holds(1024 * 1024 + 1, 1)
    assert not clause.holds(1, 1001)
    assert clause.takes(65536)
    assert not clause.takes(65537)


def test_allows_sizes_with_units() -> None:
    table = {"quota": "2MiB", "keys": 10, "value-bytes": "1KiB"}

    assert Kv().parse([table], "policy").clauses == (KvClause(2 * 1024 * 1024, 10, 1024),)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *[("quota", v) for v in (0, -1, "2GiB", 2**30 + 1, "1e3", "1 000", True, [])],
        *[("keys", v) for v in (0, -1, 1_000_001, "10", False)],
        *[("value-bytes", v) for v in (0, "5MiB", 2**22 + 1)],
    ],
)
def test_refuses_a_quantity_that_is_none_or_over_the_ceiling(word: str, value: object) -> None:
    parsed = Kv().parse([{word: value}], "manifest")

    assert not parsed.clauses
    assert parsed.faults[0].path.startswith(word)


def test_refuses_every_fault_at_once() -> None:
    parsed = Kv().parse([{"quota": 0, "keys": 0, "value": 1}], "manifest")

    assert {f.path for f in parsed.faults} == {"quota", "keys", ""}


def test_allows_the_smaller_of_each() -> None:
    met = KvClause(100, None, 5).meet(KvClause(50, 7, None))

    assert met == KvClause(50, 7, 5)
    assert met.within(KvClause(100, None, 5))
    assert not KvClause().within(KvClause(100, 1, 1))
    assert KvClause().satisfied_by(KvClause(1, 1, 1))


@pytest.mark.parametrize("clause", [KvClause(), KvClause(1000, 3, 2048), KvClause(2**30)])
def test_allows_what_to_toml_wrote(clause: KvClause) -> None:
    assert Kv().parse([clause.to_toml()], "consent").clauses == (clause,)
    assert "store of its own" in clause.describe()
    assert Kv().risk(clause)[0] is Risk.LOW
    assert set(Kv().schema("policy")["properties"]) == {"quota", "keys", "value-bytes"}
