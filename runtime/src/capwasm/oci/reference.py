"""References: `oci://host[:port]/name[:tag][@sha256:…]`, parsed once and strictly.

A tag can be moved by whoever may push; a digest can't.  So a reference has at least one of them,
and where it has both, the digest alone says what is meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NoReturn

from capwasm.caps.net.url import Host, UrlError, host_text, parse_host, parse_port
from capwasm.errors import Fault, RepositoryError

__all__ = ["SCHEME", "Reference", "is_digest", "parse_authority"]

SCHEME: Final = "oci://"
MAX_REFERENCE: Final = 400  # characters; the registry keeps it, with its digest, as a source
_PART: Final = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """Which manifest, in which registry.

    Attributes:
        host: a name or an address, canonical.   port: or None for the scheme's own.
        name: the repository in the registry, `acme/weather`.
        tag: or None.   digest: `sha256:…` of the manifest, or None.
    """

    host: Host
    port: int | None
    name: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference.

        Raises:
            RepositoryError: `oci.reference`.
        """
        if len(text) > MAX_REFERENCE:
            _refuse(f"a reference has at most {MAX_REFERENCE} characters")
        if not text.startswith(SCHEME):
            _refuse(f"a reference begins with {SCHEME}")
        authority, slash, rest = text.removeprefix(SCHEME).partition("/")
        host, port = parse_authority(authority)
        rest, at, digest = rest.partition("@")
        name, colon, tag = rest.partition(":")
        if not slash or not _NAME.fullmatch(name):
            _refuse("the repository's name is of a-z 0-9, with . _ - within and / between parts")
        if colon and not _TAG.fullmatch(tag):
            _refuse("a tag is of A-Z a-z 0-9 _ . -, at most 128 of them")
        if at and not is_digest(digest):
            _refuse("a digest is sha256: and 64 hex digits in lower case")
        if not colon and not at:
            _refuse("a reference has a tag or a digest; none is guessed", fix=f"{text[:300]}:TAG")
        return cls(host, port, name, tag if colon else None, digest if at else None)

    @property
    def authority(self) -> str:
        """The registry: `host` or `host:port`, as settings and credentials name it."""
        host = host_text(self.host)
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def target(self) -> str:
        """What is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag or ""

    @property
    def is_local(self) -> bool:
        """Whether it names this machine."""
        if isinstance(self.host, IPv4Address | IPv6Address):
            return self.host.is_loopback
        return self.host == "localhost"

    def at(self, digest: str) -> Reference:
        """The same with the digest that it was found to be."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{SCHEME}{self.authority}/{self.name}{tag}{digest}"


def parse_authority(text: str) -> tuple[Host, int | None]:
    """Host and port of a registry.

    Raises:
        RepositoryError: `oci.reference`.
    """
    host, port = text, ""
    if not text.endswith("]"):
        before, colon, after = text.rpartition(":")
        if colon:
            host, port = before, after
    try:
        return parse_host(host), parse_port(port) if host != text else None
    except UrlError as exc:
        _refuse(f"not a registry's host: {exc}")


def is_digest(text: str) -> bool:
    """Whether it is a digest of the one kind that is taken."""
    return _DIGEST.fullmatch(text) is not None


def _refuse(message: str, fix: str | None = None) -> NoReturn:
    faults = [] if fix is None else [Fault("", "which one is meant", fix=fix)]
    raise RepositoryError(message, code="oci.reference", faults=faults)
