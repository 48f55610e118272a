"""The one way in for text: one spelling of each word and number, and nothing that can't be seen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from capwasm._model import Model, parse_json, parse_toml, validate
from capwasm.caps import standard_capabilities
from capwasm.capsule.trust import TrustStore
from capwasm.errors import CapwasmError, ManifestError, PolicyError
from capwasm.grants.consent import stamp
from capwasm.grants.manifest import parse_manifest
from capwasm.grants.policy import Policy
from capwasm.limits import DEFAULTS, Limits
from tests.toycaps import manifest_text


class Numbered(Model):
    number: Annotated[int, Field(ge=1, le=1)]
    not_after: str = ""


@pytest.mark.case("MAN-05", "MAN-08")
@pytest.mark.parametrize("number", [True, 1.0, "1", None, 2, [1]])
def test_refuses_what_only_equals_a_number(number: Any) -> None:
    with pytest.raises(ManifestError):
        validate(Numbered, {"number": number}, ManifestError)


def test_allows_the_number_itself() -> None:
    assert validate(Numbered, {"number": 1, "not-after": "x"}, ManifestError).not_after == "x"


@pytest.mark.case("MAN-05")
def test_refuses_a_model_that_would_take_true_for_one() -> None:
    with pytest.raises(TypeError, match="number"):

        class Loose(Model):
            number: Literal[1] | None = 1


@pytest.mark.case("MAN-08")
def test_refuses_a_second_spelling_of_a_word() -> None:
    with pytest.raises(ManifestError, match="unknown word 'not_after'; valid: not-after, number"):
        validate(Numbered, {"number": 1, "not_after": "x"}, ManifestError)
    with pytest.raises(ManifestError, match="unknown word 'resolution_ms'"):
        parse_manifest(manifest_text("[clock]\nresolution_ms = 5\n"), standard_capabilities())


@pytest.mark.case("MAN-05")
@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1" * 400 + ".5", "-0"])
def test_refuses_a_number_that_is_none(number: str) -> None:
    with pytest.raises(ManifestError, match="not valid JSON"):
        parse_json(f"[{number}]".encode(), ManifestError, code="manifest.toml")


HIDDEN = {
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "Arabic letter mark": "\u061c",
    "soft hyphen": "\u00ad",
    "override": "\u202e",
    "zero-width joiner": "\u200d",
    "tag": "\U000e0041",
    "private use": "\ue000",
    "filler": "\u3164",
    "selector of a variant": "\U000e0100",
    "joiner of graphemes": "\u034f",
    "next line": "\u0085",
}


@pytest.mark.case("MAN-06")
@pytest.mark.parametrize("char", HIDDEN.values(), ids=HIDDEN.keys())
@pytest.mark.parametrize("where", ["# {}\n", 'x = "{}"\n'], ids=["comment", "value"])
def test_refuses_what_a_reviewer_could_not_see(where: str, char: str) -> None:
    with pytest.raises(ManifestError, match=f"U\\+{ord(char):04X}"):
        parse_toml(where.format(char).encode(), ManifestError, code="manifest.toml")


def test_allows_accents_emoji_tabs_and_line_ends() -> None:
    text = '# naïve\tÜber \u26a0\ufe0f\r\nx = "日本語"\r\n'
    assert parse_toml(text.encode(), ManifestError, code="manifest.toml") == {"x": "日本語"}


@pytest.mark.parametrize(
    "load",
    [TrustStore.load, lambda path: Policy.load(path, standard_capabilities())],
    ids=["trust", "policy"],
)
@pytest.mark.parametrize("path", ["a" * 300, "a\0b", "/dev/null/x"])
def test_refuses_a_path_that_can_not_be_with_an_error_of_ours(
    load: Callable[[str], Any], path: str
) -> None:
    with pytest.raises(PolicyError):
        load(path)


def test_refuses_a_schema_too_large_to_be_told(tmp_path: Path) -> None:
    path = tmp_path / "trust.toml"
    path.write_text("schema = 0x" + "f" * 5_000)
    with pytest.raises(CapwasmError):
        TrustStore.load(path)


@pytest.mark.case("RES-08")
@pytest.mark.parametrize("value", [-1, 0, True, 1.5, float("nan")])
def test_refuses_a_limit_that_limits_nothing(value: Any) -> None:
    with pytest.raises(ValueError, match="memory must be a whole number"):
        Limits(memory=value)


def test_allows_a_core_to_lower_one_limit() -> None:
    assert DEFAULTS.meet(Limits(memory=65536)).memory == 65536


def test_refuses_a_moment_of_no_zone_and_writes_all_others_in_utc() -> None:
    assert stamp(datetime.fromisoformat("2027-01-31T02:00:00+05:00")) == "2027-01-30T21:00:00Z"
    with pytest.raises(ValueError, match="time zone"):
        stamp(datetime(2027, 1, 31))  # noqa: DTZ001  what is tested
