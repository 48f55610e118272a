"""What the Go builder makes of a project, and what it says of one that does not build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from capwasm.authoring.builders import go
from capwasm.authoring.project import build_project
from capwasm.errors import LinkError, ManifestError
from tests.builds import REPOSITORY
from tests.guests_python.bench import Author, refused, snapshot

TOML = """schema = 1
[plugin]
id = "test.thing"
name = "Thing"
version = "1.0.0"
requires-core = ">=0"
kind = "component"
world = "test:thing/thing@1.0.0"
"""
STARTS = "[clock]\n[random]\n"
WIT = """package test:thing@1.0.0;
interface api {
    enum trouble { too-old, too-new }
    record stamp { day: s32 }
    hello: func(name: string) -> result<string, string>;
    dated: func(day: s32) -> result<stamp, trouble>;
    checked: func(day: s32) -> result;
}
world thing {
    include capwasm:plugin/capabilities@0.1.0;
    export api;
    export twice: func(n: u32) -> u32;
}
"""
GOOD = """package plugin

import (
	"errors"

	"thing/bindings/api"

	"go.example/capwasm"
)

func Hello(name string) (string, error) {
	if name == "" {
		return "", errors.New("a name, please")
	}
	return "Hello, " + name + "!", nil
}

func Dated(day int32) (api.Stamp, error) {
	switch {
	case day < 0:
		return api.Stamp{}, capwasm.Fail(api.Trouble_TooOld)
	case day > 9:
		return api.Stamp{}, errors.New("no place for this word in the type")
	}
	return api.Stamp{Day: day}, nil
}

func Checked(day int32) error {
	if day < 0 {
		return errors.New("any")
	}
	return nil
}

func Twice(n uint32) uint32 { return 2 * n }
"""
GO_MOD = """module thing

go 1.25

require (
	go.bytecodealliance.org/pkg v0.2.1 // indirect
	go.example/capwasm v0.1.0
)
"""

toolchain = pytest.mark.toolchain("go")
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(source: str = GOOD, tables: str = STARTS, **files: str) -> Path:
        texts = {
            "plugin.toml": TOML + tables,
            "go.mod": GO_MOD,
            "wit/world.wit": WIT,
            "plugin.go": source,
            **files,
        }
        for inner, text in texts.items():
            path = tmp_path / "thing" / inner
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "thing"

    return made


@toolchain
def test_allows_every_shape_of_a_result(write: Write, tmp_path: Path) -> None:
    # What go.mod says of the SDK is for editors: the build takes the one of this version.
    other = "replace go.example/capwasm => ../nowhere\n"
    project = write(**{"go.mod": f"{GO_MOD}\n{other}"})
    before = snapshot(project)
    author = Author(tmp_path, project, "test.thing")
    author.allow(STARTS)
    try:
        plugin = author.load()

        assert plugin.call("hello", "Ada").value == "Hello, Ada!"
        assert plugin.call("hello", "").error == "a name, please"
        assert plugin.call("dated", 7).value.day == 7
        assert str(plugin.call("dated", -7).error) == "too-old"
        assert plugin.call("checked", 1).ok
        assert not plugin.call("checked", -1).ok
        assert plugin.call("twice", 4) == 8
    finally:
        author.close()
    assert snapshot(project) == before


@toolchain
def test_refuses_a_function_that_is_missing_or_of_another_shape(write: Write) -> None:
    source = GOOD.replace("func Twice(n uint32)", "func twice(n uint32)")
    source = source.replace("func Hello(name string)", "func Hello(name []byte)")
    source = source.replace('name == ""', "name == nil").replace('"Hello, " + name + "!"', '""')

    error = refused(write(source))

    assert error.code == "build.failed"
    assert [(f.path, f.fix) for f in sorted(error.faults, key=lambda f: f.path)] == [
        ("Hello", "func Hello(name string) (string, error) { … }"),
        ("Twice", "func Twice(n uint32) uint32 { … }"),
    ]


@toolchain
def test_refuses_what_go_refuses_by_the_authors_line(write: Write) -> None:
    error = refused(write(GOOD.replace("2 * n", "2 * m")))

    assert error.code == "build.failed"
    assert "./plugin.go:35:42: undefined: m" in str(error)
    assert "capwasmglue" not in str(error)


@toolchain
def test_refuses_an_import_that_is_not_declared(write: Write) -> None:
    source = GOOD.replace("import (", 'import (\n\t"go.example/capwasm/kv"')
    source = source.replace(
        "func Twice(n uint32) uint32 {", "func Twice(n uint32) uint32 { kv.Delete(``);"
    )

    with pytest.raises(LinkError) as caught:
        build_project(write(source))

    assert [f.fix for f in caught.value.faults] == ["[kv]"]


@toolchain
def test_refuses_a_program_and_an_empty_module(write: Write) -> None:
    error = refused(write(GOOD.replace("package plugin", "package main")))
    assert error.code == "build.project"
    assert "`package plugin`, and no func main" in str(error)

    project = write()
    (project / "plugin.go").unlink()
    assert "no Go package beside go.mod" in str(refused(project))


@toolchain
def test_refuses_an_exported_resource(write: Write) -> None:
    wit = WIT.replace("enum trouble", "resource thing { get: func() -> u32; }\n    enum trouble")

    error = refused(write(**{"wit/world.wit": wit}))

    assert error.code == "build.project"
    assert "exports a resource" in str(error)


@pytest.mark.parametrize(
    ("tables", "missing"),
    [
        ("", ["clock", "random"]),
        ("[clock]\n", ["random"]),
        ("[clock]\noptional = true\n[random]\n", ["clock"]),
    ],
)
def test_refuses_a_manifest_that_go_can_not_start_with(
    write: Write, tables: str, missing: list[str]
) -> None:
    with pytest.raises(ManifestError) as caught:
        build_project(write(tables=tables))

    assert [f.path for f in caught.value.faults] == missing
    assert (caught.value.faults[0].fix or "").startswith(f"[{missing[0]}]\n")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "which is not installed: "),
        (("/usr/bin/go", "1.22.1"), "go 1.22.1 is installed, and a plugin needs 1.25 or newer: "),
    ],
)
def test_refuses_a_missing_or_old_toolchain_with_the_command(
    write: Write, monkeypatch: pytest.MonkeyPatch, found: tuple[str, str] | None, said: str
) -> None:
    monkeypatch.setattr(go, "find_go", lambda: found)

    error = refused(write())

    assert error.code == "build.toolchain"
    assert str(error).endswith(said + go.INSTALL)
    assert [tool.found for tool in go.BUILDER.tools()] == [None]


def test_tells_by_what_names_the_sources_use_capabilities(write: Write) -> None:
    source = 'package plugin\n\nimport (\n\t"os"\n\tstore "go.example/capwasm/kv"\n)\n'

    assert go.BUILDER.names(write(source)) >= {"capwasm_fs", "capwasm_kv", "capwasm_clock"}
    assert "capwasm_exec" not in (go.BUILDER.names(write(source)) or ())


@toolchain
def test_the_bindings_of_the_sdk_are_those_of_the_wit() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location(
        "generate", REPOSITORY / "guest-sdk/go/generate.py"
    )
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    assert generate.differing(generate.made()) == [], "run: python guest-sdk/go/generate.py"
