"""Lines of Python, laid out as `ruff format` does with its own settings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Final

from capwasm.record.redact import printable

__all__ = ["alias", "call", "docstring", "imports", "literal", "names_list", "nested", "signature"]

_WIDTH: Final = 88
_INDENT: Final = "    "


def literal(text: str) -> str:
    """A string literal of that text, in ASCII."""
    safe = text.isascii() and text.isprintable() and '"' not in text and "\\" not in text
    return f'"{text}"' if safe else ascii(text)


def docstring(text: str, indent: str = _INDENT) -> list[str]:
    """Text of anybody's as a docstring: it can't end the literal, and shows what is invisible."""
    shown = [printable(line.rstrip()) for line in text.strip().split("\n")]
    shown[1:] = textwrap.dedent("\n".join(shown[1:])).split("\n") if shown[1:] else []
    lines = [line.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') for line in shown]
    if lines[0].startswith('"'):
        lines[0] = f"\\{lines[0]}"
    if lines[-1].endswith('"') and not lines[-1].endswith('\\"'):
        lines[-1] = f'{lines[-1][:-1]}\\"'
    if len(lines) == 1:
        return [f'{indent}"""{lines[0]}"""']
    body = [f"{indent}{line}" if line else "" for line in lines[1:]]
    return [f'{indent}"""{lines[0]}', *body, f'{indent}"""']


def imports(module: str, names: Iterable[str]) -> list[str]:
    """An import of these names."""
    return _bracketed(f"from {module} import ", sorted(names), "", "", "()", bare=True)


def names_list(head: str, names: Iterable[str]) -> list[str]:
    """A list of strings, as `head = [...]`."""
    return _bracketed(f"{head} = ", [literal(n) for n in sorted(names)], "", "", "[]", join=False)


def call(head: str, items: Sequence[str], indent: str, end: str = "") -> list[str]:
    """A call of `head` with these arguments."""
    return _bracketed(head, items, end, indent, "()")


def nested(items: tuple[Any, ...], indent: str) -> str:
    """A tuple of names and of tuples, as an argument on a line of its own."""
    inner = indent + _INDENT
    flat = [x if isinstance(x, str) else nested(x, "") for x in items]
    line = f"({', '.join(flat)}{',' * (len(items) == 1)})"
    if not indent or len(indent) + len(line) + 1 <= _WIDTH:
        return line
    each = [x if isinstance(x, str) else nested(x, inner) for x in items]
    return "\n".join(["(", *(f"{inner}{x}," for x in each), f"{indent})"])


def signature(
    head: str, params: Sequence[str], result: str, indent: str, end: str = ""
) -> list[str]:
    """The line or lines of a `def`."""
    return _bracketed(head, ["self", *params], f" -> {result}:{end}", indent, "()")


def alias(name: str, parts: Sequence[str]) -> list[str]:
    """An alias of a union."""
    head, whole = f"{name}: TypeAlias = ", " | ".join(parts)
    if len(head) + len(whole) <= _WIDTH or len(parts) == 1:
        return [head + whole]
    if len(_INDENT) + len(whole) <= _WIDTH:
        return [f"{head}(", _INDENT + whole, ")"]
    return [f"{head}(", *(_INDENT + ("| " * (i > 0)) + p for i, p in enumerate(parts)), ")"]


def _bracketed(
    head: str,
    items: Sequence[str],
    end: str,
    indent: str,
    brackets: str,
    *,
    bare: bool = False,
    join: bool = True,
) -> list[str]:
    """On one line, or within its brackets on the next, or one a line.

    Args:
        head: before the opening one.
        items: within them.
        end: after the closing one.
        indent: of the whole.
        brackets: the two.
        bare: one line has none.
        join: whether the second way is one.
    """
    opening, closing = ("", "") if bare else (brackets[0], brackets[1])
    line = f"{indent}{head}{opening}{', '.join(items)}{closing}{end}"
    if len(line) <= _WIDTH or not items:
        return [line]
    inner = f"{indent}{_INDENT}"
    first, last = f"{indent}{head}{brackets[0]}", f"{indent}{brackets[1]}{end}"
    together = f"{inner}{', '.join(items)}"
    if join and not bare and len(together) <= _WIDTH:
        return [first, together, last]
    return [first, *(f"{inner}{item}," for item in items), last]
