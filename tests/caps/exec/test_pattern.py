"""The words of a command: what a guest's values can and can't be made into."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capwasm.caps.exec.pattern import Hole, Pattern

SIZE = "{size:[0-9]{1,4}x[0-9]{1,4}}"


def fill(words: list[str], *values: str) -> tuple[str, ...] | None:
    return Pattern.of(tuple(words)).fill(values)


def test_allows_values_in_holes_between_fixed_words() -> None:
    assert fill(["-resize", SIZE, "-", "png:-"], "100x80") == ("-resize", "100x80", "-", "png:-")
    assert fill(["a=[{x:[a-z]{2}}]", "{y:b|c}"], "zz", "c") == ("a=[zz]", "c")
    assert fill([]) == ()
    assert fill(["", "a b", "*", "$(x)", "`x`", ";"]) == ("", "a b", "*", "$(x)", "`x`", ";")


@pytest.mark.parametrize(
    "value",
    [
        *("", "100", "x", "100x", "12345x1", " 100x100", "100x100 ", "100x100\n", "\n100x100"),
        *("100x100\0", "100x100;id", "100x100 -o x", "-100x100", "١٠x١٠", "1x1\u200b", "é"),
    ],
)
def test_refuses_a_value_that_the_expression_does_not_match_whole(value: str) -> None:
    assert fill([SIZE], value) is None


@pytest.mark.parametrize("count", [0, 1, 3])
def test_refuses_more_or_fewer_values_than_holes(count: int) -> None:
    assert fill(["{a:.*}", "{b:.*}"], *["x"] * count) is None
    assert fill(["{a:.*}", "{b:.*}"], "x", "x") == ("x", "x")


def test_refuses_values_where_there_is_no_hole() -> None:
    assert fill(["-v"], "x") is None
    assert fill(["-v"]) == ("-v",)


@pytest.mark.parametrize("value", ["-o/etc/passwd", "--output=/x", "-", "--"])
def test_refuses_an_option_in_place_of_a_word(value: str) -> None:
    assert fill(["{name:.*}"], value) is None
    assert fill(["-", "{name:.*}"], value) is None
    assert fill(["x--", "{name:.*}"], value) is None


@pytest.mark.parametrize("value", ["-o/etc/passwd", "-", "--"])
def test_allows_a_dash_where_it_is_no_option(value: str) -> None:
    assert fill(["--", "{name:.*}"], value) == ("--", value)
    assert fill(["name={name:.*}"], value) == (f"name={value}",)


def test_refuses_to_let_a_value_end_the_options() -> None:
    """Only a `--` that the operator wrote is one."""
    assert fill(["{a:-*}", "{b:.*}"], "--", "-x") is None
    assert fill(["a{a:.*}", "{b:.*}"], "--", "-x") is None


def test_refuses_a_look_at_the_whole_pattern_through_one_hole() -> None:
    """A value of one hole never counts for another."""
    assert fill(["{a:[0-9]+}", "{b:[a-z]+}"], "1 a", "a") is None
    assert fill(["{a:[0-9]+}", "{b:[a-z]+}"], "a", "1") is None


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("{", "no hole"),
        ("}", "no hole"),
        ("{x}", "no hole"),
        ("{:a}", "no hole"),
        ("{x:}", "no hole"),
        ("{X:a}", "no hole"),
        ("{1:a}", "no hole"),
        ("{x:a}{y:b}", "can't be used"),
        ("{x:a)|(b}", "can't be used"),
        ("{x:(a}", "can't be used"),
        ("{x:[}", "can't be used"),
        ("{x:(a)\\1}", "can't be used"),
        ("{x:(?=a)}", "can't be used"),
        ("{x:(?<!a)b}", "can't be used"),
        ("{x:(?x)a # b}", "can't be used"),
        ("{x:(?-u:\\xff)}", "can't be used"),
        ("{x:a{5000}{5000}}", "can't be used"),
        ("{x:" + "a" * 257 + "}", "longer than"),
        ("a" * 1025, "longer than"),
    ],
)
def test_refuses_a_word_that_is_neither_fixed_nor_a_sound_hole(word: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Pattern.of((word,))


def test_refuses_too_many_words_holes_or_one_name_twice() -> None:
    for words in (["a"] * 65, [f"{{x{n}:a}}" for n in range(17)], ["{x:a}", "{x:b}"]):
        with pytest.raises(ValueError, match=r"more than|one name"):
            Pattern.of(tuple(words))
    assert fill(["a"] * 64) == ("a",) * 64


def test_allows_an_alternative_only_as_a_whole() -> None:
    for value, fits in {"a": True, "b": True, "ab": False, "xa": False, "bx": False}.items():
        assert (fill(["{x:a|b}"], value) is not None) is fits


@pytest.mark.case("RES-05")
@pytest.mark.parametrize("regex", ["(a+)+b", "(a|a)*b", "(.*.*)*b", "a{0,100}a{0,100}a{0,100}b"])
def test_refuses_no_time_to_an_expression_that_would_run_away(regex: str) -> None:
    started = time.monotonic()

    assert fill([f"{{x:{regex}}}"], "a" * 4095 + "!") is None
    assert time.monotonic() - started < 5  # of a backtracking engine, the age of the universe


@given(value=st.text(max_size=20))
def test_a_filled_word_holds_the_value_and_what_stands_around_it(value: str) -> None:
    filled = fill(["-x", "a{v:(?s:.*)}b"], value)

    assert filled == ("-x", f"a{value}b")


@given(value=st.text(alphabet="-ab \n", max_size=6))
def test_a_word_of_a_value_alone_never_begins_with_a_dash(value: str) -> None:
    filled = fill(["{v:(?s:.*)}"], value)

    assert (filled is None) == value.startswith("-")


def test_allows_a_reviewer_to_see_the_name_of_a_hole() -> None:
    [hole] = Pattern.of(("--size={size:[0-9]+}px",)).words

    assert isinstance(hole, Hole)
    assert (hole.before, hole.name, hole.after) == ("--size=", "size", "px")
