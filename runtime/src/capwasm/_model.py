"""The one way in for untrusted text: size-capped TOML or JSON to a frozen, strict pydantic model.

`tomllib` of older patch levels is quadratic in dotted keys, and Python's `json` accepts NaN and
keeps the last of two equal keys, so both are fenced here, before any model sees the data.
"""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, NoReturn, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from ._words import kebab
from .errors import CapwasmError, Fault

__all__ = ["Model", "faults_of", "hidden", "parse_json", "parse_toml", "validate"]

# A manifest of 200 permissions is about 20 KiB; a hundred times nothing is still nothing.
MAX_TEXT_BYTES = 256 * 1024
MAX_DEPTH = 16
# A dotted key or header with more parts than this is an attack on tomllib, not a manifest (MAN-01).
MAX_DOTTED_PARTS = 16
# Strings and comments of TOML, so that keys can be counted without them.  Possessive, and a string
# that never ends is taken whole, so the scan is linear whatever the text.
_STRINGS = re.compile(
    r"""\#[^\n]*+
    |\"{3}(?:[^\"\\]|\\.|\"(?!\"\"))*+(?:\"{3,5})?
    |'{3}(?:[^']|'(?!''))*+(?:'{3,5})?
    |\"(?:[^\"\\\n]|\\.)*+\"?
    |'[^'\n]*+'?""",
    re.VERBOSE | re.DOTALL,
)
_DOTS = re.compile(rf"(?<![\w-])(?:[\w-]++\s*+\.\s*+){{{MAX_DOTTED_PARTS}}}")
_OPEN = re.compile(rf"[\[{{]{{{MAX_DEPTH + 1}}}")

ModelT = TypeVar("ModelT", bound="Model")


