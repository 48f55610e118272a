"""Addresses that are written into the code: URLs, hosts and IP addresses.

A plugin reaches no address but through its grants, so a host that its manifest does not ask for is
no hole; it is a sign of what the code was made to do, where it was made for another place than this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from capwasm.caps.net.address import classify
from capwasm.caps.net.pattern import host_matches
from capwasm.caps.net.url import Host, UrlError, parse_host
from capwasm.review.finding import Finding, Severity

from .model import Context, Rule, Scanner
from .subject import Subject
from .texts import Text, texts

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
_DROP: Final = re.compile(rb"|".join(map(re.escape, _DROPS)), re.IGNORECASE)
# The names of metadata services, and the usual ways to write the address past a filter.
_METADATA: Final = re.compile(
    rb"metadata\.google\.internal|metadata\.azure\.internal|instance-data\.ec2\.internal"
    rb"|0xa9fea9fe\b|\b2852039166\b|\b0251\.0376\.0251\.0376\b|::ffff:a9fe:a9fe|fd00:ec2::254",
    re.IGNORECASE,
)
_ONION: Final = re.compile(rb"\b(?:[a-z2-7]{56}|[a-z2-7]{16})\.onion\b", re.IGNORECASE)
_AUTHORITY: Final = re.compile(
    rb"://(?:[A-Za-z0-9._~-]{0,64}@)?(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253})"
)
_SCHEME: Final = re.compile(
    rb"(https?|wss?|ftps?|tcp|udp|socks5h?|mqtts?|redis|mongodb|amqps?)$", re.IGNORECASE
)
_LABELS: Final = re.compile(rb"(?:[A-Za-z0-9-]{1,63}\.)*$")
_QUAD: Final = re.compile(rb"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]|/\d)")
# Sites that texts point their readers to: identifiers of XML, links to docs.
_READING: Final = frozenset(
    [
        "www.w3.org",
        "json-schema.org",
        "schemas.xmlsoap.org",
        "xmlns.com",
        "docs.rs",
        "doc.rust-lang.org",
        "crates.io",
        "github.com",
        "www.github.com",
        "raw.githubusercontent.com",
        "gitlab.com",
        "docs.python.org",
        "www.python.org",
        "bugs.python.org",
        "peps.python.org",
        "pypi.org",
        "golang.org",
        "go.dev",
        "pkg.go.dev",
        "www.npmjs.com",
        "nodejs.org",
        "developer.mozilla.org",
        "tc39.es",
        "www.unicode.org",
        "unicode.org",
        "www.ietf.org",
        "tools.ietf.org",
        "datatracker.ietf.org",
        "www.rfc-editor.org",
        "en.wikipedia.org",
        "stackoverflow.com",
        "spdx.org",
        "opensource.org",
        "www.apache.org",
        "www.gnu.org",
        "creativecommons.org",
        "bytecodealliance.org",
        "example.com",
        "example.org",
        "example.net",
        "www.example.com",
        "localhost",
    ]
)
_LOCAL: Final = frozenset({"private", "shared", "link-local", "site-local"})


def _hosts(subject: Subject, _context: Context) -> Iterator[Finding]:
    seen: set[tuple[str, str]] = set()
    for text in texts(subject):
        if text.is_document:
            continue
        for finding, key in _in(text, subject):
            if (finding.rule, key) not in seen:
                seen.add((finding.rule, key))
                yield finding


def _in(text: Text, subject: Subject) -> Iterator[tuple[Finding, str]]:
    """Findings of one text, each with what it is about: each of these is told once."""
    asked = _asked(subject)
    for found in _METADATA.finditer(text.data):
        yield METADATA.at(text.place(found.start()), _text(found[0])), "name"
    for found in _ONION.finditer(text.data):
        yield ONION.at(text.place(found.start()), _text(found[0])), _text(found[0])
    for found in _DROP.finditer(text.data):
        before = bytes(text.data[max(0, found.start() - 64) : found.start()])
        host = _text(_LABELS.search(before)[0] + found[0]).lower().partition("/")[0].strip(".")  # type: ignore[index]
        if not _is_asked(host, asked):
            yield DROP.at(text.place(found.start()), _context_of(text, found)), host
    for found in _QUAD.finditer(text.data):
        if (
            finding := _address(_text(found[0]), text.place(found.start()), named=False)
        ) is not None:
            yield finding, _text(found[0])
    for found in _AUTHORITY.finditer(text.data):
        before = bytes(text.data[max(0, found.start() - 8) : found.start()])
        if not _SCHEME.search(before):
            continue
        host = _text(found[1]).rstrip(".").lower()
        place = text.place(found.start())
        if re.fullmatch(r"[\d.]+|\[.*\]", host):
            finding = _address(host.strip("[]"), place, named=True)
            if finding is not None and not _is_asked(host.strip("[]"), asked):
                yield finding, host
        elif (
            "." in host
            and not _DROP.search(_context_of(text, found).encode() + b"/")
            and not _METADATA.search(host.encode())
            and not host.endswith(".onion")
            and not _is_asked(host, asked)
        ):
            note = Severity.NOTE if host in _READING else None
            yield HOST.at(place, _context_of(text, found), severity=note), host


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


def _asked(subject: Subject) -> list[object]:
    return [clause.host for _, clause, _ in subject.permissions("net") if hasattr(clause, "host")]


def _is_asked(host: str, asked: list[object]) -> bool:
    try:
        parsed: Host = parse_host(host)
    except UrlError:
        return False
    return any(host_matches(pattern, parsed) for pattern in asked)  # type: ignore[arg-type]


def _text(data: bytes) -> str:
    return bytes(data).decode("ascii", "replace")


def _context_of(text: Text, found: re.Match[bytes]) -> str:
    """The URL around a match, as far as it can be told."""
    start = max(0, found.start() - 8)
    head = re.search(rb"[a-zA-Z0-9+]*$", bytes(text.data[start : found.start()]))
    tail = re.match(
        rb"[!#-&(-;=?-\[\]_a-z~]*", bytes(text.data[found.start() : found.start() + 120])
    )
    return _text((head[0] if head else b"") + (tail[0] if tail else b""))


SCANNERS: Final = (
    Scanner(
        "hosts", _hosts, (METADATA, PRIVATE, LOOPBACK, PUBLIC, HOST, ONION, DROP), seconds=60.0
    ),
)
