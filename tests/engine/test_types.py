"""The walk over a component's types: names, identities, and what it refuses."""

from __future__ import annotations

import pickle

import pytest
import wasmtime
from wasmtime import component as wc

from capwasm.engine import types as t
from capwasm.engine.walk import walk
from capwasm.errors import LinkError

TWO_INTERFACES = """(component
  (import "a:b/types@1.0.0" (instance $t
    (export "res" (type $res (sub resource)))
    (type $e (enum "not-found" "denied"))
    (export "error" (type $error (eq $e)))
    (type $r (record (field "x-y" u32) (field "class" (list $error))))
    (export "rec" (type $rec (eq $r)))
    (type $f (flags "read" "write"))
    (export "mode" (type $mode (eq $f)))
    (type $v (variant (case "off") (case "on" $rec)))
    (export "state" (type $state (eq $v)))
    (export "[method]res.get"
      (func (param "self" (borrow $res)) (param "mode" $mode)
            (result (result (option $rec) (error $error)))))
    (export "set" (func (param "to" (tuple $state char)) (result (result))))))
  (alias export $t "res" (type $res))
  (alias export $t "rec" (type $rec))
  (import "a:b/other@1.0.0" (instance $o
    (alias outer 1 $res (type $r0)) (export "res" (type $r1 (eq $r0)))
    (export "same" (type $same (sub resource)))
    (alias outer 1 $rec (type $rec0)) (export "row" (type $row (eq $rec0)))
    (export "take" (func (param "r" (own $r1)) (param "s" (own $same)) (param "row" $row)))))
)"""


def _walk(wat: str, config: wasmtime.Config | None = None) -> t.ComponentTypes:
    engine = wasmtime.Engine(config or wasmtime.Config())
    return walk(wc.Component(engine, wat), engine)


@pytest.fixture(scope="module")
def two() -> t.ComponentTypes:
    return _walk(TWO_INTERFACES)


def test_signatures_use_the_interfaces_own_words(two) -> None:
    types, other = two.imports
    assert [f.signature(n) for n, f in types.functions] == [
        "[method]res.get(self: borrow<res>, mode: mode) -> result<option<rec>, error>",
        "set(to: tuple<state, char>) -> result",
    ]
    assert [f.signature(n) for n, f in other.functions] == ["take(r: res, s: same, row: row)"]


def test_types_are_printed_as_wit(two) -> None:
    (types, _) = two.imports
    by_name = dict(types.types)
    assert str(t.Record(None, by_name["rec"].fields)) == "record { x-y: u32, class: list<error> }"
    assert str(t.Variant(None, by_name["state"].cases)) == "variant { off, on(rec) }"
    assert str(t.Enum(None, by_name["error"].cases)) == "enum { not-found, denied }"
    assert str(t.Flags(None, by_name["mode"].names)) == "flags { read, write }"
    assert str(t.Result(None, t.Prim("u8"))) == "result<_, u8>"
    assert str(t.Result(t.Prim("u8"), None)) == "result<u8>"


def test_types_are_plain_values(two) -> None:
    assert pickle.loads(pickle.dumps(two)) == two
    assert hash(two) == hash(_walk(TWO_INTERFACES))
    with pytest.raises(AttributeError):
        two.imports = ()


def test_a_used_resource_keeps_the_identity_of_its_definer(two) -> None:
    types, other = two.imports
    res = t.ResourceId("a:b/types@1.0.0", "res", imported=True)
    assert types.resources == (("res", res),)
    assert dict(other.resources)["res"] == res
    (_, param), *_ = other.function("take").params
    assert param == t.Own(res)


@pytest.mark.case("TYP-09")
def test_resources_of_one_shape_are_not_one_resource(two) -> None:
    _, other = two.imports
    assert dict(other.resources)["same"] != dict(other.resources)["res"]
    twins = _walk("""(component
      (import "a:b/x@1.0.0" (instance (export "file" (type (sub resource)))))
      (import "a:b/y@1.0.0" (instance (export "file" (type (sub resource))))))""")
    x, y = (i.resources[0][1] for i in twins.imports)
    assert (x.interface, y.interface) == ("a:b/x@1.0.0", "a:b/y@1.0.0")


def test_an_exported_interface_may_use_an_imported_resource() -> None:
    both = _walk("""(component
      (import "a:b/x@1.0.0" (instance $x
        (export "file" (type $f (sub resource)))
        (export "use" (func (param "f" (own $f))))))
      (alias export $x "file" (type $file))
      (core module $m (func (export "use") (param i32)))
      (core instance $mi (instantiate $m))
      (func $use (param "f" (own $file)) (canon lift (core func $mi "use")))
      (component $c
        (import "file" (type $f (sub resource)))
        (import "use" (func $u (param "f" (own $f))))
        (export $g "file" (type $f))
        (export "use" (func $u) (func (param "f" (own $g)))))
      (instance $i (instantiate $c (with "file" (type $file)) (with "use" (func $use))))
      (type $own (resource (rep i32)))
      (export "mine" (type $own))
      (export "a:b/out@1.0.0" (instance $i)))""")
    out = both.exported("a:b/out@1.0.0")
    assert out.function("use").params == (
        ("f", t.Own(t.ResourceId("a:b/x@1.0.0", "file", imported=True))),
    )
    assert both.exported("").resources == (("mine", t.ResourceId("", "mine", imported=False)),)
    assert both.imported("a:b/x@1.0.1") is None
    assert out.function("other") is None


def _everything() -> wasmtime.Config:
    config = wasmtime.Config()
    config.wasm_component_model_map = True
    return config


@pytest.mark.case("TYP-12")
@pytest.mark.parametrize(
    ("item", "where"),
    [
        ('(func (param "x" (future u32)))', "import f, parameter x: a future"),
        ('(func (param "x" (list (stream u8))))', "import f, parameter x: a stream"),
        ("(func (result (option (future))))", "import f, result: a future"),
        ('(func async (param "x" u32))', "import f: an async function"),
        ('(func (param "x" (map u32 string)))', "import f: a value of an unknown type"),
        ('(instance (export "g" (func (result (stream)))))', "import f: g, result: a stream"),
        ("(core module)", "import f: only functions"),
        ('(instance (export "j" (instance)))', "import f: j: only functions"),
        (f'(func (param "x" {"(list " * 40}u8{")" * 40}))', "parameter x: a type nested deeper"),
    ],
)
def test_refuses_what_can_not_cross_and_says_where(item, where) -> None:
    with pytest.raises(LinkError) as info:
        _walk(f'(component (import "f" {item}))', _everything())
    assert info.value.code == "link.unknown-import"
    assert where in str(info.value)


@pytest.mark.case("TYP-12")
@pytest.mark.parametrize(
    "item",
    [
        '(func (param "x" u32))',
        '(func (param "x" (list (option u8))))',
        '(instance (export "g" (func (result (result)))))',
        f'(func (param "x" {"(list " * 31}u8{")" * 31}))',
    ],
)
def test_allows_the_same_without_them(item) -> None:
    assert _walk(f'(component (import "f" {item}))', _everything()).imports


def test_depth_counts_levels() -> None:
    assert t.depth(t.Prim("u8")) == 1
    assert t.depth(t.Record("r", (("a", t.Prim("u8")), ("b", t.List(t.Option(t.Prim("u8"))))))) == 4
    assert t.depth(t.Result(None, t.Variant("v", (("a", None), ("b", t.Prim("char")))))) == 3
