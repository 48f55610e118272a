"""Ecosystems: what a package URL's package is called in advisories, and how its versions are ordered.

Two orders are known: PEP 440's, by `packaging`, and SemVer's, which is our own.  Between them lie the
languages that capsules are built from.  For all others a version is only ever equal to another: an
advisory that lists versions is decided, and one that has only ranges is said to be undecided.  A wrong
order would decide wrongly, and nobody would see it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from capwasm.grants.semver import SemVer

from .bill import Component

__all__ = ["GIT", "Package", "is_ordered", "key_of", "package_of", "repository_of", "same_name"]

MAX_VERSION: Final = 256
GIT: Final = "GIT"

Order = Callable[[str], Any]
_PARTS: Final = re.compile(r"[vV]?([0-9]+(?:\.[0-9]+){0,2})((?:[-+].*)?)")

# Scheme, user, host, port, path; what follows the path does not name a repository.
_REPOSITORY: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]{0,31}://(?:[^/?#@]{0,255}@)?([^/?#:@\[\]]{0,255})(?::[0-9]{0,5})?((?:/[^?#]*)?)"
)


class Package(NamedTuple):
    """A package as advisories name it; `ecosystem` is without what follows a colon."""

    ecosystem: str
    name: str


# purl type → ecosystem: https://ossf.github.io/osv-schema/#affectedpackage-field
_ECOSYSTEMS: Final = {
    "pypi": "PyPI", "cargo": "crates.io", "npm": "npm", "golang": "Go", "maven": "Maven",
    "nuget": "NuGet", "gem": "RubyGems", "composer": "Packagist", "hex": "Hex", "pub": "Pub",
    "swift": "SwiftURL", "hackage": "Hackage", "cran": "CRAN", "conan": "ConanCenter",
    "deb": "Debian", "apk": "Alpine", "githubactions": "GitHub Actions", "bitnami": "Bitnami",
}  # fmt: skip
_HOSTS: Final = {"github": "github.com", "bitbucket": "bitbucket.org", "gitlab": "gitlab.com"}


def package_of(component: Component) -> Package | None:
    """The package that a component is of; None if no advisory can name it."""
    purl = component.purl
    if purl is None:
        return None
    space, name = purl.namespace or "", purl.name
    if purl.type in _HOSTS:
        return Package(GIT, f"{_HOSTS[purl.type]}/{space}/{name}".lower())
    url = str(dict(purl.qualifiers).get("vcs_url", ""))
    if purl.type == "generic" and url:
        return Package(GIT, repository_of(url.removeprefix("git+").rpartition("@")[0] or url))
    ecosystem = _ECOSYSTEMS.get(purl.type)
    if ecosystem is None:
        return None
    if ecosystem == "Maven":
        whole = f"{space}:{name}"
    else:
        whole = name if ecosystem in ("Debian", "Alpine") or not space else f"{space}/{name}"
    return Package(ecosystem, same_name(ecosystem, whole))


def same_name(ecosystem: str, name: str) -> str:
    """A package's name as it is compared: PEP 503's for PyPI, and in lower case.

    Some types of package URL are in lower case whatever the package is called, so case can't tell
    two packages apart; that one too many is found is better than that one is missed.
    """
    if ecosystem == "PyPI":
        return re.sub(r"[-_.]+", "-", name).lower()
    return (name.replace("-", "_") if ecosystem == "crates.io" else name).lower()


def repository_of(url: str) -> str:
    """`https://github.com/Acme/thing.git` → `github.com/acme/thing`."""
    found = _REPOSITORY.match(url)
    if found is None:
        return ""
    return f"{found[1]}{found[2].removesuffix('/').removesuffix('.git')}".lower()


def is_ordered(ecosystem: str, kind: str) -> bool:
    """Whether versions of that ecosystem, in a range of that kind, have an order that is known here."""
    return kind == "SEMVER" or ecosystem in _ORDERS


def key_of(ecosystem: str, kind: str, version: str) -> Any:
    """What orders a version among others of its package; None if that is not known.

    Args:
        ecosystem: the package's.
        kind: of the range: `SEMVER` or `ECOSYSTEM`.
        version: as written.

    Raises:
        ImportError: there is no packaging.
    """
    if len(version) > MAX_VERSION:
        return None
    order = _semver if kind == "SEMVER" else _ORDERS.get(ecosystem)
    return order(version) if order else None


# Advisories of one package list the same versions again and again.
@functools.lru_cache(maxsize=20_000)
def _semver(text: str) -> Any:
    """SemVer 2.0.0, of text that may begin with a v, or lack parts, as Go's does."""
    found = _PARTS.fullmatch(text)
    if found is None:
        return None
    numbers = found[1] + ".0" * (2 - found[1].count("."))
    try:
        return SemVer.parse(numbers + found[2]).precedence
    except ValueError:
        return None


@functools.lru_cache(maxsize=20_000)
def _pep440(text: str) -> Any:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(text)
    except InvalidVersion:
        return None


_ORDERS: Final[dict[str, Order]] = {
    "PyPI": _pep440,
    "crates.io": _semver,
    "npm": _semver,
    "Go": _semver,
    "Hex": _semver,
    "Pub": _semver,
    "SwiftURL": _semver,
}
