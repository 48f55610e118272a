from __future__ import annotations

import pytest

from capwasm.capability import Risk
from capwasm.caps.random import Random, RandomClause


def test_allows_an_empty_table_as_64_kib_a_call() -> None:
    assert Random().parse([{}], "manifest").clauses == (RandomClause(65536),)


@pytest.mark.parametrize("size", [1024, "1KiB", "1024", "1024B", "1 KiB"])
def test_allows_a_size_in_bytes_or_with_a_unit(size: object) -> None:
    assert Random().parse([{"bytes-per-call": size}], "policy").clauses == (RandomClause(1024),)


@pytest.mark.case("RES-15")
@pytest.mark.parametrize(
    "size", [0, 7, -1, 65537, "1MiB", "1KB", "KiB", "1.5KiB", "١KiB", "9" * 16, True, 1.0, None]
)
def test_refuses_a_size_that_is_none_or_over_the_ceiling(size: object) -> None:
    parsed = Random().parse([{"bytes-per-call": size}], "policy")

    assert not parsed.clauses
    assert [f.path for f in parsed.faults] == ["bytes-per-call"]


def test_allows_the_smaller_of_two() -> None:
    assert RandomClause(100).meet(RandomClause(10)) == RandomClause(10)
    assert RandomClause(10).within(RandomClause(100))
    assert not RandomClause(100).within(RandomClause(10))
    assert RandomClause(100).satisfied_by(RandomClause(10))


def test_allows_what_to_toml_wrote() -> None:
    clause = RandomClause(1000)

    assert Random().parse([clause.to_toml()], "consent").clauses == (clause,)
    assert "1000B" in clause.describe()
    assert Random().risk(clause)[0] is Risk.LOW
    assert "bytes-per-call" in Random().schema("manifest")["properties"]
