"""`capwasm bindgen`: modules that type checkers take, whose classes come back, and nothing else."""

from __future__ import annotations

import ast
import asyncio
import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from capwasm import Err, LinkError, Ok, Some, Variant
from capwasm.authoring.bindgen import Source, generate
from capwasm.binding import Binding
from capwasm.cli import capwasm
from capwasm.engine import types as t
from capwasm.engine.exports import ExportTable, Namespace
from capwasm.engine.witdoc import wit_docs
from tests.kit import World, guest

ROOT = Path(__file__).parents[2]
U32, TEXT = t.Prim("u32"), t.Prim("string")
POINT = t.Record("point", (("x", U32), ("label", t.Option(TEXT))))
AMOUNT = t.Variant("amount", (("none", None), ("count", U32), ("where", POINT)))
COLOUR = t.Enum("colour", ("red", "dark-blue"))
RIGHTS = t.Flags("rights", ("read", "write"))
ALL = t.Record(
    "all",
    (
        ("points", t.List(POINT)),
        ("amount", AMOUNT),
        ("colour", COLOUR),
        ("rights", RIGHTS),
        ("deep", t.Option(t.Option(POINT))),
        ("pair", t.Tuple((COLOUR, U32))),
    ),
)


def component(
    *functions: tuple[str, t.FuncType], interface: str = "a:b/api@1.0.0"
) -> t.ComponentTypes:
    return t.ComponentTypes((), (t.InterfaceType(interface, functions),))


def load(text: str) -> ModuleType:
    module = ModuleType("generated")
    sys.modules["generated"] = module
    exec(compile(text, "generated.py", "exec"), module.__dict__)
    return module


class Fake:
    """Answers every call with one value, as the runtime makes it."""

    def __init__(self, types: t.ComponentTypes, value: Any = None) -> None:
        self.functions = ExportTable(types)
        self.value = value
        self.calls: list[tuple[Any, ...]] = []

    def call(self, function: str, *args: Any) -> Any:
        self.calls.append((function, *args))
        return self.value

    async def acall(self, function: str, *args: Any) -> Any:
        return self.call(function, *args)


EVERYTHING = component(
    ("turn", t.FuncType((("value", ALL), ("times", U32)), t.Result(ALL, AMOUNT))),
    ("class", t.FuncType((("self", U32),), U32)),
    ("list", t.FuncType((), t.List(TEXT))),
)


def test_what_comes_back_is_of_the_modules_classes() -> None:
    m: Any = load(generate(Source(EVERYTHING, (), "acme.shop")))
    point = {"x": 1, "label": None}
    like = type("Like", (), {})

    def made(**fields: Any) -> Any:
        it = like()
        it.__dict__.update(fields)
        return it

    raw = made(
        points=[made(**point)],
        amount=Variant("where", made(**point)),
        colour="dark-blue",
        rights=frozenset(["read"]),
        deep=Some(made(**point)),
        pair=("red", 3),
    )
    p = m.Point(1, None)
    want = m.All(
        [p],
        m.AmountWhere(p),
        m.Colour.DARK_BLUE,
        frozenset([m.Rights.READ]),
        Some(p),
        (m.Colour.RED, 3),
    )
    fake = Fake(EVERYTHING, Ok(raw))
    bound = m.bind(fake)

    assert bound.api.turn(raw, times=2) == Ok(want)
    assert fake.calls == [("a:b/api@1.0.0#turn", raw, 2)]
    assert asyncio.run(m.abind(fake).api.turn(raw, 2)) == Ok(want)
    fake.value = Err(Variant("none"))
    bad = bound.api.turn(raw, 2).error
    assert type(bad) is m.AmountNone
    assert bad.case == "none"
    with pytest.raises(AttributeError):
        bad.value = 3


