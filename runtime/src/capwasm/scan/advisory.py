"""Advisories: whether a record of the OSV database is about a version of a package, and how grave it is.

The rules are those of the OSV schema, https://ossf.github.io/osv-schema/, sections "Evaluation" and
"severity".  What they leave open is here never "not affected", but undecided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from capwasm.review.finding import Severity

from .versions import GIT, Package, is_ordered, key_of, repository_of, same_name

__all__ = ["Verdict", "Version", "is_withdrawn", "judge", "packages_of", "severity_of"]

_WORDS: Final = {
    "LOW": Severity.LOW, "MODERATE": Severity.MEDIUM, "MEDIUM": Severity.MEDIUM,
    "HIGH": Severity.HIGH, "CRITICAL": Severity.CRITICAL, "NEGLIGIBLE": Severity.NOTE,
}  # fmt: skip
# Of RustSec: no flaw, but something that a user should know.
_INFORMATIONAL: Final = {"notice": Severity.NOTE, "unmaintained": Severity.LOW}
MAX_VECTOR: Final = 300


@dataclass(frozen=True, slots=True)
class Version:
    """Which version of a package is asked about; `commit` is of Git, in full, or empty."""

    text: str
    commit: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a record says of a version.

    Attributes:
        affected: True, False, or None if it can't be decided.
        fixed: the versions that no longer are affected, as far as they come after this one.
    """

    affected: bool | None
    fixed: tuple[str, ...] = ()


def packages_of(record: Mapping[str, Any]) -> Iterator[tuple[Package, Mapping[str, Any]]]:
    """Each package that a record is about, with what it says of it; repositories are packages too."""
    for entry in _rows(record, "affected"):
        package = entry.get("package")
        if isinstance(package, dict):
            ecosystem = _text(package, "ecosystem").partition(":")[0]
            if ecosystem and (name := _text(package, "name")):
                yield Package(ecosystem, same_name(ecosystem, name)), entry
        for row in _rows(entry, "ranges"):
            if row.get("type") == GIT and (repository := repository_of(_text(row, "repo"))):
                yield Package(GIT, repository), entry


def is_withdrawn(record: Mapping[str, Any], now: datetime) -> bool:
    """Whether it was taken back; one that is to be taken back later still counts."""
    text = _text(record, "withdrawn")
    if not text:
        return False
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return False
    return (when if when.tzinfo else when.replace(tzinfo=UTC)) <= now


def judge(package: Package, entry: Mapping[str, Any], version: Version) -> Verdict:
    """Whether a version is affected, by one entry of `affected`."""
    listed = [v for v in entry.get("versions") or () if isinstance(v, str)]
    fixed: list[str] = []
    verdict: bool | None = False
    if _is_listed(package, listed, version):
        verdict = True
    for row in _rows(entry, "ranges"):
        if row.get("type") == GIT:
            found = _by_commit(row, version, listed)
        else:
            found = _by_order(package.ecosystem, row, version, listed)
            fixed += _fixes(package.ecosystem, row, version)
        # Affected by one is affected; undecided by one, and by none affected, is undecided.
        verdict = True if True in (verdict, found) else None if None in (verdict, found) else False
    if not listed and not _rows(entry, "ranges"):
        verdict = None
    return Verdict(verdict, tuple(dict.fromkeys(fixed)))


def _is_listed(package: Package, listed: Sequence[str], version: Version) -> bool:
    if not version.text:
        return False
    if version.text in listed:
        return True
    if package.ecosystem == GIT:  # tags, which have a v or have none
        return version.text.lstrip("v") in {tag.lstrip("v") for tag in listed}
    key = key_of(package.ecosystem, "ECOSYSTEM", version.text)
    return key is not None and any(
        key_of(package.ecosystem, "ECOSYSTEM", other) == key for other in listed
    )


