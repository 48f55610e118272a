"""The plugin that the examples of an SDK's README are put into: its world, and what it is granted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from capwasm.plugin import Plugin
from tests.builds import missing
from tests.guests_python.bench import Author, Origin

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


@contextmanager
def loaded(root: Path, language: str, files: Mapping[str, str]) -> Iterator[Plugin]:
    """The project of these files, with its world and manifest: built, granted, loaded."""
    project = root / "examples"
    for path, text in {**files, "wit/world.wit": WORLD, "plugin.toml": MANIFEST}.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text, encoding="utf-8")
    if reason := missing(project):
        pytest.skip(f"{language}: {reason}")
    with Origin().serving() as origin:
        author = Author(root, project, "test.examples")
        author.manifest = author.manifest.replace("https://api.acme.com", origin.url)
        author.directory("data")
        author.allow(POLICY.format(root=root, origin=origin.url))
        author.world.vault(acme_token="tok-123456789", pin="pin-987654321")
        yield author.load()
        author.close()
