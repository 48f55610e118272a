"""Versions in order, and ranges of them: SemVer 2.0.0, section 11, and nothing more.

A range is what `requires-core` holds: `>=0.3,<1`.  All its comparators must hold.  Missing parts
are zero, so `<1` is `<1.0.0`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from capwasm.capsule.identity import check_version

__all__ = ["SemVer", "VersionRange"]

MAX_RANGE: Final = 128
_COMPARATOR: Final = re.compile(r"(>=|<=|>|<|=)\s*([0-9A-Za-z.+-]+)")
_FORMS: Final = "comparators joined by commas, such as >=0.3,<1; each is one of >= > <= < ="


@dataclass(frozen=True, slots=True)
class SemVer:
    """A version whose order is SemVer's precedence.  Build metadata plays no part in it."""

    release: tuple[int, int, int]
    pre: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The version that `text` spells.

        Raises:
            ValueError: it is not SemVer 2.0.0.
        """
        core, _, pre = check_version(text).split("+")[0].partition("-")
        major, minor, patch = (int(part) for part in core.split("."))
        return cls((major, minor, patch), tuple(pre.split(".")) if pre else ())

    def __lt__(self, other: Self) -> bool:
        """Whether this comes before `other`."""
        return self.precedence < other.precedence

    @property
    def precedence(self) -> tuple[tuple[int, int, int], bool, list[tuple[bool, int, str]]]:
        """What orders versions."""
        # A prerelease comes before its release; a number before a word; a shorter list first.
        parts = [(False, int(p), "") if p.isdigit() else (True, 0, p) for p in self.pre]
        return self.release, not self.pre, parts


@dataclass(frozen=True, slots=True)
class VersionRange:
    """Versions that satisfy all of some comparators."""

    text: str
    comparators: tuple[tuple[str, SemVer], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The range that `text` spells.

        Raises:
            ValueError: with the forms that there are.
        """
        if len(text) > MAX_RANGE:
            raise ValueError(f"a range has at most {MAX_RANGE} characters")
        comparators = []
        for part in text.split(","):
            match = _COMPARATOR.fullmatch(part.strip())
            if match is None:
                raise ValueError(f"not a range: write {_FORMS}")
            word, version = match.groups()
            if re.fullmatch(r"[0-9]+(\.[0-9]+)?", version):
                version += ".0" * (2 - version.count("."))
            comparators.append((word, SemVer.parse(version)))
        return cls(text, tuple(comparators))

    def allows(self, version: SemVer) -> bool:
        """Whether `version` satisfies every comparator.

        1.0.0-rc.1 is a version of the 1.0.0 that it leads to, so `<1` refuses it, though it comes
        before 1.0.0: what broke in 1.0.0 is broken in it.
        """
        return all(_holds(version, word, bound) for word, bound in self.comparators)

    def covers(self, version: SemVer) -> bool:
        """Whether a deny list that names this range means `version`: in doubt it does.

        A prerelease is meant if it, or the release that it leads to, lies in the range by SemVer's
        order: 1.2.3-rc.1 is ended by `<1.2.3` and by `>=1.2.3`.
        """
        return any(
            all(_in_order(found, word, bound) for word, bound in self.comparators)
            for found in {version, SemVer(version.release)}
        )


def _holds(version: SemVer, word: str, bound: SemVer) -> bool:
    if word == "<" and not bound.pre and version.release == bound.release:
        return False
    return _in_order(version, word, bound)


def _in_order(version: SemVer, word: str, bound: SemVer) -> bool:
    ours, theirs = version.precedence, bound.precedence
    if word == ">=":
        return ours >= theirs
    if word == ">":
        return ours > theirs
    if word == "=":
        return ours == theirs
    return ours < theirs or (word == "<=" and ours == theirs)
