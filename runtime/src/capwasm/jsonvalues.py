"""WIT values as JSON, both ways, each by its type.

==================  ===========================================================================
WIT                 JSON
==================  ===========================================================================
bool, ints          true or false; a whole number within the type's range
f32, f64            a number, or "nan", "inf", "-inf"
char, string        a string
list<u8>            a string if the bytes are text, else {"base64": "…"}; read also from numbers
list, tuple         an array
record              an object with the WIT names; an option that is left out is none
variant             {"case": value}, or "case" where it has no value
enum                the word
flags               an array of words
option              null or the value; of an option within an option {"some": value}
result              {"ok": value} or {"err": value}, with null where it has no value
own, borrow         {"handle": "name"}, to look at; a handle can't be written
==================  ===========================================================================

What was read goes back out as it was, and the other way round.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from .engine import checks
from .engine import types as t
from .engine.classes import field_name
from .engine.crossing import BadValue
from .errors import Fault
from .values import Err, Ok, Some, Variant

__all__ = ["JsonValueError", "from_json", "from_text", "to_json"]

_BYTES: Final = t.List(t.Prim("u8"))
_ODD_FLOATS: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class JsonValueError(ValueError):
    """A document does not fit a type; `faults` holds every place where."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        """Keep the faults."""
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, faults)))


# -- out -----------------------------------------------------------------------------------------


def to_json(type_: t.ValType | None, value: Any) -> Any:  # noqa: C901  one case a type
    """A value of that type as plain data, fit for `json.dumps`.

    Args:
        type_: None stands for no value.
        value: as `values` says; a record may be a mapping too.
    """
    match type_:
        case None:
            return None
        case t.Prim("f32" | "f64"):
            return _float_out(value, type_.word)
        case t.Prim():
            return value
        case t.List(t.Prim("u8")):
            return _bytes_out(bytes(value))
        case t.List(element):
            return [to_json(element, x) for x in value]
        case t.Tuple(items):
            return [to_json(i, x) for i, x in zip(items, value, strict=True)]
        case t.Record(_, fields):
            get = value.__getitem__ if isinstance(value, Mapping) else value.__getattribute__
            return {n: to_json(f, get(field_name(n))) for n, f in fields}
        case t.Variant(_, cases):
            payload = dict(cases)[value.case]
            return value.case if payload is None else {value.case: to_json(payload, value.value)}
        case t.Enum():
            return str(value)
        case t.Flags(_, names):
            held = set(map(str, value))
            return [name for name in names if name in held]
        case t.Option(payload):
            if value is None:
                return None
            if isinstance(payload, t.Option):
                return {"some": to_json(payload, value.value)}
            return to_json(payload, value)
        case t.Result(ok, err):
            if isinstance(value, Ok):
                return {"ok": to_json(ok, value.value)}
            return {"err": to_json(err, value.error)}
        case t.Own(resource) | t.Borrow(resource):
            return {"handle": str(resource)}


def _float_out(value: float, word: str) -> float | str:
    if not math.isfinite(value):
        return str(value)
    # Of the numbers that are this f32, the one with the fewest digits: 0.1, not 0.10000000149.
    for digits in range(1, 10) if word == "f32" else ():
        short = float(f"{value:.{digits}g}")
        if _as_f32(short) == _as_f32(value):
            return short
    return value


def _as_f32(value: float) -> bytes | None:
    try:
        return struct.pack("=f", value)
    except OverflowError:
        return None


def _bytes_out(value: bytes) -> str | dict[str, str]:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if text.translate({9: None, 10: None}).isprintable():
        return text
    return {"base64": base64.b64encode(value).decode()}


# -- in ------------------------------------------------------------------------------------------


def from_json(type_: t.ValType, document: Any, path: str = "") -> Any:
    """The value of that type that a document says; records are mappings.

    Args:
        type_: what it must be.
        document: as `json.loads` gives it.
        path: how faults call the whole.

    Raises:
        JsonValueError: with every fault and its path.
    """
    reader = _Reader()
    value = reader.read(type_, document, path)
    if reader.faults:
        raise JsonValueError(reader.faults)
    return value


def from_text(type_: t.ValType, text: str, path: str = "") -> Any:
    """The value that a word on a command line says: JSON, or where that is a string, plain text.

    A text that begins with a quote is JSON there too, and so is {"base64": "…"} for bytes, and null
    for an option.

    Raises:
        JsonValueError: with every fault and its path.
    """
    try:
        document = _parse(text)
    except ValueError as exc:
        if not _is_text(type_) and not isinstance(type_, t.Variant):
            raise JsonValueError([Fault(path, f"expected JSON of {type_}: {exc}")]) from None
        document = text
    if _is_text(type_) and not _is_text_already(type_, document):
        document = text
    return from_json(type_, document, path)


def _is_text(type_: t.ValType) -> bool:
    match type_:
        case t.Option(payload):
            return _is_text(payload) and not isinstance(payload, t.Option)
        case t.Prim(word):
            return word in ("char", "string")
        case _:
            return isinstance(type_, t.Enum) or type_ == _BYTES


def _is_text_already(type_: t.ValType, document: Any) -> bool:
    match document:
        case str():
            return True
        case None:
            return isinstance(type_, t.Option)
        case {"base64": str()}:
            return type_ in (_BYTES, t.Option(_BYTES))
        case _:
            return False


def _parse(text: str) -> Any:
    def no_constant(word: str) -> NoReturn:
        raise ValueError(f"{word} is not a number of JSON")

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("one key stands twice in an object")
        return found

    try:
        return json.loads(text, parse_constant=no_constant, object_pairs_hook=no_repeats)
    except RecursionError:
        raise ValueError("nested too deep") from None


class _Reader:
    """Reads a document and collects all that is wrong with it."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def _fault(self, path: str, message: str) -> Any:
        # Types are the component's: they can be as long as it likes, and documents as well.
        self.faults.append(
            Fault(path[:200], f"{message[:397]}..." if len(message) > 400 else message)
        )
        return None

    def read(self, type_: t.ValType, doc: Any, path: str) -> Any:
        match type_:
            case t.Prim(word):
                return self._prim(word, doc, path)
            case t.List(t.Prim("u8")):
                return self._bytes(doc, path)
            case t.List(element):
                items = self._expect(list, doc, path, str(type_)) or []
                return [self.read(element, x, f"{path}[{i}]") for i, x in enumerate(items)]
            case t.Tuple(parts):
                items = self._expect(list, doc, path, str(type_))
                if items is None:
                    return None
                if len(items) != len(parts):
                    return self._fault(path, f"expected {len(parts)} items, got {len(items)}")
                pairs = enumerate(zip(parts, items, strict=True))
                return tuple(self.read(p, x, f"{path}[{i}]") for i, (p, x) in pairs)
            case t.Record():
                return self._record(type_, doc, path)
            case t.Variant(_, cases):
                return self._variant(dict(cases), doc, path)
            case t.Enum(_, words):
                return self._word(words, doc, path)
            case t.Flags(_, names):
                items = self._expect(list, doc, path, str(type_)) or []
                return frozenset(self._word(names, x, f"{path}[{i}]") for i, x in enumerate(items))
            case t.Option(payload):
                return self._option(payload, doc, path)
            case t.Result(ok, err):
                return self._result({"ok": ok, "err": err}, doc, path)
            case t.Own() | t.Borrow():
                return self._fault(path, f"a handle ({type_}) can't be written as JSON")

    def _prim(self, word: str, doc: Any, path: str) -> Any:
        try:
            match word:
                case "bool":
                    return checks.as_bool(doc)
                case "string":
                    checks.as_text(doc)
                    return doc
                case "char":
                    return checks.as_char(doc)
                case "f32" | "f64":
                    if isinstance(doc, str) and doc in _ODD_FLOATS:
                        return _ODD_FLOATS[doc]
                    number = checks.as_float(doc, word)
                    if math.isinf(number) or (word == "f32" and _as_f32(number) is None):
                        self._fault(path, f"{checks.show(doc)} is too large for {word}")
                    return number
                case _:
                    return checks.as_int(doc, word)
        except BadValue as bad:
            self._fault(path, bad.message)

    def _bytes(self, doc: Any, path: str) -> bytes | None:
        try:
            match doc:
                case str():
                    return checks.as_text(doc)
                case list():
                    return bytes(checks.as_int(x, "u8") for x in doc)
                case {"base64": str(text)} if len(doc) == 1:
                    return base64.b64decode(text, validate=True)
        except BadValue as bad:
            self._fault(path, bad.message)
        except (binascii.Error, ValueError):
            self._fault(path, "not valid base64")
        else:
            self._fault(path, f'expected a string, {{"base64": "…"}} or numbers, got {_kind(doc)}')
        return None

    def _record(self, type_: t.Record, doc: Any, path: str) -> Any:
        given = self._expect(dict, doc, path, str(t.Record(None, type_.fields)))
        if given is None:
            return None
        fields = dict(type_.fields)
        dot = f"{path}." if path else ""
        for name in given:
            if name not in fields:
                valid = ", ".join(fields)
                self._fault(f"{dot}{checks.show(name)[1:-1]}", f"unknown field; valid: {valid}")
        found = {}
        for name, field in fields.items():
            if name not in given and not isinstance(field, t.Option):
                self._fault(f"{dot}{name}", f"missing: {field}")
            else:
                found[field_name(name)] = self.read(field, given.get(name), f"{dot}{name}")
        return found

    def _variant(self, cases: Mapping[str, t.ValType | None], doc: Any, path: str) -> Any:
        if isinstance(doc, str):
            doc = {doc: None}
            if cases.get(next(iter(doc))) is not None:
                [case] = doc
                return self._fault(path, f'{case} has a value: {{"{case}": {cases[case]}}}')
        found = self._one_of(cases, doc, path)
        return None if found is None else Variant(*found)

    def _result(self, cases: Mapping[str, t.ValType | None], doc: Any, path: str) -> Any:
        found = self._one_of(cases, doc, path)
        if found is None:
            return None
        return Ok(found[1]) if found[0] == "ok" else Err(found[1])

    def _one_of(
        self, cases: Mapping[str, t.ValType | None], doc: Any, path: str
    ) -> tuple[str, Any] | None:
        if not isinstance(doc, dict) or len(doc) != 1 or next(iter(doc)) not in cases:
            got = checks.show(next(iter(doc))) if isinstance(doc, dict) and doc else _kind(doc)
            self._fault(path, f"expected one of {', '.join(cases)}; got {got}")
            return None
        [(case, inner)] = doc.items()
        payload = cases[case]
        here = f"{path}.{case}" if path else case
        if payload is not None:
            return case, self.read(payload, inner, here)
        if inner is not None:
            self._fault(here, "has no value: write null")
        return case, None

    def _option(self, payload: t.ValType, doc: Any, path: str) -> Any:
        if doc is None:
            return None
        if not isinstance(payload, t.Option):
            return self.read(payload, doc, path)
        if not isinstance(doc, dict) or set(doc) != {"some"}:
            return self._fault(path, 'expected null or {"some": …}')
        return Some(self.read(payload, doc["some"], f"{path}.some"))

    def _word(self, words: Sequence[str], doc: Any, path: str) -> Any:
        if isinstance(doc, str) and doc in words:
            return doc
        got = checks.show(doc) if isinstance(doc, str) else _kind(doc)
        return self._fault(path, f"expected one of {', '.join(words)}; got {got}")

    def _expect(self, kind: type[Any], doc: Any, path: str, what: str) -> Any:
        if isinstance(doc, kind):
            return doc
        return self._fault(path, f"expected {what}, got {_kind(doc)}")


def _kind(doc: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a truth value"}
    return "null" if doc is None else names.get(type(doc), "a number")
