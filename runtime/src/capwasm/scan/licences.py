"""Whether the licences of the manifest, the SBOM and the LICENSE file are real, agree, and are allowed.

See SPDX 2.3, annex D, for expressions.  This reads what is said.  Whether it is true, no scanner can tell.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from capwasm.capsule.members import MANIFEST, SBOM
from capwasm.review.finding import Finding, Severity

from .bill import Bill, OddBill, read_bill
from .model import Context, Rule, Scanner
from .subject import Subject

if TYPE_CHECKING:
    from license_expression import Licensing

__all__ = ["SCANNERS"]

_S = Severity
_LICENCE: Final = "LICENSE"
_PLACE: Final = f"{MANIFEST}:plugin.license"
MAX_EXPRESSION: Final = 400
MAX_TEXT: Final = 256 * 1024

MISSING: Final = Rule(
    "licence.missing", _S.LOW, "The manifest names no licence, so nobody else may use the plugin.",
    'Write license = "…" in [plugin], as an SPDX expression.',
)  # fmt: skip
INVALID: Final = Rule(
    "licence.invalid", _S.MEDIUM, "A licence is no SPDX expression, or names none that is listed.",
    "Use the identifiers of the SPDX list, joined by AND, OR and WITH; LicenseRef-… for your own.",
)  # fmt: skip
DISAGREE: Final = Rule(
    "licence.disagree", _S.MEDIUM, "The plugin's licence is not the same everywhere.",
    "Let plugin.toml, the SBOM and the LICENSE file say the same.",
)  # fmt: skip
NOT_ALLOWED: Final = Rule(
    "licence.not-allowed", _S.HIGH, "The operator does not allow this licence.",
    "Use another part, or have [scan] licences name it.",
)  # fmt: skip
UNKNOWN: Final = Rule(
    "licence.unknown", _S.MEDIUM,
    "A part's licence is not told, or only by a name, so it can't be held against what is allowed.",
    "Give the part an SPDX expression in the SBOM.",
)  # fmt: skip
RULES: Final = (MISSING, INVALID, DISAGREE, NOT_ALLOWED, UNKNOWN)

# Words that stand in one licence's text and in no other's, and how its identifiers begin.  The first
# that fits counts: a text that quotes another has its own words before.
_TEXTS: Final = (
    ("GNU AFFERO GENERAL PUBLIC LICENSE Version 3", "AGPL-3.0"),
    ("GNU LESSER GENERAL PUBLIC LICENSE Version 3", "LGPL-3.0"),
    ("GNU LESSER GENERAL PUBLIC LICENSE Version 2.1", "LGPL-2.1"),
    ("GNU GENERAL PUBLIC LICENSE Version 3", "GPL-3.0"),
    ("GNU GENERAL PUBLIC LICENSE Version 2", "GPL-2.0"),
    ("Mozilla Public License Version 2.0", "MPL-2.0"),
    ("Mozilla Public License, version 2.0", "MPL-2.0"),
    ("Eclipse Public License - v 2.0", "EPL-2.0"),
    ("Apache License Version 2.0", "Apache-2.0"),
    ("Boost Software License - Version 1.0", "BSL-1.0"),
    ("CC0 1.0 Universal", "CC0-1.0"),
    ("This is free and unencumbered software released into the public domain", "Unlicense"),
    ("Permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"),
    ("Neither the name of", "BSD-3-Clause"),
    ("Redistributions of source code must retain", "BSD-2-Clause"),
    ("with or without fee is hereby granted, provided that the above copyright", "ISC"),
    ("with or without fee is hereby granted", "0BSD"),
)


def _scan(subject: Subject, context: Context) -> Iterator[Finding]:
    allowed = _allowed(context.rule.licences)
    said = subject.manifest.plugin.license if subject.manifest else ""
    parsed = _parsed(said) if said else None
    if not said:
        yield MISSING.at(_PLACE)
    elif parsed is None:
        yield INVALID.at(_PLACE, said)
    elif allowed and not _allows(parsed, allowed):
        yield NOT_ALLOWED.at(_PLACE, said)
    yield from _text_agrees(subject, parsed)
    data = subject.members.get(SBOM)
    if data is None:
        return
    try:
        bill = read_bill(data)
    except OddBill:
        return  # which the scanner of SBOMs tells
    if bill.subject is not None and parsed is not None:
        told = [made for text in bill.subject.licences if (made := _parsed(text)) is not None]
        if told and not any(_same(parsed, made) for made in told):
            yield DISAGREE.at(
                bill.subject.place, f"{', '.join(bill.subject.licences)}; the manifest: {said}"
            )
    yield from _of_parts(bill, allowed)


def _of_parts(bill: Bill, allowed: frozenset[str]) -> Iterator[Finding]:
    parts = ([bill.subject] if bill.subject else []) + list(bill.components)
    for part in parts:
        parsed = [(text, _parsed(text)) for text in part.licences]
        for text, made in parsed:
            if made is None:
                yield INVALID.at(part.place, f"{part}: {text}")
            elif allowed and not _allows(made, allowed):
                yield NOT_ALLOWED.at(part.place, f"{part}: {text}")
        known = any(made is not None for _, made in parsed)
        if allowed and part is not bill.subject and (part.unnamed or not known):
            yield UNKNOWN.at(part.place, f"{part}: {', '.join(part.unnamed) or 'none'}")


def _text_agrees(subject: Subject, parsed: Any) -> Iterator[Finding]:
    """Whether the LICENSE file is the text of a licence that the manifest names."""
    data = subject.members.get(_LICENCE)
    if data is None or parsed is None:
        return
    beginning = identified(bytes(data[:MAX_TEXT]).decode("utf-8", "replace"))
    keys = {str(key) for key in _licensing().license_keys(parsed)}
    if beginning and not any(key.startswith(beginning) for key in keys):
        yield DISAGREE.at(_LICENCE, f"it is {beginning}; the manifest: {parsed.render()}")


def identified(text: str) -> str:
    """How the identifier of a licence's text begins; empty where it is none of the common ones."""
    named = re.search(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+-]{1,64})", text)
    if named:
        return named[1]
    plain = " ".join(text.replace("*", " ").split()).casefold()
    return next((begins for words, begins in _TEXTS if words.casefold() in plain), "")


