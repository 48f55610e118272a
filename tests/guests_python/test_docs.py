"""The guide for authors, built and run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.pack import pack, sign_capsule
from tests.builds import component

from .bench import REPOSITORY, Author

pytestmark = pytest.mark.toolchain("componentize-py")

GUIDE = REPOSITORY / "docs/authors-python.md"


def files() -> dict[str, str]:
    """The blocks of the guide that begin with a file's name."""
    found = re.findall(r"```\w+\n(?:#|//) (\S+)\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    return dict(found)


def test_allows_the_plugin_of_the_guide(tmp_path: Path) -> None:
    written = files()
    project = tmp_path / "greeter"
    (project / "wit").mkdir(parents=True)
    for name in ("plugin.toml", "plugin.py", "wit/world.wit"):
        (project / name).write_text(written[name])
    author = Author(tmp_path, project, "acme.greeter")
    (author.world.home / "policy.toml").write_text(written["policy.toml"])
    members = {"plugin.toml": written["plugin.toml"].encode(), "plugin.wasm": component(project)}
    capsule = sign_capsule(read_artifact(pack(members)), author.world.key)
    try:
        plugin = author.world.runtime.load(capsule)
        greetings = [plugin.call("greet", "Ada").value for _ in range(2)]
        assert [(g.text, g.before) for g in greetings] == [("Hello, Ada!", 0), ("Hello, Ada!", 1)]
        assert plugin.call("greet", "").error == "a name, please"
    finally:
        author.close()
