"""How a component is built, where that is odd: sections, sizes, memories, what runs by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from capwasm.engine.outline import Custom, Outline
from capwasm.review.finding import Finding, Severity

from .model import Context, Rule, Scanner, cut
from .subject import Subject

__all__ = ["SCANNERS"]

CODE: Final = "plugin.wasm"

MALFORMED: Final = Rule(
    "wasm.malformed",
    Severity.HIGH,
    "The component is not framed as the binary format says, so not all of it was looked at.",
    "Build it anew with a toolchain of one of the guest SDKs.",
)
UNKNOWN: Final = Rule(
    "wasm.custom-unknown",
    Severity.LOW,
    "A custom section has a name that no known tool gives.",
    "Strip it: wasm-tools strip --delete NAME.",
)
LARGE: Final = Rule(
    "wasm.custom-large",
    Severity.MEDIUM,
    "A custom section of an unknown name is large: nothing that runs needs it.",
    "Strip it: wasm-tools strip --delete NAME.",
)
TWICE: Final = Rule(
    "wasm.custom-twice",
    Severity.MEDIUM,
    "A custom section stands twice in one module: two tools may read two stories.",
    "Build it anew, and strip what an earlier step left.",
)
DEBUG: Final = Rule(
    "wasm.debug",
    Severity.LOW,
    "Debug information was left in: names, paths and lines of its sources.",
    "Strip it: wasm-tools strip, or a release build.",
)
SOURCES: Final = Rule(
    "wasm.sources",
    Severity.LOW,
    "The component says where its sources or its debug information lie.",
    "Strip the section: wasm-tools strip.",
)
NAMES: Final = Rule(
    "wasm.names",
    Severity.NOTE,
    "The names of its functions were left in: traces can be read, and so can its inside.",
)
PRODUCERS: Final = Rule(
    "wasm.producers",
    Severity.NOTE,
    "No module says which tools made it.",
    "Keep the section `producers` when stripping.",
)
ODD_PRODUCERS: Final = Rule(
    "wasm.producers-odd",
    Severity.LOW,
    "What a module says of the tools that made it can't be read, or names none that is known.",
    "Build it anew with a known toolchain.",
)
STARTS: Final = Rule(
    "wasm.start",
    Severity.LOW,
    "A module runs code by itself, before the first call of the plugin, as C does to begin.",
    "Move it into the function that needs it.",
)
MEMORY: Final = Rule(
    "wasm.memory",
    Severity.MEDIUM,
    "A memory begins with more than the plugin's limit, so it can't start.",
    "Ask for more in [limits], or begin with less.",
)
TABLE: Final = Rule(
    "wasm.table",
    Severity.MEDIUM,
    "A table begins with more elements than the plugin's limit, so it can't start.",
    "Ask for more in [limits], or begin with less.",
)
MANY: Final = Rule(
    "wasm.functions",
    Severity.LOW,
    "It has very many functions: nobody reads them, and compiling them takes long.",
    "Leave out what the plugin does not use.",
)

_LARGE_BYTES: Final = 64 * 1024
_MANY: Final = 60_000
_MAX_PRODUCERS: Final = 64
# What compilers, linkers and wasm-tools write; those of debug information are told apart below.
_KNOWN: Final = frozenset(
    """
    name component-name producers target_features dylink dylink.0 linking build_id
    registry-metadata metadata authors description licenses source homepage revision version
    wit-component-encoding sourceMappingURL external_debug_info tinygo.package go.version go.buildid
    go:buildid capwasm:sdk
    """.split()  # noqa: SIM905  read more easily so
)
_KNOWN_STARTS: Final = (
    "component-type",
    "reloc.",
    ".debug_",
    "metadata.code.",
    "wizer.",
    "capwasm:",
)
_TOOLS: Final = frozenset(
    """
    rustc clang llvm lld wasm-ld go tinygo wit-component wit-bindgen wit-bindgen-rust
    wit-bindgen-c cargo-component componentize-js componentize-py wasm-tools wasm-opt binaryen
    emscripten assemblyscript wabt wat javy starlingmonkey spidermonkey python cpython swift zig
    dotnet grain moonbit capwasm clang++ llvm-link
    """.split()  # noqa: SIM905  read more easily so
)


def _shape(subject: Subject, _context: Context) -> Iterator[Finding]:
    built = subject.outline
    if built.fault:
        yield MALFORMED.at(CODE, built.fault)
    yield from _customs(built)
    yield from _producers(built)
    if built.starts:
        yield STARTS.at(CODE, "the component itself")
    for module in built.modules:
        if module.starts:
            yield STARTS.at(f"{CODE}:{module.place}", f"@{module.offset:#x}")
    functions = sum(module.functions for module in built.modules)
    if functions > _MANY:
        yield MANY.at(CODE, f"{functions} functions")
    if subject.manifest is not None:
        limits = subject.manifest.limits
        for kind, rule, most, word in (
            (built.memories, MEMORY, limits.memory, "bytes"),
            (built.tables, TABLE, limits.table_elements, "elements"),
        ):
            for each in kind:
                if each.least > most:
                    yield rule.at(
                        f"{CODE}:{each.module}@{each.offset:#x}",
                        f"{each.least} {word}, limit {most}",
                    )


def _customs(built: Outline) -> Iterator[Finding]:
    counts: Counter[tuple[str, str]] = Counter()
    told: set[str] = set()
    for section in built.customs:
        name, place = section.name, _place(section)
        size = f"{cut(name, 100)}, {len(section.payload)} bytes"
        counts[section.module, name] += 1
        if counts[section.module, name] == 2 and not name.startswith("reloc."):
            yield TWICE.at(place, size)
        kind = _kind_of(section)
        # Of the names of functions and of debug information, one place says it all.
        key = kind.id if kind in (DEBUG, NAMES) else f"{kind and kind.id} {name}"
        if kind is not None and key not in told:
            told.add(key)
            yield kind.at(place, size)


def _kind_of(section: Custom) -> Rule | None:
    """The rule that a custom section falls under by itself."""
    name = section.name
    if name.startswith(".debug_"):
        return DEBUG
    if name in ("sourceMappingURL", "external_debug_info"):
        return SOURCES
    if name in ("name", "component-name"):
        return NAMES if section.payload else None
    if name in _KNOWN or name.startswith(_KNOWN_STARTS):
        return None
    return LARGE if len(section.payload) > _LARGE_BYTES else UNKNOWN


def _producers(built: Outline) -> Iterator[Finding]:
    sections = [c for c in built.customs if c.name == "producers"]
    if not sections:
        if built.modules:
            yield PRODUCERS.at(CODE)
        return
    for section in sections:
        try:
            tools = _tools(bytes(section.payload[:65536]))
        except (IndexError, ValueError):
            yield ODD_PRODUCERS.at(_place(section), "it is not in the form of such a section")
            continue
        known = any(_words(tool) & _TOOLS for tool in tools)
        if tools and not known:
            yield ODD_PRODUCERS.at(_place(section), ", ".join(tools)[:200])


def _tools(data: bytes) -> list[str]:
    """The names in a section `producers` (tool conventions, ProducersSection.md).

    Raises:
        IndexError, ValueError: it is not in that form.
    """
    from capwasm.engine.lane.binary import OddBinary, read_leb

    view, at, found = memoryview(data), 0, []

    def text() -> str:
        nonlocal at
        size, at = read_leb(view, at)
        if at + size > len(data):
            raise ValueError
        at += size
        return data[at - size : at].decode("utf-8")

    try:
        fields, at = read_leb(view, at)
        for _ in range(min(fields, _MAX_PRODUCERS)):
            field = text()
            count, at = read_leb(view, at)
            for _ in range(min(count, _MAX_PRODUCERS)):
                name, _version = text(), text()
                if field != "language":
                    found.append(name)
    except OddBinary:
        raise ValueError from None
    if at != len(data):
        raise ValueError
    return found


def _words(tool: str) -> set[str]:
    return {tool.lower(), *tool.lower().replace("(", " ").split()}


def _place(section: Custom) -> str:
    where = f"{CODE}:{section.module}" if section.module else CODE
    return f"{where}@{section.offset:#x}"


SCANNERS: Final = (
    Scanner(
        "shape",
        _shape,
        (
            MALFORMED,
            UNKNOWN,
            LARGE,
            TWICE,
            DEBUG,
            SOURCES,
            NAMES,
            PRODUCERS,
            ODD_PRODUCERS,
            STARTS,
            MEMORY,
            TABLE,
            MANY,
        ),
        kinds=frozenset({"component"}),
    ),
)
