"""What a person typed or clicked, as values that are sound or aren't made.

A word of an address and a field of a form become an id, a version, a number or a bounded text here,
before anything is looked up by them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Final
from urllib.parse import parse_qsl

from capwasm._model import hidden
from capwasm.capsule.identity import check_id, check_version
from capwasm.errors import AdminError

__all__ = ["WORDS", "Fields", "checked"]

MAX_FIELDS: Final = 32
MAX_TEXT: Final = 500
MAX_PATTERN: Final = 128
_NUMBER: Final = re.compile(r"[0-9]{1,15}")


class Fields:
    """The fields of a form or of a query: each at most once, each asked for by its type."""

    def __init__(self, found: Mapping[str, str]) -> None:
        """Take fields that were parsed."""
        self._found = dict(found)

    @classmethod
    def parse(cls, data: bytes) -> Fields:
        """Take `a=1&b=2`.

        Raises:
            AdminError: `admin.request`: too many, one twice, or not UTF-8.
        """
        try:
            pairs = parse_qsl(
                data.decode("ascii"),
                keep_blank_values=True,
                max_num_fields=MAX_FIELDS,
                errors="strict",
            )
        except ValueError:
            raise AdminError("the fields are malformed, or too many") from None
        if len({name for name, _ in pairs}) != len(pairs):
            raise AdminError("a field is there twice")
        return cls(dict(pairs))

    def text(self, name: str, most: int = MAX_TEXT) -> str:
        """One line or several, without surrounding space; empty if it is not there.

        Raises:
            AdminError: `admin.request`: it is too long, or holds what can't be seen.
        """
        text = " ".join(self._found.get(name, "").split())
        if len(text) > most:
            raise AdminError(f"{name}: at most {most} characters")
        if (what := hidden(text)) is not None:
            raise AdminError(f"{name}: holds {what}")
        return text

    def raw(self, name: str) -> str:
        """As it came; empty if it is not there."""
        return self._found.get(name, "")

    def reason(self) -> str:
        """Why somebody does something: it must be said.

        Raises:
            AdminError: `admin.request`.
        """
        text = self.text("reason")
        if not text:
            raise AdminError("say why: the reason stands in the history and in the audit")
        return text

    def number(self, name: str) -> int | None:
        """A number from 0, or None if it is not there.

        Raises:
            AdminError: `admin.request`.
        """
        text = self._found.get(name, "").strip()
        if not text:
            return None
        if not _NUMBER.fullmatch(text):
            raise AdminError(f"{name}: not a number")
        return int(text)

    def word(self, name: str, valid: Mapping[str, object] | frozenset[str]) -> str:
        """One of these words, or empty.

        Raises:
            AdminError: `admin.request`.
        """
        text = self._found.get(name, "")
        if text and text not in valid:
            raise AdminError(f"{name}: not one of the choices")
        return text

    def day(self, name: str) -> datetime | None:
        """The beginning of a day (`2027-01-31`) in UTC, or None if it is not there.

        Raises:
            AdminError: `admin.request`.
        """
        text = self._found.get(name, "").strip()
        if not text:
            return None
        try:
            found = date.fromisoformat(text)
            if found == date.max:  # no day follows it
                raise ValueError
        except ValueError:
            raise AdminError(f"{name}: not a date such as 2027-01-31") from None
        return datetime(found.year, found.month, found.day, tzinfo=UTC)

    def ticked(self, name: str) -> bool:
        """Whether a box was ticked."""
        return self._found.get(name) == "yes"


def _digits(text: str) -> str:
    if not _NUMBER.fullmatch(text):
        raise ValueError
    return text


def _log(text: str) -> str:
    if text not in {"runtime", "commands"}:
        raise ValueError
    return text


WORDS: Final[Mapping[str, Callable[[str], str]]] = {
    "id": check_id,
    "version": check_version,
    "seq": _digits,
    "log": _log,
}
"""Name of a word of an address -> what passes it, or raises `ValueError`."""


def checked(words: Mapping[str, str]) -> dict[str, str]:
    """The words of an address, each of its type.

    Raises:
        AdminError: `admin.not-found`; what was asked for is not repeated.
    """
    try:
        return {name: WORDS[name](text) for name, text in words.items()}
    except ValueError:
        raise AdminError("there is no such page", code="admin.not-found") from None
