"""What the C builder makes, and what it says when it can't."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from runpy import run_path

import pytest

from capwasm.authoring.builders import c
from capwasm.authoring.componentizer import componentize, without_debug
from capwasm.authoring.project import build_cache, build_project, language_of
from capwasm.authoring.scaffold import New, new_project
from capwasm.errors import BuildError, LinkError
from tests.builds import REPOSITORY, code_of, missing
from tests.guests_python.bench import refused

CONFORMANCE = REPOSITORY / "guest-sdk/conformance/c"
FUNCTION = "bool exports_api_greet(plugin_string_t *name,"
Change = Callable[[str, str], Path]

toolchain = pytest.mark.skipif(bool(missing(CONFORMANCE)), reason=missing(CONFORMANCE))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    place = tmp_path / "greeter"
    new_project(New("greeter", "c", directory=place))
    return place


@pytest.fixture
def change(project: Path) -> Change:
    """The template's source with one text for another."""

    def changed(old: str, new: str) -> Path:
        source = project / "plugin.c"
        text = source.read_text()
        assert old in text
        source.write_text(text.replace(old, new))
        return project

    return changed


# -- without a compiler --------------------------------------------------------------------------


def test_the_bindings_are_what_wit_makes() -> None:
    script = run_path(str(REPOSITORY / "guest-sdk/c/bindings.py"))

    assert script["stale"]() == []


def test_bindings_that_are_not_are_found(tmp_path: Path) -> None:
    script = run_path(str(REPOSITORY / "guest-sdk/c/bindings.py"))
    (tmp_path / "cw.h").write_text("")
    (tmp_path / "old.h").write_text("")
    script["stale"].__globals__["PLACE"] = tmp_path

    assert script["stale"]() == ["cw.c", "cw.h", "cw_component_type.o", "old.h"]


@pytest.mark.parametrize("file", ["plugin.c", "src/main.c", "src/deep/er.c"])
def test_allows_sources_in_either_place(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("")

    found = language_of(tmp_path)

    assert found is not None
    assert found.name == "c"


@pytest.mark.parametrize("other", ["Cargo.toml", "package.json", "go.mod"])
def test_refuses_to_take_another_languages_c(tmp_path: Path, other: str) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/shim.c").write_text("")
    (tmp_path / other).write_text("")

    assert not c.BUILDER.detects(tmp_path)


def test_refuses_to_build_without_a_compiler_and_says_the_command(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("WASI_SDK_PATH", raising=False)
    monkeypatch.setattr(c, "find_spec", lambda _name: None)

    error = refused(project)

    assert error.code == "build.toolchain"
    assert "pip install ziglang" in error.message
    assert [(t.found, t.install) for t in c.BUILDER.tools()] == [(None, "pip install ziglang")]


def test_refuses_a_clang_without_the_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "clang"
    fake.write_text("#!/bin/sh\necho libc.a\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("WASI_SDK_PATH", raising=False)
    monkeypatch.setattr(c, "find_spec", lambda _name: None)

    assert c.find_compiler() is None


def test_refuses_a_module_that_is_none() -> None:
    with pytest.raises(BuildError):
        componentize(b"\0asm\x01\0\0\0\1", build_cache() / "c/tool")


# -- with one ------------------------------------------------------------------------------------


@toolchain
def test_allows_the_template_and_imports_only_what_it_calls(project: Path) -> None:
    built = build_project(project)

    ours = [name for name in built.imports if name.startswith("capwasm:")]
    assert ours == ["capwasm:kv/store@0.1.0", "capwasm:log/log@0.1.0"]
    assert built.warnings == []
    code = code_of(built.capsule)
    assert len(code) < 100_000
    assert b"exports_api_greet" in code  # a trap names its function
    assert b".debug_" not in code
    assert str(Path.home()).encode() not in code


@toolchain
def test_allows_two_sources_a_header_and_flags_of_ones_own(project: Path) -> None:
    (project / "include").mkdir()
    (project / "include/twice.h").write_text("int twice(int of);\n")
    (project / "twice.c").write_text(
        '#include "twice.h"\nint twice(int of) { return of * FACTOR; }\n'
    )
    (project / "compile_flags.txt").write_text("-DFACTOR=2\n\n")
    source = (project / "plugin.c").read_text()
    (project / "plugin.c").write_text(
        '#include "twice.h"\n' + source.replace("(count - 1)", "twice((int)count)")
    )

    assert build_project(project).tool.split()[0] in {"zig", "clang"}


@toolchain
def test_refuses_what_does_not_compile_with_file_and_line(change: Change) -> None:
    error = refused(change("ret->before", "ret->befor"))

    assert error.code == "build.failed"
    line = error.message.splitlines()[0]
    assert line.startswith("plugin.c:31:10: error: no member named 'befor'")
    assert "capwasm-build-" not in error.message


@toolchain
@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("bool exports_api_gret(plugin_string_t *name,", "is defined nowhere"),
        ("static bool exports_api_other(plugin_string_t *name,", "is defined nowhere"),
    ],
)
def test_refuses_sources_that_lack_a_function_of_the_world(
    change: Change, new: str, said: str
) -> None:
    error = refused(change(FUNCTION, new))

    (fault,) = error.faults
    assert fault.path == "exports_api_greet"
    assert said in fault.message
    assert fault.fix is not None
    assert fault.fix.startswith(FUNCTION)


@toolchain
def test_refuses_a_function_of_another_shape(project: Path) -> None:
    (project / "plugin.c").write_text("int exports_api_greet(int x) { return x; }\n")

    (fault,) = refused(project).faults

    assert "another signature" in fault.message


@toolchain
def test_refuses_a_function_that_is_nowhere(change: Change) -> None:
    project = change("(count - 1)", "(count - helper())")
    change("static bool fail(", "int helper(void);\n\nstatic bool fail(")

    error = refused(project)

    assert "plugin.c" in error.message
    assert "undefined symbol: helper" in error.message


@toolchain
def test_refuses_wit_that_is_malformed_with_file_and_line(project: Path) -> None:
    world = project / "wit/world.wit"
    world.write_text(world.read_text().replace("u32", "u33"))

    error = refused(project)

    assert "wit/world.wit:9:17" in error.message


@toolchain
def test_refuses_a_capability_that_is_not_declared(change: Change) -> None:
    with pytest.raises(LinkError) as caught:
        build_project(change("if (name.size == 0)", "if (capwasm_clock_now() == 0)"))

    assert [f.fix for f in caught.value.faults] == ["[clock]"]


def test_names_stay_and_what_debuggers_read_goes() -> None:
    name = bytes([4]) + b"name" + b"\1\2"
    debug = bytes([11]) + b".debug_info" + b"x" * 100
    module = b"\0asm\x01\0\0\0" + b"".join(bytes([0, len(s)]) + s for s in (debug, name))

    assert without_debug(module) == b"\0asm\x01\0\0\0" + bytes([0, len(name)]) + name
