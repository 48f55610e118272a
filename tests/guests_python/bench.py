"""Python plugins for tests: built once, kept outside the tree, run under a real runtime."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from capwasm.authoring.project import build_project
from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.pack import pack, sign_capsule
from capwasm.errors import BuildError
from capwasm.plugin import Plugin
from tests.builds import compiled, component, share
from tests.kit import World

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "guest-sdk/python/examples"
LAB = REPOSITORY / "tests/guests/python/lab"

MISSING = (
    None
    if find_spec("componentize_py")
    else 'componentize-py is not installed: pip install "capwasm[build-python]"'
)


class Author:
    """A world in which one Python plugin runs."""

    def __init__(self, root: Path, project: Path, plugin_id: str) -> None:
        self.root, self.project, self.id = root, project, plugin_id
        self.world = World(root)
        # Python takes seconds to compile: what is compiled lasts longer than a world or a session.
        self._cache = self.world.home / "cache"
        if self._cache.exists():
            shutil.rmtree(self._cache)
        share(compiled(), self._cache)
        trust = self.world.home / "trust.toml"
        trust.write_text(trust.read_text().replace("test.*", plugin_id))
        self.manifest = (project / "plugin.toml").read_text()

    def close(self) -> None:
        """Close the world, and keep what it compiled."""
        share(self._cache, compiled())
        shutil.rmtree(self._cache)
        self.world.close()

    def allow(self, text: str) -> None:
        """Policy tables, with `[kv]` short for `[plugins."id".kv]`."""
        lines = []
        for line in text.splitlines():
            stripped = line.strip()
            for marks in ("[[", "["):
                if stripped.startswith(marks):
                    stripped = stripped.replace(marks, f'{marks}plugins."{self.id}".', 1)
                    break
            lines.append(stripped)
        self.world.policy("\n".join(lines) + "\n")

    def directory(self, name: str) -> Path:
        """A directory of the host's."""
        place = self.root / name
        place.mkdir()
        return place

    def load(self) -> Plugin:
        """Sign, consent, load."""
        members = {"plugin.toml": self.manifest.encode(), "plugin.wasm": component(self.project)}
        capsule = sign_capsule(read_artifact(pack(members)), self.world.key)
        self.world.consent(capsule)
        return self.world.runtime.load(capsule)


class Origin:
    """A real HTTP server on loopback that keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                headers = {k.lower(): v for k, v in self.headers.items()}
                origin.asked.append((self.command, self.path, headers, body))
                status, kind, data = origin.reply(self.command, self.path, headers, body)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def reply(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, str, bytes]:
        if "Nowhere" in path:
            return 404, "text/plain", b"no"
        if method == "POST":
            return 200, headers.get("content-type", "text/plain"), body
        answer = {"celsius": 3.5, "summary": "rain"}
        return 200, "application/json", json.dumps(answer).encode()

    @contextmanager
    def serving(self) -> Iterator[Origin]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


def snapshot(tree: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {p.relative_to(tree).as_posix(): p.read_bytes() for p in tree.rglob("*") if p.is_file()}


def refused(project: Path) -> BuildError:
    """Why a project is not built; the author's tree is as it was."""
    before = snapshot(project)
    with pytest.raises(BuildError) as caught:
        build_project(project)
    assert snapshot(project) == before
    return caught.value
