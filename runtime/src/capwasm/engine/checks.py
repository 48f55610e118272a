"""What a Python value must be to fit a WIT type: strict, and never wrapped around (TYP-04, TYP-05).

Shared by the two ways of crossing, so that they can't differ in what they accept.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol, TypeAlias

from capwasm.values import Err, Ok, Some, Variant

from .classes import field_name
from .crossing import BadValue, over_limit, short
from .types import List, Option, Record, Result, Tuple, ValType
from .types import Variant as VariantType

__all__ = [
    "INT_RANGES",
    "Budget",
    "as_bool",
    "as_bytes",
    "as_case",
    "as_char",
    "as_fields",
    "as_float",
    "as_int",
    "as_items",
    "as_list",
    "as_sequence",
    "as_text",
    "as_word",
    "as_words",
    "bytes_size",
    "out_of_range",
    "show",
]

INT_RANGES: dict[str, tuple[int, int]] = {
    f"{sign}{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if sign == "s" else (0, 2**bits - 1)
    for sign in "su"
    for bits in (8, 16, 32, 64)
}


def show(value: object) -> str:
    """`value` for a message: short, and harmless whatever it is."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    text = repr(value) if isinstance(value, str | int | float) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


def as_bool(value: object) -> bool:
    """Exactly True or False."""
    if value is True or value is False:
        return value
    raise BadValue.expected("bool", value)


def as_int(value: object, word: str) -> int:
    """An int (not a bool) in the range of that WIT type."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadValue.expected(word, value)
    low, high = INT_RANGES[word]
    if not low <= value <= high:
        raise out_of_range(value, word)
    return int(value)


def out_of_range(value: int, word: str) -> BadValue:
    """The fault of a number that doesn't fit."""
    low, high = INT_RANGES[word]
    return BadValue.value(f"expected {word} ({low} to {high}), got {show(value)}")


