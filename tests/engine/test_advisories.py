"""The advisory tables: what affects whom, and that each shield is really there."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import wasmtime
from wasmtime import component as wc

import capwasm
from capwasm.engine import advisories, config
from capwasm.engine.advisories import (
    PYTHON,
    SHIELDS,
    WASMTIME,
    Advisory,
    findings,
    python_findings,
    reachable_line,
    unlisted,
)
from tests.kit import World

SOURCES = sorted(Path(capwasm.__file__).parent.rglob("*.py"))


def engine(*, ours: bool) -> wasmtime.Engine:
    return wasmtime.Engine(config.make_config() if ours else wasmtime.Config())


def imports() -> Iterator[tuple[str, str, str]]:
    """Every import of the package: file, module, and name ("" for the module itself)."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path.name, alias.name, "") for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield from ((path.name, node.module or "", alias.name) for alias in node.names)


@cache
def attributes() -> set[str]:
    """Every attribute and every name that the package's code uses."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Name):
                found.add(node.id)
    return found


# -- which versions ------------------------------------------------------------------------------

LINES = Advisory("x", "y", ("gc",), ((3, 11, 8), (3, 12, 2)))


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 10, 99), True),
        ((3, 11, 7), True),
        ((3, 11, 8), False),
        ((3, 11, 20), False),
        ((3, 12, 1), True),
        ((3, 12, 2), False),
        ((3, 13, 0), False),
    ],
)
def test_knows_which_releases_are_fixed(version: tuple[int, ...], affected: bool) -> None:
    assert LINES.affects(version) is affected
    assert Advisory("x", "y", ("gc",)).affects(version)


@pytest.mark.case("PER-10")
def test_finds_what_the_pinned_engine_and_an_old_python_have() -> None:
    assert {f.advisory.name for f in findings((50, 0, 1))} == {a.name for a in WASMTIME}
    assert {f.advisory.name for f in findings((50, 0, 2))} == {
        "GHSA-f2pq-268w-886c",
        "deferred host scope",
    }
    assert (unlisted((50, 0, 1)), unlisted((50, 0, 2)), unlisted((51, 0, 0))) == (2, 0, 0)
    assert {f.advisory.name for f in python_findings((3, 11, 7))} == {a.name for a in PYTHON}
    assert {f.advisory.name for f in python_findings((3, 14, 3))} == {"gh-149231"}


def test_no_known_advisory_is_in_reach() -> None:
    assert not [f for f in (*findings(), *python_findings()) if f.reachable]
    assert reachable_line() is None
    assert {need for a in (*WASMTIME, *PYTHON) for need in a.needs} == set(SHIELDS)


# -- the shields ---------------------------------------------------------------------------------

GC = "(module (type (struct (field i32))))"
STREAM = '(component (type (stream u8)) (import "f" (func (param "s" 0))))'
ASYNC = '(component (import "f" (func async)))'


@pytest.mark.case("RES-11", "TYP-12")
def test_refuses_what_the_settings_turn_off_and_an_engine_of_its_own_would_take() -> None:
    wasmtime.Module(engine(ours=False), GC)
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime.Module(engine(ours=True), GC)
    for text in (STREAM, ASYNC):
        with pytest.raises(wasmtime.WasmtimeError, match="component model async"):
            wc.Component(engine(ours=True), text)


def test_the_engines_own_wasi_http_and_caller_are_never_used() -> None:
    forbidden = {
        "add_wasip2",
        "add_wasi_http",
        "define_wasi",
        "Caller",
        "set_wasi",
        "access_caller",
    }

    assert "Component" in attributes()
    assert attributes() & forbidden == set()
    assert not [a for a in attributes() if "wasi" in a.lower() and a.startswith("wasmtime_")]


def test_the_standard_librarys_weak_parts_are_never_used() -> None:
    modules = {module.split(".")[0] for _, module, _ in imports()}
    quoting = {name for _, module, name in imports() if module.startswith("urllib")}

    assert "ipaddress" in modules
    assert not modules & {"tarfile", "xml", "pickle", "shelve"}
    # One file reads the operator's own zips, with bounds of its own; never by a path within them.
    assert {file for file, module, _ in imports() if module == "zipfile"} == {"mirror.py"}
    assert not attributes() & {"extract", "extractall"}
    mirror = next(path for path in SOURCES if path.name == "mirror.py").read_text()
    assert "zipfile.Path" not in mirror
    # The last two read and write the fields of a form, never a URL.
    assert quoting <= {"quote_from_bytes", "quote_plus", "quote", "parse_qsl", "urlencode"}
    assert not attributes() & {"is_private", "is_global", "urlsplit", "urlparse"}


@pytest.mark.case("MAN-01")
def test_a_key_of_many_parts_is_refused_before_tomllib_sees_it() -> None:
    from capwasm.caps import standard_capabilities
    from capwasm.errors import ManifestError
    from capwasm.grants.manifest import parse_manifest

    with pytest.raises(ManifestError, match=r"deep|dots|parts"):
        parse_manifest(b"a" + b".a" * 20_000 + b" = 1", standard_capabilities())


# -- when a shield is gone -----------------------------------------------------------------------


@pytest.fixture
def gc_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_OFF", tuple(n for n in config._OFF if n != "gc_support"))
    monkeypatch.setattr(advisories, "wasmtime_version", lambda: (50, 0, 1))


@pytest.mark.usefixtures("gc_on")
def test_tells_what_comes_in_reach_when_a_setting_changes() -> None:
    found = findings()

    assert [f.advisory.name for f in found if f.reachable] == [
        "GHSA-43j2-gcp4-m22g",
        "GHSA-wvgq-g5hf-6gm6",
    ]
    assert found[0].reachable, "the reachable stand first"
    assert found[0].because == "no longer so: garbage-collected types are off"


def test_a_runtime_warns_once_when_it_starts_and_only_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    def lines(name: str) -> list[str]:
        (tmp_path / name).mkdir()
        caplog.clear()
        world = World(tmp_path / name)
        with caplog.at_level(logging.WARNING, "capwasm"):
            assert world.runtime is not None
        world.close()
        return [r.getMessage() for r in caplog.records if "advisories" in r.getMessage()]

    assert lines("shielded") == []
    request.getfixturevalue("gc_on")
    [line] = lines("open")
    assert line.startswith("wasmtime 50.0.1 has advisories that guests can reach: GHSA-43j2")
