"""What the JavaScript builder says; none of these gets as far as making a component."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from capwasm.authoring.builders import js
from tests.guests_python.bench import refused

TOML = """schema = 1
[plugin]
id = "test.thing"
name = "Thing"
version = "1.0.0"
requires-core = ">=0"
kind = "component"
world = "test:thing/thing@1.0.0"
"""
WIT = """package test:thing@1.0.0;
interface api { hello: func(name: string) -> result<string, string>; }
world thing {
    include capwasm:plugin/capabilities@0.1.0;
    export api;
}
"""
GOOD = "export const api = { hello: (name) => `Hello, ${name}!` };\n"

toolchain = pytest.mark.toolchain("node")
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(source: str, tables: str = "", name: str = "plugin.js", **files: str) -> Path:
        texts = {
            "plugin.toml": TOML + tables,
            "package.json": '{"type": "module"}',
            "wit/world.wit": WIT,
            name: source,
            **files,
        }
        for inner, text in texts.items():
            path = tmp_path / "thing" / inner
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "thing"

    return made


@toolchain
@pytest.mark.parametrize(
    ("source", "path", "said", "fix"),
    [
        ("export const api = {\n  hello: (name) => }\n", "plugin.js:2", "Unexpected", None),
        ('import { kv } from "@capwasm/guest";\n\nexport const api = { hello: (k) => kv.get(k) };\n',
         "plugin.js:1", "kv is used, and plugin.toml does not declare it", "[kv]"),
        ('import "./helper.js";\n' + GOOD, "plugin.js:1", "./helper.js", None),
        ('import { readFile } from "node:fs";\n' + GOOD, "plugin.js:1", "Node.js", "use @capwasm/guest"),
        ('import x from "left-pad";\n' + GOOD, "plugin.js:1", "left-pad is not there",
         "npm install, in the project"),
        ('import { get } from "capwasm:kv/store@0.1.0";\n' + GOOD, "plugin.js:1", "capwasm:kv/store", None),
        ('import { nothing } from "@capwasm/guest";\nnothing();\n' + GOOD, "plugin.js:1", "nothing", None),
        ("// nothing\n", "plugin.js", "exports nothing", None),
    ],
)  # fmt: skip
def test_says_where_and_what_to_do(
    write: Write, source: str, path: str, said: str, fix: str | None
) -> None:
    error = refused(write(source))

    assert error.code == "build.failed"
    [fault] = error.faults
    assert (fault.path, fault.fix) == (path, fix)
    assert said in fault.message


@toolchain
def test_says_what_breaks_as_the_module_is_loaded_by_the_line_of_typescript(write: Write) -> None:
    source = "\n\ninterface A {}\n\nfunction broken(): never {\n  throw new Error('at load');\n}\nbroken();\n"

    error = refused(write(source + GOOD, name="plugin.ts"))

    assert "at load" in error.message
    assert "plugin.ts:6" in error.message
    assert "bundle.js" not in error.message


@toolchain
@pytest.mark.parametrize("source", [GOOD.replace("api", "other"), GOOD.replace("hello", "bye")])
def test_names_what_the_world_exports_and_the_module_does_not(write: Write, source: str) -> None:
    assert "api" in str(refused(write(source)))


def test_refuses_without_the_toolchain_with_the_command(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")

    error = refused(write(GOOD))

    assert error.code == "build.toolchain"
    assert js.INSTALL in error.message
    assert [tool.found for tool in js.BUILDER.tools()] == [None, None]


@toolchain
def test_refuses_without_a_module(write: Write) -> None:
    error = refused(write("", name="other.js"))

    assert error.code == "build.project"
    assert "plugin.ts" in error.message


def test_finds_the_module_and_the_names_that_it_uses(write: Write) -> None:
    project = write(
        'import { kv } from "@capwasm/guest";\nawait fetch(u, { secret: "a" }); Date.now();\n',
        name="src/index.ts",
    )

    assert js.js_source(project) == project / "src/index.ts"
    assert js.BUILDER.names(project) == {
        f"capwasm_guest.{word}" for word in ("kv", "fetch", "secrets", "clock")
    }