class Model(BaseModel):
    """Frozen, strict, and closed: an unknown word is a fault that names the valid ones."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=kebab,  # and no other spelling: `not_after` is an unknown word
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_kwargs: Any) -> None:
        """Refuse `Literal[1]` when the class is made: it takes `true` and `1.0` for 1."""
        for name, field in cls.model_fields.items():
            if not all(isinstance(word, str) for word in _literals(field.annotation)):
                raise TypeError(f"{cls.__name__}.{name}: write Annotated[int, Field(ge=1, le=1)]")


def _literals(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        if get_origin(annotation) is Literal:
            yield part
        else:
            yield from _literals(part)


def validate(
    model: type[ModelT],
    data: Any,
    error: type[CapwasmError],
    *,
    code: str | None = None,
    context: str = "",
) -> ModelT:
    """Make `model` from plain data, or raise `error` with every fault and its path.

    `code` is the error's; its kind's own, if not given.

    Data goes through JSON on purpose: strict mode then takes an array for a set or tuple, and no
    Python object of any other kind can slip in.
    """
    try:
        text = json.dumps(data, allow_nan=False)
    except (TypeError, ValueError) as exc:  # dates of TOML, NaN, inf
        raise error(
            "the document holds a value of a type that is not allowed here",
            code=code,
            context=context,
            faults=[Fault("", f"only text, whole numbers, true/false, arrays and tables: {exc}")],
        ) from None
    try:
        return model.model_validate_json(text)
    except ValidationError as exc:
        faults = faults_of(exc, model)
        raise error(_count(faults), code=code, context=context, faults=faults) from None


def _count(faults: Sequence[Fault]) -> str:
    return "1 fault" if len(faults) == 1 else f"{len(faults)} faults"


def faults_of(exc: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """All faults of a validation, each with its path as written in the file."""
    out = []
    for item in exc.errors(include_url=False, include_context=True, include_input=False):
        loc = item["loc"]
        message = str(item["msg"]).removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            words = ", ".join(_valid_words(model, loc[:-1]))
            message = f"unknown word {str(loc[-1])!r}" + (f"; valid: {words}" if words else "")
            loc = loc[:-1]
        out.append(Fault(_path(loc), message))
    return out


def _path(loc: Sequence[int | str]) -> str:
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def _valid_words(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """The field names valid at `loc`, walking through lists, dicts and optionals."""
    current: Any = model
    for part in loc:
        found = None
        for candidate in _models_in(current):
            for name, field in candidate.model_fields.items():
                if part in (name, field.alias):
                    found = field.annotation
        if found is not None:
            current = found
        # An index or a free key steps into the same annotation's arguments.
    models = list(_models_in(current))
    return sorted({f.alias or kebab(n) for m in models for n, f in m.model_fields.items()})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in _models_in(arg)]


def parse_toml(
    data: bytes,
    error: type[CapwasmError],
    *,
    code: str,
    context: str = "",
    limit: int = MAX_TEXT_BYTES,
) -> dict[str, Any]:
    """Parse TOML within bounds of size, depth and key length.

    Raises:
        error: with `code`, when it is not UTF-8, not TOML, too large, too deep or holds a control
            or invisible character (MAN-01, MAN-02, MAN-06).
    """

    def fail(message: str) -> NoReturn:
        raise error(message, code=code, context=context)

    text = _text(data, limit, fail)
    bare = _STRINGS.sub(lambda m: "" if m.group()[0] == "#" else "s", text)
    if _DOTS.search(bare):
        fail(f"a key has more than {MAX_DOTTED_PARTS} dotted parts")
    if _OPEN.search(re.sub(r"\s+", "", bare)):
        fail(f"nested deeper than {MAX_DEPTH}")
    try:
        doc = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as exc:
        fail(f"not valid TOML: {str(exc) or type(exc).__name__}")
    if _depth(doc) > MAX_DEPTH:
        fail(f"nested deeper than {MAX_DEPTH}")
    return doc


def parse_json(
    data: bytes,
    error: type[CapwasmError],
    *,
    code: str,
    context: str = "",
    limit: int = MAX_TEXT_BYTES,
) -> Any:
    """Parse JSON within bounds; no repeated key, no NaN, no number past 64 bits (MAN-03..05).

    Raises:
        error: with `code`, for each of these.
    """

    def fail(message: str) -> NoReturn:
        raise error(message, code=code, context=context)

    def no_constant(word: str) -> NoReturn:
        raise ValueError(f"{word} is not a number of JSON")

    def finite(digits: str) -> float:
        if abs(number := float(digits)) == float("inf"):
            raise ValueError("a number has more than 64 bits")
        return number

    def whole(digits: str) -> int:
        if len(digits) > 20:
            raise ValueError("a number has more than 64 bits")
        if digits == "-0":
            raise ValueError("-0 is not a whole number")
        return int(digits)

    text = _text(data, limit, fail)
    try:
        doc = json.loads(
            text,
            object_pairs_hook=_no_repeats,
            parse_constant=no_constant,
            parse_float=finite,
            parse_int=whole,
        )
    except (ValueError, RecursionError) as exc:
        fail(f"not valid JSON: {str(exc) or type(exc).__name__}")
    if _depth(doc) > MAX_DEPTH:
        fail(f"nested deeper than {MAX_DEPTH}")
    return doc


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("one key stands twice in an object")
    return out


# Control, format (bidi, zero-width, tags), surrogate, private use, line and paragraph separators.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
# Letters and marks that nothing is drawn for: fillers, joiners, selectors of variants.
_BLANK: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\uffa0\U000e0100-\U000e01ef]"
)


def hidden(text: str, *, allowed: str = "") -> str | None:
    """Which character of `text` a reviewer could not see, as `U+202E`, or None (MAN-06)."""
    if text.isascii() and text.isprintable():  # the usual case, and of megabytes
        return None
    found = (
        char
        for char in set(text)
        if (unicodedata.category(char) in _HIDDEN and char not in allowed) or _BLANK.match(char)
    )
    first = min(found, default=None)
    return None if first is None else f"U+{ord(first):04X}"


def _text(data: bytes, limit: int, fail: Callable[[str], NoReturn]) -> str:
    if len(data) > limit:
        fail(f"larger than {limit} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        fail(f"not UTF-8: byte {exc.start}")
    if (found := hidden(text, allowed="\t\n\r")) is not None:
        fail(f"holds an invisible or control character, {found}")
    return text


def _depth(doc: Any) -> int:
    """Depth of nesting, without recursion."""
    deepest, todo = 0, [(doc, 1)]
    while todo:
        node, level = todo.pop()
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        level += bool(inner)
        deepest = max(deepest, level)
        if level > MAX_DEPTH:
            break
        todo.extend([(v, level) for v in inner if isinstance(v, dict | list)])
    return deepest
