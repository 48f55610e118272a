"""What of a policy may be given to developers of plugins, whom its owner may not know.  Pure.

Only what is known to be fit is published: names by which a manifest speaks of something, words from
fixed sets, numbers.  Where something lies on the host, its networks, its settings, and text of a kind
that is not known here, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import Enum
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel

from capwasm._words import kebab
from capwasm.caps.clock.model import ClockClause
from capwasm.caps.config.model import ConfigClause
from capwasm.caps.exec.model import ExecClause
from capwasm.caps.exec.pattern import Hole, Pattern
from capwasm.caps.fs.model import FsClause
from capwasm.caps.kv.model import KvClause
from capwasm.caps.log.model import LogClause
from capwasm.caps.net.address import PUBLIC, Network, classify
from capwasm.caps.net.model import NetClause
from capwasm.caps.net.pattern import ANY_ADDRESS
from capwasm.caps.random.model import RandomClause
from capwasm.caps.secrets.model import SecretClause
from capwasm.lattice import Clause

__all__ = ["HIDDEN", "in_words", "settings"]

HIDDEN: Final = "not published"

_PLAIN: Final = (ClockClause, KvClause, LogClause, RandomClause, SecretClause)


def in_words(clause: Clause, *, internal: bool) -> str:
    """A clause in plain words.

    Args:
        clause: of a policy.
        internal: whether nothing is left out.
    """
    if internal or isinstance(clause, _PLAIN):
        return clause.describe()
    if isinstance(clause, ConfigClause):
        return replace(clause, value=None).describe()
    if isinstance(clause, FsClause):
        where = "" if clause.path is None else ", in a directory that the operator chose"
        return replace(clause, path=None).describe() + where
    if isinstance(clause, NetClause):
        return _net(clause)
    if isinstance(clause, ExecClause):
        return _exec(clause)
    return f"something that is {HIDDEN}"


def _net(clause: NetClause) -> str:
    host = clause.host
    if isinstance(host, Network):
        ends = {classify(host.network_address), classify(host.broadcast_address)}
        if ends != {PUBLIC}:
            methods = ", ".join(replace(clause).to_toml()["methods"]).replace("*", "any method")
            return f"send {methods} to a network of the operator's own"
    if not clause.addresses or clause.addresses == ANY_ADDRESS:
        return clause.describe()
    text = replace(clause, addresses=frozenset()).describe()
    return f"{text}, also where the name leads into networks of the operator's own"


def _exec(clause: ExecClause) -> str:
    text = replace(clause, program=None, arguments=None, reads=None).describe()
    forms = [
        ", ".join(
            # An expression may spell where something lies.
            word.name if "/" in spelled or "\\" in spelled else spelled[spelled.index("{") :]
            for word, spelled in zip(Pattern.of(words).words, words, strict=True)
            if isinstance(word, Hole)
        )
        for words in clause.arguments or ()
    ]
    given = [form for form in forms if form]
    return f"{text}, with values for {' or for '.join(given)}" if given else text


def settings(
    model: BaseModel, *, internal: bool, prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """The words of a table: each with its value and its meaning.

    Args:
        model: the table, as parsed.
        internal: whether nothing is left out.
        prefix: of words in a table within it.
    """
    for name, info in type(model).model_fields.items():
        value, word = getattr(model, name), prefix + (info.alias or kebab(name))
        if isinstance(value, BaseModel):
            yield from settings(value, internal=internal, prefix=f"{word}.")
        else:
            fit = internal or _is_fit(value, info.annotation)
            yield word, _value(value) if fit else HIDDEN, info.description or ""


def _is_fit(value: Any, annotation: Any) -> bool:
    """Whether a value is a number, a truth, nothing, or a word of a fixed set; of several, all."""
    if (
        value is None
        or value in ("", (), frozenset())
        or isinstance(value, bool | int | float | Enum)
    ):
        return True
    if isinstance(value, str):
        return value in _literals(annotation)
    if isinstance(value, Mapping):
        return all(isinstance(v, bool | int | float) for v in value.values())
    return isinstance(value, tuple | frozenset | list) and all(
        isinstance(v, str) and v in _literals(annotation) for v in value
    )


def _literals(annotation: Any) -> frozenset[str]:
    if get_origin(annotation) is Literal:
        return frozenset(str(word) for word in get_args(annotation))
    return frozenset().union(*(_literals(part) for part in get_args(annotation)))


def _value(value: Any) -> str:
    if value is None or value in ("", (), frozenset()):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items())
    if isinstance(value, tuple | frozenset | list):
        return ", ".join(map(_value, value))
    return str(value.value if isinstance(value, Enum) else value)
