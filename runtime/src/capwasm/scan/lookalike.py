"""Names that a person may take for others: ids one slip apart, and letters that look the same.  Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

__all__ = ["looks_like", "mixed_scripts"]

# What reads the same in small letters; ids are ASCII.
_SAME: Final = (
    ("rn", "m"),
    ("vv", "w"),
    ("cl", "d"),
    ("0", "o"),
    ("1", "l"),
    ("i", "l"),
    ("5", "s"),
    ("-", ""),
)
_SHORTEST: Final = 5


def looks_like(plugin_id: str, ids: Iterable[str]) -> str | None:
    """Which of these ids may be taken for that one: one slip apart, or of letters that look alike.

    Ids of one publisher (the first label) are not: whose they are is a matter of trust in keys.
    """
    mine, face = plugin_id.partition(".")[0], _face(plugin_id)
    for other in sorted(ids):
        if other.partition(".")[0] == mine or other == plugin_id:
            continue
        if face == _face(other):
            return other
        if min(len(plugin_id), len(other)) >= _SHORTEST and _one_slip(plugin_id, other):
            return other
    return None


def _face(text: str) -> str:
    for pair, one in _SAME:
        text = text.replace(pair, one)
    return text


def _one_slip(a: str, b: str) -> bool:
    """Whether one letter was added, left out, changed, or changed places with the next."""
    if abs(len(a) - len(b)) > 1:
        return False
    if len(a) > len(b):
        a, b = b, a
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    if len(a) == len(b):
        swapped = a[at + 1 : at + 2] + a[at : at + 1]
        return a[at + 1 :] == b[at + 1 :] or swapped + a[at + 2 :] == b[at:]
    return a[at:] == b[at + 1 :]


def mixed_scripts(text: str) -> str | None:
    """The scripts that a word of `text` mixes, as `CYRILLIC, LATIN`; None if none does.

    Only those whose letters look like those of Latin are told apart.
    """
    for word in text.split():
        scripts = {
            script
            for char in word
            if char.isalpha()
            for script in ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")
            if unicodedata.name(char, "").startswith(script)
        }
        if len(scripts) > 1:
            return ", ".join(sorted(scripts))
    return None