def as_float(value: object, word: str) -> float:
    """A float, or an int that a float can hold."""
    if isinstance(value, float):
        return float(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadValue.expected(word, value)
    try:
        return float(value)
    except OverflowError:
        raise BadValue.value(f"{show(value)} is too large for {word}") from None


def as_char(value: object) -> str:
    """Exactly one Unicode scalar value: no surrogate (TYP-07)."""
    if not isinstance(value, str):
        raise BadValue.expected("char", value)
    if len(value) != 1 or "\ud800" <= value <= "\udfff":
        raise BadValue.value(f"expected char (one Unicode scalar value), got {show(value)}")
    return str(value)


def as_text(value: object) -> bytes:
    """The UTF-8 of a str; a lone surrogate has none (TYP-06)."""
    if not isinstance(value, str):
        raise BadValue.expected("string", value)
    try:
        # str.encode itself: a subclass may not lie about its text.
        return str.encode(value)
    except UnicodeEncodeError as exc:
        raise BadValue.value(
            f"a string with a lone surrogate at index {exc.start} is not Unicode text"
        ) from None


def bytes_size(value: object) -> int:
    """The size of a bytes-like object, before anything is copied."""
    if isinstance(value, bytes | bytearray):
        return len(value)
    try:
        return memoryview(value).nbytes  # type: ignore[arg-type]
    except TypeError:
        raise BadValue.expected("list<u8> (bytes)", value) from None


def as_bytes(value: Any) -> bytes:
    """The bytes of a bytes-like object; `bytes_size` came first."""
    return value if type(value) is bytes else bytes(memoryview(value))


def as_sequence(value: object, type_: object) -> Sequence[Any]:
    """A list or tuple, or an array or memoryview of numbers; as a snapshot that can't change."""
    if type(value) is tuple:
        return value
    if isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(value, array | memoryview):
        return tuple(value.tolist())
    raise BadValue.expected(type_, value)


class Budget(Protocol):
    """What counts the bytes of one crossing: a frame, a codec."""

    left: int
    limit: int

    def charge(self, size: int) -> None:
        """Count bytes that cross."""


def as_list(value: Any, type_: List, unit: int, budget: Budget) -> Sequence[Any]:
    """The items of a list, charged at `unit` bytes each; refused before it is copied."""
    try:
        too_long = len(value) * unit > budget.left
    except TypeError:
        too_long = False
    if too_long:
        raise over_limit(budget.limit)
    items = as_sequence(value, type_)
    budget.charge(len(items) * unit)
    return items


def as_items(value: object, type_: Tuple) -> tuple[Any, ...]:
    """The items of a tuple, as many as it must have."""
    if not isinstance(value, tuple | list):
        raise BadValue.expected(type_, value)
    items = tuple(value)
    if len(items) != len(type_.items):
        raise BadValue.value(f"expected {short(type_)}, got {len(items)} items")
    return items


def as_word(value: object, words: Collection[str], type_: object) -> str:
    """One of the words of an enum, or a case of a variant."""
    if not isinstance(value, str):
        raise BadValue.expected(type_, value)
    if value not in words:
        raise BadValue.value(
            f"{show(str.__str__(value))} is not one of {short(type_)}'s words: {_listed(words)}"
        )
    return str.__str__(value)


def as_words(value: object, words: Collection[str], type_: object) -> set[str]:
    """Some of the words of a flags type."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise BadValue.expected(f"{short(type_)} (a set of words)", value)
    found = set()
    for word in value:
        # Each word is checked as it comes, so an endless iterable ends at its first stranger.
        found.add(as_word(word, words, type_))
        if len(found) == len(words):
            break
    return found


def _listed(words: Iterable[str]) -> str:
    listed = [w if len(w) <= 60 else f"{w[:57]}..." for w in words]
    more = f", and {len(listed) - 20} more" if len(listed) > 20 else ""
    return ", ".join(listed[:20]) + more


# The number of the case, its payload (None where it has none), the step in the path of a fault.
Case: TypeAlias = tuple[int, Any, str]


def as_case(type_: ValType) -> Callable[[Any], Case]:
    """A function that takes a value of a variant, an option or a result apart."""
    match type_:
        case Option(payload):
            return _some(type_, wrapped=isinstance(payload, Option))
        case Result():
            return _outcome(type_)
        case VariantType():
            return _case(type_)
        case _:
            raise TypeError(f"{type_} has no cases")


def _some(type_: Option, *, wrapped: bool) -> Callable[[Any], Case]:
    def take(value: Any) -> Case:
        if value is None:
            return 0, None, ""
        if wrapped:
            if not isinstance(value, Some):
                raise BadValue.expected(f"{short(type_)} (Some or None)", value)
            value = value.value
        return 1, value, ""

    return take


def _outcome(type_: Result) -> Callable[[Any], Case]:
    ok, err = type_.ok is not None, type_.err is not None

    def take(value: Any) -> Case:
        if isinstance(value, Ok):
            if not ok and value.value is not None:
                raise _no_value("ok", type_)
            return 0, value.value, ".ok"
        if isinstance(value, Err):
            if not err and value.error is not None:
                raise _no_value("err", type_)
            return 1, value.error, ".err"
        raise BadValue.expected(f"{short(type_)} (Ok or Err)", value)

    return take


def _case(type_: VariantType) -> Callable[[Any], Case]:
    cases = {n: (i, x is None) for i, (n, x) in enumerate(type_.cases)}

    def take(value: Any) -> Case:
        if not isinstance(value, Variant):
            raise BadValue.expected(f"{short(type_)} (a Variant)", value)
        case = as_word(value.case, cases, type_)
        number, bare = cases[case]
        if bare and value.value is not None:
            raise _no_value(case, type_)
        return number, value.value, f".{case}"

    return take


def _no_value(case: str, type_: ValType) -> BadValue:
    return BadValue.value(f"the case {case} of {short(type_)} has no value")


def as_fields(type_: Record, cls: type) -> Callable[[Any], tuple[Any, ...]]:
    """A function that takes a record apart: an instance of `cls`, a mapping, or a likeness."""
    names = tuple(field_name(n) for n, _ in type_.fields)
    get: Callable[[Any], Any] = attrgetter(*names) if names else lambda _: ()
    valid = frozenset(names)

    def take(value: Any) -> tuple[Any, ...]:
        if type(value) is cls:
            got = get(value)
            return got if len(names) != 1 else (got,)
        if isinstance(value, Mapping):
            missing = [n for n in names if n not in value]
            unknown = [show(k) for k in value if k not in valid]
            if missing or unknown:
                raise _fields_fault(type_, names, missing, unknown)
            return tuple(value[n] for n in names)
        if isinstance(value, str | int | float | bytes | list | tuple | None):
            raise BadValue.expected(type_, value)
        missing = [n for n in names if not hasattr(value, n)]
        if missing:
            raise _fields_fault(type_, names, missing, [])
        return tuple(getattr(value, n) for n in names)

    return take


def _fields_fault(
    type_: Record, names: Sequence[str], missing: list[str], unknown: list[str]
) -> BadValue:
    faults = []
    if missing:
        faults.append(f"lacks {', '.join(missing)}")
    if unknown:
        faults.append(f"has unknown fields {_listed(unknown)}")
    return BadValue(
        f"{' and '.join(faults)}; the fields of {short(type_)} are {_listed(names)}",
        wrong_type=True,
    )
