"""Capsules for scanners: one small plugin in which there is nothing to find, and parts to spoil it with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import wasmtime

from capwasm.caps import standard_capabilities
from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.verify import verify
from capwasm.review.finding import Report
from capwasm.scan.model import Context, Scanner
from capwasm.scan.run import scan
from capwasm.scan.subject import Subject
from tests.capsules import STORE, signed

CAPABILITIES = standard_capabilities()
NOW = datetime(2027, 1, 31, tzinfo=UTC)

HEAD = """schema = 1
[plugin]
id = "{id}"
name = "{name}"
version = "1.2.0"
author = "Acme"
description = "Tells the weather."
license = "Apache-2.0"
requires-core = ">=0"
kind = "component"
{words}
"""


def manifest(
    tables: str = "",
    *,
    words: str = "",
    plugin_id: str = "acme.weather",
    name: str = "Weather",
) -> bytes:
    """A whole plugin.toml; `words` go into its [plugin], `tables` after it."""
    return (HEAD.format(id=plugin_id, name=name, words=words) + tables).encode()


def leb(value: int) -> bytes:
    """An unsigned LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def section(kind: int, payload: bytes) -> bytes:
    """A section of a module or a component."""
    return bytes([kind]) + leb(len(payload)) + payload


def text(value: str) -> bytes:
    """A name."""
    return leb(len(value.encode())) + value.encode()


def custom(name: str, payload: bytes = b"") -> bytes:
    """A custom section."""
    return section(0, text(name) + payload)


def producers(tool: str = "rustc") -> bytes:
    """What a toolchain says of itself."""
    return custom("producers", leb(1) + text("processed-by") + leb(1) + text(tool) + text("1.0"))


def module(
    *,
    data: bytes = b"",
    customs: Sequence[bytes] = (producers(),),
    memory: int = 4,
    fields: str = "",
) -> bytes:
    """A core module that exports `run`, with that data."""
    escaped = "".join(f"\\{byte:02x}" for byte in data)
    segment = f'(data (i32.const 16) "{escaped}")' if data else ""
    made = wasmtime.wat2wasm(
        f'(module (memory {memory}) {segment} {fields} (func (export "run") (result i32) i32.const 7))'
    )
    return bytes(made) + b"".join(customs)


# A component that instantiates its one module and lifts `run`; and one that does no more.
LIFTED = bytes(
    wasmtime.wat2wasm(
        """(component
        (core module (func (export "run") (result i32) i32.const 7))
        (core instance (instantiate 0))
        (func (export "run") (result u32) (canon lift (core func 0 "run"))))"""
    )
)
_INNER = bytes(wasmtime.wat2wasm('(module (func (export "run") (result i32) i32.const 7))'))


def component(inner: bytes | None = None, *, after: Iterable[bytes] = (), **words: Any) -> bytes:
    """The component around a module (by default one made with `words`), with custom sections after."""
    old = section(1, _INNER)
    assert old in LIFTED
    made = LIFTED.replace(old, section(1, module(**words) if inner is None else inner))
    return made + b"".join(after)


def wat(text_: str) -> bytes:
    """A component in text."""
    return bytes(wasmtime.wat2wasm(text_))


def capsule(code: bytes | None = None, toml: bytes | None = None, **members: bytes) -> bytes:
    """A capsule that a trusted key signed."""
    files: Mapping[str, bytes] = {
        "plugin.toml": manifest() if toml is None else toml,
        "plugin.wasm": component() if code is None else code,
        **members,
    }
    return signed(members=files)


def subject(data: bytes) -> Subject:
    """What is scanned, verified."""
    return Subject.of(verify(read_artifact(data), STORE), CAPABILITIES)


def look(data: bytes | Subject, scanners: Sequence[Scanner], **words: Any) -> Report:
    """The report of these scanners on it."""
    words.setdefault("now", NOW)
    what = data if isinstance(data, Subject) else subject(data)
    return scan(what, Context(capabilities=CAPABILITIES, **words), scanners)
