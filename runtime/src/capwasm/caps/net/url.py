"""URLs, parsed once and strictly, into the one form that is matched, resolved and sent.

Parsers that disagree about a URL are how filters are passed, so nothing here guesses: what two
parsers are known to read differently is refused, and what is accepted has one canonical form.
Follows RFC 3986; hosts follow UTS #46 (non-transitional) and come out as A-labels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

__all__ = [
    "DEFAULT_PORTS",
    "MAX_URL",
    "Address",
    "Host",
    "Url",
    "UrlError",
    "canonical_path",
    "host_text",
    "join_url",
    "lax_paths",
    "parse_host",
    "parse_port",
    "parse_url",
    "unmapped",
]

Address = IPv4Address | IPv6Address
Host = str | IPv4Address | IPv6Address

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
MAX_URL: Final = 8192  # bytes; what common servers take
_MAX_HOST: Final = 1024  # before mapping, so that IDNA works on little
_MAX_ROUNDS: Final = 8

# Space and controls of any kind, and the backslash, which half of all parsers read as a slash
# (NET-12, NET-14).
_UNFIT: Final = re.compile("[\x00-\x20\x7f-\xa0\\\\\u2028\u2029\ufeff]")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# A last label like these makes resolvers read the whole as an IPv4 address (NET-01).
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_PCHAR: Final = r"A-Za-z0-9\-._~!$&'()*+,;=:@/"
_PATH: Final = re.compile(rf"(?:[{_PCHAR}]|%[0-9A-Fa-f]{{2}})*")
_QUERY: Final = re.compile(rf"(?:[{_PCHAR}?]|%[0-9A-Fa-f]{{2}})*")
# Never a delimiter after the authority, and servers put them unescaped into `Location`.
_SLOPPY: Final = str.maketrans({c: f"%{ord(c):02X}" for c in '"<>[]^`{|}'})
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class UrlError(ValueError):
    """The text is not a URL, host or port that can be used.  Its message quotes none of it."""


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in canonical form, without userinfo and fragment.

    Attributes:
        scheme: `http` or `https`.
        host: a lower-case name of A-labels without a trailing dot, or an address.
        port: 1 to 65535, also when it is the scheme's own.
        path: begins with `/`, has no dot segments.
        query: what follows the `?`, or None.
    """

    scheme: str
    host: Host
    port: int
    path: str
    query: str | None = None

    @property
    def authority(self) -> str:
        """Host, and the port unless it is the scheme's own: the `Host` header."""
        host = host_text(self.host)
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """`https://host:port`, always with the port."""
        return f"{self.scheme}://{host_text(self.host)}:{self.port}"

    @property
    def target(self) -> str:
        """What stands in the request line: path and query, never more (NET-20)."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_url(text: str) -> Url:
    """The URL that `text` is.

    Raises:
        UrlError: it is none, or is one that parsers are known to read differently.
    """
    if len(text) > MAX_URL:
        raise UrlError(f"longer than {MAX_URL} characters")
    if _UNFIT.search(text):
        raise UrlError("holds a space, a control character or a backslash")
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else ""
    if scheme not in DEFAULT_PORTS:
        raise UrlError("must begin with https:// or http://")  # NET-25
    rest = text[len(scheme) + 1 :].partition("#")[0]
    if not rest.startswith("//"):
        raise UrlError("must have // after the scheme")
    before, mark, query = rest[2:].partition("?")
    authority, slash, path = before.partition("/")
    if "@" in authority:
        raise UrlError("user names and passwords in URLs are refused")  # NET-11
    host, port = _split_authority(authority)
    return Url(
        scheme,
        parse_host(host),
        DEFAULT_PORTS[scheme] if port is None else parse_port(port),
        canonical_path(slash + path),
        _canonical_query(query) if mark else None,
    )


def join_url(base: Url, reference: str) -> Url:
    """What `reference` (a `Location`) means when `base` answered it; parsed as strictly.

    Raises:
        UrlError: as `parse_url`.
    """
    if not reference.isascii():
        raise UrlError("a redirect must be plain ASCII")
    if _SCHEME.match(reference):
        return parse_url(reference)
    if _UNFIT.search(reference):
        raise UrlError("holds a space, a control character or a backslash")
    if reference.startswith("//"):
        return parse_url(f"{base.scheme}:{reference}")
    origin = f"{base.scheme}://{base.authority}"
    if reference.startswith("/"):
        return parse_url(origin + reference)
    if reference.startswith("?"):
        return parse_url(origin + base.path + reference)
    if reference == "" or reference.startswith("#"):
        return base
    return parse_url(f"{origin}{base.path[: base.path.rindex('/') + 1]}{reference}")


def _split_authority(authority: str) -> tuple[str, str | None]:
    if authority.startswith("["):
        end = authority.find("]")
        host, rest = authority[: end + 1], authority[end + 1 :]
        if end < 0 or (rest and not rest.startswith(":")):  # NET-13
            raise UrlError("an IPv6 address must stand alone in its brackets")
    else:
        host, colon, port = authority.partition(":")
        rest = colon + port
    return host, rest[1:] if rest else None


# -- host and port -------------------------------------------------------------------------------


def parse_port(text: str) -> int:
    """A port as its plain decimal digits (NET-17).

    Raises:
        UrlError: empty, zero, above 65535, with a leading zero, or of other digits.
    """
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise UrlError("the port must be a number from 1 to 65535 in plain digits")
    return int(text)


def parse_host(text: str) -> Host:
    """A host in canonical form: lower case, A-labels, no trailing dot, or an address.

    Raises:
        UrlError: empty, not a name, or an address in any but its one standard spelling.
    """
    if not text or len(text) > _MAX_HOST:
        raise UrlError("the host is empty or too long")
    if text.startswith("["):
        return _ipv6(text)
    if "%" in text:
        raise UrlError("the host must not be percent-encoded")
    if not text.isascii():
        text = _mapped(text)
    name = text.lower().removesuffix(".")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        return _ipv4(name)
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlError("the host is not a name of letters, digits, hyphens and dots")
    for label in labels:
        if label.startswith("xn--"):
            _check_a_label(label)
    return name


def host_text(host: Host) -> str:
    """The host as a URL spells it."""
    return f"[{host}]" if isinstance(host, IPv6Address) else str(host)


def unmapped(address: Address) -> Address:
    """The IPv4 address within an IPv4-mapped IPv6 one; else the address itself (NET-04)."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _ipv4(name: str) -> IPv4Address:
    try:
        return IPv4Address(name)  # four decimal parts without leading zeros, and nothing else
    except ValueError:
        raise UrlError("an IPv4 address must be four plain decimal numbers") from None


