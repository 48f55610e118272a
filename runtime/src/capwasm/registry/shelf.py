"""What is installed, to be read: every row under its seal, every capsule proven again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any, Self

from capwasm.capability import Capability
from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.keys import PublicKey
from capwasm.capsule.trust import TrustStore, utc_now
from capwasm.capsule.verify import VerifiedArtifact
from capwasm.grants.policy import Policy
from capwasm.review.rules import Matter, Standing

from . import gate
from .books import Books
from .intake import Intake
from .model import Candidate, Listed, PluginRecord, Step, VersionRecord
from .reviews import Reviews
from .store import Store

__all__ = ["Shelf", "ShelfReport"]


@dataclass(frozen=True, slots=True)
class ShelfReport:
    """What looking at everything again found.

    Attributes:
        plugins, capsules, size: how many there are, and the capsules' bytes.
        sequence: changes that the registry has counted.
        orphans: digests that no version refers to; `collect` removes them.
        problems: what is wrong, one line each; none if all is well.
    """

    plugins: int
    capsules: int
    size: int
    sequence: int
    orphans: tuple[str, ...]
    problems: tuple[str, ...]


class Shelf:
    """The reading side of a registry.  For many threads and processes at once."""

    def __init__(
        self,
        root: str | PathLike[str],
        *,
        trust: TrustStore,
        policy: Policy,
        capabilities: Sequence[Capability[Any, Any]],
        check: Callable[[VerifiedArtifact], None] = lambda _artifact: None,
        now: Callable[[], datetime] = utc_now,
        today: Callable[[], TrustStore] | None = None,
        own: Callable[[], PublicKey | None] = lambda: None,
    ) -> None:
        """Use the registry of a home directory; nothing is read or made before the first use.

        Args:
            root: the home directory (0700): `registry.db`, `registry.key`, `registry.head`,
                `store/`.
            trust: whose signatures count.
            policy: the operator's.
            capabilities: those that a manifest may ask for.
            check: raises what else is in the way of a verified capsule: that it was revoked, say.
            now: the time, with a zone.
            today: the trust store as it is now, by which reviews count, and the same object while
                nothing of it changed; `trust` if None.
            own: the home's key, whose scans count; None, and none does.
        """
        self.root = Path(root).absolute()
        self.store = Store(self.root / "store")
        self._books = Books(self.root)
        self._intake = Intake(trust, policy, tuple(capabilities), check)
        self.reviews = Reviews(
            policy.review, tuple(capabilities), today or (lambda: trust), own, now
        )

    def close(self) -> None:
        """Let go of the database.  Used again, it is opened again."""
        self._books.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def policy(self) -> Policy:
        """The operator's."""
        return self._intake.policy

    def stamp(self) -> object:
        """Differs once something was changed, by whomever.  Cheap.

        Raises:
            RegistryError: it can't be read.
        """
        return self._books.stamp()

    def list(self, *, removed: bool = False) -> tuple[Listed, ...]:
        """As `Books.list`."""
        return self._books.list(removed=removed)

    def find(self, plugin_id: str) -> PluginRecord | None:
        """As `Books.find`."""
        return self._books.find(plugin_id)

    def show(self, plugin_id: str) -> PluginRecord:
        """As `Books.show`."""
        return self._books.show(plugin_id)

    def history(self, plugin_id: str) -> tuple[Step, ...]:
        """As `Books.history`."""
        return self._books.history(plugin_id)

    def serving(self, plugin_id: str) -> tuple[VerifiedArtifact, VersionRecord]:
        """The version that serves, taken from the store and proven anew: what a load goes on with.

        Raises:
            RegistryError: `registry.unknown`, `registry.pending`, `registry.state`,
                `registry.bundle`, `registry.name-taken`; it can't be read, or can't be believed.
            VerificationError: `verify.rollback`, `verify.revoked`; as for any load.
            ManifestError: as for any load.
        """
        plugin = self.show(plugin_id)
        record = gate.active(plugin)
        artifact = self._intake.again(self.store, record).artifact
        gate.admit(plugin, artifact)
        return artifact, record

    def examine(
        self, source: str | PathLike[str] | bytes, *, published: datetime | None = None
    ) -> Candidate:
        """A capsule from anywhere, verified as a load would; nothing is asked of the registry.

        Args:
            source: the path of a capsule, or its bytes.
            published: when, by the word of its repository; with a time zone.

        Raises:
            ArtifactError, VerificationError, ManifestError: as for a load.
        """
        return self._intake.examine(read_artifact(source), published=published)

    def again(self, plugin_id: str, version: str) -> Candidate:
        """An installed version, whatever its state, proven anew.

        Raises:
            RegistryError: `registry.unknown`, `registry.bundle`.
            VerificationError, ManifestError: as for a load.
        """
        return self._intake.again(self.store, gate.version_of(self.show(plugin_id), version))

    def admit(self, artifact: VerifiedArtifact) -> None:
        """Pass if a capsule that did not come from here may be loaded, for all that is known of it.

        Raises:
            VerificationError: `verify.rollback`, `verify.revoked`.
            RegistryError: `registry.name-taken`, `registry.version-taken`, `registry.state`; it
                can't be read, or can't be believed.
        """
        plugin = self.find(artifact.id)
        if plugin is not None:
            gate.admit(plugin, artifact)

    def standing(self, matter: Matter) -> Standing:
        """Whether a version may serve, by all that was said of it and counts now.

        Args:
            matter: the version, as `reviews.matter_of` makes it.

        Raises:
            RegistryError: it can't be read, or can't be believed; `review.record`.
            PolicyError: the trust store of today can't be read.
        """
        return self.reviews.standing(matter, self.find(matter.bond.plugin))

    def verify(self, told: int = 0) -> ShelfReport:
        """Look at everything: the database's pages, every seal and step, every capsule's bytes.

        A capsule that is damaged is moved aside; installing it again puts it back.

        Args:
            told: the highest count of changes that the audit log tells of.  A registry that has
                counted fewer is an older copy, even if `registry.head` came back with it.

        Raises:
            RegistryError: it can't be read, or can't be believed.
        """
        problems: list[str] = []
        with self._books.reading() as ledger:
            # Within the transaction: what is referred to here was stored before.
            found = self.store.verify()
            wanted = {} if ledger is None else ledger.bundles()
            plugins = [] if ledger is None else ledger.plugins()
            sequence = 0 if ledger is None else ledger.sequence
            if ledger is not None:
                problems += ledger.damage()
                for plugin in plugins:
                    ledger.plugin(plugin.id)
                    ledger.steps(plugin.id)
                    ledger.reviews(plugin.id, whole=True)
        with self._books.reading() as ledger:  # some may have been removed meanwhile
            still = {} if ledger is None else ledger.bundles()
        problems += [f"{name}: not what it should be; moved aside" for name in found.quarantined]
        problems += [
            f"{digest}: the capsule of {', '.join(names)} is gone from the store"
            for digest, names in wanted.items()
            if digest not in found.sound and digest in still
        ]
        # A change is told of before it is committed, so the log may be ahead by one that never was.
        if told > sequence + 1:
            problems.append(
                f"the audit log tells of {told} changes, the registry of {sequence}: an older copy"
            )
        return ShelfReport(
            plugins=len(plugins),
            capsules=len(found.sound),
            size=found.size,
            sequence=sequence,
            orphans=tuple(sorted(found.sound - wanted.keys())),
            problems=tuple(problems),
        )
