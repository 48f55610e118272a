"""Stage 4: what was decided becomes `Grants`, or a denial that lists all that is missing.

Pure: no file, no clock, no power.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, final

from capwasm._stage import Proof
from capwasm.capability import Grant, GrantedClause
from capwasm.errors import GrantDeniedError
from capwasm.limits import Limits

from ._document import AnyCapability
from .consent import Consent, Subject
from .decide import Resolution, decide
from .isolation import Isolation
from .manifest import Manifest
from .policy import Policy

__all__ = ["Grants", "rehearse", "resolve"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Grants(Proof):
    """What one plugin may do.  Made by `resolve`, and for tools by `rehearse`.

    Attributes:
        subject: the bytes that they are for; whoever runs other bytes under them is wrong.
        by_capability: in the order of the capabilities; one that was not granted is not there.
        limits: in force.
        isolation: how its code is to run.
    """

    subject: Subject
    by_capability: Mapping[str, Grant[Any]]
    limits: Limits
    isolation: Isolation
    _resolution: Resolution = field(repr=False)

    def explain(self) -> Resolution:
        """Where each permission came from, and what narrowed it."""
        return self._resolution

    def lowered(self, limits: Limits) -> Grants:
        """The same permissions, under limits that are nowhere above `limits`."""
        return self._with(limits=self.limits.meet(limits))

    def apart(self, by: str) -> Grants:
        """The same permissions, for code in a process of its own, as `by` wants it."""
        return self._with(isolation=self.isolation.apart(by))

    def _with(self, **changed: Any) -> Grants:
        return Grants.made(**{f.name: getattr(self, f.name) for f in fields(self)} | changed)

    def revoke(self, reason: str, capability: str | None = None) -> int:
        """End all grants, or those of one capability, at once and for good; how many it ended."""
        leases = [
            granted.lease
            for name, grant in self.by_capability.items()
            if capability in (None, name)
            for granted in grant.allow
            if granted.lease.alive
        ]
        for lease in leases:
            lease.revoke(reason)
        return len(leases)


def resolve(
    manifest: Manifest,
    policy: Policy,
    consent: Consent,
    capabilities: Sequence[AnyCapability],
    *,
    core: str,
) -> Grants:
    """Grant what a plugin asks, as far as policy and consent allow.

    Args:
        manifest: what it asks.
        policy: what the operator allows; `Policy.nothing()` where there is none.
        consent: from `ConsentStore.find`, or `consent_for(subject)` where there is no store.
        capabilities: those that there are, in the order in which they open.
        core: the version of the application that embeds the runtime.

    Raises:
        GrantDeniedError: `grant.denied` with every missing permission, each with what would allow
            it; `grant.core-version` if the plugin is made for another core, `grant.native` if it is
            native code that the policy does not let run, `grant.legacy` if it has no manifest and
            the policy does not list it.
        ConsentError: the consent is about another plugin, or its record is malformed.
        ValueError: `core` is no version.
    """
    return _granted(manifest, decide(manifest, policy, consent, capabilities, core=core))


def rehearse(
    manifest: Manifest,
    policy: Policy,
    consent: Consent,
    capabilities: Sequence[AnyCapability],
    *,
    core: str | None,
) -> tuple[Resolution, Grants | GrantDeniedError]:
    """What `resolve` would come to, with all that led there; for tools, never for a load.

    Takes what `resolve` takes; `core` may be None for a tool that does not know it.

    Raises:
        ConsentError: the consent is about another plugin, or its record is malformed.
        ValueError: `core` is no version.
    """
    found = decide(manifest, policy, consent, capabilities, core=core)
    try:
        return found, _granted(manifest, found)
    except GrantDeniedError as exc:
        return found, exc


def _granted(manifest: Manifest, found: Resolution) -> Grants:
    if found.faults:
        missing = len(found.faults)
        owner = f" of {found.owner}" if found.owner else ""
        raise GrantDeniedError(
            f"{missing} thing{'s' if missing > 1 else ''} missing, by the policy{owner} and the"
            " consents",
            code=_code(manifest, found),
            context=f"{manifest.id} {manifest.version}",
            faults=found.faults,
        )
    grants = {
        name: Grant(tuple(GrantedClause(clause) for clause in clauses), found.deny[name])
        for name, clauses in found.allow.items()
        if clauses
    }
    return Grants.made(
        subject=found.subject,
        by_capability=MappingProxyType(grants),
        limits=found.bounds,
        isolation=found.isolation,
        _resolution=found,
    )


def _code(manifest: Manifest, found: Resolution) -> str:
    """The code of a denial: of what no permission would mend first."""
    if found.core:
        return "grant.core-version"
    if found.isolation.fault:
        return "grant.legacy" if manifest.legacy else "grant.native"
    return "grant.denied"
