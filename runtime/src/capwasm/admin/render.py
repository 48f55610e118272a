"""Templates filled in: everything escaped, nothing invisible, nothing undefined."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from capwasm.record.redact import printable

from .forms import MAX_TEXT

if TYPE_CHECKING:
    from .office import Office
    from .session import Flash, Session

__all__ = ["STATIC", "page", "plain"]

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def _static() -> dict[str, tuple[str, bytes]]:
    folder = resources.files("capwasm.admin") / "static"
    names = ("style.css", "forms.css", "live.js", "login.js", "icon.svg")
    return {n: (_TYPES[n.rpartition(".")[2]], (folder / n).read_bytes()) for n in names}


STATIC: Final[Mapping[str, tuple[str, bytes]]] = _static()
"""File -> its type and its bytes, read once: no path of the file system is ever asked for."""


def page(
    template: str,
    about: Mapping[str, Any],
    *,
    root: str,
    path: str,
    session: Session,
    office: Office,
    flash: Flash | None,
) -> str:
    """A page for somebody who is signed in.

    Args:
        template: its file.
        about: what it is filled with.
        root: the path that the application is mounted at, or empty.
        path: of the page below that.
        session: of the reader.
        office: what is shown.
        flash: what is told at its top, or None.
    """
    return (
        _environment()
        .get_template(template)
        .render(
            **about,
            url=_url(root),
            path=path,
            form=session.token,
            me=office.me,
            brief=office.brief(),
            flash=flash,
            most=MAX_TEXT,
        )
    )


def plain(template: str, *, root: str, **about: Any) -> str:
    """A page for anybody: it tells nothing of what is here."""
    return _environment().get_template(template).render(url=_url(root), **{"bare": False, **about})


def _url(root: str) -> Callable[[str], str]:
    return lambda path: root + path


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("capwasm.admin"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    made.filters |= {
        "when": _when,
        "number": lambda n: f"{n:,}",
        "size": _size,
        "short": _short,
        "many": _many,
        "lines": _lines,
        "slug": lambda text: re.sub(r"[^a-z0-9]+", "-", str(text).lower()).strip("-"),
    }
    return made


def _visible(value: object) -> object:
    """Text from elsewhere with nothing in it that can't be seen, or that turns the line round."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return printable(value)


def _lines(text: str) -> Markup:
    """Text of several lines, each made visible, for `<pre>`."""
    return Markup("\n").join(escape(printable(line)) for line in str(text).split("\n"))


def _when(text: str | datetime | None) -> str | Markup:
    """A time for people, with the exact one beside it for programs; always UTC."""
    if text is None or text == "":
        return "never"
    if isinstance(text, str):
        try:
            when = datetime.fromisoformat(text[:19] + "+00:00" if len(text) > 19 else text)
        except ValueError:
            return text
    else:
        when = text
    try:
        when = when.astimezone(UTC)
    except OverflowError:
        return str(text)
    shape = Markup('<time datetime="{0:%Y-%m-%dT%H:%M:%SZ}">{0:%Y-%m-%d %H:%M} UTC</time>')
    return shape.format(when)


def _size(count: int) -> str:
    value = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} GiB"


def _short(digest: str) -> Markup:
    """The beginning of a digest; the whole is in its title, and for who has it read aloud."""
    text = printable(str(digest))
    return Markup('<code class="digest" title="{0}">{1}</code>').format(text, text[:12])


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"
