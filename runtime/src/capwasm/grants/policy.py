"""Stage 3: the operator's `policy.toml` becomes a `Policy`: what plugins may be granted at most.

What no rule allows is refused.  Rules that speak of the same plugin add up; a deny beats every
allow; limits only ever go down.  A policy grants nothing by itself: see `grants`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from os import PathLike
from types import MappingProxyType
from typing import Any, Final, Self, final

from capwasm._files import read_file
from capwasm._model import MAX_TEXT_BYTES, ModelT, parse_toml, validate
from capwasm._stage import Proof
from capwasm.capability import Risk
from capwasm.capsule.identity import check_id_pattern, id_matches
from capwasm.capsule.trust import Requirement
from capwasm.errors import Fault, PolicyError
from capwasm.lattice import Clause, ClauseSet
from capwasm.limits import CEILING, Limits

from ._document import (
    AnyCapability,
    join,
    parse_limits,
    parse_tables,
    plain_faults,
    table_of,
    told,
    unknown_words,
)
from ._lines import header_lines
from .audit import AuditRule
from .governance import Governance, GovernanceRule
from .isolation import Isolations
from .review import ReviewRule
from .scan import ScanRule
from .strikes import StrikesRule
from .tables import Head, RevocationRule, Tables
from .updates import UpdatesRule

__all__ = ["SCHEMA", "ForPlugin", "Policy", "Rule", "Selector"]

SCHEMA: Final = 1
MAX_SELECTORS: Final = 1024
MAX_RULES: Final = 256
# What an operator's text may hold that a plugin's may not.
_TEXT: Final = "\n\t"


@dataclass(frozen=True, slots=True)
class Rule:
    """One table of the policy that allows or denies.

    Attributes:
        path: where it stands: `plugins."acme.*".net[0]`.
        line: its line in the file, or None if that can't be told.
        clauses: what it speaks of.
    """

    path: str
    line: int | None
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Selector:
    """What a policy says of the plugins that one pattern names.

    Attributes:
        pattern: `acme.weather`, `acme.*` or `*`.   path: `plugins."acme.*"`.
        allow, deny: rules by capability.
        limits: the ceiling where none is named.   named: the limits that are.
    """

    pattern: str
    path: str
    allow: Mapping[str, tuple[Rule, ...]]
    deny: Mapping[str, tuple[Rule, ...]]
    limits: Limits
    named: frozenset[str]


@dataclass(frozen=True, slots=True)
class ForPlugin:
    """What a policy says of one plugin: the sum of the rules that match it.

    Attributes:
        allow, deny: rules by capability.
        limits: the smallest of each limit that is named; the ceiling where none is.
        raised: limits that a rule of the plugin's own names, so that no consent is needed for them.
        sources: by limit, the path of the rule that set it.
    """

    allow: Mapping[str, tuple[Rule, ...]]
    deny: Mapping[str, tuple[Rule, ...]]
    limits: Limits
    raised: frozenset[str]
    sources: Mapping[str, str]

    def allowed(self, capability: str) -> ClauseSet[Any]:
        """All that is allowed of a capability, before what is denied."""
        return ClauseSet.of(c for r in self.allow.get(capability, ()) for c in r.clauses)

    def denied(self, capability: str) -> ClauseSet[Any]:
        """All that is denied of a capability."""
        return ClauseSet.of(c for r in self.deny.get(capability, ()) for c in r.clauses)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Policy(Proof):
    """What the operator allows.  Made by `Policy.load` or `Policy.nothing` alone.

    Attributes:
        owner: who answers for it, or empty.   review_by: when it is to be looked at again.
        requirement: whose signature a load needs.
        automatic: capabilities whose low and medium risks need no person's consent.
        revocation: where the revocation feed comes from, and how old it may be.
        updates: which new versions serve without a person, and how they prove good.
        audit: how the audit log is written, and how long it is kept.
        review: what must have been said of a plugin before it serves.
        strikes: how much a plugin may misbehave before it is stopped.
        isolation: whose code runs in a process of its own, and behind what.
        scan: what scanners look with, and whose.
        governed: what happens when it is due to be looked at again; see `governance`.
        ceiling: limits above which no plugin goes.
        selectors: what it says of which plugins, as written.   deny: rules for every plugin.
        words: those at its top that are written.   lines: of its headers, by path.
        source: what messages call the file.   digest: SHA-256 of its bytes, in hex.
    """

    owner: str = ""
    review_by: date | None = None
    requirement: Requirement = field(default_factory=Requirement)
    automatic: frozenset[str] = frozenset()
    revocation: RevocationRule = field(default_factory=RevocationRule)
    updates: UpdatesRule = field(default_factory=UpdatesRule)
    audit: AuditRule = field(default_factory=AuditRule)
    review: ReviewRule = field(default_factory=ReviewRule)
    strikes: StrikesRule = field(default_factory=StrikesRule)
    isolation: Isolations = field(default_factory=Isolations)
    scan: ScanRule = field(default_factory=ScanRule)
    governed: GovernanceRule = field(default_factory=GovernanceRule)
    ceiling: Limits = CEILING
    selectors: tuple[Selector, ...] = ()
    deny: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    words: Collection[str] = ()
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)
    source: str = "policy.toml"
    digest: str = ""
    _ceiling_named: frozenset[str] = field(default=frozenset(), repr=False)

    @classmethod
    def nothing(cls) -> Self:
        """The policy of an operator who wrote none: it allows nothing."""
        return cls.made()

    @classmethod
    def load(
        cls, source: bytes | str | PathLike[str], capabilities: Sequence[AnyCapability]
    ) -> Self:
        """Read a policy, once.

        Args:
            source: the file's path, or its bytes.
            capabilities: those that there are; a table of any other is an unknown word.

        Raises:
            PolicyError: `policy.unreadable`, `policy.permissions` (anyone may write it, or
                another user owns it), `policy.toml`, `policy.schema`, else `policy.invalid` with all faults.
        """
        if isinstance(source, bytes):
            return _parse(cls, source, "policy.toml", capabilities)
        data = read_file(
            source,
            MAX_TEXT_BYTES,
            PolicyError,
            code="policy.unreadable",
            too_large="policy.toml",
            refuse_mode=0o002,
            refuse_owner=True,
            mode_code="policy.permissions",
        )
        return _parse(cls, data, ascii(str(source))[1:-1], capabilities)

    def for_plugin(self, plugin_id: str) -> ForPlugin:
        """What this policy says of one plugin."""
        matching = [s for s in self.selectors if id_matches(s.pattern, plugin_id)]
        limits, sources = self.ceiling, dict.fromkeys(self._ceiling_named, "limits")
        for selector in matching:
            before, limits = limits.to_table(), limits.meet(selector.limits)
            after = limits.to_table()
            sources |= {w: f"{selector.path}.limits" for w in after if after[w] < before[w]}
        return ForPlugin(
            allow=_merge(s.allow for s in matching),
            deny=_merge([self.deny, *(s.deny for s in matching)]),
            limits=limits,
            raised=frozenset(w for s in matching for w in s.named),
            sources=MappingProxyType(sources),
        )

    @property
    def patterns(self) -> tuple[str, ...]:
        """The selectors of its plugins, as written."""
        return tuple(s.pattern for s in self.selectors)

    def remarks(self, capabilities: Sequence[AnyCapability], today: date) -> list[Fault]:
        """What is no fault, but what its owner should know."""
        found = [*self.governance(today).remarks(), *self.isolation.remarks()]
        for capability in capabilities:
            if capability.name not in self.automatic:
                continue
            rules = [r for s in self.selectors for r in s.allow.get(capability.name, ())]
            for rule in rules:
                high = [w for r, w in map(capability.risk, rule.clauses) if r is Risk.HIGH]
                if high:
                    message = f"is a high risk, so consent.automatic has no effect on it: {high[0]}"
                    found.append(Fault(rule.path, message))
        return found

    def governance(self, today: date) -> Governance:
        """Who answers for it, and whether it is due to be looked at again on that day."""
        return Governance(self.owner, self.review_by, today, self.governed, bool(self.digest))


def _merge(tables: Any) -> Mapping[str, tuple[Rule, ...]]:
    merged: dict[str, tuple[Rule, ...]] = {}
    for table in tables:
        for name, rules in table.items():
            merged[name] = merged.get(name, ()) + rules
    return MappingProxyType(merged)


def _parse(
    cls: type[Policy], data: bytes, context: str, capabilities: Sequence[AnyCapability]
) -> Policy:
    doc = parse_toml(data, PolicyError, code="policy.toml", context=context)
    schema = doc.get("schema")
    if isinstance(schema, int) and SCHEMA < schema < 2**63:
        raise PolicyError(
            f"schema {schema}; this runtime knows up to {SCHEMA}: update the runtime",
            code="policy.schema",
            context=context,
        )
    faults = plain_faults(doc, allowed=_TEXT)
    if faults:  # Nothing below may meet such a value.
        raise _invalid(faults, context)
    if type(schema) is not int or schema != SCHEMA:
        faults.append(Fault("schema", f"write schema = {SCHEMA} as the first line"))
    reader = _Reader(capabilities, header_lines(data.decode()), faults)
    faults += unknown_words(doc, _TOP, "")
    faults += [
        Fault("", f'a rule for all plugins is written [[plugins."*".{c.name}]]')
        for c in capabilities
        if c.name in doc
    ]
    head = reader.model(Head, {w: doc[w] for w in _HEAD if w in doc})
    tables = reader.model(Tables, {w: table_of(doc, w, "", faults) for w in _TABLES if w in doc})
    faults += _automatic_faults(doc, {c.name for c in capabilities})
    if head and tables and tables.governance.overdue == "refuse" and head.review_by is None:
        faults.append(Fault("governance.overdue", "refuse needs a date at the top: review-by"))
    limits = table_of(doc, "limits", "", faults)
    ceiling = parse_limits(limits, "limits", CEILING, faults)
    deny = reader.rules(table_of(doc, "deny", "", faults), "deny", ())
    selectors = reader.selectors(table_of(doc, "plugins", "", faults))
    if faults or head is None or tables is None:
        raise _invalid(faults, context)
    return cls.made(
        owner=head.owner,
        review_by=date.fromisoformat(head.review_by) if head.review_by else None,
        requirement=Requirement(frozenset(tables.trust.require), tables.trust.reviewed),
        automatic=frozenset(tables.consent.automatic),
        revocation=tables.revocation,
        updates=tables.updates,
        audit=tables.audit,
        review=tables.review,
        strikes=tables.strikes,
        isolation=Isolations(tables.isolation, reader.lines.get("isolation"), "isolation" in doc),
        scan=tables.scan,
        ceiling=ceiling,
        source=context,
        digest=hashlib.sha256(data).hexdigest(),
        _ceiling_named=frozenset(limits),
        governed=tables.governance,
        selectors=tuple(selectors),
        deny=MappingProxyType(deny),
        words=frozenset(doc),
        lines=MappingProxyType(dict(reader.lines)),
    )


def _automatic_faults(doc: Mapping[str, Any], names: Collection[str]) -> Iterator[Fault]:
    wanted = table_of(doc, "consent", "", []).get("automatic")
    for i, word in enumerate(wanted if isinstance(wanted, list) else ()):
        if isinstance(word, str) and word not in names:
            valid = ", ".join(sorted(names))
            yield Fault(f"consent.automatic[{i}]", f"no capability {word[:64]!r}; valid: {valid}")


_HEAD: Final = ("owner", "review-by")
_TABLES: Final = tuple(Tables.model_fields)
_TOP: Final = ("schema", *_HEAD, *_TABLES, "limits", "deny", "plugins")


def _invalid(faults: Sequence[Fault], context: str) -> PolicyError:
    message, shown = told(faults)
    return PolicyError(message, context=context, faults=shown)


class _Reader:
    """Parts of a policy, whose faults all go to one list."""

    def __init__(
        self,
        capabilities: Sequence[AnyCapability],
        lines: Mapping[str, int],
        faults: list[Fault],
    ) -> None:
        self.capabilities = capabilities
        self.lines = lines
        self.faults = faults

    def model(self, model: type[ModelT], table: Mapping[str, Any]) -> ModelT | None:
        try:
            return validate(model, table, PolicyError)
        except PolicyError as exc:
            self.faults += exc.faults
            return None

    def rules(
        self, table: Mapping[str, Any], path: str, others: Sequence[str]
    ) -> dict[str, tuple[Rule, ...]]:
        """The rules of all capabilities in a table, which may also hold the words of `others`."""
        self.faults += unknown_words(table, [*others, *(c.name for c in self.capabilities)], path)
        found = {}
        for capability in self.capabilities:
            if capability.name not in table:
                continue
            rows = parse_tables(
                capability,
                table[capability.name],
                "policy",
                join(path, capability.name),
                self.faults,
                max_tables=MAX_RULES,
            )
            found[capability.name] = tuple(
                Rule(row.path, self.lines.get(row.path), row.clauses) for row in rows
            )
        return found

    def selectors(self, table: Mapping[str, Any]) -> list[Selector]:
        if len(table) > MAX_SELECTORS:
            self.faults.append(Fault("plugins", f"at most {MAX_SELECTORS} selectors"))
            return []
        found = []
        for pattern in table:
            path = join("plugins", pattern[:130])
            try:
                check_id_pattern(pattern)
            except ValueError as exc:
                self.faults.append(Fault(path, str(exc)))
            inner = table_of(table, pattern, "plugins", self.faults)
            limits = table_of(inner, "limits", path, self.faults)
            deny_path = f"{path}.deny"
            found.append(
                Selector(
                    pattern=pattern,
                    path=path,
                    allow=self.rules(inner, path, ("limits", "deny")),
                    deny=self.rules(table_of(inner, "deny", path, self.faults), deny_path, ()),
                    limits=parse_limits(limits, f"{path}.limits", CEILING, self.faults),
                    named=frozenset(limits),
                )
            )
        return found