def _by_order(
    ecosystem: str, row: Mapping[str, Any], version: Version, listed: Sequence[str]
) -> bool | None:
    """Whether a version lies in a range of versions."""
    kind = _text(row, "type")
    events = [(w, v) for e in _rows(row, "events") for w, v in e.items() if isinstance(v, str)]
    ends = [pair for pair in events if pair[0] != "introduced"]
    if ("introduced", "0") in events and not ends:
        return True  # every version, whatever the order
    own = key_of(ecosystem, kind, version.text) if version.text else None
    affected = ("introduced", "0") in events
    keys = [
        (w, key_of(ecosystem, kind, v))
        for w, v in events
        if (w, v) != ("introduced", "0") and v != "*"
    ]
    if own is None or any(key is None for _, key in keys):
        # Where nobody knows the order, a list of versions stands for the range.
        stands = listed and version.text and not is_ordered(ecosystem, kind)
        return False if stands else None
    limits = [key for word, key in keys if word == "limit"]
    if limits and not any(own < limit for limit in limits):
        return False
    # In order; what is fixed and introduced at once, is introduced.
    order = {"fixed": 0, "last_affected": 1, "introduced": 2}
    rest = sorted((key, order[word]) for word, key in keys if word in order)
    for key, word in rest:
        if word == order["introduced"] and own >= key:
            affected = True
        elif own >= key if word == order["fixed"] else own > key:
            affected = False
    return affected


def _by_commit(row: Mapping[str, Any], version: Version, listed: Sequence[str]) -> bool | None:
    """Whether a commit lies in a range of commits: without the repository, only its ends are known."""
    events = [(w, v) for e in _rows(row, "events") for w, v in e.items() if isinstance(v, str)]
    if version.commit:
        if (("introduced", version.commit) in events) or (
            ("last_affected", version.commit) in events
        ):
            return True
        if ("fixed", version.commit) in events or ("limit", version.commit) in events:
            return False
        return None
    return False if listed and version.text else None


def _fixes(ecosystem: str, row: Mapping[str, Any], version: Version) -> Iterator[str]:
    kind = _text(row, "type")
    own = key_of(ecosystem, kind, version.text) if version.text else None
    for event in _rows(row, "events"):
        text = _text(event, "fixed")
        if not text:
            continue
        key = key_of(ecosystem, kind, text)
        if own is None or key is None or key > own:
            yield text


def severity_of(record: Mapping[str, Any], entry: Mapping[str, Any]) -> Severity:
    """How grave it is: the gravest of what its vectors and its databases' words say.

    Medium where nobody says it: a person should look.
    """
    if _text(record, "id").startswith("MAL-"):
        return Severity.CRITICAL
    found: list[Severity] = []
    for holder in (record, entry):
        for row in _rows(holder, "severity"):
            score = _score(_text(row, "type"), _text(row, "score"))
            if score is not None:
                found.append(score)
        for word in ("database_specific", "ecosystem_specific"):
            more = holder.get(word)
            if isinstance(more, dict):
                said = _WORDS.get(_text(more, "severity").upper())
                said = said or _INFORMATIONAL.get(_text(more, "informational"))
                found += [said] if said else []
    return max(found, key=lambda s: s.rank, default=Severity.MEDIUM)


def _score(kind: str, vector: str) -> Severity | None:
    """What a CVSS vector, or a word, comes to."""
    if kind not in ("CVSS_V2", "CVSS_V3", "CVSS_V4") or len(vector) > MAX_VECTOR:
        return _WORDS.get(vector.upper())
    import cvss

    made = {"CVSS_V2": cvss.CVSS2, "CVSS_V3": cvss.CVSS3, "CVSS_V4": cvss.CVSS4}[kind]
    try:
        score = float(made(vector).scores()[0])
    except Exception:  # noqa: BLE001  a vector that nobody can read says nothing
        return None
    for least, severity in (
        (9.0, Severity.CRITICAL),
        (7.0, Severity.HIGH),
        (4.0, Severity.MEDIUM),
        (0.1, Severity.LOW),
    ):
        if score >= least:
            return severity
    return Severity.NOTE


def _rows(holder: Mapping[str, Any], word: str) -> list[dict[str, Any]]:
    rows = holder.get(word)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _text(holder: Mapping[str, Any], word: str) -> str:
    value = holder.get(word)
    return value if isinstance(value, str) else ""
