"""What a page is asked with, and what it answers: between the web and the pages, of neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .forms import Fields
from .office import Office
from .session import Session

__all__ = ["Answer", "Ask", "Go", "Handler", "Page", "Route", "Text"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of somebody who is signed in.

    Attributes:
        office: what can be read and done.   session: whose.
        words: of the address, each of its type.   query, form: what was typed.
    """

    office: Office
    session: Session
    words: Mapping[str, str]
    query: Fields
    form: Fields


@dataclass(frozen=True, slots=True)
class Page:
    """A template with what it is filled with."""

    template: str
    about: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True, slots=True)
class Go:
    """Another page of ours, by its path below the root, and what is told there."""

    path: str
    told: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A line for a program."""

    text: str


Answer: TypeAlias = Page | Go | Text
Handler: TypeAlias = Callable[[Ask], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """One address.

    Attributes:
        path: with its words in braces, each a name of `forms.WORDS`.
        get, post: what answers; None where the method is refused.
        quiet: programs ask it: it keeps no session awake.
    """

    path: str
    get: Handler | None = None
    post: Handler | None = None
    quiet: bool = False
