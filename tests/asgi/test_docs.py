"""The code of the docs about serving requests, run as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from capwasm.plugin import Plugin

from .clients import ask, scope

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(file: str, heading: str, plugin: Plugin) -> dict[str, Any]:
    """Run the one block of Python below that heading."""
    section = (DOCS / file).read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    (code,) = BLOCK.findall(section.partition("\n## ")[0])
    names: dict[str, Any] = {"plugin": plugin}
    exec(compile(code, file, "exec"), names)
    return names


def test_the_application_of_the_page_about_wasi(plugin: Plugin) -> None:
    app = run("wasi.md", "Serving requests", plugin)["app"]
    got = ask(app, "/plugins/site/head?x")
    assert got.status == 200
    assert 'path Some("/head?x")\n' in got.text
    assert ask(app, "/elsewhere").status == 404
    assert ask(app, "/plugins/site/sink", headers=[(b"content-length", b"1000001")]).status == 413


def test_the_application_of_the_guide_for_embedders(plugin: Plugin) -> None:
    app = run("guide-embedders.md", "Hand requests to a plugin", plugin)["site"](plugin)
    headers = [*scope()["headers"], (b"cookie", b"a=b")]
    assert "cookie" not in ask(app, headers=headers).text
