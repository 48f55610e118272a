"""A release side in a directory, a plain web server before it, and consumers."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.capsule.keys import PrivateKey
from capwasm.errors import CapwasmError
from capwasm.repository.client import Repository
from capwasm.repository.layout import ROLES
from capwasm.repository.publish import Publisher
from capwasm.repository.signers import KeyPlace
from capwasm.web import Web
from tests.capsules import STORE

from .simulator import capsule


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A plain static web server, as anybody would use."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Shop:
    """A release side with its keys, its web server, and consumers."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.keys = folder / "keys"
        self.keys.mkdir()
        self.publisher = Publisher(folder / "repo", lambda _: b"passphrase")

    def key(self, name: str, *, passphrase: bytes | None = None) -> KeyPlace:
        key = PrivateKey.generate("ecdsa-p256" if name == "root" else "ed25519")
        path = self.keys / f"{name}.key"
        key.save(path, passphrase)
        return KeyPlace(key.public, f"file:{path}")

    def init(self, **words: Any) -> None:
        self.publisher.init({role: [self.key(role)] for role in ROLES}, **words)

    def offer(self, version: str = "1.2.0", data: bytes | None = None) -> None:
        file = self.folder / f"{version}.capsule"
        file.write_bytes(data or capsule(version))
        self.publisher.add(file, STORE)

    def client(self, name: str = "cache") -> Repository:
        root = (self.folder / "repo/root.json").read_bytes()
        return Repository("main", self.url, root=root, cache=self.folder / name, web=Web())

    def versions(self, name: str = "cache") -> list[str]:
        return [r.version for r in self.client(name).releases("acme.weather")]


def code_of(act: Any) -> str:
    with pytest.raises(CapwasmError) as caught:
        act()
    return caught.value.code
