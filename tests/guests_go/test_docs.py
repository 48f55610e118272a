"""Every example of the Go SDK's README, compiled into one plugin and run with everything granted."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from capwasm.plugin import Plugin
from tests.builds import REPOSITORY
from tests.sdkdocs import loaded

pytestmark = pytest.mark.toolchain("go")

SDK = REPOSITORY / "guest-sdk/go"
README = SDK / "README.md"
GO_MOD = SDK / "template/go.mod"
STANDARD = ("encoding/json", "errors", "fmt", "io", "log/slog", "strings", "time")


def examples() -> dict[str, str]:
    """Heading → its example."""
    text = README.read_text(encoding="utf-8")
    return {
        part.partition("\n")[0]: block
        for part in text.split("\n## ")[1:]
        for block in re.findall(r"```go run\n(.*?)```", part, re.DOTALL)
    }


def packages() -> list[str]:
    """Those of the SDK that plugins import."""
    found = (p.parent for p in (SDK / "src").glob("*/*.go"))
    return sorted({p.name for p in found} - {"internal"})


def source() -> str:
    """The plugin whose function `run` has one of them each; its setting says where the origin is."""
    cases = "".join(
        f"\tcase {number}:\n\t\treturn func() error {{\n{block}\n"
        f"{'' if block.splitlines()[-1].startswith('return ') else 'return nil'}\n}}()\n"
        for number, block in enumerate(examples().values())
    )
    cases = re.sub(r'"https://api.acme.com(/[^"]*)"', r'at("\1")', cases)
    paths = [*STANDARD, *(f"go.example/capwasm/{name}" for name in packages())]
    named = {"capwasm": '"go.example/capwasm"', "iofs": 'iofs "io/fs"'}
    named |= {path.rpartition("/")[2]: f'"{path}"' for path in paths}
    imports = [text for name, text in named.items() if re.search(rf"\b{name}\.", cases)]
    return (
        f"package plugin\n\nimport ({'; '.join(imports)})\n\n"
        'func at(path string) string { return config.Get("origin", "") + path }\n\n'
        f"func Run(number uint32) error {{\n\tswitch number {{\n{cases}\t}}\n"
        '\treturn errors.New("no such example")\n}\n'
    )


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    module = GO_MOD.read_text(encoding="utf-8")
    files = {
        "plugin.go": source(),
        "go.mod": module.replace("__NAME__", "examples").replace("__CAPWASM__", "0.1.0"),
    }
    with loaded(tmp_path_factory.mktemp("go"), "Go", files) as plugin:
        yield plugin


def test_every_capability_has_an_example() -> None:
    assert {h.partition(":")[0] for h in examples()} == {*packages(), "Errors"}


@pytest.mark.parametrize("name", packages())
def test_every_function_has_an_example(name: str) -> None:
    text = "\n".join(examples().values())
    sources = "\n".join(p.read_text("utf-8") for p in (SDK / f"src/{name}").glob("*.go"))
    functions = set(re.findall(r"^func ([A-Z]\w*)[\[(]", sources, re.MULTILINE))

    # Those that another of the same shape stands for, which the example names.
    alike = {"fs": {"Open", "Append", "Update", "CreateNew"}, "log": {"Write"}}.get(name, set())
    assert {f for f in functions - alike if f"{name}.{f}(" not in text} == set()


@pytest.mark.parametrize("heading", examples())
def test_allows_each_example_of_the_readme(plugin: Plugin, heading: str) -> None:
    result = plugin.call("run", list(examples()).index(heading))

    assert result.ok, result.error
