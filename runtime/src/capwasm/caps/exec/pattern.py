"""What may stand in a command's arguments: fixed words, and holes that a guest's values must fit.

    "-resize"                              a fixed word
    "{size:[0-9]{1,4}x[0-9]{1,4}}"         a hole, which is the whole word
    "--title={title:[A-Za-z0-9 ]{1,40}}"   a hole within a word

Pure.  The guest gives values for the holes, in order; it never writes a word of its own.  A hole's
regular expression must match the whole value.  It is of the kind that is matched in linear time,
without look-around or back-references, so that no value can make it run away (RES-05).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

__all__ = ["MAX_HOLES", "MAX_PATTERNS", "MAX_VALUE", "MAX_WORD", "MAX_WORDS", "Hole", "Pattern"]

MAX_PATTERNS: Final = 16
MAX_WORDS: Final = 64
MAX_WORD: Final = 1024
MAX_HOLES: Final = 16
MAX_REGEX: Final = 256
MAX_VALUE: Final = 4096
"""Bytes of one value."""

_HOLE: Final = re.compile(r"([^{}]*)\{([a-z][a-z0-9-]{0,31}):(.+)\}([^{}]*)")


@dataclass(frozen=True, slots=True)
class Hole:
    """A word with a place that is left open.

    Attributes:
        before, after: what stands around the place.   name: for people.
        fits: matches whole values.
    """

    before: str
    name: str
    fits: SchemaValidator
    after: str

    def fill(self, value: str, *, operand: bool) -> str | None:
        """The word with that value in it, or None if the value may not stand there.

        A word that begins with a dash is an option to most programs.  So a value can't begin a word
        with one, unless the word is an `operand`, which stands behind `--`.
        """
        if not self.before and value.startswith("-") and not operand:
            return None
        try:
            self.fits.validate_python(value)
        except ValidationError:
            return None
        return f"{self.before}{value}{self.after}"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One form that the arguments of a command may have."""

    words: tuple[str | Hole, ...]

    @classmethod
    @functools.lru_cache(maxsize=1024)
    def of(cls, words: tuple[str, ...]) -> Pattern:
        """The pattern that a policy wrote.

        Raises:
            ValueError: a word has not the form, or there is too much of anything.
        """
        if len(words) > MAX_WORDS:
            raise ValueError(f"more than {MAX_WORDS} words")
        read = tuple(_word(word) for word in words)
        names = [word.name for word in read if isinstance(word, Hole)]
        if len(names) > MAX_HOLES:
            raise ValueError(f"more than {MAX_HOLES} holes")
        if len(set(names)) != len(names):
            raise ValueError("two holes have one name")
        return cls(read)

    def fill(self, values: Sequence[str]) -> tuple[str, ...] | None:
        """The arguments with the values in their holes, or None if they do not fit."""
        if len(values) != sum(isinstance(word, Hole) for word in self.words):
            return None
        left = iter(values)
        out: list[str] = []
        for word in self.words:
            if isinstance(word, Hole):
                filled = word.fill(next(left), operand="--" in out)
                if filled is None:
                    return None
                out.append(filled)
            else:
                out.append(word)
        return tuple(out)


def _word(text: str) -> str | Hole:
    if len(text) > MAX_WORD:
        raise ValueError(f"a word is longer than {MAX_WORD} characters")
    if "{" not in text and "}" not in text:
        return text
    found = _HOLE.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is no hole: write {{name:regular expression}}, one a word; a fixed word holds"
            " no braces"
        )
    before, name, regex, after = found.groups()
    if len(regex) > MAX_REGEX:
        raise ValueError(f"the expression of {name} is longer than {MAX_REGEX} characters")
    _compiled(regex, name)  # by itself, or `a)|(b` would climb out of the group
    return Hole(before, name, _compiled(rf"\A(?:{regex})\z", name), after)


def _compiled(regex: str, name: str) -> SchemaValidator:
    try:
        return SchemaValidator(
            core_schema.str_schema(strict=True, pattern=regex, regex_engine="rust-regex")
        )
    except SchemaError as exc:
        why = str(exc).strip().splitlines()[-1].strip().removeprefix("error: ")
        raise ValueError(f"the expression of {name} can't be used: {why}") from None
