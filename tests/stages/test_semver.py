"""Versions in SemVer's order, and ranges that fail closed."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capwasm.grants.semver import SemVer, VersionRange

# The chain of SemVer 2.0.0, section 11, with its neighbours.
CHAIN = [
    "0.3.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
    "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0",
]  # fmt: skip


def test_allows_the_order_of_semver() -> None:
    versions = [SemVer.parse(text) for text in CHAIN]

    for (i, a), (j, b) in itertools.product(enumerate(versions), repeat=2):
        assert (a < b) == (i < j)


def test_build_metadata_plays_no_part() -> None:
    assert SemVer.parse("1.0.0+a") == SemVer.parse("1.0.0+b")


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=0.3,<1", ["0.3.0", "0.99.9", "0.4.0-rc.1"], ["0.2.9", "1.0.0", "0.3.0-rc.1"]),
        ("<1", ["0.9.9"], ["1.0.0-rc.1", "1.0.0-0", "1.0.0"]),
        ("<1.0.0-rc.2", ["1.0.0-rc.1"], ["1.0.0-rc.2", "1.0.0"]),
        ("<=1.2", ["1.2.0", "1.2.0-rc.1"], ["1.2.1"]),
        (">1", ["1.0.1", "2.0.0"], ["1.0.0", "1.0.0-rc.1"]),
        ("=1.2.3", ["1.2.3", "1.2.3+build"], ["1.2.4", "1.2.3-rc.1"]),
        (" >= 1 , < 2 ", ["1.5.0"], ["2.0.0"]),
    ],
)
def test_a_range_holds_what_all_its_comparators_hold(
    text: str, inside: list[str], outside: list[str]
) -> None:
    found = VersionRange.parse(text)

    assert [v for v in inside if not found.allows(SemVer.parse(v))] == []
    assert [v for v in outside if found.allows(SemVer.parse(v))] == []


@pytest.mark.parametrize(
    "text", ["", ",", ">=1,", "1.0", "^1", "~1.2", "*", ">=1 <2", ">=01", ">=1.2.3.4", "=>1",
             ">=1.x", ">=-1", "<1" + ",<1" * 50],
)  # fmt: skip
def test_refuses_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|version"):
        VersionRange.parse(text)


@given(st.text(alphabet="<>=,.0123456789a- ", max_size=40))
def test_any_text_is_a_range_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        VersionRange.parse(text).allows(SemVer.parse("1.0.0"))
