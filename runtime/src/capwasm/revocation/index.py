"""A feed made ready to be asked: is this plugin denied, and by which entry?

Built once a feed; each question then takes a few look-ups, however long the list is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from capwasm.capability import Capability
from capwasm.capsule.identity import id_matches
from capwasm.grants.semver import SemVer, VersionRange
from capwasm.lattice import Clause

from .feed import Feed

__all__ = ["Entry", "Index", "Subject"]

FINAL: Final = frozenset({"digest", "version", "plugin"})


@dataclass(frozen=True, slots=True)
class Subject:
    """A plugin that wants to be loaded, runs, or is installed.

    Attributes:
        digests: SHA-256 in hex of its archive and of each file in it.
        signers: key ids of the signatures that counted.
    """

    id: str
    version: str
    digests: frozenset[str]
    signers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Entry:
    """What of a feed denies a plugin.

    Attributes:
        kind: `digest`, `version`, `plugin`, `signer`, `capability` or `allow` (not on that list).
        what: what it names.   reason: the feed's.
    """

    kind: str
    what: str
    reason: str = ""

    @property
    def is_final(self) -> bool:
        """Whether it names the plugin's version itself, which then never serves again."""
        return self.kind in FINAL

    def __str__(self) -> str:
        """`version acme.weather <1.2.3: leaks keys`."""
        return f"{self.kind} {self.what}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True)
class _Denied:
    capability: str
    plugins: str
    clauses: tuple[Clause, ...] | None
    what: str
    reason: str


class Index:
    """Answers for one feed.  Nothing in it changes, so any thread may ask."""

    def __init__(self, feed: Feed, capabilities: Sequence[Capability[Any, Any]] = ()) -> None:
        """Build it.

        Args:
            feed: a verified feed, or one that was kept.
            capabilities: those that there are, to read the clauses of what is denied of them.
        """
        deny, allow = feed.content.deny, feed.content.allow
        self.sequence = feed.sequence
        self._digests, self._signers = deny.digests, deny.signers
        self._versions, self._plugins = deny.versions, deny.plugins
        self._allowed = None if allow is None else frozenset(allow.plugins)
        self._allowed_digests = frozenset(() if allow is None else allow.digests)
        known = {c.name: c for c in capabilities}
        self._capabilities = tuple(
            _Denied(
                e.capability,
                e.plugins,
                None if e.clause is None else _clauses(known.get(e.capability), e.clause),
                _what(e.capability, e.plugins, e.clause),
                e.reason,
            )
            for e in deny.capabilities
        )

    @property
    def final(self) -> frozenset[str]:
        """The digests that are denied."""
        return frozenset(self._digests)

    @property
    def signers(self) -> frozenset[str]:
        """The key ids whose signatures are denied."""
        return frozenset(self._signers)

    def find(self, subject: Subject) -> Entry | None:
        """What denies that plugin as a whole, or None.  A deny beats the list of what is allowed."""
        for digest in subject.digests:
            if digest in self._digests:
                return Entry("digest", digest, self._digests[digest])
        if (ranges := self._versions.get(subject.id)) is not None:
            version = SemVer.parse(subject.version)
            for text, reason in ranges.items():
                if VersionRange.parse(text).covers(version):
                    return Entry("version", f"{subject.id} {text}", reason)
        for pattern in _patterns(subject.id):
            if pattern in self._plugins:
                return Entry("plugin", pattern, self._plugins[pattern])
        for key in subject.signers:
            if key in self._signers:
                return Entry("signer", key, self._signers[key])
        if self._allowed is not None and not (
            not self._allowed.isdisjoint(_patterns(subject.id))
            or not self._allowed_digests.isdisjoint(subject.digests)
        ):
            return Entry("allow", "list does not hold it")
        return None

    def clause(self, plugin_id: str, capability: str, clause: Clause) -> Entry | None:
        """What denies a granted clause, or None.

        A clause that shares any operation with what is denied is ended as a whole.
        """
        for denied in self._capabilities:
            if denied.capability != capability or not id_matches(denied.plugins, plugin_id):
                continue
            if denied.clauses is None or any(clause.meet(c) is not None for c in denied.clauses):
                return Entry("capability", denied.what, denied.reason)
        return None


def _patterns(plugin_id: str) -> Iterable[str]:
    """Every pattern that matches an id; see `identity.id_matches`."""
    yield plugin_id
    at = plugin_id.rfind(".")
    while at > 0:
        yield plugin_id[: at + 1] + "*"
        at = plugin_id.rfind(".", 0, at)
    yield "*"


def _clauses(
    capability: Capability[Any, Any] | None, table: Mapping[str, Any]
) -> tuple[Clause, ...] | None:
    """What a table of policy.toml speaks of; None, which is all, if this runtime can't read it."""
    if capability is None:
        return None
    parsed = capability.parse([table], "policy")
    return None if parsed.faults or not parsed.clauses else tuple(parsed.clauses)


def _what(capability: str, plugins: str, clause: Mapping[str, Any] | None) -> str:
    of = "" if plugins == "*" else f" of {plugins}"
    part = "" if clause is None else " " + ascii(dict(clause))[:200]
    return capability + of + part
