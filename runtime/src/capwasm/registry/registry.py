"""What is installed, and each way to change it: verify, store the capsule, one transaction.

The capsule is in the store, whole, before the database speaks of it; every change is one
transaction, recorded in the audit log before it is committed.  So a kill at any moment leaves the
old state or the new one, and at worst a capsule that nobody refers to, which `collect` removes.

Nothing is believed because it stands here.  `serving` takes the capsule by its digest from the
store and verifies it again, against the trust and the floor of today.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from os import PathLike
from typing import Any

from capwasm.capability import Capability
from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.identity import check_id, check_version
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.trust import TrustStore, utc_now
from capwasm.capsule.verify import VerifiedArtifact
from capwasm.errors import RegistryError
from capwasm.events import Recorder
from capwasm.grants.consent_store import ConsentStore
from capwasm.grants.policy import Policy

from . import gate
from .books import known
from .draft import Draft
from .model import (
    Candidate,
    Decision,
    Mark,
    Outcome,
    Permit,
    PermitKind,
    PluginRecord,
    State,
    is_older,
)
from .rules import decide
from .scales import Memo, Rules, Scales
from .shelf import Shelf
from .telling import refusals, tell
from .texts import clean, mark_of

__all__ = ["Registry"]

Work = Callable[[Draft, PluginRecord | None], tuple[str, str, tuple[str, ...]]]


class Registry(Shelf):
    """The plugins installed in one home directory.  For many threads and processes at once.

    Every verb takes `who` (a person or a program) and `why`.
    """

    def __init__(
        self,
        root: str | PathLike[str],
        *,
        trust: TrustStore,
        policy: Policy,
        capabilities: Sequence[Capability[Any, Any]],
        recorder: Recorder,
        rules: Rules = decide,
        now: Callable[[], datetime] = utc_now,
        check: Callable[[VerifiedArtifact], None] = lambda _artifact: None,
        consents: ConsentStore | None = None,
        own_key: Callable[[], PrivateKey] | None = None,
        **reviews: Any,
    ) -> None:
        """Use the registry of a home directory; nothing is read or made before the first use.

        Args:
            root: as for `Shelf`, and so `trust`, `policy` and `capabilities`.
            trust: whose signatures count.
            policy: the operator's, for the rules too.
            capabilities: those that a manifest may ask for.
            recorder: takes an event of each change before it is committed.
            rules: the update rules.
            now: the time, with a zone.
            check: as for `Shelf`; asked at each change too.
            consents: what persons agreed to: an update that a load would be denied for want of it
                waits; if None, that is not looked at.
            own_key: the home's key, which signs what scanners found; made at need.
            reviews: `today` and `own`, as for `Shelf`.
        """
        super().__init__(
            root,
            trust=trust,
            policy=policy,
            capabilities=capabilities,
            check=check,
            now=now,
            **reviews,
        )
        self.recorder, self.now, self._own_key = recorder, now, own_key
        self.scales = Scales(self._intake, self.store, rules, self.reviews, consents, now)

    # -- changes ----------------------------------------------------------------------------------

    def install(
        self,
        source: str | PathLike[str] | bytes,
        *,
        who: str,
        why: str = "",
        source_name: str = "",
        published: datetime | None = None,
    ) -> Outcome:
        """Take in a capsule: the first of its id, or a new version of it.

        What the rules accept serves from now on; what they want a person to see is parked, and the
        old version serves on.

        Args:
            source: the path of a capsule, or its bytes.
            who: a person or a program.
            why: for the history.
            source_name: where it came from, for people.
            published: when, by the word of its repository; with a time zone.

        Raises:
            ArtifactError, VerificationError, ManifestError: as for a load.
            VerificationError: `verify.rollback`, `verify.revoked`.
            RegistryError: `registry.name-taken`, `registry.version-taken`; or it can't be written,
                and nothing changed.
            AuditError: it can't be recorded, and so did not happen.
        """
        return self._take(source, "install", who, why, source_name, published)

    def submit(
        self,
        source: str | PathLike[str] | bytes,
        *,
        who: str,
        why: str = "",
        source_name: str = "",
        published: datetime | None = None,
    ) -> Outcome:
        """Take in a capsule to be looked at: verified and kept as by `install`, and never serving.

        Args:
            source: as for `install`.
            who: as for `install`.
            why: as for `install`.
            source_name: as for `install`.
            published: as for `install`.

        Raises:
            As `install`; RegistryError: `review.rejected`.
        """
        return self._take(source, "submit", who, why, source_name, published)

    def _take(
        self,
        source: str | PathLike[str] | bytes,
        action: str,
        who: str,
        why: str,
        source_name: str,
        published: datetime | None,
    ) -> Outcome:
        mark = mark_of(who, why, self.now())
        name = ""
        with refusals(self.recorder, action, lambda: name):
            artifact = read_artifact(source)
            where = clean(source_name or artifact.name)
            candidate = self._intake.examine(artifact, source=where, published=published)
            name = candidate.record.name
            memo: Memo = {}
            current = self.find(candidate.record.plugin)
            gate.obey(
                self.scales.decide(current, candidate, memo), name
            )  # before anything is written
            self.store.put(artifact.data)

            def work(draft: Draft, plugin: PluginRecord | None) -> tuple[str, str, tuple[str, ...]]:
                decision = self.scales.decide(plugin, candidate, memo)
                gate.obey(decision, name)
                if not self.store.has(candidate.record.bundle):  # a collector was faster
                    self.store.put(artifact.data)
                return gate.take_in(draft, plugin, candidate, decision, hold=action == "submit")

            return self.change(candidate.record.plugin, action, mark, work, new=True)

    def weigh(self, candidate: Candidate) -> Decision:
        """What `install` would come to now; nothing is changed, and nothing recorded.

        Args:
            candidate: see `examine`.

        Raises:
            RegistryError: it can't be read, or can't be believed.
            ConsentError: a consent of the plugin can't be read.
        """
        return self.scales.decide(self.find(candidate.record.plugin), candidate)

    def activate(
        self, plugin_id: str, version: str | None = None, *, who: str, why: str = ""
    ) -> Outcome:
        """Have a version serve that waited for a person, or that was taken out of service.

        It is verified again; the rules may still refuse it, but what they only wanted a person to
        see has now been seen.

        Args:
            plugin_id: the plugin.
            version: the one that waits, or the one that serves and was suspended, if None; where there
                are both, it must be said which.
            who: a person or a program.
            why: for the history.

        Raises:
            As `install`; `registry.unknown` if there is none, `registry.state` if there are two,
                `registry.bundle`.
        """

        def choose(plugin: PluginRecord) -> str:
            return gate.to_activate(plugin, version)

        return self._serve(plugin_id, "activate", choose, who, why)

    def rollback(
        self,
        plugin_id: str,
        to: str | None = None,
        *,
        who: str,
        why: str = "",
        leaving: str | None = None,
    ) -> Outcome:
        """Go back to the version that served before; the one that is left is suspended.

        The exception that this needs is written with it, and holds for that version alone.

        Args:
            plugin_id: the plugin.
            to: the version to go back to; the one that served before, if None.
            who: a person or a program.
            why: for the history.
            leaving: go only if this is the version that serves; whichever it is, if None.

        Raises:
            As `activate`.
        """

        def choose(plugin: PluginRecord) -> str:
            if leaving is not None and plugin.serving != leaving:
                raise RegistryError(
                    f"{leaving} does not serve any more", code="registry.state", context=plugin_id
                )
            if to:
                return gate.came_before(plugin, to)
            return gate.served_before(plugin, self.history(plugin_id))

        return self._serve(plugin_id, "rollback", choose, who, why, leaving)

    def reject(
        self, plugin_id: str, version: str | None = None, *, who: str, why: str = ""
    ) -> Outcome:
        """Forget the version that waits for a person; if one is named, only if that waits.

        Raises:
            RegistryError: `registry.unknown` if there is none; as `install`.   AuditError.
        """

        def work(draft: Draft, _plugin: PluginRecord | None) -> tuple[str, str, tuple[str, ...]]:
            if version not in (None, draft.waiting):
                raise RegistryError(
                    f"version {ascii(version)[1:-1]} does not wait",
                    code="registry.unknown",
                    context=plugin_id,
                )
            gone = draft.waiting
            draft.move(gone, None)
            draft.waiting = None
            return "rejected", gone or "", ()

        return self.change(plugin_id, "reject", mark_of(who, why, self.now()), work)

    def suspend(
        self, plugin_id: str, version: str | None = None, *, who: str, why: str = ""
    ) -> Outcome:
        """Take the version that serves, or another that was accepted, out of service, until `activate`.

        Raises:
            RegistryError: `registry.unknown`, `registry.state`; as `install`.   AuditError.
        """

        def work(draft: Draft, _plugin: PluginRecord | None) -> tuple[str, str, tuple[str, ...]]:
            draft.move(version or draft.serving, State.SUSPENDED)
            return "suspended", version or draft.serving or "", ()

        return self.change(plugin_id, "suspend", mark_of(who, why, self.now()), work)

    def kill(self, plugin_id: str, *, who: str, why: str = "") -> Outcome:
        """Have every core of this home end what runs of a plugin; its state stays what it is.

        Also of one that is not installed: what was loaded from a file is ended as well.

        Raises:
            RegistryError: as `install`.   AuditError.
            ValueError: it is no id.
        """

        def work(draft: Draft, _plugin: PluginRecord | None) -> tuple[str, str, tuple[str, ...]]:
            draft.note(draft.serving or "")
            return "killed", draft.serving or "", ()

        mark = mark_of(who, why, self.now())
        return self.change(check_id(plugin_id), "kill", mark, work, new=True)

    def revoke(self, plugin_id: str, version: str, *, who: str, why: str = "") -> Outcome:
        """End a version for good.  If it serves, nothing serves any more.

        Raises:
            RegistryError: `registry.unknown`, `registry.state`; as `install`.   AuditError.
        """

        def work(draft: Draft, _plugin: PluginRecord | None) -> tuple[str, str, tuple[str, ...]]:
            draft.move(version, State.REVOKED)
            if draft.waiting == version:
                draft.waiting = None
            return "revoked", version, ()

        return self.change(plugin_id, "revoke", mark_of(who, why, self.now()), work)

    def remove(self, plugin_id: str, *, who: str, why: str = "") -> Outcome:
        """Remove a plugin.  Its id stays its publisher's, and no lower version can come after it.

        Raises:
            RegistryError: `registry.unknown`; as `install`.   AuditError.
        """

        def work(draft: Draft, plugin: PluginRecord | None) -> tuple[str, str, tuple[str, ...]]:
            if plugin is not None and plugin.removed is not None:
                raise RegistryError(
                    f"it was removed at {plugin.removed}",
                    code="registry.unknown",
                    context=plugin_id,
                )
            version = draft.serving or ""
            draft.bury()
            draft.note()
            return "removed", version, ()

        return self.change(plugin_id, "remove", mark_of(who, why, self.now()), work)

    def pin(self, plugin_id: str, version: str | None, *, who: str, why: str = "") -> Outcome:
        """Have no update leave a version; None: have them again.

        Raises:
            RegistryError: `registry.unknown`; as `install`.   AuditError.
            ValueError: it is no version.
        """

        def work(draft: Draft, _plugin: PluginRecord | None) -> tuple[str, str, tuple[str, ...]]:
            draft.pinned = None if version is None else check_version(version)
            draft.note(version or "")
            return "pinned" if version else "unpinned", version or "", ()

        return self.change(plugin_id, "pin", mark_of(who, why, self.now()), work)

    def permit(
        self, plugin_id: str, kind: PermitKind, subject: str, *, who: str, why: str = ""
    ) -> Permit:
        """Make an exception, of a plugin that is installed, was removed, or is yet to come.

        Raises:
            RegistryError: as `install`.   AuditError.
            ValueError: the id or the subject is malformed.
        """
        gate.check_subject(kind, subject)
        made: list[Permit] = []

        def work(draft: Draft, _plugin: PluginRecord | None) -> tuple[str, str, tuple[str, ...]]:
            made.append(draft.permit(kind, subject))
            draft.note()
            return "permitted", "", (f"{kind} {subject}",)

        mark = mark_of(who, why, self.now())
        self.change(check_id(plugin_id), "permit", mark, work, new=True)
        return made[0]

    def own_key(self) -> PrivateKey:
        """The home's key.

        Raises:
            RegistryError: `review.key`: there is none here.
            PolicyError: it can't be read or made.
        """
        if self._own_key is None:
            raise RegistryError("this home has no key of its own", code="review.key")
        return self._own_key()

    def collect(self) -> tuple[int, int]:
        """Remove capsules that no version refers to, and what killed writers left.

        Returns:
            How many capsules went, and their bytes.

        Raises:
            RegistryError: it can't be read or written, or can't be believed.
        """
        if not self._books.exist:
            return self.store.collect(())
        # Nobody can enter a reference meanwhile; who stored a capsule before sees that it is gone.
        with self._books.writing() as ledger:
            self._books.sweep()
            return self.store.collect(ledger.bundles())

    # -- inside -----------------------------------------------------------------------------------

    def _serve(
        self,
        plugin_id: str,
        action: str,
        choose: Callable[[PluginRecord], str],
        who: str,
        why: str,
        leaving: str | None = None,
    ) -> Outcome:
        """Have a version serve whose capsule is in the store: proven again, and then decided on."""
        mark = mark_of(who, why, self.now())
        with refusals(self.recorder, action, lambda: plugin_id):
            plugin = self.show(plugin_id)
            version = choose(plugin)
            record = gate.version_of(plugin, version)
            candidate = self._intake.again(self.store, record)

            def change(draft: Draft, now: PluginRecord | None) -> tuple[str, str, tuple[str, ...]]:
                moved = now is None or (leaving is not None and now.serving != leaving)
                if moved or now is None or now.version(version) != record:
                    raise RegistryError(
                        "it was changed meanwhile; try again",
                        code="registry.state",
                        context=record.name,
                    )
                back = action == "rollback"
                if back and draft.highest is not None and is_older(version, draft.highest):
                    draft.permit(PermitKind.DOWNGRADE, version)
                # What the rules only wanted a person to see has now been seen.
                decision = self.scales.decide(draft.done(), candidate)
                gate.obey(decision, record.name)
                gate.of_age(decision, candidate)
                gate.is_reviewed(decision, record.name)
                draft.use(*decision.used)
                if back:
                    draft.leave()
                draft.serve(version)
                return "rolled-back" if back else "activated", version, ()

            return self.change(plugin_id, action, mark, change)

    def change(
        self, plugin_id: str, action: str, mark: Mark, work: Work, *, new: bool = False
    ) -> Outcome:
        """One change of one plugin: decided, written, recorded, committed.

        Args:
            plugin_id: the plugin.
            action: the verb, for its history.
            mark: who, when and why.
            work: makes it on a draft, given the record before; returns what was done, the version
                that it was about, and reasons.
            new: whether nobody need have seen the plugin.

        Raises:
            RegistryError: `registry.unknown`; what `work` raises; it can't be written.
            AuditError: it can't be recorded, and so did not happen.
        """
        with self._books.writing() as ledger:
            plugin = ledger.plugin(plugin_id)
            if not new:
                known(plugin, plugin_id)
            draft = Draft(plugin or Draft.blank(plugin_id, mark), action, mark)
            told, version, reasons = work(draft, plugin)
            after = draft.done()
            before = None if plugin is None else plugin.serving
            outcome = Outcome(told, version, before, after, reasons)
            if draft.steps:
                ledger.save(after, draft.steps)
                tell(self.recorder, ledger.sequence, outcome)
        if draft.steps:
            self._books.note()
        return outcome
