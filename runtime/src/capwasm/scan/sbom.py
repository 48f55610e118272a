"""Whether the SBOM is there, is one by the standard, and is one of this plugin.

See the CycloneDX specification, 1.4 to 1.7, and the package URL specification.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from capwasm.capsule.members import SBOM
from capwasm.review.finding import Finding, Severity

from .bill import Bill, Component, OddBill, read_bill
from .model import Context, Rule, Scanner
from .subject import Subject

__all__ = ["SCANNERS"]

_S = Severity

MISSING: Final = Rule(
    "sbom.missing", _S.LOW,
    "There is no SBOM, so nobody can tell what the plugin is made of, or whether it is affected.",
    f"Add {SBOM}, in CycloneDX, beside plugin.toml; `capwasm build` can write one.",
)  # fmt: skip
UNREADABLE: Final = Rule(
    "sbom.unreadable", _S.HIGH, "The SBOM can't be read, or is made to harm whoever reads it.",
    "Write it anew, with a tool for the language's lock file.",
)  # fmt: skip
VERSION: Final = Rule(
    "sbom.format", _S.MEDIUM, "The SBOM is of no format that is known here.",
    "Write CycloneDX 1.4, 1.5, 1.6 or 1.7, as JSON.",
)  # fmt: skip
INVALID: Final = Rule(
    "sbom.invalid", _S.MEDIUM, "The SBOM is not as its standard says.",
    "Write it with a maintained tool, and leave it as it is.",
)  # fmt: skip
SUBJECT: Final = Rule(
    "sbom.subject", _S.MEDIUM, "The SBOM does not say that it is one of this version of this plugin.",
    "Set metadata.component.name to the plugin's id, and .version to its version.",
)  # fmt: skip
NO_VERSION: Final = Rule(
    "sbom.no-version", _S.MEDIUM,
    "A component has no version, so it can't be told whether it is affected by anything.",
    "Make the SBOM of a lock file, which knows versions.",
)  # fmt: skip
NO_PURL: Final = Rule(
    "sbom.no-purl", _S.LOW,
    "A component has no package URL, so it can't be looked up.",
    "Give it a purl, such as pkg:pypi/name@1.0.",
)  # fmt: skip
BAD_PURL: Final = Rule(
    "sbom.bad-purl", _S.MEDIUM,
    "A component's package URL can't be read, or is of another package or version than it says.",
    "Let purl, name and version say the same.",
)  # fmt: skip
DUPLICATE: Final = Rule(
    "sbom.duplicate", _S.LOW, "A component stands more than once.", "List each of them once.",
)  # fmt: skip
EMPTY: Final = Rule(
    "sbom.empty", _S.NOTE, "The SBOM lists no component.",
    "If the plugin has dependencies, list them.",
)  # fmt: skip

_SPECS: Final = {"1.4": "V1_4", "1.5": "V1_5", "1.6": "V1_6", "1.7": "V1_7"}
# Other types of component (files, models, devices) have no package URL by their nature.
_PACKAGES: Final = frozenset({"library", "framework", "application"})


def _scan(subject: Subject, _context: Context) -> Iterator[Finding]:
    data = subject.members.get(SBOM)
    if data is None:
        yield MISSING.at(SBOM)
        return
    try:
        bill = read_bill(data)
    except OddBill as exc:
        yield UNREADABLE.at(SBOM, str(exc))
        return
    if bill.form != "CycloneDX" or bill.spec not in _SPECS:
        yield VERSION.at(SBOM, f"{bill.form or 'no bomFormat'} {bill.spec}")
    else:
        yield from _by_the_standard(bill)
    yield from _of_this_plugin(bill, subject)
    yield from _components(bill)


def _by_the_standard(bill: Bill) -> Iterator[Finding]:
    """All that the strict schema of its version refuses."""
    import json

    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    # What it validates is what was read, and not once more the bytes: two readers of one JSON
    # text may differ.
    validator = JsonStrictValidator(SchemaVersion[_SPECS[bill.spec]])
    for error in validator.validate_str(json.dumps(bill.doc), all_errors=True) or ():
        path = str(error.data.json_path).removeprefix("$").removeprefix(".")
        yield INVALID.at(f"{SBOM}:{path}" if path else SBOM, str(error.data.message)[:500])


def _of_this_plugin(bill: Bill, subject: Subject) -> Iterator[Finding]:
    told = bill.subject
    who = subject.identity
    if told is None:
        yield SUBJECT.at(SBOM, message="The SBOM does not say of what it is.")
        return
    names = {who.id} | ({subject.manifest.plugin.name} if subject.manifest else set())
    if told.name not in names:
        yield SUBJECT.at(told.place, f"it is of {told.name!r}, the plugin is {who.id}")
    if told.version != who.version:
        yield SUBJECT.at(
            told.place, f"it is of version {told.version or 'none'}, the plugin is {who.version}"
        )


def _components(bill: Bill) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    types = _types(bill)
    for component in bill.components:
        package = types.get(component.place, "library") in _PACKAGES
        if component.purl_fault:
            yield BAD_PURL.at(component.place, component.purl_fault)
        elif component.purl is None and package:
            yield NO_PURL.at(component.place, str(component))
        elif component.purl is not None and (other := _contradiction(component)):
            yield BAD_PURL.at(component.place, other)
        if package and not component.known_version:
            yield NO_VERSION.at(component.place, str(component))
        first = seen.setdefault(str(component), component.place)
        if first != component.place:
            yield DUPLICATE.at(component.place, f"{component}, as at {first}")
    if not bill.components:
        yield EMPTY.at(SBOM)


def _types(bill: Bill) -> dict[str, str]:
    """The type of each component at the top; those within others count as libraries."""
    rows = bill.doc.get("components")
    return {
        f"{SBOM}:components[{index}]": str(row.get("type"))
        for index, row in enumerate(rows if isinstance(rows, list) else ())
        if isinstance(row, dict)
    }


def _contradiction(component: Component) -> str:
    """How a package URL names another thing than its component does, or nothing.

    An advisory is looked up by the one, and a person reads the other.
    """
    purl = component.purl
    assert purl is not None
    if component.version and purl.version and component.version != purl.version:
        return f"{purl} at version {component.version}"
    said, name, space = map(_alike, (component.name, purl.name, purl.namespace or ""))
    if said not in ("", name, f"{space}/{name}", f"{space}:{name}"):
        return f"{purl} is called {component.name}"
    return ""


def _alike(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


RULES: Final = (
    MISSING, UNREADABLE, VERSION, INVALID, SUBJECT, NO_VERSION, NO_PURL, BAD_PURL, DUPLICATE, EMPTY,
)  # fmt: skip

SCANNERS: Final = (Scanner("sbom", _scan, RULES, needs=("cyclonedx", "jsonschema", "packageurl")),)
