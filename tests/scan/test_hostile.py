"""Bytes made to break a reader: every scan of them ends, within bounds, and says something."""

from __future__ import annotations

import time
from importlib import import_module

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.engine.lane.binary import COMPONENT, MAX_ENTRIES, MAX_NESTING
from capwasm.engine.outline import CORE, outline
from capwasm.review.finding import Report
from capwasm.scan.lookalike import looks_like, mixed_scripts
from capwasm.scan.witworld import world_exports

from .building import capsule, component, custom, leb, look, manifest, module, section
from .seeds import SEEDS

# All but the one that compiles, in a process apart and bounded there.
STATIC = tuple(
    s
    for name in ("known", "asks", "shape", "paths", "hosts", "tokens", "payloads")
    for s in import_module(f"capwasm.scan.{name}").SCANNERS
)
WORLD = import_module("capwasm.scan.world").SCANNERS


def nested(depth: int) -> bytes:
    """Components within components."""
    made = COMPONENT
    for _ in range(depth):
        made = COMPONENT + section(4, made)
    return made


HOSTILE = {
    "nothing": b"",
    "only its head": COMPONENT,
    "a length without end": COMPONENT + b"\x00" + b"\x80" * 4096,
    "a length of 64 bits": COMPONENT + b"\x00" + b"\xff" * 9 + b"\x01",
    "a length past the end": COMPONENT + b"\x01\xff\xff\xff\xff\x0f",
    "a name past the end": COMPONENT + section(0, b"\xff\xff\xff\xff\x0f"),
    "a million empty sections": COMPONENT + b"\x07\x00" * 1_000_000,
    "very many custom sections": COMPONENT + custom("") * 100_000,
    "a million data segments": COMPONENT
    + section(1, CORE + section(11, leb(1_000_000) + b"\x01\x00" * 1_000_000)),
    "data segments that are said and not there": COMPONENT
    + section(1, CORE + section(11, leb(2**32 - 1))),
    "memories that are said and not there": COMPONENT
    + section(1, CORE + section(5, leb(2**32 - 1))),
    "a constant without end": COMPONENT
    + section(1, CORE + section(11, b"\x01\x00" + b"\x41\x00" * 9_000)),
    "deep nesting": nested(MAX_NESTING + 200),
    "a producer without end": COMPONENT
    + section(1, CORE + custom("producers", leb(2**31) + b"\x00" * 64)),
}


@pytest.mark.parametrize("code", HOSTILE.values(), ids=HOSTILE)
def test_a_scan_of_hostile_code_ends_and_says_so(code: bytes) -> None:
    began = time.monotonic()
    report = look(capsule(code), [*STATIC, *WORLD])

    assert time.monotonic() - began < 60
    assert not {f.rule for f in report.findings} & {"scan.failed", "scan.timeout"}
    assert report.findings
    assert Report.parse(report.to_json()) == report


def test_an_outline_is_bounded() -> None:
    assert f"more than {MAX_ENTRIES} entries" in outline(HOSTILE["a million empty sections"]).fault
    assert "nest deeper" in outline(HOSTILE["deep nesting"]).fault
    assert outline(nested(MAX_NESTING)).nested == MAX_NESTING
    assert outline(nested(MAX_NESTING)).fault == ""


GOOD = component(data=b"http://93.184.215.14/", customs=(custom("stash", b"x"),))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_an_outline_of_changed_bytes_ends(data: st.DataObject) -> None:
    code = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        code[data.draw(st.integers(0, len(code) - 1))] = data.draw(st.integers(0, 255))
    found = outline(bytes(code[: data.draw(st.integers(0, len(code)))]))

    for part in (*found.data, *found.customs):
        assert 0 <= part.offset <= len(code)


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_scanner_fails_on_changed_bytes(data: st.DataObject) -> None:
    """A scanner that fails would hide what it did not come to."""
    code, toml = bytearray(GOOD), bytearray(manifest('[[net]]\nallow = "https://a.example/"\n'))
    for part in (code, toml):
        for _ in range(data.draw(st.integers(0, 3))):
            part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
    asset = data.draw(st.binary(max_size=400))
    try:
        made = capsule(bytes(code), bytes(toml), **{"assets/x": asset})
    except Exception:  # it can't even be packed
        return
    report = look(made, STATIC)

    assert not [f for f in report.findings if f.rule.startswith("scan.")]


# Texts on which a careless pattern takes time that grows with the square of their length.
FLOODS = {
    "letters": b"a" * 500_000,
    "digits and dots": b"1.1." * 100_000,
    "slashes": b"/home/" * 80_000,
    "dashes": b"-----BEGIN PRIVATE KEY-----\n" * 20_000,
    "beginnings of tokens": b"eyJ" * 150_000,
    "words before nothing": b"api_key=" * 60_000,
    "schemes": b"https://" * 60_000,
    "wide letters": b"a\x00" * 250_000,
    "magics": b"\x7fELFMZPK\x03\x04\x1f\x8b\x08" * 40_000,
    "pipes": b"curl " * 100_000,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_scan_takes_time_that_grows_with_the_bytes_alone(flood: bytes) -> None:
    began = time.monotonic()
    report = look(capsule(**{"assets/x": flood}), STATIC)

    assert time.monotonic() - began < 60  # it takes half a second
    assert not [f for f in report.findings if f.rule.startswith("scan.")]


def test_something_bad_is_found_behind_a_flood() -> None:
    bad = SEEDS["holds a token"].make
    token = next(f for f in look(bad(), STATIC).findings)
    flood = b" http://10.0.0.%d/ " * 1
    many = b"".join(flood % (n % 250) for n in range(20_000))
    code = component(data=many[:190_000] + b" ghp_" + b"aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6 ")

    report = look(capsule(code), STATIC)

    assert token.rule in {f.rule for f in report.findings}


@given(st.text(max_size=400), st.text(max_size=40))
def test_wit_that_is_none_says_nothing(wit: str, world: str) -> None:
    members = {"wit/x.wit": ("world w {" + wit).encode("utf-8", "replace")}
    world_exports(world, members)
    assert world_exports("acme:no/such@1.0.0", members) is None


IDS = st.from_regex(r"[a-z]{2,8}\.[a-z]{2,8}", fullmatch=True)


@given(IDS, st.integers(0, 40), st.sampled_from("abcdefghijklmnopqrstuvwxyz"))
def test_one_slip_is_seen_both_ways(other: str, at: int, letter: str) -> None:
    at %= other.index(".")
    slip = other[:at] + letter + other[at:]
    if slip.partition(".")[0] != other.partition(".")[0]:
        assert looks_like(slip, [other]) == other
        assert looks_like(other, [slip]) == slip


@pytest.mark.parametrize("other", ["acme.weather", "acme.rain", "zeta.weather", "b.c"])
def test_allows_ids_that_nobody_mistakes(other: str) -> None:
    assert looks_like("acme.weather", [other]) is None


@pytest.mark.parametrize(
    "name", ["Weather", "Погода", "Καιρός", "天気", "Wetter für alle", "Météo"]
)
def test_allows_a_name_of_one_script(name: str) -> None:
    assert mixed_scripts(name) is None


def test_data_of_a_new_form_is_looked_at_as_a_whole() -> None:
    inner = module(data=b"x")
    payload = leb(1) + b"\x00\xd0\x70\x0b" + leb(3) + b"abc"  # its place is a ref.null
    code = COMPONENT + section(1, inner[:8] + section(11, payload))

    (segment,) = outline(code).data
    assert bytes(segment.payload) == payload
