"""An SBOM as data: `sbom.cdx.json` becomes components, within bounds, whatever is in it.

It is written by whoever made the plugin, so nothing in it is believed: what is odd is left out here, and
told of by the scanner that holds it against the standard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from capwasm._model import parse_json
from capwasm.capsule.members import SBOM
from capwasm.errors import ArtifactError

if TYPE_CHECKING:
    from packageurl import PackageURL

__all__ = ["Bill", "Component", "OddBill", "read_bill"]

MAX_BYTES: Final = 4 * 2**20
MAX_LIST: Final = 2_000  # the standard's arrays of unique items are compared each with each
MAX_VALUES: Final = 200_000
MAX_PURL: Final = 1_000
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class OddBill(ValueError):
    """It is no SBOM that anybody should read; the message says why."""


@dataclass(frozen=True, slots=True)
class Component:
    """One thing that a plugin is made of.

    Attributes:
        place: where it stands: `sbom.cdx.json:components[3]`.
        name, version: as written, and empty if they are not.
        purl: its package URL; None if there is none, or none that can be read.
        purl_fault: why it can't be read.
        licences: SPDX expressions, as written; all of them hold.
        unnamed: names of licences that are in no list.
    """

    place: str
    name: str
    version: str
    purl: PackageURL | None
    purl_fault: str
    licences: tuple[str, ...]
    unnamed: tuple[str, ...]

    @property
    def known_version(self) -> str:
        """Of the package URL, or else as written."""
        return (self.purl.version if self.purl else "") or self.version

    @property
    def commit(self) -> str:
        """The commit of Git that it is of, in full, or empty."""
        if self.purl is None:
            return ""
        named = str(dict(self.purl.qualifiers).get("vcs_url", "")).rpartition("@")[2]
        for text in (named, self.known_version):
            if _COMMIT.fullmatch(text):
                return text
        return ""

    def __str__(self) -> str:
        return str(self.purl) if self.purl else f"{self.name} {self.version}".strip()


@dataclass(frozen=True, slots=True)
class Bill:
    """What a plugin is made of, by its own word.

    Attributes:
        doc: the whole document.
        form, spec: what it says that it is: `CycloneDX`, `1.6`.
        subject: what it is an SBOM of.
        components: all of them, also those within others.
    """

    doc: Mapping[str, Any]
    form: str
    spec: str
    subject: Component | None
    components: tuple[Component, ...]


def read_bill(data: memoryview) -> Bill:
    """The SBOM of a capsule.

    Raises:
        OddBill: it is no JSON object, or larger, deeper or fuller than any SBOM of a plugin.
        ImportError: there is no packageurl.
    """
    if len(data) > MAX_BYTES:
        raise OddBill(f"it has {len(data)} bytes; an SBOM of a plugin has at most {MAX_BYTES}")
    try:
        doc = parse_json(bytes(data), ArtifactError, code="artifact.unreadable", limit=MAX_BYTES)
    except ArtifactError as exc:
        raise OddBill(exc.message) from None
    if not isinstance(doc, dict):
        raise OddBill("it is no JSON object")
    _check_counts(doc)
    about = doc.get("metadata")
    subject = about.get("component") if isinstance(about, dict) else None
    return Bill(
        doc,
        _text(doc, "bomFormat"),
        _text(doc, "specVersion"),
        _component(subject, f"{SBOM}:metadata.component") if isinstance(subject, dict) else None,
        tuple(_components(doc, subject)),
    )


def _check_counts(doc: Any) -> None:
    seen, todo = 0, [doc]
    while todo:
        node = todo.pop()
        if not isinstance(node, list | dict):
            continue
        if isinstance(node, list) and len(node) > MAX_LIST:
            raise OddBill(f"a list has {len(node)} entries; {MAX_LIST} are the most that are read")
        seen += len(node)
        if seen > MAX_VALUES:
            raise OddBill(f"it has more than {MAX_VALUES} values")
        todo.extend(node.values() if isinstance(node, dict) else node)


def _components(doc: Mapping[str, Any], subject: Any) -> Iterator[Component]:
    todo = [(doc.get("components"), f"{SBOM}:components")]
    if isinstance(subject, dict):
        todo.append((subject.get("components"), f"{SBOM}:metadata.component.components"))
    while todo:
        rows, place = todo.pop(0)
        for index, row in enumerate(rows if isinstance(rows, list) else ()):
            if isinstance(row, dict):
                yield _component(row, f"{place}[{index}]")
                todo.append((row.get("components"), f"{place}[{index}].components"))


def _component(row: Mapping[str, Any], place: str) -> Component:
    from packageurl import PackageURL

    text, purl, fault = _text(row, "purl"), None, ""
    licences = list(_licences(row.get("licenses")))
    if len(text) > MAX_PURL:
        fault = f"longer than {MAX_PURL} characters"
    elif text:
        try:
            purl = PackageURL.from_string(text)
        except ValueError as exc:
            fault = str(exc)
    return Component(
        place,
        _text(row, "name"),
        _text(row, "version"),
        purl,
        fault,
        tuple(text for text, spdx in licences if spdx),
        tuple(text for text, spdx in licences if not spdx),
    )


def _licences(rows: Any) -> Iterator[tuple[str, bool]]:
    """Each with whether it is an expression of SPDX, or else a name."""
    for row in rows if isinstance(rows, list) else ():
        named = row.get("license") if isinstance(row, dict) else None
        found = _text(row, "expression") if isinstance(row, dict) else ""
        if isinstance(named, dict):
            found = found or _text(named, "id")
            if not found and (name := _text(named, "name")):
                yield name, False
        if found:
            yield found, True


def _text(row: Mapping[str, Any], word: str) -> str:
    value = row.get(word)
    return value if isinstance(value, str) else ""
