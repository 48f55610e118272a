"""The reviewers' desk: what waits, what is known of it, and each way to have a say.

Commands, the admin page and scanners use this and nothing below it.  A say is a signed record in
the registry; what all of them are worth together is decided in `review.rules`, each time anew.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from os import PathLike
from typing import TYPE_CHECKING, Any

from capwasm.capsule.trusted import TrustedKey
from capwasm.errors import CapwasmError, Fault, RegistryError
from capwasm.review.finding import Report
from capwasm.review.permissions import permissions
from capwasm.review.record import UNREVIEWED, Record, RecordKind
from capwasm.review.rules import Matter, Standing, doubt_of_key

from . import gate
from .case import Case, ExceptionState, Waiver, prints, seen_of, waivers
from .draft import Draft
from .model import Outcome, PluginRecord, VersionRecord, utc_text
from .telling import refusals
from .texts import mark_of

if TYPE_CHECKING:
    from capwasm.capsule.keys import PrivateKey

    from .registry import Registry

__all__ = ["Case", "Desk", "ExceptionState", "Waiver"]


class Desk:
    """Reviews on one registry.  For many threads and processes at once, as the registry is.

    `version` is the one that waits if None; where none waits, the one that serves.
    """

    def __init__(self, registry: Registry) -> None:
        """Use that registry; nothing is read or made yet."""
        self._registry = registry

    # -- questions --------------------------------------------------------------------------------

    def queue(self) -> tuple[Case, ...]:
        """What waits, by id, and what serves although it may not any more.

        Raises:
            RegistryError: it can't be read, or can't be believed.
            PolicyError: as for `case`.
        """
        found = []
        for listed in self._registry.list():
            plugin = self._registry.show(listed.id)
            for version in self._at_stake(plugin):
                case = self._case(plugin, version)
                if version == plugin.waiting or not case.standing.ok:
                    found.append(case)
        return tuple(found)

    def case(self, plugin_id: str, version: str | None = None) -> Case:
        """All that is known of one version.

        Raises:
            RegistryError: `registry.unknown`; it can't be read, or can't be believed.
            PolicyError: the trust store of today, or the home's own key, can't be read.
        """
        plugin = self._registry.show(plugin_id)
        return self._case(plugin, _choose(plugin, version))

    def exceptions(self) -> tuple[ExceptionState, ...]:
        """Every security exception of a version that is here, by plugin, version and subject.

        Raises:
            RegistryError: it can't be read, or can't be believed.
            PolicyError: as for `case`.
        """
        found = []
        for listed in self._registry.list():
            plugin = self._registry.show(listed.id)
            excepted = {r.version for r in plugin.reviews if r.kind is RecordKind.EXCEPTION}
            for record in plugin.versions:
                if record.version in excepted:
                    found += waivers(self._case(plugin, record.version))
        return tuple(found)

    # -- what people and scanners say ---------------------------------------------------------------

    def submit(
        self,
        source: str | PathLike[str] | bytes,
        *,
        who: str,
        why: str = "",
        source_name: str = "",
        published: datetime | None = None,
    ) -> Outcome:
        """Take in a capsule to be reviewed.  It is verified and kept, and does not serve by that.

        Args:
            source: the path of a capsule, or its bytes.
            who: a person or a program.
            why: for the history.
            source_name: where it came from, for people.
            published: when, by the word of its repository; with a time zone.

        Raises:
            As `Registry.install`; RegistryError: `review.rejected`.
        """
        return self._registry.submit(
            source, who=who, why=why, source_name=source_name, published=published
        )

    def scanned(self, plugin_id: str, version: str, report: Report) -> Case:
        """Keep what scanners found, signed with the home's own key.

        Args:
            plugin_id: which plugin was scanned.
            version: which of its versions; `Registry.again` gives its bytes.
            report: about that very archive.

        Raises:
            RegistryError: `registry.unknown`; `review.record`: the report is about something else,
                or malformed; `review.weaker`: a scanner did not look that did in the scan before;
                as `Registry.install`.
            PolicyError: the home's own key can't be read or made.
            AuditError: it can't be recorded, and so did not happen.
        """
        key = self._registry.own_key()

        def say(now: Standing, _matter: Matter) -> dict[str, Any]:
            _refuse_weaker(now.report, report, plugin_id)
            return {"report": report}

        return self._say(RecordKind.SCAN, plugin_id, version, key, "", say, "scanned")

    def approve(
        self,
        plugin_id: str,
        version: str | None,
        *,
        key: PrivateKey,
        why: str = "",
        seen: str | None = None,
    ) -> Case:
        """Say as a reviewer that a version may serve.

        Args:
            plugin_id: which plugin.
            version: which of its versions.
            key: of a person whom the trust store names as a reviewer.
            why: for the record.
            seen: `Case.seen` of what the reviewer was shown; whatever there is now, if None.

        Raises:
            RegistryError: `review.key`: the key may not approve this; `review.twice`: that person
                has approved it; `review.rejected`; `review.changed`: it is not what was shown; `registry.unknown`, `registry.text`; as
                `Registry.install`.
            VerificationError, ManifestError: it does not verify any more.
            AuditError: it can't be recorded, and so did not happen.
        """

        def say(now: Standing, matter: Matter) -> dict[str, Any]:
            _refuse_rejected(now, plugin_id)
            _refuse_unseen(seen, matter, now, plugin_id)
            return {"seen": prints(now.report)}

        return self._say(RecordKind.APPROVAL, plugin_id, version, key, why, say, "approved")

    def reject(
        self,
        plugin_id: str,
        version: str | None = None,
        *,
        who: str = "",
        why: str,
        key: PrivateKey | None = None,
    ) -> Outcome:
        """Forget a version that waits; with a key, say for good that it may not serve.

        A signed rejection beats every approval and every exception of that version.

        Args:
            plugin_id: which plugin.
            version: which of its versions; without a key, the one that waits.
            who: for the history; the key's name if there is a key.
            why: for the record; not empty if there is a key.
            key: of a reviewer, or of somebody who may sign exceptions.

        Raises:
            As `approve`, but for `review.rejected`.
        """
        if key is None:
            return self._registry.reject(plugin_id, version, who=who, why=why)
        return self._said(
            RecordKind.REJECTION, plugin_id, version, key, why, lambda *_: {}, "refused"
        )

    def except_(
        self,
        plugin_id: str,
        version: str | None,
        *,
        key: PrivateKey,
        what: str,
        expires: datetime,
        why: str,
        seen: str | None = None,
    ) -> Case:
        """Sign one half of a security exception; it is in force with the other role's word.

        Args:
            plugin_id: which plugin.
            version: which of its versions.
            key: of a person with the role `security` or `engineering`.
            what: a finding's rule or fingerprint, as the report has it, or `unreviewed`.
            expires: when it ends, with a time zone; of two words, the earlier time counts.
            why: for the record; not empty.
            seen: as for `approve`.

        Raises:
            As `approve`; `review.finding`: the report has no such finding; `review.expiry`: that
                time is past, or later than policy allows.
        """
        self._check_expiry(expires)

        def say(now: Standing, matter: Matter) -> dict[str, Any]:
            _refuse_rejected(now, plugin_id)
            _refuse_unseen(seen, matter, now, plugin_id)
            found = now.report.findings if now.report is not None else ()
            if what != UNREVIEWED and not any(what in (f.rule, f.fingerprint) for f in found):
                raise RegistryError(
                    f"the newest scan has no finding {what[:80]!a}",
                    code="review.finding",
                    context=plugin_id,
                    faults=[Fault("", "see what there is", f"capwasm review {plugin_id}")],
                )
            return {"what": what, "expires": expires}

        return self._say(RecordKind.EXCEPTION, plugin_id, version, key, why, say, "excepted")

    # -- inside -----------------------------------------------------------------------------------

    def _case(self, plugin: PluginRecord, version: str) -> Case:
        record = gate.version_of(plugin, version)
        try:
            candidate = self._registry.again(plugin.id, version)
        except CapwasmError as exc:
            trouble = f"{exc.code}: {exc.message}"
            standing = Standing(
                ok=False, needs=(Fault("", exc.message), *exc.faults), code=exc.code
            )
            return Case(record, plugin.serving, None, (), None, None, (), standing, trouble)
        registry = self._registry
        matter = registry.reviews.matter_of(candidate.artifact, candidate.manifest)
        found = registry.reviews.standing(matter, plugin, whole=True)
        return Case(
            record,
            plugin.serving,
            candidate.manifest,
            permissions(candidate.manifest, registry.reviews.capabilities),
            registry.scales.changes(plugin, candidate),
            found.report,
            found.votes,
            found,
            seen=seen_of(matter, found.report),
        )

    def _at_stake(self, plugin: PluginRecord) -> tuple[str, ...]:
        """The version that waits, and the one whose code may run, if a review could end that."""
        active = plugin.active
        if not self._registry.reviews.can_refuse(plugin):
            active = None
        return tuple(filter(None, (plugin.waiting, None if active is None else active.version)))

    def _say(self, kind: RecordKind, plugin_id: str, version: str | None, *how: Any) -> Case:
        outcome = self._said(kind, plugin_id, version, *how)
        return self._case(outcome.plugin, outcome.version)

    def _said(
        self,
        kind: RecordKind,
        plugin_id: str,
        version: str | None,
        key: PrivateKey,
        why: str,
        say: Callable[[Standing, Matter], dict[str, Any]],
        told: str,
    ) -> Outcome:
        """Sign a record of a version that was proven just now, and keep it."""
        registry = self._registry
        when = registry.now()
        with refusals(registry.recorder, kind.verb, lambda: plugin_id):
            name = "this home" if kind is RecordKind.SCAN else self._signer(key).name
            mark = mark_of(name, why, when)
            chosen = _choose(registry.show(plugin_id), version)
            candidate = registry.again(plugin_id, chosen)
            record = candidate.record
            matter = registry.reviews.matter_of(candidate.artifact, candidate.manifest)
            self._check_key(kind, key, matter, record.name)

            def work(draft: Draft, plugin: PluginRecord | None) -> tuple[str, str, tuple[str, ...]]:
                assert plugin is not None
                gate.same(plugin, record)
                before = registry.reviews.standing(matter, plugin, whole=True)
                made = Record.sign(kind, matter.bond, key, when, why, **say(before, matter))
                _refuse_twice(before, made, name, record.name)
                draft.say(made)
                after = registry.reviews.standing(matter, draft.done(), whole=True)
                _settle(draft, record, kind, after, required=registry.policy.review.required)
                if not draft.steps:
                    draft.note(chosen)
                return told, chosen, _words(made)

            return registry.change(plugin_id, kind.verb, mark, work)

    def _signer(self, key: PrivateKey) -> TrustedKey:
        """The key, by the trust store of today.

        Raises:
            RegistryError: `review.key`: it holds no such key.
        """
        found = self._registry.reviews.today().find(key.public.key_id)
        if found is None:
            raise RegistryError(
                "the trust store does not hold this key",
                code="review.key",
                faults=[
                    Fault(
                        "",
                        "who has a say in reviews stands in the trust store",
                        '[[key]]\nname = "NAME"\nroles = ["reviewer"]\nids = ["*"]\n'
                        f'public = "{key.public.base64()}"',
                    )
                ],
            )
        return found

    def _check_key(self, kind: RecordKind, key: PrivateKey, matter: Matter, name: str) -> None:
        if kind is RecordKind.SCAN:
            return
        trust, signer = self._registry.reviews.today(), self._signer(key)
        doubt = doubt_of_key(kind, signer, matter, trust, self._registry.now())
        if doubt is not None:
            raise RegistryError(f"key {signer.name}: {doubt[0]}", code="review.key", context=name)

    def _check_expiry(self, expires: datetime) -> None:
        now, days = self._registry.now(), self._registry.policy.review.exception_days
        if not now < expires <= now + timedelta(days=days):
            raise RegistryError(
                f"an exception ends within {days} days from now, not at {utc_text(expires)}",
                code="review.expiry",
                faults=[Fault("--expires", "policy: [review] exception-days")],
            )


def _choose(plugin: PluginRecord, version: str | None) -> str:
    """The version that is meant.

    Raises:
        RegistryError: `registry.unknown`.
    """
    chosen = version or plugin.waiting or plugin.serving
    if chosen is None:
        raise RegistryError(
            "no version of it is here",
            code="registry.unknown",
            context=plugin.id,
            faults=[Fault("", "nothing waits or serves", "capwasm submit FILE")],
        )
    return gate.version_of(plugin, chosen).version


def _settle(
    draft: Draft, record: VersionRecord, kind: RecordKind, after: Standing, *, required: bool
) -> None:
    """Bring a version that waits to where what was said brings it."""
    version = record.version
    if draft.waiting != version:
        return  # it serves, or did: whether it may is asked at each load
    if kind is RecordKind.REJECTION:
        draft.move(version, None)
        draft.waiting = None
    elif kind is RecordKind.SCAN:
        draft.scan(version)
    if required and after.ok:
        draft.review(version)


def _refuse_rejected(now: Standing, plugin_id: str) -> None:
    if now.code == "review.rejected":
        raise RegistryError(
            "this version was rejected, for good; a new version can be reviewed",
            code="review.rejected",
            context=plugin_id,
            faults=now.needs,
        )


def _refuse_unseen(seen: str | None, matter: Matter, now: Standing, plugin_id: str) -> None:
    """Refuse a word of what was shown before something else came."""
    if seen is not None and seen != seen_of(matter, now.report):
        raise RegistryError(
            "it is not what you were shown: other content, or a newer scan",
            code="review.changed",
            context=plugin_id,
            faults=[Fault("--seen", "look again", f"capwasm review {plugin_id}")],
        )


def _refuse_weaker(before: Report | None, made: Report, plugin_id: str) -> None:
    """Refuse a scan that looked at less: what the one before it found would be forgotten."""
    looked = {run.name for run in before.scanners if not run.skipped} if before else set()
    faults = [
        Fault(run.name, f"it looked before, and now: {run.skipped}")
        for run in made.scanners
        if run.skipped and run.name in looked
    ]
    if faults:
        raise RegistryError(
            "the scan on record looked at more than this one",
            code="review.weaker",
            context=plugin_id,
            faults=faults,
        )


def _refuse_twice(before: Standing, made: Record, name: str, version: str) -> None:
    """Refuse what adds nothing: the same person, the same word, and nothing new was seen."""
    if made.kind is RecordKind.SCAN:
        return
    mine = [
        v
        for v in before.votes
        if v.counts
        and v.record.kind is made.kind
        and v.name == name
        and v.record.what == made.what
        and v.record.expires == made.expires
        and made.seen <= v.record.seen
    ]
    if mine:
        raise RegistryError(
            f"{name} has said this already, at {utc_text(mine[0].record.when)}",
            code="review.twice",
            context=version,
        )


def _words(record: Record) -> tuple[str, ...]:
    """What the audit log is told of a record."""
    report = record.report
    if report is not None:
        return tuple(f"{count} {severity}" for severity, count in report.counts.items())
    until = f" until {utc_text(record.expires)}" if record.expires else ""
    return tuple(filter(None, (f"key {record.key_id}", f"{record.what}{until}")))
