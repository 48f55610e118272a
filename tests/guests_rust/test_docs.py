"""Every example of the Rust SDK's README, compiled into one plugin and run with everything granted."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from capwasm.plugin import Plugin
from tests.builds import REPOSITORY
from tests.sdkdocs import loaded

README = REPOSITORY / "guest-sdk/rust/README.md"
LIB = REPOSITORY / "guest-sdk/rust/src/lib.rs"
TEMPLATE = REPOSITORY / "guest-sdk/rust/template/Cargo.toml"


def examples() -> dict[str, str]:
    """Heading → its example."""
    text = README.read_text(encoding="utf-8")
    return {
        part.partition("\n")[0]: block
        for part in text.split("\n## ")[1:]
        for block in re.findall(r"```rust,ignore run\n(.*?)```", part, re.DOTALL)
    }


def source() -> str:
    """The plugin whose function `run` has one of them each; its setting says where the origin is."""
    cases = "".join(
        f"{number} => (|| -> Done {{\n{block}\nOk(()) }})(),\n"
        for number, block in enumerate(examples().values())
    )
    cases = re.sub(r'"https://api.acme.com(/[^"]*)"', r'&at("\1")', cases)
    return f"""#![allow(unused)]
capwasm_guest::plugin!();

use exports::test::examples::api::Guest;

struct Examples;
export!(Examples);

type Done = Result<(), Box<dyn std::error::Error>>;

fn at(path: &str) -> String {{
    capwasm_guest::config::get("origin").unwrap() + path
}}

impl Guest for Examples {{
    fn run(number: u32) -> Result<(), String> {{
        let done: Done = match number {{
            {cases}
            _ => Err("no such example".into()),
        }};
        done.map_err(|error| error.to_string())
    }}
}}
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    cargo = TEMPLATE.read_text(encoding="utf-8")
    files = {
        "src/lib.rs": source(),
        "Cargo.toml": cargo.replace("__NAME__", "examples").replace("__CAPWASM__", "0.1.0"),
    }
    with loaded(tmp_path_factory.mktemp("rust"), "Rust", files) as plugin:
        yield plugin


def test_every_capability_has_an_example() -> None:
    tables = {h.partition(":")[0] for h in examples()}
    modules = set(re.findall(r"^pub mod (\w+);", LIB.read_text(encoding="utf-8"), re.MULTILINE))
    assert tables == (modules - {"bindings"}) | {"Errors"}


@pytest.mark.parametrize("heading", examples())
def test_allows_each_example_of_the_readme(plugin: Plugin, heading: str) -> None:
    result = plugin.call("run", list(examples()).index(heading))

    assert result.ok, result.error
