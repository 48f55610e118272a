"""One home with reviewers, something that serves and something that waits; and its page."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from capwasm.caps import standard_capabilities
from capwasm.capsule.keys import PrivateKey
from capwasm.events import DENIED, Event, NullRecorder
from capwasm.home import Home
from capwasm.record.audit import AuditLog
from capwasm.record.redact import Redactor
from capwasm.registry.registry import Registry
from tests.admin.place import Site, Visitor, served
from tests.kit import World, guest

POLICY = """schema = 1
owner = "ops@acme.example"
review-by = "2090-01-31"
[review]
required = true
approvals = 2
[consent]
automatic = ["log", "clock", "random", "config", "kv", "fs", "secret"]
[plugins."*".log]
[[plugins."test.*".net]]
allow = "https://api.example.com/v1/*"
[[plugins."test.*".fs]]
bind = "reports"
access = "read-write"
"""
ASKS = """[log]
[[net]]
allow = "https://api.example.com/v1/*"
[[fs]]
mount = "/data"
bind = "reports"
access = "read-write"
"""


@dataclass
class Office:
    """A home, and the keys of its reviewers."""

    world: World
    ann: PrivateKey
    bob: PrivateKey

    @property
    def home(self) -> Path:
        return self.world.home

    @functools.cached_property
    def registry(self) -> Registry:
        """The registry, as another process would have it."""
        place, known = Home(self.home), standard_capabilities()
        return place.registry(
            NullRecorder(), trust=place.trust(), policy=place.policy(known), capabilities=known
        )

    def close(self) -> None:
        if "registry" in self.__dict__:
            self.registry.close()
        self.world.close()


def office(root: Path, policy: str = POLICY, **options: object) -> Office:
    """A new one."""
    world = World(root, **options)
    ann, bob = PrivateKey.generate(), PrivateKey.generate()
    trust = world.home / "trust.toml"
    for name, key in (("ann", ann), ("bob", bob)):
        trust.write_text(
            f'{trust.read_text()}[[key]]\nname = "{name}"\npublic = "{key.public.base64()}"\n'
            'roles = ["reviewer"]\nids = ["*"]\n'
        )
    (world.home / "policy.toml").write_text(policy)
    return Office(world, ann, bob)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Two plugins that wait; for tests that change none of them."""
    made = office(tmp_path_factory.mktemp("admin"))
    for version in ("1.0.0", "1.1.0"):
        made.registry.install(
            made.world.capsule(guest("hostile"), ASKS, version=version), who="eve", why="a test"
        )
    with AuditLog.open(made.home / "audit", Redactor()) as log:
        for number in range(5):
            log.record(
                Event("net", DENIED, f"test.guest@1.{number}.0", "GET", reason="not-granted")
            )
    yield made
    made.close()


@pytest.fixture(scope="module")
def site(shop: Office) -> Iterator[Site]:
    """The page of it, with the key of ann."""
    with served(shop.home, key=shop.ann, body_seconds=1.0) as found:
        yield found


@pytest.fixture
def visitor(site: Site) -> Visitor:
    """Somebody who is signed in."""
    made = Visitor(site)
    assert made.sign_in().status == 303
    return made