def test_names_that_python_keeps_for_itself() -> None:
    m: Any = load(generate(Source(EVERYTHING, (), "acme.shop")))
    bound = m.bind(Fake(EVERYTHING, 5))

    assert bound.api.class_(self_=3) == 5
    assert str(inspect.signature(bound.api.turn)).startswith("(value: 'All', times: 'int')")
    with pytest.raises(TypeError, match="times"):
        bound.api.turn(value=1)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (component(*EVERYTHING.exports[0].functions[:2]), "no such function"),
        (
            component(*EVERYTHING.exports[0].functions, ("more", t.FuncType((), None))),
            "knows no such",
        ),
        (
            component(("turn", t.FuncType((), U32)), *EVERYTHING.exports[0].functions[1:]),
            "it is func",
        ),
        (
            component(*EVERYTHING.exports[0].functions, interface="a:b/api@2.0.0"),
            "no such function",
        ),
    ],
    ids=["missing", "more", "another-type", "another-version"],
)
def test_refuses_another_plugin(other: t.ComponentTypes, message: str) -> None:
    m: Any = load(generate(Source(EVERYTHING, (), "acme.shop")))
    with pytest.raises(LinkError) as refused:
        m.bind(Fake(other))

    assert refused.value.code == "link.binding"
    assert any(message in fault.message for fault in refused.value.faults)


def test_allows_a_version_that_can_stand_for_it() -> None:
    m: Any = load(generate(Source(EVERYTHING, (), "acme.shop")))
    fake = Fake(component(*EVERYTHING.exports[0].functions, interface="a:b/api@1.2.0"), 1)

    m.bind(fake).api.class_(1)

    assert fake.calls == [("a:b/api@1.2.0#class", 1)]


