"""A repository that can be made wrong in every way, served over real HTTP on loopback.

It signs with securesystemslib's own keys, and shares no code with what it tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from capwasm.errors import RepositoryError
from capwasm.registry.model import Release
from capwasm.repository.client import Repository
from capwasm.web import Patience, Web
from tests.caps.net.servers import Got, Origin, http
from tests.capsules import FILES, MANIFEST, signed

PATIENT = Patience(idle=20.0, total=60.0)
QUICK = Patience(idle=0.5, total=1.0)  # only where the server is meant to be too slow
LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
BEFORE = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
PATH = "acme.weather/1.2.0/acme.weather-1.2.0.capsule"


def capsule(version: str, plugin_id: str = "acme.weather") -> bytes:
    manifest = MANIFEST.replace(b"1.2.0", version.encode())
    manifest = manifest.replace(b"acme.weather", plugin_id.encode())
    return signed(
        members={**FILES, "plugin.toml": manifest + b'name = "W"\nrequires-core = ">=0"\n'}
    )


CAPSULE = capsule("1.2.0")


class Simulator:
    """Keys, the newest of each role, and all files that are served.

    Attributes:
        signers: role -> who signs it.   files: URL path -> what is served there.
        special: URL path -> what answers instead.   asked: paths asked for, in order.
    """

    def __init__(self, *, port: int = 0) -> None:
        self.signers = {
            role: [CryptoSigner.generate_ed25519()]
            for role in ("root", "timestamp", "snapshot", "targets")
        }
        self.root = Root(expires=LATER, consistent_snapshot=True)
        self.timestamp = Timestamp(expires=LATER)
        self.snapshot = Snapshot(expires=LATER)
        self.targets = Targets(expires=LATER)
        self.delegated: dict[str, Targets] = {}
        for role, signers in self.signers.items():
            for signer in signers:
                self.root.add_key(signer.public_key, role)
        self.files: dict[str, bytes] = {}
        self.special: dict[str, Callable[[], bytes | Iterable[bytes]]] = {}
        self.asked: list[str] = []
        self.hashes = True
        self.offer(CAPSULE, PATH)
        self.put_root()
        self.first_root = self.files["/metadata/1.root.json"]
        self.publish()
        self.origin = Origin(self._answer, port=port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.origin.port}"

    def _answer(self, got: Got) -> bytes | Iterable[bytes]:
        path = got.line.split()[1]
        self.asked.append(path.removeprefix("/metadata/"))
        if path in self.special:
            return self.special[path]()
        return http(self.files[path]) if path in self.files else http(b"", 404)

    # -- what the owner of the repository does -------------------------------------------------

    def sign(self, signed: Signed, signers: Iterable[CryptoSigner]) -> bytes:
        metadata = Metadata(signed)
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def offer(self, data: bytes, path: str, custom: Any = None, *, role: str = "targets") -> None:
        target = TargetFile.from_data(path, data, ["sha256"])
        if custom is not None:
            target.unrecognized_fields["custom"] = custom
        targets = self.targets if role == "targets" else self.delegated[role]
        targets.targets[path] = target
        folder, _, name = path.rpartition("/")
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"/targets/{folder}/{digest}.{name}"] = data

    def put_root(self) -> None:
        version = self.root.version
        self.files[f"/metadata/{version}.root.json"] = self.sign(self.root, self.signers["root"])

    def new_root(self, *also: CryptoSigner) -> None:
        self.root.version += 1
        data = self.sign(self.root, [*self.signers["root"], *also])
        self.files[f"/metadata/{self.root.version}.root.json"] = data

    def rotate(self, role: str, count: int = 1, threshold: int = 1) -> list[CryptoSigner]:
        """New keys for a role, by a new root; returns the old ones."""
        old = self.signers[role]
        for signer in old:
            self.root.revoke_key(signer.public_key.keyid, role)
        self.signers[role] = [CryptoSigner.generate_ed25519() for _ in range(count)]
        for signer in self.signers[role]:
            self.root.add_key(signer.public_key, role)
        self.root.roles[role].threshold = threshold
        self.new_root(*(old if role == "root" else []))
        return old

    def delegate(self, role: str, *paths: str, terminating: bool = False) -> None:
        self.signers[role] = [CryptoSigner.generate_ed25519()]
        self.delegated[role] = Targets(expires=LATER)
        if self.targets.delegations is None:
            self.targets.delegations = Delegations({}, roles={})
        roles = self.targets.delegations.roles
        assert roles is not None
        roles[role] = DelegatedRole(role, [], 1, terminating, paths=list(paths))
        self.targets.add_key(self.signers[role][0].public_key, role)

    def put(self, role: str) -> bytes:
        """Serve a role's newest; what refers to it is not touched."""
        signed = self.delegated.get(role) or getattr(self, role)
        data = self.sign(signed, self.signers[role])
        name = role if role == "timestamp" else f"{signed.version}.{role}"
        self.files[f"/metadata/{name}.json"] = data
        return data

    def publish(self) -> None:
        """Serve the newest of all, each bound to the one below."""
        for role in (*self.delegated, "targets"):
            data = self.put(role)
            version = (self.delegated.get(role) or self.targets).version
            self.snapshot.meta[f"{role}.json"] = self._meta(version, data)
        self.timestamp.snapshot_meta = self._meta(self.snapshot.version, self.put("snapshot"))
        self.put("timestamp")

    def step(self, *, by: int = 1) -> None:
        """A new version of all but the root."""
        for role in (self.targets, self.snapshot, self.timestamp, *self.delegated.values()):
            role.version += by
        self.publish()

    def _meta(self, version: int, data: bytes) -> MetaFile:
        return MetaFile.from_data(version, data, ["sha256"]) if self.hashes else MetaFile(version)


class Desk:
    """A simulator, and clients of it that share a cache."""

    def __init__(self, folder: Path) -> None:
        self.sim = Simulator()
        self.folder = folder
        self.root = self.sim.first_root
        self.patience = PATIENT

    def client(self, **words: Any) -> Repository:
        settings = {"root": self.root, "web": Web(patience=self.patience), **words}
        cache = self.folder / settings.pop("cache", "main")
        return Repository("main", self.sim.url, cache=cache, **settings)

    def refresh(self) -> dict[str, int]:
        """As a new process would."""
        return self.client().refresh().versions

    def away(self) -> None:
        """The server goes."""
        self.sim.origin.__exit__()

    def refused(self, act: Callable[[], object] | None = None) -> str:
        with pytest.raises(RepositoryError) as caught:
            (act or self.refresh)()
        return caught.value.code

    def cached(self, name: str) -> Signed:
        [generation] = (self.folder / "main").glob("g*")
        return Metadata[Any].from_bytes((generation / f"{name}.json").read_bytes()).signed

    def release(self) -> Release:
        [found] = self.client().releases("acme.weather")
        return found


@contextmanager
def desk(folder: Path) -> Iterator[Desk]:
    made = Desk(folder)
    try:
        yield made
    finally:
        with suppress(OSError):  # a test may have taken the server away
            made.away()


def clock_of_tuf(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    """What python-tuf takes for now."""
    import datetime as dt

    from tuf.api import _payload
    from tuf.ngclient._internal import trusted_metadata_set

    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Clock:
            return super().now(tz) + ahead

    class Module:
        datetime = Clock
        timezone = dt.timezone

    monkeypatch.setattr(trusted_metadata_set, "datetime", Module)
    monkeypatch.setattr(_payload, "datetime", Clock)