def _ipv6(text: str) -> Address:
    inner = text[1:-1]
    try:
        if not text.endswith("]") or "%" in inner or not inner.isascii():
            raise ValueError
        return unmapped(IPv6Address(inner))
    except ValueError:
        raise UrlError("the brackets hold no IPv6 address") from None


def _mapped(text: str) -> str:
    """UTS #46 first: full-width digits and ideographic dots become plain (NET-02)."""
    import idna

    try:
        mapped = idna.uts46_remap(text, std3_rules=True, transitional=False)
        return mapped if mapped.isascii() else idna.encode(mapped).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise UrlError("the host is not a valid internationalised name") from None


def _check_a_label(label: str) -> None:
    """Pass if the A-label stands for a Unicode label that would become just this A-label."""
    import idna

    try:
        same = idna.alabel(idna.ulabel(label)) == label.encode("ascii")
    except (idna.IDNAError, UnicodeError):
        same = False
    if not same:
        raise UrlError("the host holds a label that is not valid punycode")


# -- path and query ------------------------------------------------------------------------------


def canonical_path(raw: str) -> str:
    """The path with plain characters unescaped, dot segments removed and escapes in upper case.

    Raises:
        UrlError: it holds a character that must be escaped, an escaped control character, or a dot
            segment that only shows once it is decoded again, or cut at a `;`, as some servers do.
    """
    raw = raw.translate(_SLOPPY)
    if not _PATH.fullmatch(raw):
        raise UrlError("the path holds a character that must be percent-encoded")
    path = _remove_dots(_ESCAPE.sub(_plain, raw) or "/")
    _refuse_hidden(path)
    return path


def lax_paths(path: str) -> set[str]:
    """What servers may take a canonical path for, so that a denial can't be passed by a spelling.

    They merge slashes, decode once more, take a backslash for a slash, cut a segment at its `;`, or
    leave off the last slash.
    """
    merged = _merged(path)
    while (decoded := _ESCAPE.sub(lambda m: chr(int(m[1], 16)), path)) != path:
        path = decoded
    lax = _merged("/".join(s.partition(";")[0] for s in re.split(r"[/\\]", path)))
    return {merged, lax, lax.rstrip("/") or "/"}


def _merged(path: str) -> str:
    return re.sub("/{2,}", "/", path)


def _canonical_query(raw: str) -> str:
    raw = raw.translate(_SLOPPY)
    if not _QUERY.fullmatch(raw):
        raise UrlError("the query holds a character that must be percent-encoded")
    return raw


def _plain(found: re.Match[str]) -> str:
    char = chr(int(found[1], 16))
    return char if char in _UNRESERVED else found[0].upper()


def _remove_dots(path: str) -> str:
    """RFC 3986, 5.2.4."""
    out: list[str] = []
    segments = path.split("/")[1:]
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "..":
            if out:
                out.pop()
        elif segment != ".":
            out.append(segment)
            continue
        if last:
            out.append("")
    return "/" + "/".join(out)


def _refuse_hidden(path: str) -> None:
    for _ in range(_MAX_ROUNDS):
        for segment in re.split(r"[/\\]", path):
            if segment.partition(";")[0] in (".", ".."):
                raise UrlError("the path hides a dot segment")
        decoded = _ESCAPE.sub(lambda m: chr(int(m[1], 16)), path)
        if decoded == path:
            return
        # NUL, CR and LF; and bytes that are no UTF-8, but a dot or slash to lax decoders.
        if re.search("[\x00-\x1f\x7f\xc0\xc1]", decoded):
            raise UrlError("the path holds an escaped control character or malformed UTF-8")
        path = decoded
    raise UrlError("the path is percent-encoded over and over")
