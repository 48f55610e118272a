from __future__ import annotations

import pytest

from capwasm.capability import Risk
from capwasm.caps.config import Config, ConfigClause
from capwasm.lattice import ClauseSet


def test_allows_a_manifest_to_name_keys_and_a_policy_to_give_values() -> None:
    asked = Config().parse([{"keys": ["city", "units"]}], "manifest")
    given = Config().parse([{"keys": ["units", "city"], "values": {"city": "Oslo"}}], "policy")

    assert set(asked.clauses) == {ConfigClause("city"), ConfigClause("units")}
    assert set(given.clauses) == {ConfigClause("city", "Oslo"), ConfigClause("units")}
    effective = ClauseSet.of(asked.clauses).meet(ClauseSet.of(given.clauses))
    assert effective.clauses == {ConfigClause("city", "Oslo"), ConfigClause("units")}
    assert not ClauseSet.of(asked.clauses).missing_from(effective)


def test_refuses_a_manifest_that_gives_itself_values() -> None:
    parsed = Config().parse([{"keys": ["city"], "values": {"city": "Oslo"}}], "manifest")

    assert not parsed.clauses
    assert "unknown word 'values'; valid: keys" in parsed.faults[0].message


def test_refuses_a_key_that_the_policy_does_not_name() -> None:
    asked, given = ClauseSet.of([ConfigClause("a")]), ClauseSet.of([ConfigClause("b", "x")])

    assert not asked.meet(given)
    assert asked.missing_from(asked.meet(given)) == [ConfigClause("a")]


@pytest.mark.parametrize("key", ["", "1x", "a b", "a" * 65, "ключ", "a\n", "../x"])
@pytest.mark.parametrize("side", ["manifest", "policy"])
def test_refuses_what_is_no_key(key: str, side: str) -> None:
    table = {"keys": [key]} if side == "manifest" else {"values": {key: "x"}}

    assert Config().parse([table], side).faults  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1, True, None, ["x"], "x" * 4097])
def test_refuses_a_value_that_is_not_short_text(value: object) -> None:
    assert Config().parse([{"values": {"city": value}}], "policy").faults


def test_refuses_two_values_for_one_key() -> None:
    one, two, any_ = ConfigClause("a", "1"), ConfigClause("a", "2"), ConfigClause("a")

    assert one.meet(two) is None
    assert one.meet(any_) == any_.meet(one) == one
    assert one.within(any_)
    assert not any_.within(one)
    assert one.denied_by(two)


@pytest.mark.parametrize("clause", [ConfigClause("a"), ConfigClause("a.b-c_D", "x\n y")])
def test_allows_what_to_toml_wrote(clause: ConfigClause) -> None:
    assert Config().parse([clause.to_toml()], "consent").clauses == (clause,)
    assert clause.key in clause.describe()
    assert Config().risk(clause)[0] is Risk.LOW
    assert set(Config().schema("manifest")["properties"]) == {"keys"}
    assert set(Config().schema("policy")["properties"]) == {"keys", "values"}
