"""Words of people in the registry: short, and with nothing in them that can't be seen."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from capwasm._model import hidden
from capwasm.errors import RegistryError

from .model import Mark, utc_text

__all__ = ["clean", "mark_of"]

MAX_WHO: Final = 200
MAX_WHY: Final = 500


def mark_of(who: str, why: str, when: datetime) -> Mark:
    """Who, when and why, fit to be kept.

    Raises:
        RegistryError: `registry.text`: nobody is named, or a text is too long or has hidden
            characters.
        ValueError: `when` has no time zone.
    """
    for word, text, most in (("who", who, MAX_WHO), ("why", why, MAX_WHY)):
        found = hidden(text)
        if found is not None or len(text) > most or (word == "who" and not text.strip()):
            fault = f"holds {found}" if found else f"needs 1 to {most} characters"
            raise RegistryError(f"{word} {fault}", code="registry.text")
    return Mark(who, utc_text(when), why)


def clean(text: str) -> str:
    """A name from elsewhere, cut and escaped so that it can be kept and shown."""
    return ascii(text[:MAX_WHY])[1:-1][:MAX_WHY]