HOSTILE = [
    '"""\nimport os; os.system("x")\n"""',
    'ends with a quote"',
    '"begins with one',
    "ends with a backslash\\",
    '\\"""',
    'two\\\\"""',
    "\u202eover\u2066\u200b",
    "{0} %s \\N{BULLET} \\x00 \\u202e",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_docs_can_not_get_out_of_their_literal(text: str) -> None:
    wit = "package a:b@1.0.0;\n" + "".join(f"/// {line}\n" for line in text.split("\n"))
    wit += (
        "interface api {\n" + "".join(f"/// {x}\n" for x in text.split("\n")) + "turn: func();\n}"
    )
    plain = generate(Source(EVERYTHING, (), "acme.shop"))
    written = generate(Source(EVERYTHING, [wit], "acme.shop"))

    def code(source: str) -> str:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [  # type: ignore[attr-defined]
                    x
                    for x in body
                    if not (isinstance(x, ast.Expr) and isinstance(x.value, ast.Constant))
                ]
        return ast.dump(tree)

    assert written != plain
    assert code(written) == code(plain)
    assert written.isascii() or all(c.isprintable() or c == "\n" for c in written)


def test_a_wit_file_without_end_costs_little() -> None:
    for text in ("/*" * 100_000, "@a " * 80_000, "{" * 200_000, "/// x\n" * 40_000, "(" * 200_000):
        wit_docs([text])


def awkward() -> t.ComponentTypes:
    """Names that collide with each other, with Python, and with what the module imports."""
    names = ["result", "any", "none", "variant", "point", "list", "str", "async-api", "protocol"]
    records = [
        t.Record(n, (("str", TEXT), ("list", t.List(TEXT)), ("builtins", U32), (f"f{i}", U32)))
        for i, n in enumerate(names)
    ]
    functions = [
        (n, t.FuncType((("self", r), ("class", r)), r)) for n, r in zip(names, records, strict=True)
    ]
    return t.ComponentTypes(
        (),
        (
            t.InterfaceType("a:b/api@1.0.0", tuple(functions)),
            t.InterfaceType("c:d/api@1.0.0", (("property", t.FuncType((("x", POINT),), AMOUNT)),)),
            t.InterfaceType("a:b/property@1.0.0", (("bool", t.FuncType((), t.Prim("bool"))),)),
            t.InterfaceType("", (("api", t.FuncType((), t.List(t.Prim("bool")))),)),
        ),
    )


def modules(folder: Path) -> Iterator[Path]:
    for name, types in (
        ("awkward", awkward()),
        ("everything", EVERYTHING),
        ("none", t.ComponentTypes((), ())),
    ):
        path = folder / f"{name}.py"
        path.write_text(generate(Source(types, (), name)))
        assert generate(Source(types, (), name)) == path.read_text()
        load(path.read_text())
        yield path
    demo = ROOT / "runtime/src/capwasm/demo/weather.wasm"
    (folder / "resource.wasm").write_bytes(guest("resource"))
    for name, source in (("weather", demo), ("thing", folder / "resource.wasm")):
        path = folder / f"{name}.py"
        done = CliRunner().invoke(capwasm, ["bindgen", str(source), "-o", str(path)])
        assert done.exit_code == 0, done.output
        load(path.read_text())
        yield path


def test_type_checkers_take_it(tmp_path: Path) -> None:
    paths = [str(p) for p in modules(tmp_path)]
    commands = {
        "mypy": ["--strict", "--config-file=", "--cache-dir", str(tmp_path / "mypy")],
        "ruff": ["format", "--isolated", "--check", "--diff"],
    }
    if find_spec("pyright"):  # from PyPI; it needs node
        commands["pyright"] = ["--pythonpath", sys.executable]
    for tool, words in commands.items():
        done = subprocess.run(
            [sys.executable, "-m", tool, *words, *paths],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, f"{tool}: {done.stdout}{done.stderr}"


def test_a_real_plugin_through_its_module(tmp_path: Path) -> None:
    (tmp_path / "resource.wasm").write_bytes(guest("resource"))
    done = CliRunner().invoke(
        capwasm, ["bindgen", str(tmp_path / "resource.wasm"), "--class", "Things"]
    )
    m: Any = load(done.output)
    world = World(tmp_path)
    try:
        with world.load(guest("resource")) as plugin, plugin.session() as session:
            bound = m.bind(session)
            assert bound.api.number(bound.api.make(n=4)) == 4
            assert dir(plugin.exports) == ["api"]
            assert str(inspect.signature(plugin.exports.api.make)) == "(n: u32, /) -> thing"
    finally:
        world.close()


@pytest.mark.parametrize("name", ["weather", "Result", "a b", "None", "X" * 65, "W;import os"])
def test_refuses_a_class_name_that_is_none(name: str) -> None:
    demo = str(ROOT / "runtime/src/capwasm/demo/weather.wasm")
    done = CliRunner().invoke(capwasm, ["bindgen", demo, "--class", name])

    assert done.exit_code == 1
    assert "class's name" in done.output


def test_exports_complete_in_a_repl() -> None:
    table = ExportTable(
        awkward(), ["package a:b@1.0.0; interface api { /// Hi.\n point: func(); }"]
    )
    exports = Namespace(table, lambda _e: lambda *args: args)

    assert dir(exports) == ["a_b_api", "api", "c_d_api", "property"]
    assert "Hi." in exports.a_b_api.point.__doc__
    assert exports.a_b_api.point(1) == (1,)
    with pytest.raises(AttributeError, match="there are: a_b_api"):
        _ = exports.nothing


def test_the_table_is_what_binds() -> None:
    assert Binding().bind(Fake(t.ComponentTypes((), ()))).__dict__ == {}


def test_the_example_of_the_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = str(ROOT / "runtime/src/capwasm/demo/weather.wasm")
    wit = str(ROOT / "guest-sdk/examples/demo-weather/wit")
    m: Any = load(CliRunner().invoke(capwasm, ["bindgen", demo, "--wit", wit]).output)
    monkeypatch.setitem(sys.modules, "weather", m)
    page = (ROOT / "docs/bindgen.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    fake = Fake(EVERYTHING, Ok(m.Report("Oslo", 3.0, "snow", cached=False)))
    functions = [
        (f.whole.partition("#")[2], f) for f in m._BINDING._functions
    ]  # the demo's own types, as the module has them
    assert [n for n, _ in functions] == ["forecast", "snoop-file", "snoop-url"]
    report = t.Record(
        "report",
        (("city", TEXT), ("celsius", t.Prim("f32")), ("summary", TEXT), ("cached", t.Prim("bool"))),
    )
    text = t.Result(TEXT, TEXT)
    fake.functions = ExportTable(
        component(
            ("forecast", t.FuncType((("city", TEXT),), t.Result(report, TEXT))),
            ("snoop-file", t.FuncType((("path", TEXT),), text)),
            ("snoop-url", t.FuncType((("url", TEXT),), text)),
            interface="demo:weather/api@0.1.0",
        )
    )

    assert names["tell"](fake) == "snow"
    assert m.Report.__doc__ == "The weather of one city."
