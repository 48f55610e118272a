"""A home where plugins are reviewed: who is trusted with what, and how to have a say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.pack import pack, sign_capsule
from capwasm.capsule.trust import Role, TrustedKey, TrustStore
from capwasm.errors import CapwasmError
from capwasm.grants.manifest import parse_manifest
from capwasm.grants.policy import Policy
from capwasm.registry.case import Case
from capwasm.registry.desk import Desk
from capwasm.registry.registry import Registry
from capwasm.registry.reviews import check_standing
from capwasm.review.finding import Finding, Report, ScannerRun, Severity
from tests.helpers import ListRecorder
from tests.registry.shop import KEYS as KEPT
from tests.registry.shop import MANIFEST
from tests.toycaps import TOYS

ID = "acme.weather"
NOW = datetime(2027, 1, 31, 12, tzinfo=UTC)
SOON = NOW + timedelta(days=30)
PAINTS = '[[door]]\nacts = ["paint"]\n'
"""Asks for a high risk."""
REVIEWED = "[review]\nrequired = true\n"

# name in the trust store -> its roles
PEOPLE: dict[str, tuple[Role, ...]] = {
    "acme": ("publisher",),
    "ann": ("reviewer",),
    "ann/laptop": ("reviewer",),
    "bob": ("reviewer",),
    "acme/desk": ("reviewer",),
    "sue": ("security",),
    "eve": ("engineering",),
    "max/one": ("security",),
    "max/two": ("engineering",),
    "pat": ("security", "engineering"),
}


def _key(name: str) -> PrivateKey:
    """A new key, or that of the process which started this one."""
    folder = os.environ.get(KEPT)
    file = name.replace("/", "-")
    return PrivateKey.load(Path(folder) / file) if folder else PrivateKey.generate()


KEYS = {name: _key(name) for name in (*PEOPLE, "stranger", "home")}


def trust_of(**changes: Any) -> TrustStore:
    """The store of these people.

    Args:
        changes: by a name, what is otherwise about that key (None: it is not there); `thresholds`.
    """
    thresholds = changes.pop("thresholds", {})
    keys = []
    for name, roles in PEOPLE.items():
        words = {"ids": ("acme.*",)} | (changes.get(name, {}) or {})
        if changes.get(name, {}) is not None:
            keys.append(TrustedKey(name, KEYS[name].public, frozenset(roles), **words))
    return TrustStore(tuple(keys), thresholds)


def capsule(version: str = "1.0.0", asks: str = "", *, more: bytes = b"", name: str = ID) -> bytes:
    """A capsule that `acme` signed."""
    members = {
        "plugin.toml": (MANIFEST.format(id=name, version=version) + asks).encode(),
        "plugin.wasm": b"\0asm\x0d\0\x01\0" + more,
    }
    return sign_capsule(read_artifact(pack(members)), KEYS["acme"])


def finding(
    rule: str = "secrets.entropy", severity: Severity = Severity.HIGH, place: str = "plugin.wasm@1"
) -> Finding:
    return Finding(rule, severity, "it holds what looks like a secret", place)


def report_of(
    registry: Registry, version: str = "1.0.0", findings: Sequence[Finding] = (), name: str = ID
) -> Report:
    """What scanners might have said of an installed version."""
    record = registry.again(name, version).record
    return Report(
        name, version, record.archive, "2027-01-31T12:00:00Z", 0, (), (ScannerRun("test"),),
        tuple(findings),
    )  # fmt: skip


@dataclass
class Hall:
    """One home, its desk, and a clock and a trust store that tests turn."""

    home: Path
    recorder: ListRecorder = field(default_factory=ListRecorder)
    now: datetime = NOW
    trust: TrustStore = field(default_factory=trust_of)
    policy: str = REVIEWED

    def __post_init__(self) -> None:
        self.home.mkdir(mode=0o700, exist_ok=True)
        self.made: list[Registry] = []
        self.registry = self.open()

    def open(self, trust: TrustStore | None = None) -> Registry:
        """A registry of its own, as another process would have."""
        made = Registry(
            self.home,
            trust=trust or trust_of(),
            policy=Policy.load(f"schema = 1\n{self.policy}".encode(), TOYS),
            capabilities=TOYS,
            recorder=self.recorder,
            now=lambda: self.now,
            today=lambda: self.trust,
            own=lambda: KEYS["home"].public,
            own_key=lambda: KEYS["home"],
        )
        self.made.append(made)
        return made

    def with_policy(self, text: str) -> None:
        """From now on under another policy."""
        self.policy = text
        self.registry = self.open()

    @property
    def desk(self) -> Desk:
        return Desk(self.registry)

    def close(self) -> None:
        for registry in self.made:
            registry.close()

    # -- what people do -----------------------------------------------------------------------------

    def submit(self, version: str = "1.0.0", asks: str = "", **about: Any) -> bytes:
        data = capsule(version, asks, **about)
        self.desk.submit(data, who="tester", why="a test")
        return data

    def scan(self, *findings: Finding, version: str = "1.0.0") -> Case:
        return self.desk.scanned(ID, version, report_of(self.registry, version, findings))

    def approve(self, *names: str, version: str | None = None) -> Case:
        for name in names:
            case = self.desk.approve(ID, version, key=KEYS[name], why="looks good")
        return case

    def except_(
        self, *names: str, what: str, expires: datetime = SOON, version: str | None = None
    ) -> Case:
        for name in names:
            case = self.desk.except_(
                ID, version, key=KEYS[name], what=what, expires=expires, why="a false alarm"
            )
        return case

    def activate(self) -> None:
        self.registry.activate(ID, who="tester")

    def loads(self, source: bytes | None = None) -> str:
        """What a load comes to, of what serves or of these bytes: a code, or nothing."""
        try:
            if source is None:
                artifact = self.registry.serving(ID)[0]
            else:
                artifact = self.registry.examine(source).artifact
                self.registry.admit(artifact)
            manifest = parse_manifest(artifact.manifest_bytes, TOYS)
            matter = self.registry.reviews.matter_of(artifact, manifest)
            check_standing(self.registry.standing(matter), artifact.id)
        except CapwasmError as exc:
            return exc.code
        return ""


def code_of(work: Any, *args: Any, **words: Any) -> str:
    try:
        work(*args, **words)
    except CapwasmError as exc:
        return exc.code
    return ""
