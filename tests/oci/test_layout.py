"""What a capsule becomes: the same bytes each time, and true of the component in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st
from wasmtime import component as wc

from capwasm.capsule.pack import pack
from capwasm.errors import RepositoryError
from capwasm.oci.component import world_of
from capwasm.oci.layout import lay_out, read_component, read_index
from tests.capsules import FILES, signed
from tests.kit import guest

from .servers import CAPSULE, code_of

EMPTY = FILES["plugin.wasm"]
HELLO = guest("hostile")


def engine_says(code: bytes) -> tuple[list[str], list[str]]:
    engine = wasmtime.Engine()
    kind = wc.Component(engine, code).type
    return list(kind.imports(engine)), list(kind.exports(engine))


@pytest.mark.parametrize(
    "name", ["caller", "deep", "hostile", "keeper", "prober", "resource", "starter", "tenant"]
)
def test_a_components_world_is_what_the_engine_says_it_is(name: str) -> None:
    code = guest(name)
    imports, exports = engine_says(code)
    assert imports or exports
    assert [sorted(names) for names in world_of(memoryview(code))] == [
        sorted(imports),
        sorted(exports),
    ]


@pytest.mark.parametrize(
    "code",
    [
        b"",
        b"\0asm\x01\0\0\0",
        EMPTY[:-1],
        EMPTY + b"\x0a",
        EMPTY + b"\x0a\x05\x01\x00",
        EMPTY + b"\x0a\xff\xff\xff\xff\xff\x01",
        EMPTY + b"\x0a\x80\x80\x80\x80\x80\x80",
        EMPTY + b"\x0a\x04\x01\x07\x01a",
        EMPTY + b"\x0a\x06\x01\x00\x01\xff\x01\x00",
        EMPTY + b"\x0a\x05\x01\x00\x01a\x09",
        EMPTY + b"\x0a\x05\xff\xff\xff\xff\x0f",
    ],
)
def test_refuses_what_is_no_component(code: bytes) -> None:
    assert code_of(lambda: world_of(memoryview(code))) == "oci.layout"


@given(st.binary(max_size=40), st.integers(0, len(HELLO) - 1), st.integers(0, 255))
def test_no_bytes_make_it_fail_otherwise(tail: bytes, at: int, byte: int) -> None:
    for code in (EMPTY + tail, HELLO[:at] + bytes([byte]) + HELLO[at + 1 :], HELLO[:at]):
        try:
            world_of(memoryview(code))
        except RepositoryError as exc:
            if exc.code != "oci.layout":
                raise


def test_the_same_capsule_is_the_same_manifest() -> None:
    first, again = lay_out(CAPSULE), lay_out(bytes(CAPSULE))
    assert first.component.data == again.component.data
    assert [r.data for r in first.referrers] == [r.data for r in again.referrers]
    other = lay_out(signed())
    assert other.component.data != first.component.data
    # Same code: the layer is one, and is kept once.
    layers = [json.loads(bytes(x.component.data))["layers"] for x in (first, other)]
    assert layers[0] == layers[1]


def test_refuses_what_nobody_could_install() -> None:
    assert code_of(lambda: lay_out(pack(FILES))) == "verify.unsigned"
    assert code_of(lambda: lay_out(CAPSULE[:-1])) == "verify.digest"
    assert code_of(lambda: lay_out(b"")) == "verify.not-a-capsule"
    flipped = bytearray(CAPSULE)
    flipped[-1] ^= 1
    assert code_of(lambda: lay_out(bytes(flipped))) == "verify.digest"


def test_a_native_plugin_has_no_place_in_it() -> None:
    manifest = FILES["plugin.toml"].replace(b'"component"', b'"native"')
    members = {"plugin.toml": manifest, "lib/x86_64-unknown-linux-gnu/plugin.so": b"\x7fELF"}
    assert code_of(lambda: lay_out(signed(members=members))) == "oci.layout"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
MANIFEST = json.loads(bytes(lay_out(CAPSULE).component.data))
PLACES = [
    ("schemaVersion",), ("mediaType",), ("config",), ("config", "mediaType"), ("config", "digest"),
    ("config", "size"), ("layers",), ("layers", 0), ("layers", 0, "mediaType"),
    ("layers", 0, "digest"), ("annotations",), ("annotations", "dev.capwasm.capsule.digest"),
    ("annotations", "dev.capwasm.capsule.size"), ("subject",),
]  # fmt: skip


@given(st.sampled_from(PLACES), JSON)
def test_whatever_stands_in_a_manifest_it_is_one_of_ours_that_ends_it(
    place: tuple[Any, ...], value: Any
) -> None:
    doc = json.loads(json.dumps(MANIFEST))
    inner = doc
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    for data in (json.dumps(doc).encode(), json.dumps(value).encode()):
        for read in (read_component, read_index):
            try:
                read(data)
            except RepositoryError as exc:
                if not exc.code.startswith("oci."):
                    raise
