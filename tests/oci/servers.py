"""Registries: Debian's docker-registry as a process, and one of our own that can lie."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from capwasm.errors import CapwasmError
from capwasm.oci.client import Client
from capwasm.oci.layout import INDEX_TYPE, MANIFEST_TYPE, digest_of
from capwasm.oci.pull import Pulled, pull
from capwasm.oci.push import Sent, push
from capwasm.oci.reference import Reference
from capwasm.oci.settings import Credentials, RegistrySettings
from capwasm.web import Patience
from tests.caps.net.servers import Got, Origin, http
from tests.repository.simulator import capsule

USER, PASSWORD = "bot", "secret-7"
# Of that password, by htpasswd -B.
HTPASSWD = "bot:$2y$05$F445wu25rKG9rO5SQ79YrefciAk/HCq8OC/7aTr/aZlEAPPB1YA6G"
CAPSULE = capsule("1.2.0")
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
Lie = Callable[[Got], bytes | Iterable[bytes] | None]

REAL = shutil.which("docker-registry") or shutil.which(
    "docker-registry", path="/usr/sbin:/usr/local/bin"
)
needs_real = pytest.mark.skipif(
    REAL is None, reason="needs a registry server: apt-get install docker-registry"
)


@contextlib.contextmanager
def real_registry(folder: Path, *, auth: bool = False) -> Iterator[str]:
    """Debian's docker-registry on loopback; gives `host:port`."""
    assert REAL is not None
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "htpasswd").write_text(HTPASSWD + "\n")
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if auth:
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(config))  # which is YAML as well
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [REAL, "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


class Registry:
    """A registry in memory, with the referrers' API or without; `lie` answers first.

    Attributes:
        blobs: by digest.   manifests: by tag or digest, with their media type.
        lie: takes a request; None has the truth told.
        login: the `Authorization` that is wanted, and the challenge for who has none.
    """

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, api: bool = True, host: str = "127.0.0.1"
    ) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.api = api
        self.lie: Lie = lambda _: None
        self.login: tuple[str, str] | None = None
        self.origin = Origin(self._answer, tls=tls, host=host)
        self.scheme = "https" if tls else "http"
        self.authority = f"{host}:{self.origin.port}"
        self.url = f"{self.scheme}://{self.authority}"
        self.reference = Reference.parse(f"oci://{self.authority}/acme/weather:1.2.0")

    def __enter__(self) -> Self:
        self.origin.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.origin.__exit__()

    @property
    def lines(self) -> list[str]:
        return [got.line.removesuffix(" HTTP/1.1") for got in self.origin.got]

    @property
    def shown(self) -> set[str]:
        """All that was sent as authorization."""
        return {value for got in self.origin.got for value in got.all("authorization")}

    def client(self, actions: str = "pull,push", **words: Any) -> Client:
        how = {"host": self.authority}
        for name in ("realm", "ca_file", "plain_http"):
            if name in words:
                how[name.replace("_", "-")] = words.pop(name)
        words.setdefault("patience", Patience(idle=5, total=20))
        words.setdefault("pause", lambda _: None)
        settings = RegistrySettings.model_validate(how)
        return Client(self.reference, settings, actions=actions, **words)

    def push(self, data: bytes = CAPSULE, *, move: bool = False, **words: Any) -> Sent:
        return push(data, self.reference, self.client(**words), move=move)

    def pull(self, reference: Reference | None = None, **words: Any) -> Pulled:
        return pull(reference or self.reference, self.client("pull", **words))

    def _answer(self, got: Got) -> bytes | Iterable[bytes]:
        lie = self.lie(got)
        if lie is not None:
            return lie
        if self.login is not None and self.login[0] not in got.all("authorization"):
            return http(b"{}", 401, [("WWW-Authenticate", self.login[1])])
        method, path, _ = got.line.split(" ")
        return self._truth(method, path, got)

    def _truth(self, method: str, path: str, got: Got) -> bytes:
        path, _, query = path.partition("?")
        found = re.fullmatch(r"/v2/acme/weather/(manifests|blobs|referrers)/(.+)", path)
        if found is None:
            return http(b"", 404)
        kind, name = found[1], found[2]
        match method, kind:
            case ("GET", "manifests") if name in self.manifests:
                media_type, data = self.manifests[name]
                return http(data, 200, self._digest(data, media_type))
            case ("PUT", "manifests"):
                [media_type] = got.all("content-type")
                self.manifests[name] = self.manifests[digest_of(got.body)] = media_type, got.body
                subject = json.loads(got.body).get("subject", {}).get("digest")
                more = [("OCI-Subject", subject)] if subject and self.api else []
                return http(b"", 201, [*self._digest(got.body), *more])
            case ("HEAD", "blobs") if name in self.blobs:
                return f"HTTP/1.1 200 X\r\nContent-Length: {len(self.blobs[name])}\r\n\r\n".encode()
            case ("GET", "blobs") if name in self.blobs:
                return http(self.blobs[name])
            case ("POST", "blobs"):
                where = "/v2/acme/weather/blobs/uploads/1?state=a=b"
                return http(b"", 202, [("Location", where)])
            case ("PUT", "blobs"):
                digest = digest_of(got.body)
                assert query == f"state=a=b&digest={digest.replace(':', '%3A')}"
                self.blobs[digest] = got.body
                return http(b"", 201, self._digest(got.body))
            case ("GET", "referrers") if self.api:
                return http(self._referrers(name), 200, [("Content-Type", INDEX_TYPE)])
        return http(b"", 404)

    @staticmethod
    def _digest(data: bytes, media_type: str = "") -> list[tuple[str, str]]:
        kind = [("Content-Type", media_type)] if media_type else []
        return [("Docker-Content-Digest", digest_of(data)), *kind]

    def _referrers(self, digest: str) -> bytes:
        listed = [
            {"mediaType": kind, "digest": name, "size": len(data)}
            for name, (kind, data) in self.manifests.items()
            if name.startswith("sha256:")
            and json.loads(data).get("subject", {}).get("digest") == digest
        ]
        return json.dumps(
            {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": listed}
        ).encode()

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Put another manifest under the tag."""
        doc = json.loads(self.manifests["1.2.0"][1])
        change(doc)
        self.manifests["1.2.0"] = MANIFEST_TYPE, json.dumps(doc).encode()


def when(part: str, answer: bytes | Callable[[], bytes | Iterable[bytes]]) -> Lie:
    """A lie to requests whose line holds some text."""

    def lie(got: Got) -> bytes | Iterable[bytes] | None:
        if part not in got.line:
            return None
        return answer if isinstance(answer, bytes) else answer()

    return lie


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(CapwasmError) as caught:
        act()
    return caught.value.code


CREDENTIALS = Credentials(USER, PASSWORD)
