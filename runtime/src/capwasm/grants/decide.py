"""What a manifest ∧ a policy ∧ a consent come to, clause by clause, and why.

Pure, and nothing is refused here: `grants.resolve` does that.  For each clause `c` that a plugin
asks for, with `P` what the policy allows and `K` what was consented to:

    effective(c) = c ∧ P ∧ K,  and  c ∧ P  where the policy consents by itself (never a high risk),
                   less what a deny rule ends

A clause that needs more authority than that, and is not optional, is denied.  Quantities (quotas,
rates) and limits narrow without a denial.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from capwasm.capability import Risk
from capwasm.errors import ConsentError, Fault
from capwasm.lattice import Clause, ClauseSet
from capwasm.limits import CEILING, DEFAULTS, Limits

from ._document import AnyCapability, limit_units
from .consent import Consent, ConsentEntry, Subject
from .isolation import Isolation
from .manifest import Asked, Manifest
from .policy import ForPlugin, Policy, Rule
from .remedy import consent_command, policy_lines
from .semver import SemVer

__all__ = ["Decision", "LimitRow", "Resolution", "decide"]

# given: a record for these bytes covers it.  automatic: the policy consents by itself, there being
# no record for these bytes.  narrower: a record covers less.  other-bytes: only other versions were
# consented to.
ConsentState = Literal["given", "automatic", "narrower", "withdrawn", "other-bytes", "none"]
Status = Literal["granted", "narrowed", "left out", "denied"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one clause of a manifest.

    Attributes:
        capability, path: `net`, and where it is asked: `net[0]`.
        asked: the clause.   optional, why: as the manifest says.
        risk, risk_why: of what is effective; of what is asked, where nothing is.
        allowed_by: rules of the policy that share something with it.
        denied_by: deny rules that end it.   cut_by: deny rules that take something out of it.
        consent: what consent there is.
        effective: what is in force of it.
        narrowed_by: `policy`, `consent`: the sides that gave less than the one before; to settle
            what was left open is not less.
        status: what became of it.
        faults: why it is denied; empty unless it is.
    """

    capability: str
    path: str
    asked: Clause
    optional: bool
    why: str
    risk: Risk
    risk_why: str
    allowed_by: tuple[Rule, ...]
    denied_by: tuple[Rule, ...]
    cut_by: tuple[Rule, ...]
    consent: ConsentState
    effective: tuple[Clause, ...]
    narrowed_by: tuple[str, ...]
    status: Status
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class LimitRow:
    """One limit, from each side.

    Attributes:
        asked: the manifest's, or the default.   named: whether the manifest names it.
        policy: the most that the policy allows.   source: the rule that says so, or empty.
        consent: the most that was consented to.
        effective: the smallest.
    """

    name: str
    unit: str
    asked: int
    named: bool
    policy: int
    source: str
    consent: int
    effective: int

    @property
    def narrowed_by(self) -> tuple[str, ...]:
        """The sides that hold it below what is asked."""
        sides = (("policy", self.policy), ("consent", self.consent))
        return tuple(side for side, value in sides if value == self.effective < self.asked)


