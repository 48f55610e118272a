"""Addresses that are written into the code: URLs, hosts and IP addresses.

A plugin reaches no address but through its grants, so a host that its manifest does not ask for is
no hole; it is a sign of what the code was made to do, where it was made for another place than this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Final

from capwasm.caps.net.address import classify
from capwasm.caps.net.model import NetClause
from capwasm.caps.net.pattern import HostPattern, host_matches
from capwasm.caps.net.url import UrlError, parse_host
from capwasm.review.finding import Finding, Severity

from .model import Context, Rule, Scanner
from .subject import Subject
from .texts import Text, found_at

__all__ = ["SCANNERS"]

METADATA: Final = Rule(
    "hosts.metadata",
    Severity.HIGH,
    "The code names an address where clouds hand credentials to whoever asks.",
    "Take the address out.",
)
PRIVATE: Final = Rule(
    "hosts.private",
    Severity.MEDIUM,
    "The code names an address of a private network.",
    "Take the address from a setting ([config]).",
)
LOOPBACK: Final = Rule(
    "hosts.loopback",
    Severity.NOTE,
    "The code names an address of the machine that it runs on.",
)
PUBLIC: Final = Rule(
    "hosts.public-address",
    Severity.MEDIUM,
    "The code names a public IP address, where a name could be looked at and asked for.",
    "Use a name, and ask for it in [[net]].",
)
HOST: Final = Rule(
    "hosts.unasked",
    Severity.LOW,
    "The code holds a URL of a host that its manifest does not ask for.",
    "Ask for the host in [[net]], or take the URL out.",
)
ONION: Final = Rule(
    "hosts.onion", Severity.HIGH, "The code names a hidden service of Tor.", "Take the address out."
)
DROP: Final = Rule(
    "hosts.drop",
    Severity.HIGH,
    "The code names a service that takes data from anybody: a webhook, a paste bin, a tunnel.",
    "If the plugin rightly posts there, ask for the host in [[net]]; else take the URL out.",
)

# Where anybody can have data sent without an account of their own being seen.
_DROPS: Final = (
    b"hooks.slack.com/services/",
    b"discord.com/api/webhooks/",
    b"discordapp.com/api/webhooks/",
    b"api.telegram.org/bot",
    b"webhook.site",
    b"requestbin.",
    b"pipedream.net",
    b"pastebin.com",
    b"paste.ee",
    b"hastebin.com",
    b"transfer.sh",
    b"file.io/",
    b"gofile.io",
    b"anonfiles.com",
    b"ngrok.io",
    b"ngrok-free.app",
    b"trycloudflare.com",
    b"serveo.net",
    b"burpcollaborator.net",
    b"oastify.com",
    b"oast.fun",
    b"interact.sh",
    b"dnslog.cn",
)
# The names of metadata services, and the usual ways to write the address past a filter.
_METADATA: Final = (
    b"metadata.google.internal",
    b"metadata.azure.internal",
    b"instance-data.ec2.internal",
    b"0xa9fea9fe",
    b"//2852039166",
    b"0251.0376.0251.0376",
    b"::ffff:a9fe:a9fe",
    b"fd00:ec2::254",
)
_ONION: Final = re.compile(rb"(?<![a-z2-7])(?:[a-z2-7]{56}|[a-z2-7]{16})$")
_AUTHORITY: Final = re.compile(
    rb"://(?:[A-Za-z0-9._~-]{0,64}@)?(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253})"
)
_SCHEME: Final = re.compile(
    rb"(https?|wss?|ftps?|tcp|udp|socks5h?|mqtts?|redis|mongodb|amqps?)$", re.IGNORECASE
)
_LABELS: Final = re.compile(rb"(?:[A-Za-z0-9-]{1,63}\.)*$")
_QUAD: Final = re.compile(rb"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")
_MORE: Final = re.compile(rb"[\w.]|/[0-9]")
# Sites that texts point their readers to: identifiers of XML, links to docs.
_READING: Final = frozenset(
    """
    www.w3.org json-schema.org schemas.xmlsoap.org xmlns.com docs.rs doc.rust-lang.org crates.io
    github.com www.github.com raw.githubusercontent.com gitlab.com docs.python.org
    www.python.org bugs.python.org peps.python.org pypi.org golang.org go.dev pkg.go.dev
    www.npmjs.com nodejs.org developer.mozilla.org tc39.es www.unicode.org unicode.org
    www.ietf.org tools.ietf.org datatracker.ietf.org www.rfc-editor.org en.wikipedia.org
    stackoverflow.com spdx.org opensource.org www.apache.org www.gnu.org creativecommons.org
    bytecodealliance.org json.org data.iana.org ftp.unicode.org example.com example.org
    example.net www.example.com localhost
    """.split()  # noqa: SIM905  read more easily so
)
_LOCAL: Final = frozenset({"private", "shared", "link-local", "site-local"})


def _hosts(subject: Subject, _context: Context) -> Iterator[Finding]:
    seen: set[tuple[str, str]] = set()
    for text in subject.texts:
        if text.is_document:
            continue
        for finding, key in _in(text, subject):
            if (finding.rule, key) not in seen:
                seen.add((finding.rule, key))
                yield finding


def _in(text: Text, subject: Subject) -> Iterator[tuple[Finding, str]]:
    """Findings of one text, each with what it is about: each of these is told once."""
    asked = [c.host for _, c, _ in subject.permissions("net") if isinstance(c, NetClause)]
    low = text.data.lower()
    for at, word in found_at(low, _METADATA):
        yield METADATA.at(text.place(at), _text(word).strip("/")), "name"
    for at, _ in found_at(low, (b".onion",)):
        if (found := _ONION.search(low[max(0, at - 57) : at])) is not None:
            yield (
                ONION.at(text.place(at - len(found[0])), f"{_text(found[0])}.onion"),
                _text(found[0]),
            )
    for at, word in found_at(low, _DROPS):
        name = _LABELS.search(low[max(0, at - 64) : at])
        host = _text((name[0] if name else b"") + word).partition("/")[0].strip(".")
        if not _is_asked(host, asked):
            yield DROP.at(text.place(at), _url(text, at)), host
    yield from _quads(text, asked)
    for at, _ in found_at(low, (b"://",)):
        found = _AUTHORITY.match(low, at)
        if found is not None and _SCHEME.search(low[max(0, at - 8) : at]):
            host = _text(found[1]).rstrip(".")
            if (finding := _host(host, text, at)) is not None and not _is_asked(host, asked):
                yield finding, host


def _quads(text: Text, asked: Sequence[HostPattern]) -> Iterator[tuple[Finding, str]]:
    """Four numbers with dots between that stand alone: no version of five, no network."""
    for found in _QUAD.finditer(text.data):
        if _MORE.match(text.data, found.end()) or _MORE.match(
            text.data, max(0, found.start() - 1), found.start()
        ):
            continue
        quad = _text(found[0])
        finding = _address(quad, text.place(found.start()), named=False)
        if finding is not None and not _is_asked(quad, asked):
            yield finding, quad


def _host(host: str, text: Text, at: int) -> Finding | None:
    """A finding for the host of a URL; None for one that is another's matter."""
    if re.fullmatch(r"[0-9.]+|\[.*\]", host):
        return _address(host.strip("[]"), text.place(at), named=True)
    url = _url(text, at)
    others = (*_DROPS, *_METADATA, b".onion")
    if "." not in host or any(word in f"{url}/".lower().encode() for word in others):
        return None
    return HOST.at(text.place(at), url, severity=Severity.NOTE if host in _READING else None)


