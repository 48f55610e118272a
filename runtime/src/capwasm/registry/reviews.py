"""What was said of plugins, taken from the registry's rows, and what it is worth here and now."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from capwasm.capability import Capability, Risk
from capwasm.capsule.keys import PublicKey
from capwasm.capsule.trust import TrustStore
from capwasm.capsule.verify import VerifiedArtifact
from capwasm.errors import RegistryError
from capwasm.grants.manifest import Manifest
from capwasm.grants.review import ReviewRule
from capwasm.review.permissions import permissions
from capwasm.review.record import Bond, Record, RecordKind
from capwasm.review.rules import Matter, Standing, standing

from .model import PluginRecord, ReviewRow

__all__ = ["Reviews", "check_standing", "records_of"]

MAX_KNOWN: Final = 256
"""Records that are kept as they were read; to read the largest takes as long as a load."""


def records_of(rows: Iterable[ReviewRow], known: dict[str, Record]) -> tuple[Record, ...]:
    """The records of these rows; of scans that a newer one replaced, none.

    Args:
        rows: as the registry has them, whose digests are those of their envelopes.
        known: by that digest, what was read before; what is read now is added.

    Raises:
        RegistryError: `review.record`: one is malformed, or says something else than its row.
    """
    found = []
    for row in rows:
        if row.envelope is None:
            continue
        where = f"{row.plugin} review {row.number}"
        record = known.get(row.digest) or Record.parse(row.envelope, where)
        said = record.kind, record.bond.plugin, record.bond.version, record.bond.archive
        if said != (row.kind, row.plugin, row.version, row.archive):
            raise RegistryError(
                "the record is not what its row says", code="review.record", context=where
            )
        found.append(record)
        if len(known) >= MAX_KNOWN:
            known.clear()
        known[row.digest] = record
    return tuple(found)


def check_standing(found: Standing, name: str) -> None:
    """Pass if that lets a version serve.

    Raises:
        RegistryError: `review.rejected`, `review.blocked`, `review.lapsed`, `review.missing` or
            `review.unscanned`, with a fault for each thing that is in the way.
    """
    if not found.ok:
        raise RegistryError(
            "its review does not let it serve", code=found.code, context=name, faults=found.needs
        )


@dataclass(frozen=True, slots=True)
class Reviews:
    """Asks `review.rules` what the records of a plugin come to.

    Attributes:
        rule: the policy's.
        capabilities: those that there are.
        today: the trust store as it is now; the same object while nothing of it changed.
        own: the home's key, whose scans count, or None.
        now: the time, with a zone.
    """

    rule: ReviewRule
    capabilities: Sequence[Capability[Any, Any]]
    today: Callable[[], TrustStore]
    own: Callable[[], PublicKey | None]
    now: Callable[[], datetime]
    _known: dict[str, Record] = field(default_factory=dict, repr=False, compare=False)

    def matter_of(self, artifact: VerifiedArtifact, manifest: Manifest) -> Matter:
        """A proven version, with nothing said of it yet.

        Args:
            artifact: the proof.
            manifest: parsed from its bytes.
        """
        code = artifact.code_digest if artifact.kind == "component" else None
        high = (p for p in permissions(manifest, self.capabilities) if p.risk is Risk.HIGH)
        # Who signed it wrote it, also where that signature counts no more.
        signers = (*artifact.signers, *artifact.others)
        return Matter(
            Bond.of(manifest, artifact.digest, code),
            tuple(high),
            frozenset(s.key_id for s in signers if s.roles != {"reviewer"}),
        )

    def can_refuse(self, plugin: PluginRecord | None) -> bool:
        """Whether anything depends on what was said: policy wants it, or somebody rejects."""
        rows = () if plugin is None else plugin.reviews
        return self.rule.required or any(r.kind is RecordKind.REJECTION for r in rows)

    def standing(
        self, matter: Matter, plugin: PluginRecord | None, *, whole: bool = False
    ) -> Standing:
        """Whether a version may serve, by what was said of it and counts today.

        Args:
            matter: the version.
            plugin: with all that was said; None if nobody has seen it.
            whole: also where nothing depends on it, with what each record is worth.

        Raises:
            RegistryError: `review.record`.
            PolicyError: the trust store of today can't be read.
        """
        if not whole and not self.can_refuse(plugin):
            return Standing(ok=True)
        rows = () if plugin is None else plugin.reviews
        said = dataclasses.replace(matter, records=records_of(rows, self._known), own=self.own())
        return standing(said, self.today(), self.rule, self.now())
