"""The project about itself: the door, the codes, the capabilities in their places, the README.

`python -m tests.house.test_project --write` makes docs/errors.md.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import capwasm
from capwasm import errors
from capwasm.caps import NAMES, standard_capabilities
from capwasm.engine.abi import known_interfaces
from capwasm.errors import CODES, CapwasmError
from tests.kit import World, guest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(capwasm.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
PAGE = ROOT / "docs/errors.md"


# -- the door -----------------------------------------------------------------------------------


def test_the_door_is_sorted_and_opens() -> None:
    assert capwasm.__all__ == sorted(capwasm._HOME)
    for name in capwasm.__all__:
        assert getattr(capwasm, name) is not None
    with pytest.raises(AttributeError):
        capwasm.nothing_such  # type: ignore[attr-defined]


def test_type_checkers_see_the_same_door() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If))
    found = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert found == capwasm._HOME


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, capwasm; "
        "heavy = {'pydantic', 'cryptography', 'wasmtime', 'h11', 'structlog', 'rich', 'ssl'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# -- errors ---------------------------------------------------------------------------------------


def tree() -> list[type[CapwasmError]]:
    return [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, CapwasmError)]


def test_every_code_is_raised_somewhere() -> None:
    text = "\n".join(p.read_text(encoding="utf-8") for p in SOURCES if p.name != "codes.py")
    defaults = {c.default_code for c in tree()}
    assert [c for c in CODES if f'"{c}"' not in text and c not in defaults] == []


def test_every_code_that_is_raised_is_in_the_table() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in {"code", "mode_code"}:
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        assert part.value in CODES, f"{path.name}: {part.value}"


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown error code"):
        CapwasmError("x", code="no.such")


def page() -> str:
    """docs/errors.md."""
    lines = [
        "# Errors",
        "",
        "Made by `python -m tests.house.test_project --write`.",
        "",
        "Everything that capwasm raises on purpose is a `CapwasmError` with a stable `code`, the",
        "`context` it happened in, and all `faults` at once, each with its path and, where there is",
        "one, the line that mends it. `error.to_dict()` is the same for programs.",
        "",
        "| class | is a | what it says |",
        "| --- | --- | --- |",
    ]
    for cls in tree():
        base = cls.__bases__[0].__name__
        doc = (cls.__doc__ or "").split("\n")[0]
        lines.append(f"| `{cls.__name__}` | `{base}` | {doc} |")
    lines += ["", "| code | what it means |", "| --- | --- |"]
    lines += [f"| `{code}` | {text} |" for code, text in CODES.items()]
    return "\n".join(lines) + "\n"


def test_the_page_of_errors_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run: python -m tests.house.test_project --write"
    )


# -- capabilities -----------------------------------------------------------------------------------

FOLDERS = {"secret": "secrets", "net": "net"}
PACKAGES = {"secret": "secrets", "net": "fetch"}


def test_the_list_of_capabilities_is_the_list() -> None:
    assert tuple(c.name for c in standard_capabilities()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_capability_stands_in_all_its_places(name: str) -> None:
    folder = FOLDERS.get(name, name)
    for file in ("__init__.py", "model.py", "host.py"):
        assert (PACKAGE / "caps" / folder / file).exists()
    assert list((ROOT / "wit" / PACKAGES.get(name, name)).glob("*.wit"))
    assert list((ROOT / "tests/caps" / folder).glob("test_*.py"))
    table = f"[[{name}]]" if name in {"fs", "net", "secret", "exec"} else f"[{name}]"
    for page in ("README.md", "docs/manifest.md"):
        assert table in (ROOT / page).read_text(encoding="utf-8"), f"{table} in {page}"


@pytest.mark.parametrize("name", NAMES)
def test_each_word_of_a_rule_is_in_a_test(name: str) -> None:
    capability = next(c for c in standard_capabilities() if c.name == name)
    folder = ROOT / "tests/caps" / FOLDERS.get(name, name)
    text = "\n".join(p.read_text(encoding="utf-8") for p in folder.glob("*.py"))
    for side in ("manifest", "policy"):
        for word in capability.schema(side).get("properties", {}):
            assert re.search(rf"\b{re.escape(word)}\b|\b{word.replace('-', '_')}\b", text), (
                f"{name}: no test says {word!r}"
            )


def test_every_interface_of_ours_is_served_by_a_capability() -> None:
    served = {i.partition("@")[0] for c in standard_capabilities() for i in c.interfaces}
    assert served == {i for i in known_interfaces() if i.startswith("capwasm:")}


@pytest.mark.parametrize("path", sorted((ROOT / "wit").rglob("*.wit")), ids=lambda p: p.stem)
def test_every_item_of_the_wit_is_documented_and_versioned(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    item = re.compile(
        r"^\s*(interface|world|record|enum|variant|flags|resource)\s|^\s*%?[\w-]+: func"
    )
    for number, line in enumerate(lines):
        if item.match(line):
            above = [text.strip() for text in lines[max(0, number - 2) : number]]
            assert any(a.startswith("@since(version") for a in above), f"{path.name}:{number + 1}"
            block = number - 1
            while lines[block].strip().startswith("@"):
                block -= 1
            assert lines[block].strip().startswith("///"), f"{path.name}:{number + 1}"


# -- texts ------------------------------------------------------------------------------------------


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    example = next(b for b in blocks if "Runtime.open" in b)
    world = World(tmp_path)
    capsule = world.capsule(
        guest("hostile"), '[[net]]\nallow = "https://a.example/"\noptional = true\n'
    )
    world.consent(capsule)
    world.close()
    (tmp_path / "weather.capsule").write_bytes(capsule)
    world.home.rename(tmp_path / "plugins-home")
    # The same words with a guest that has another function: what is shown must run as it stands.
    example = example.replace(
        'plugin.call("forecast", "Oslo").unwrap()', 'plugin.call("divide", 6, 2)'
    )
    example = example.replace("print(report.city, report.celsius)", "assert report == 3")
    assert "divide" in example
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")), ids=str
)
def test_links_between_our_pages_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_nothing_tells_of_the_machine_it_was_made_on() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    for name in filter(None, listed):
        path = ROOT / name
        if path.suffix in {".wasm", ".lock"} or not path.is_file() or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert str(ROOT) not in text, name
        if sys.prefix != sys.base_prefix:
            assert sys.prefix not in text, name


if __name__ == "__main__" and "--write" in sys.argv:
    PAGE.write_text(page(), encoding="utf-8")
