"""From the raw tables of a manifest, a policy or a consent to clauses: one way for all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, TypeVar

from pydantic import BeforeValidator, WithJsonSchema

from capwasm._model import Model, validate
from capwasm.capability import Capability, Parsed, Side
from capwasm.errors import Fault, ManifestError
from capwasm.lattice import Clause

__all__ = ["ByTables", "Size", "Table", "parse_tables", "read_size", "show_size"]

ModelT = TypeVar("ModelT", bound=Model)
ClauseT = TypeVar("ClauseT", bound=Clause)
StateT = TypeVar("StateT")


class Table(Model):
    """A table of a manifest or policy that knows which clauses it means."""

    def clauses(self) -> Iterable[Any]:
        """What the table means."""
        raise NotImplementedError


class ByTables(Capability[ClauseT, StateT]):
    """A capability whose tables are each one model, with the same words or others on each side."""

    asked: ClassVar[type[Table]]
    """The form of its table in a manifest."""

    given: ClassVar[type[Table]]
    """The form of its table in a policy and in a consent."""

    def schema(self, side: Side) -> dict[str, Any]:
        """JSON Schema of its table on that side."""
        return self._form(side).model_json_schema()

    def parse(self, tables: Sequence[Mapping[str, Any]], side: Side) -> Parsed[ClauseT]:
        """The clauses of its tables on that side."""
        form = self._form(side)
        return parse_tables(tables, form, form.clauses, repeated=self.repeated)

    def _form(self, side: Side) -> type[Table]:
        return self.asked if side == "manifest" else self.given


def parse_tables(
    tables: Sequence[Mapping[str, Any]],
    model: type[ModelT],
    clauses: Callable[[ModelT], Iterable[ClauseT]],
    *,
    repeated: bool,
) -> Parsed[ClauseT]:
    """Validate each table as `model` and turn it into clauses; all faults of all tables.

    Args:
        tables: as TOML gave them.
        model: the form that a table must have on this side.
        clauses: what a table that has the form means.
        repeated: whether the file writes an array of tables, so that a fault's path begins with
            the table's index.
    """
    out: list[ClauseT] = []
    faults: list[Fault] = []
    for index, table in enumerate(tables):
        try:
            parsed = validate(model, table, ManifestError)
        except ManifestError as exc:
            where = f"[{index}]" if repeated or len(tables) > 1 else ""
            faults += [replace(f, path=_join(where, f.path)) for f in exc.faults]
        else:
            out += clauses(parsed)
    return Parsed((), tuple(faults)) if faults else Parsed(tuple(out))


def _join(where: str, path: str) -> str:
    return f"{where}.{path}" if where and path and not path.startswith("[") else where + path


_UNITS: Final = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE: Final = re.compile(r"([0-9]{1,15}) ?([A-Za-z]*)", re.ASCII)


def read_size(value: object) -> object:
    """The bytes that a text such as `64KiB` says; anything else as it is.

    Raises:
        ValueError: it is no size.
    """
    if not isinstance(value, str):
        return value  # a whole number of bytes, which the field's own checks judge
    found = _SIZE.fullmatch(value)
    if found is None or found[2] not in _UNITS:
        raise ValueError(
            f"not a size: write bytes, or such as 64KiB; units: {', '.join(_UNITS)[2:]}"
        )
    return int(found[1]) * _UNITS[found[2]]


Size = Annotated[
    int,
    BeforeValidator(read_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9]{1,15} ?(B|KiB|MiB|GiB|TiB)?$"},
            ]
        }
    ),
]
"""A number of bytes: `65536` or `"64KiB"`."""


def show_size(size: int) -> str:
    """The shortest exact spelling: `64KiB`, `1000B`."""
    for unit, factor in reversed(_UNITS.items()):
        if unit and size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"
