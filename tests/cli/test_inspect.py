"""`capwasm inspect`: what a component really imports and exports, and what its manifest asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.authoring.anatomy import anatomy
from capwasm.cli import capwasm
from tests.guests_python.bench import REPOSITORY
from tests.kit import OPTIONAL, World, guest

WEATHER = REPOSITORY / "runtime/src/capwasm/demo/weather.wasm"


def inspect(path: Path, *words: str) -> Result:
    return CliRunner().invoke(capwasm, ["inspect", *words, str(path)])


def data(path: Path, *words: str, code: int = 0) -> dict[str, Any]:
    done = inspect(path, "--json", *words)
    assert done.exit_code == code, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def wasm(tmp_path: Path) -> Path:
    path = tmp_path / "prober.wasm"
    path.write_bytes(guest("prober"))
    return path


def test_allows_a_bare_component_and_says_that_nobody_vouches(wasm: Path) -> None:
    found = data(wasm)

    assert found["verified"] is False
    code = found["code"]
    assert code["size"] == wasm.stat().st_size
    parts = code["sections"]
    assert parts["modules"] >= 1
    assert 0 < sum(v for k, v in parts.items() if k != "modules") <= code["size"]
    [probe] = code["exports"]
    assert probe["functions"] == [
        {
            "name": "run",
            "signature": "run(operation: string, arguments: list<string>) -> result<string, string>",
            "lane": True,
            "short": "probe.run",
        }
    ]
    text = inspect(wasm).stdout
    assert text.startswith("UNSIGNED")
    assert "capwasm:kv/store@0.1.0  6 functions, " in text


def test_what_it_says_is_what_a_load_finds(wasm: Path, tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        plugin = world.load(guest("prober"), "".join(OPTIONAL.values()))
        code = data(wasm)["code"]
        assert sorted(i["interface"] for i in code["imports"]) == sorted(plugin.imports)
        found = {f["short"] for e in code["exports"] for f in e["functions"] if f["lane"]}
        laned = {e.short for e in plugin.functions if e.whole in plugin.laned}
        assert found == laned
    finally:
        world.close()


def test_allows_every_type_and_imported_function_to_be_seen(wasm: Path) -> None:
    short, long = inspect(wasm).stdout, inspect(wasm, "--verbose").stdout

    wanted = "open(path: string, mode: mode) -> result<file, error>"
    assert wanted not in short
    assert wanted in long
    assert "enum mode { " in long
    assert "(lane)" in long


def test_allows_the_exports_types_of_a_plugin(tmp_path: Path) -> None:
    path = tmp_path / "weather.wasm"
    path.write_bytes(WEATHER.read_bytes())

    text = inspect(path).stdout

    assert "record " in text
    assert "api.forecast(city: string) -> result<" in text


def test_allows_a_capsule_with_its_permissions_and_signer(tmp_path: Path) -> None:
    world = World(tmp_path)
    path = tmp_path / "x.capsule"
    asks = '[[net]]\nallow = "https://a.example/"\n[kv]\n'
    rest = "".join(text for word, text in OPTIONAL.items() if word not in asks)
    path.write_bytes(world.capsule(guest("prober"), asks + rest))
    world.close()

    found = data(path, "--home", str(world.home))

    assert [s["name"] for s in found["signers"]] == ["test"]
    risks = [p["risk"] for p in found["permissions"]]
    assert risks == sorted(risks, key=["high", "medium", "low"].index)
    assert found["code"]["exports"]
    text = inspect(path, "--home", str(world.home)).stdout
    assert text.startswith("VERIFIED")
    assert "asks       high   " in text
    assert "export     probe.run(" in text


@pytest.mark.case("TYP-01", "RES-22")
@pytest.mark.parametrize(
    "code",
    [
        b"\0asm\x0d\0\x01\0",
        b"\0asm\x0d\0\x01\0" + b"\x01\xff\xff\xff\xff\x7f",
        b"\0asm\x0d\0\x01\0" + b"\x04\x08\0asm\x0d\0\x01\0" * 3,
        b"\0asm\x0d\0\x01\0" + bytes(1000),
    ],
    ids=["nothing", "a length beyond its end", "nested", "zeros"],
)
def test_a_component_that_is_odd_is_told_as_far_as_it_can_be_read(
    tmp_path: Path, code: bytes
) -> None:
    path = tmp_path / "x.wasm"
    path.write_bytes(code)

    done = inspect(path, "--json")

    assert done.exit_code in (0, 1), done.output
    report = json.loads(done.stdout)["code"]
    assert report["size"] == len(code)
    assert done.exit_code == ("fault" in report)


def test_a_capsule_of_odd_code_is_still_told_of(tmp_path: Path) -> None:
    world = World(tmp_path)
    path = tmp_path / "x.capsule"
    path.write_bytes(world.capsule(b"\0asm\x01\0\0\0"))
    world.close()

    found = data(path)

    assert found["consistent"] is True
    assert "core module" in found["code"]["fault"]


def test_pythons_own_functions_are_no_exports_of_the_plugin() -> None:
    from capwasm.cli._anatomy import anatomy_lines

    function = {"name": "init", "short": "exports.init", "signature": "init()", "lane": False}
    row = {"interface": "exports", "types": [], "resources": [], "functions": [function]}
    code = {"size": 1, "exports": [row], "imports": []}

    assert not any("init" in line for line in anatomy_lines(code, verbose=False))
    assert any("init" in line for line in anatomy_lines(code, verbose=True))


def test_nothing_of_the_code_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from capwasm.engine import compile as compiling

    seen: list[int] = []
    real = compiling.compile_apart

    def counted(code: bytes, *args: Any) -> Any:
        seen.append(len(code))
        return real(code, *args)

    monkeypatch.setattr(compiling, "compile_apart", counted)
    code = guest("prober")
    anatomy(code)

    # Only bones of it are compiled, and those apart.
    assert len(seen) == 1
    assert seen[0] < len(code) / 3
