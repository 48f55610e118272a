"""What a manifest asks that it need not, and what it says of itself that it should not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from capwasm.capability import Risk
from capwasm.caps.net.address import METADATA as METADATA_ADDRESSES
from capwasm.caps.net.address import PUBLIC, Network, classify
from capwasm.caps.net.model import ALL_METHODS, NetClause
from capwasm.caps.net.pattern import ANY_ADDRESS, Subdomains
from capwasm.review.finding import Finding, Severity

from .lookalike import looks_like, mixed_scripts
from .model import Context, Rule, Scanner
from .subject import Subject

__all__ = ["SCANNERS"]

MANIFEST: Final = "plugin.toml"

INVALID: Final = Rule(
    "manifest.invalid",
    Severity.HIGH,
    "The manifest can't be read, or is not that of the signed plugin; it can't be loaded.",
    "Check it: capwasm manifest check plugin.toml.",
)
UNDESCRIBED: Final = Rule(
    "manifest.undescribed",
    Severity.NOTE,
    "The manifest leaves out what a reviewer wants to know.",
    "Write author, description and license in [plugin].",
)
UNEXPLAINED: Final = Rule(
    "manifest.unexplained",
    Severity.LOW,
    "A permission of high risk is asked for without a word of why.",
    'Write why = "…" in its table.',
)
EVERYWHERE: Final = Rule(
    "manifest.wide-host",
    Severity.MEDIUM,
    "It asks for all hosts below a name.",
    "Name the hosts that it needs.",
)
ANY_METHOD: Final = Rule(
    "manifest.any-method",
    Severity.MEDIUM,
    "It asks for every method of HTTP on a host.",
    "Name the methods that it needs.",
)
PLAIN: Final = Rule(
    "manifest.plain-http",
    Severity.MEDIUM,
    "It asks to send without encryption: who is on the way reads and changes all.",
    "Ask for https://.",
)
PRIVATE: Final = Rule(
    "manifest.private-address",
    Severity.HIGH,
    "It asks for addresses of private networks or of the machine itself.",
    "Leave it to the operator's policy which inner hosts there are.",
)
METADATA: Final = Rule(
    "manifest.metadata",
    Severity.CRITICAL,
    "It asks for an address where clouds hand credentials to whoever asks.",
    "Take the table out.",
)
ALIKE: Final = Rule(
    "manifest.look-alike",
    Severity.HIGH,
    "Its id may be taken for that of another publisher's plugin.",
    "Give it another id.",
)
SCRIPTS: Final = Rule(
    "manifest.mixed-scripts",
    Severity.HIGH,
    "A word of its name mixes letters of scripts that look alike.",
    "Write the name in one script.",
)


def _asks(subject: Subject, context: Context) -> Iterator[Finding]:
    if subject.manifest_fault:
        yield INVALID.at(MANIFEST, subject.manifest_fault)
    if (other := looks_like(subject.identity.id, context.ids)) is not None:
        yield ALIKE.at(f"{MANIFEST}:plugin.id", f"{subject.identity.id}, as {other}")
    if subject.manifest is None:
        return
    plugin = subject.manifest.plugin
    missing = [w for w in ("author", "description", "license") if not getattr(plugin, w)]
    if missing:
        yield UNDESCRIBED.at(f"{MANIFEST}:plugin", ", ".join(missing))
    for word in ("name", "author"):
        if (scripts := mixed_scripts(getattr(plugin, word))) is not None:
            yield SCRIPTS.at(f"{MANIFEST}:plugin.{word}", f"{getattr(plugin, word)} ({scripts})")
    for asked, clause, risk in subject.permissions():
        place = f"{MANIFEST}:{asked.path}"
        if risk is Risk.HIGH and not asked.why.strip():
            yield UNEXPLAINED.at(place, clause.describe())
        if isinstance(clause, NetClause):
            yield from _net(place, clause)


def _net(place: str, clause: NetClause) -> Iterator[Finding]:
    if isinstance(clause.host, Subdomains):
        yield EVERYWHERE.at(place, clause.pattern)
    if clause.methods == ALL_METHODS:
        yield ANY_METHOD.at(place, clause.pattern)
    if clause.scheme == "http":
        yield PLAIN.at(place, clause.pattern)
    named = [clause.host] if isinstance(clause.host, Network) else list(clause.addresses)
    if not isinstance(clause.host, Network) and clause.addresses == ANY_ADDRESS:
        return  # it says nothing of addresses
    for network in sorted(named, key=str):
        if any(a in network for a in METADATA_ADDRESSES if a.version == network.version):
            # A wide network does not open such an address; naming just it would.
            exact = network.num_addresses == 1
            yield (METADATA if exact else PRIVATE).at(place, str(network))
        elif any(
            classify(a) != PUBLIC for a in (network.network_address, network.broadcast_address)
        ):
            yield PRIVATE.at(place, f"{network} ({classify(network.network_address)})")


SCANNERS: Final = (
    Scanner(
        "manifest",
        _asks,
        (
            INVALID,
            UNDESCRIBED,
            UNEXPLAINED,
            EVERYWHERE,
            ANY_METHOD,
            PLAIN,
            PRIVATE,
            METADATA,
            ALIKE,
            SCRIPTS,
        ),
    ),
)