@functools.cache
def _licensing() -> Licensing:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


def _parsed(text: str) -> Any:
    """An expression whose every licence is listed, or the author's own; else None."""
    if len(text) > MAX_EXPRESSION:
        return None
    try:
        made = _licensing().parse(text, strict=True)
        unknown = _licensing().unknown_license_keys(made) if made is not None else []
    except Exception:  # noqa: BLE001  a parser of others; over odd text it raises all sorts of things
        return None
    return None if any(not str(key).startswith("LicenseRef-") for key in unknown) else made


def _same(one: Any, other: Any) -> bool:
    """Whether two expressions mean the same, whatever their order."""
    return bool(one == other or one.simplify() == other.simplify())


def _allowed(names: tuple[str, ...]) -> frozenset[str]:
    """The identifiers that are allowed, in their newest spelling."""
    return frozenset(key.render() if (key := _parsed(name)) is not None else name for name in names)


def _allows(expression: Any, allowed: frozenset[str]) -> bool:
    """Whether a licence can be chosen such that all that then hold are allowed."""
    from license_expression import AND, OR, LicenseWithExceptionSymbol

    if expression.render() in allowed:
        return True
    if isinstance(expression, OR):
        return any(_allows(part, allowed) for part in expression.args)
    if isinstance(expression, AND):
        return all(_allows(part, allowed) for part in expression.args)
    if isinstance(expression, LicenseWithExceptionSymbol):
        # An exception only ever permits more.
        return expression.license_symbol.key in allowed
    return False


SCANNERS: Final = (Scanner("licences", _scan, RULES, needs=("license_expression", "packageurl")),)
