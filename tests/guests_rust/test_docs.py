"""Every example of the Rust SDK's README, compiled into one plugin and run with everything granted."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from capwasm.plugin import Plugin
from tests.builds import REPOSITORY, missing
from tests.guests_python.bench import Author, Origin

README = REPOSITORY / "guest-sdk/rust/README.md"
LIB = REPOSITORY / "guest-sdk/rust/src/lib.rs"
TEMPLATE = REPOSITORY / "guest-sdk/rust/template/Cargo.toml"
WORLD = """package test:examples@0.1.0;

interface api {
    run: func(number: u32) -> result<_, string>;
}

world examples {
    include capwasm:plugin/capabilities@0.1.0;
    export api;
}
"""
MANIFEST = """schema = 1
[plugin]
id = "test.examples"
name = "Examples"
version = "0.1.0"
requires-core = ">=0"
kind = "component"
[[fs]]
mount = "/data"
bind = "data"
access = "read-write"
[[net]]
allow = "https://api.acme.com/v1/*"
methods = ["GET", "POST"]
[[secret]]
name = "acme-token"
use = "inject"
for = ["https://api.acme.com"]
header = "Authorization: Bearer {}"
[[secret]]
name = "pin"
use = "reveal"
[kv]
[log]
[clock]
[random]
[config]
keys = ["units", "origin"]
[[exec]]
command = "shout"
"""
POLICY = """
[[fs]]
bind = "data"
path = "{root}/data"
access = "read-write"
[[net]]
allow = "{origin}/v1/*"
methods = ["*"]
addresses = ["127.0.0.1/32"]
[[secret]]
name = "acme-token"
use = "inject"
for = ["{origin}"]
[[secret]]
name = "pin"
use = "reveal"
[kv]
[log]
[clock]
[random]
[config]
values = {{ units = "metric", origin = "{origin}" }}
[[exec]]
command = "shout"
program = "/usr/bin/tr"
arguments = ["a-z", "A-Z"]
"""


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
    root = tmp_path_factory.mktemp("rust")
    project = root / "examples"
    cargo = TEMPLATE.read_text(encoding="utf-8")
    for path, text in {
        "src/lib.rs": source(),
        "wit/world.wit": WORLD,
        "plugin.toml": MANIFEST,
        "Cargo.toml": cargo.replace("__NAME__", "examples").replace("__CAPWASM__", "0.1.0"),
    }.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text, encoding="utf-8")
    if reason := missing(project):
        pytest.skip(f"Rust: {reason}")
    with Origin().serving() as origin:
        author = Author(root, project, "test.examples")
        author.manifest = author.manifest.replace("https://api.acme.com", origin.url)
        author.directory("data")
        author.allow(POLICY.format(root=root, origin=origin.url))
        author.world.vault(acme_token="tok-123456789", pin="pin-987654321")
        yield author.load()
        author.close()


def test_every_capability_has_an_example() -> None:
    tables = {h.partition(":")[0] for h in examples()}
    modules = set(re.findall(r"^pub mod (\w+);", LIB.read_text(encoding="utf-8"), re.MULTILINE))
    assert tables == (modules - {"bindings"}) | {"Errors"}


@pytest.mark.parametrize("heading", examples())
def test_allows_each_example_of_the_readme(plugin: Plugin, heading: str) -> None:
    result = plugin.call("run", list(examples()).index(heading))

    assert result.ok, result.error