def _address(text: str, place: str, *, named: bool) -> Finding | None:
    """A finding for an IP address.

    Args:
        text: the address.
        place: where it stands.
        named: whether it stands in a URL; alone, four numbers may be a version.
    """
    try:
        kind = classify(ip_address(text))
    except ValueError:
        return None
    if kind == "metadata":
        return METADATA.at(place, text)
    if kind in _LOCAL:
        return PRIVATE.at(place, f"{text} ({kind})")
    if kind == "loopback":
        return LOOPBACK.at(place, text)
    if kind == "public" and named:
        return PUBLIC.at(place, text)
    return None


def _is_asked(host: str, asked: Sequence[HostPattern]) -> bool:
    try:
        parsed = parse_host(host)
    except UrlError:
        return False
    return any(host_matches(pattern, parsed) for pattern in asked)


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace")


def _url(text: Text, at: int) -> str:
    """The URL around a place, as far as it can be told."""
    head = re.search(rb"[a-zA-Z0-9+]*$", text.around(at, 8, 0))
    tail = re.match(rb"[!#-&(-;=?-\[\]_a-z~]*", text.around(at, 0, 120))
    return _text((head[0] if head else b"") + (tail[0] if tail else b""))


SCANNERS: Final = (
    Scanner(
        "hosts", _hosts, (METADATA, PRIVATE, LOOPBACK, PUBLIC, HOST, ONION, DROP), seconds=60.0
    ),
)
