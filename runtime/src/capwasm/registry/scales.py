"""What the rules are asked with: a candidate, what serves, and what differs between the two."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from capwasm.grants.consent import Subject
from capwasm.grants.consent_store import ConsentStore
from capwasm.grants.decide import decide as would_grant
from capwasm.grants.manifest import Manifest
from capwasm.grants.policy import Policy

from .changes import Changes, compare
from .intake import Intake
from .model import Candidate, Current, Decision, PluginRecord, VersionRecord
from .reviews import Reviews
from .rules import reviewed
from .store import Store

__all__ = ["Memo", "Rules", "Scales"]

Rules = Callable[[Current | None, Candidate, Changes, Policy, datetime], Decision]
Memo = dict[str, Manifest | None]
"""By bundle, the manifests that were proven within one verb."""


@dataclass(frozen=True, slots=True)
class Scales:
    """Weighs candidates for one registry.

    Attributes:
        intake, store: prove what serves, anew.
        rules: the update rules.
        reviews: what was said of plugins, which comes on top of the rules.
        consents: what persons agreed to; None if that does not count here.
        now: the time, with a zone.
    """

    intake: Intake
    store: Store
    rules: Rules
    reviews: Reviews
    consents: ConsentStore | None
    now: Callable[[], datetime]

    def decide(
        self, plugin: PluginRecord | None, candidate: Candidate, memo: Memo | None = None
    ) -> Decision:
        """What becomes of a candidate, the plugin being as it is.

        Raises:
            ConsentError: a consent of the plugin can't be read.
        """
        memo = {} if memo is None else memo
        current = before = None
        if plugin is not None:
            serving = plugin.version(plugin.serving or "")
            manifest = None
            denied: tuple[str, ...] = ()
            if serving is not None:
                if serving.bundle not in memo:
                    memo[serving.bundle] = self.intake.manifest(self.store, serving)
                manifest = memo[serving.bundle]
            if serving is not None and manifest is not None:
                before = manifest, serving
                denied = self._denied(*before)
                wanting = self._denied(candidate.manifest, candidate.record)
                candidate = dataclasses.replace(candidate, denied=wanting)
            current = Current(plugin, manifest, denied)
        changes = compare(before, (candidate.manifest, candidate.record), self.intake.capabilities)
        decision = self.rules(current, candidate, changes, self.intake.policy, self.now())
        matter = self.reviews.matter_of(candidate.artifact, candidate.manifest)
        return reviewed(decision, self.reviews.standing(matter, plugin))

    def changes(self, plugin: PluginRecord, candidate: Candidate) -> Changes:
        """What differs between what serves, if that still verifies, and a candidate."""
        serving = plugin.version(plugin.serving or "")
        manifest = self.intake.manifest(self.store, serving)
        before = None if serving is None or manifest is None else (manifest, serving)
        after = candidate.manifest, candidate.record
        return compare(before, after, self.intake.capabilities)

    def _denied(self, manifest: Manifest, record: VersionRecord) -> tuple[str, ...]:
        """Why a load would be denied, this core's version apart."""
        if self.consents is None:
            return ()
        consent = self.consents.find(Subject.of(manifest, record.code or record.archive))
        known = self.intake.capabilities
        found = would_grant(manifest, self.intake.policy, consent, known, core=None)
        return tuple(f"{f.path}: {f.message}" if f.path else f.message for f in found.faults)
