"""The document of a component's types says the same as the engine, or is not used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capwasm.engine import compile as module
from capwasm.engine import types as t
from capwasm.engine.cache import CodeCache
from capwasm.engine.compile import Compiler
from capwasm.engine.engine import PluginEngine
from capwasm.engine.link import read_types
from capwasm.engine.sealed import Sealed
from capwasm.engine.typedoc import decode, encode
from capwasm.engine.walk import walk
from tests.kit import guest

from .test_plan_property import TYPES

RESOURCE = st.builds(t.ResourceId, st.sampled_from(["", "a:b/c@1.0.0"]), st.text(), st.booleans())
VALUES = TYPES | st.builds(t.Own, RESOURCE) | st.builds(t.Borrow, RESOURCE)
NAMED = VALUES.map(lambda x: x) | st.builds(
    t.Record, st.text(), st.lists(st.tuples(st.text(), VALUES), max_size=3).map(tuple)
)


def pairs(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(st.tuples(st.text(max_size=8), values), max_size=3).map(tuple)


INTERFACES = st.lists(
    st.builds(
        t.InterfaceType,
        st.text(max_size=8),
        pairs(st.builds(t.FuncType, pairs(NAMED), st.none() | NAMED)),
        pairs(RESOURCE),
        pairs(NAMED),
    ),
    max_size=2,
).map(tuple)


@pytest.fixture(scope="module")
def engine() -> Iterator[PluginEngine]:
    engine = PluginEngine()
    yield engine
    engine.close()


@given(imports=INTERFACES, exports=INTERFACES)
def test_allows_any_types_to_be_written_and_read(imports: tuple, exports: tuple) -> None:
    types = t.ComponentTypes(imports, exports)
    assert decode(encode(types)) == types


def test_allows_the_types_of_a_guest_that_imports_everything(engine: PluginEngine) -> None:
    component = Compiler(engine, None).compile(guest("prober")).component
    types = walk(component, engine.wasm)
    document = encode(types)
    assert decode(document) == types
    assert len(document) < 40_000  # each type stands once


BAD = [
    b"",
    b"{}",
    b"[1]",
    b"[2,[],[],[]]",
    b"[1,[],[],[],[]]",
    b'[1,[["?"]],[],[]]',
    b'[1,[["l",0]],[],[]]',
    b'[1,[["w","a"]],[],[]]',
    b'[1,[],[["a",[["f",[["x",7]],null]],[],[]]],[]]',
    b"[1," + b"[" * 5_000 + b"]" * 5_000 + b",[],[]]",
]


@pytest.mark.case("PER-04")
@pytest.mark.parametrize("document", BAD)
def test_refuses_what_is_no_document_of_types(document: bytes) -> None:
    with pytest.raises(ValueError, match="not a document of types"):
        decode(document)


def test_allows_a_warm_start_without_asking_the_engine(
    engine: PluginEngine, tmp_path: Path
) -> None:
    first = Compiler(engine, tmp_path).compile(guest("prober"))
    with mock.patch.object(module, "walk", side_effect=AssertionError("it was asked")):
        again = Compiler(engine, tmp_path).compile(guest("prober"))
    assert again.types == first.types is not None
    assert again.laned == first.laned
    assert read_types(engine, again) == read_types(engine, first)


@pytest.mark.case("SIG-22", "PER-04")
@pytest.mark.parametrize("kind", ["changed", "another's", "of another version", "gone"])
def test_refuses_a_document_that_is_not_of_this_code(
    engine: PluginEngine, tmp_path: Path, kind: str
) -> None:
    first = Compiler(engine, tmp_path).compile(guest("prober"))
    (document,) = tmp_path.glob("*.types")
    good = document.read_bytes()
    if kind == "changed":
        document.write_bytes(good.replace(b'"string"', b'"strinG"', 1))
    elif kind == "another's":
        Compiler(engine, tmp_path).compile(guest("hostile"))
        (other,) = set(tmp_path.glob("*.types")) - {document}
        document.write_bytes(other.read_bytes())
    elif kind == "gone":
        document.unlink()
    else:
        with Sealed.holding(json.dumps([99, [], [], []]).encode()) as sealed:
            CodeCache(tmp_path, 2**30).keep(document.name, sealed)
    for asked in (1, 0):  # and it is made anew
        with mock.patch.object(module, "walk", wraps=walk) as spy:
            again = Compiler(engine, tmp_path).compile(guest("prober"))
        assert spy.call_count == asked
        assert again.types == first.types