@dataclass(frozen=True, slots=True)
class Resolution:
    """All that `decide` worked out.  It grants nothing: only `Grants` does.

    Attributes:
        subject: which bytes it is about.
        policy: what messages call the policy.   owner: who answers for it.
        decisions: one a clause asked for, in the order of the capabilities and of the manifest.
        limits: one row a limit.   bounds: the limits that a grant would hold.
        allow, deny: by capability, what a grant would hold.
        core: the fault if the plugin needs another version of the core.
        isolation: how its code is to run, and whether it may.
        consent: the consent in force for these bytes, or None.
    """

    subject: Subject
    policy: str
    owner: str
    decisions: tuple[Decision, ...]
    limits: tuple[LimitRow, ...]
    bounds: Limits
    allow: Mapping[str, ClauseSet[Any]]
    deny: Mapping[str, ClauseSet[Any]]
    core: Fault | None
    isolation: Isolation
    consent: ConsentEntry | None

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All that is missing; empty if the load may go on."""
        first = (f for f in (self.core, self.isolation.fault) if f)
        return (*first, *(f for d in self.decisions for f in d.faults))


def decide(
    manifest: Manifest,
    policy: Policy,
    consent: Consent,
    capabilities: Sequence[AnyCapability],
    *,
    core: str | None,
) -> Resolution:
    """Work out what `resolve` would grant or deny, and why.

    Takes what `resolve` takes; `core` may be None for a tool that does not know it, and then
    `requires-core` is not looked at.

    Raises:
        ConsentError: the consent is about another plugin, or its record is malformed.
        ValueError: `core` is no version.
    """
    subject = consent.subject
    if (subject.plugin, subject.manifest_digest) != (manifest.id, manifest.digest):
        raise ConsentError("the consent is about another manifest", context=manifest.id)
    rules = policy.for_plugin(manifest.id)
    record = consent.entry.record if consent.entry else None
    given = record.clauses(capabilities) if record else {}
    decisions: list[Decision] = []
    allow: dict[str, ClauseSet[Any]] = {}
    for capability in capabilities:
        request = manifest.requests.get(capability.name)
        if request is None:
            continue
        judge = _Judge(
            manifest, capability, policy, rules, consent, given.get(capability.name, _NONE)
        )
        decided, allow[capability.name] = judge.all(request.asked)
        decisions += decided
    fits = core is None or manifest.requires_core.allows(SemVer.parse(core))
    consented = record.bounds() if record else _without_consent(rules)
    bounds = manifest.limits.meet(rules.limits).meet(consented)
    return Resolution(
        subject=subject,
        policy=policy.source,
        owner=policy.owner,
        decisions=tuple(decisions),
        limits=tuple(_limit_rows(manifest, rules, consented, bounds)),
        bounds=bounds,
        allow=MappingProxyType(allow),
        deny=MappingProxyType({name: rules.denied(name) for name in allow}),
        core=None if fits else _core_fault(manifest, core),
        isolation=_isolation(manifest, policy),
        consent=consent.entry,
    )


_NONE: Final[ClauseSet[Any]] = ClauseSet.of()


def _isolation(manifest: Manifest, policy: Policy) -> Isolation:
    if manifest.legacy:
        return policy.isolation.for_legacy(manifest.legacy)
    plugin = manifest.plugin
    return policy.isolation.for_plugin(plugin.id, plugin.kind, asked=plugin.isolation)


def _core_fault(manifest: Manifest, core: str | None) -> Fault:
    return Fault(
        "plugin.requires-core",
        f"needs a core of {manifest.plugin.requires_core}; this one is {core}",
    )


class _Judge:
    """Decides on the clauses of one capability of one plugin."""

    def __init__(
        self,
        manifest: Manifest,
        capability: AnyCapability,
        policy: Policy,
        rules: ForPlugin,
        consent: Consent,
        given: ClauseSet[Any],
    ) -> None:
        self.manifest = manifest
        self.capability = capability
        self.policy = policy
        self.allow_rules = rules.allow.get(capability.name, ())
        self.deny_rules = rules.deny.get(capability.name, ())
        self.allowed = rules.allowed(capability.name)
        self.denied = rules.denied(capability.name)
        self.consent = consent
        self.given = given
        self.named = capability.name in policy.automatic
        # Where a person has decided on these very bytes, the policy decides for nobody.
        self.may_consent = self.named and consent.entry is None and consent.withdrawn is None
        self.unmet: list[Clause] = []

    def all(self, asked: Iterable[Asked]) -> tuple[list[Decision], ClauseSet[Any]]:
        """A decision for each clause, and what is in force of all of them."""
        items = [(a, c, self._sides(c)) for a in asked for c in a.clauses]
        in_force = ClauseSet.of(c for _, _, (_, effective) in items for c in effective)
        self.unmet = [
            c for a, c, (p, _) in items if not a.optional and not any(c.satisfied_by(x) for x in p)
        ]
        return [self._decision(a, c, p, e, in_force) for a, c, (p, e) in items], in_force

    def _sides(self, clause: Clause) -> tuple[list[Clause], list[Clause]]:
        """What the policy leaves of a clause, and what the consent leaves of that."""
        by_policy = self._undenied(ClauseSet.of([clause]).meet(self.allowed))
        by_consent = ClauseSet.of(by_policy).meet(self.given)
        automatic = [c for c in by_policy if self._is_automatic(c)]
        return by_policy, self._undenied(ClauseSet.of([*by_consent, *automatic]))

    def _undenied(self, clauses: ClauseSet[Any]) -> list[Clause]:
        return [c for c in clauses if not any(c.denied_by(d) for d in self.denied)]

    def _is_automatic(self, clause: Clause) -> bool:
        return self.may_consent and self.capability.risk(clause)[0] is not Risk.HIGH

    def _decision(
        self,
        asked: Asked,
        clause: Clause,
        by_policy: list[Clause],
        effective: list[Clause],
        in_force: ClauseSet[Any],
    ) -> Decision:
        shares = [r for r in self.allow_rules if any(clause.meet(c) is not None for c in r.clauses)]
        ends, cuts = self._deny_rules(clause, by_policy)
        consent = self._consent_state(clause, by_policy)
        missing = bool(ClauseSet.of([clause]).missing_from(in_force))
        faults: list[Fault] = []
        if missing and not asked.optional:
            faults = [
                *self._policy_faults(asked.path, clause, by_policy, shares, ends),
                *self._consent_faults(asked.path, clause, consent),
            ] or [Fault(asked.path, "policy and consent together leave less than it needs")]
        whole = any(_keeps(e, clause) for e in effective)
        narrowed = []
        if not any(_keeps(c, clause) for c in by_policy):
            narrowed.append("policy")
        if any(not any(_keeps(e, c) for e in effective) for c in by_policy):
            narrowed.append("consent")
        risk, risk_why = self.capability.risk(effective[0] if effective else clause)
        for other in effective[1:]:
            risk, risk_why = max(
                (risk, risk_why), self.capability.risk(other), key=lambda r: _GRAVITY[r[0]]
            )
        return Decision(
            capability=self.capability.name,
            path=asked.path,
            asked=clause,
            optional=asked.optional,
            why=asked.why,
            risk=risk,
            risk_why=risk_why,
            allowed_by=tuple(shares),
            denied_by=tuple(ends),
            cut_by=tuple(cuts),
            consent=consent,
            effective=tuple(effective),
            narrowed_by=tuple(narrowed),
            status=_status(bool(faults), bool(effective), whole),
            faults=tuple(faults),
        )

    def _deny_rules(self, clause: Clause, by_policy: list[Clause]) -> tuple[list[Rule], list[Rule]]:
        """The deny rules that end a clause, and those that only take something out of it."""
        pieces = [clause, *ClauseSet.of([clause]).meet(self.allowed)]
        touching = [
            r
            for r in self.deny_rules
            if any(p.meet(d) is not None or p.denied_by(d) for p in pieces for d in r.clauses)
        ]
        if by_policy:
            return [], touching
        ends = [r for r in touching if any(p.denied_by(d) for p in pieces for d in r.clauses)]
        return ends, [r for r in touching if r not in ends]

    def _consent_state(self, clause: Clause, by_policy: list[Clause]) -> ConsentState:
        covered = ClauseSet.of([clause]).meet(self.given)
        if any(clause.satisfied_by(c) for c in covered):
            return "given"
        pieces = by_policy or [clause]
        if all(self._is_automatic(c) for c in pieces):
            return "automatic"
        if self.consent.entry is not None:
            return "narrower"
        if self.consent.withdrawn is not None:
            return "withdrawn"
        return "other-bytes" if self.consent.others else "none"

    def _policy_faults(
        self,
        path: str,
        clause: Clause,
        by_policy: list[Clause],
        shares: list[Rule],
        ends: list[Rule],
    ) -> list[Fault]:
        what = clause.describe()
        if any(clause.satisfied_by(c) for c in by_policy):
            return []
        if ends:
            return [
                Fault(path, f"policy: {what} is denied by {_place(r)}", fix=f"remove {_place(r)}")
                for r in ends
            ]
        wanted = [clause] if self.capability.repeated else self.unmet
        fix = policy_lines(self.capability, self.manifest.id, wanted, self.allow_rules)
        if shares:
            places = ", ".join(_place(r) for r in shares)
            return [Fault(path, f"policy: {what} is more than {places} allows", fix=fix)]
        return [Fault(path, f"policy: no rule allows to {what}", fix=fix)]

    def _consent_faults(self, path: str, clause: Clause, state: ConsentState) -> list[Fault]:
        if state in ("given", "automatic"):
            return []
        what = clause.describe()
        message = {
            "none": f"no consent is recorded to {what}",
            "other-bytes": f"consent to {what} is recorded for other bytes, not for these",
            "withdrawn": f"consent to {what} was withdrawn",
            "narrower": f"consent is given for less than to {what}",
        }[state]
        risk, why = self.capability.risk(clause)
        if self.named and risk is Risk.HIGH:
            message += (
                f"; consent.automatic names {self.capability.name}, but a high risk is for a"
                f" person to decide: {why}"
            )
        elif self.named:
            message += (
                f"; consent.automatic names {self.capability.name}, but does not overrule a person"
            )
        return [
            Fault(
                path,
                f"consent: {message}",
                fix=consent_command(self.manifest.identity),
            )
        ]


_GRAVITY: Final = {Risk.LOW: 0, Risk.MEDIUM: 1, Risk.HIGH: 2}


def _keeps(given: Clause, asked: Clause) -> bool:
    """Whether `given` is all that was asked, or only settles what that left open (a directory)."""
    if asked.within(given):
        return True
    words = given.to_toml()
    same = all(words.get(word, value) == value for word, value in asked.to_toml().items())
    return same and asked.satisfied_by(given)


def _status(denied: bool, some: bool, whole: bool) -> Status:
    if denied:
        return "denied"
    if whole:
        return "granted"
    return "narrowed" if some else "left out"


def _place(rule: Rule) -> str:
    return f"{rule.path} (line {rule.line})" if rule.line else rule.path


def _without_consent(rules: ForPlugin) -> Limits:
    """The defaults, save where a rule of the plugin's own names a limit: nobody else raised it."""
    table = DEFAULTS.to_table() | {w: CEILING.to_table()[w] for w in rules.raised}
    return Limits.from_table(table, DEFAULTS)


def _limit_rows(
    manifest: Manifest, rules: ForPlugin, consented: Limits, bounds: Limits
) -> Iterable[LimitRow]:
    asked, policy, consent = (x.to_table() for x in (manifest.limits, rules.limits, consented))
    effective, units = bounds.to_table(), limit_units()
    for name in asked:
        yield LimitRow(
            name=name,
            unit=units[name],
            asked=asked[name],
            named=name in manifest.named_limits,
            policy=policy[name],
            source=rules.sources.get(name, ""),
            consent=consent[name],
            effective=effective[name],
        )
