"""The docs that an author wrote into WIT: which `///` stands before which name, and nothing else.

The text is the component's, and only ever shown: nothing is checked, and what is not understood has
no docs.  A name is found by its path, as the component has it:

    docs["demo:weather/api@0.1.0", "report", "city"]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from capwasm.capsule.legacy import Proven
from capwasm.capsule.verify import VerifiedArtifact

__all__ = ["MAX_WIT_BYTES", "Docs", "wit_docs", "wit_files", "wit_texts"]

Docs: TypeAlias = Mapping[tuple[str, ...], str]
"""From a path (interface, or "" for the world itself; item; field or case) to its text."""

MAX_WIT_BYTES: Final = 256 * 1024
_MAX_DOC: Final = 4_000
_MAX_DEPTH: Final = 8
_MAX_WORDS: Final = 64  # of a statement: its name is among the first few

_TOKEN: Final = re.compile(
    r"///(?P<doc>[^\n]*)|//[^\n]*|/\*(?:.*?\*/|.*)"  # one that never ends is read once
    r"|(?P<word>[%@]?[A-Za-z][A-Za-z0-9-]*)|(?P<mark>->|[^\sA-Za-z])",
    re.DOTALL,
)
_PACKAGE: Final = re.compile(
    r"^[ \t]*package[ \t]+([a-z0-9-]+:[a-z0-9/-]+)(@[0-9A-Za-z.+-]+)?[ \t]*;", re.MULTILINE
)
# What is written before the name that it brings in.
_KINDS: Final = frozenset(
    {"package", "interface", "world", "record", "variant", "enum", "flags", "resource", "type"}
    | {"import", "export"}
)


def wit_texts(artifact: Proven) -> list[str]:
    """The WIT files of a capsule, as long as they are of a sane size together."""
    return wit_files(artifact.members) if isinstance(artifact, VerifiedArtifact) else []


def wit_files(members: Mapping[str, bytes | memoryview]) -> list[str]:
    """The WIT files among these, by the names that they have in a capsule."""
    found, left = [], MAX_WIT_BYTES
    for name in sorted(members):
        if name.startswith("wit/") and name.endswith(".wit"):
            left -= len(members[name])
            if left < 0:
                break
            found.append(bytes(members[name]).decode("utf-8", "replace"))
    return found


def wit_docs(texts: Iterable[str]) -> Docs:
    """The docs in these files; one that names no package belongs to the first that is named."""
    texts = list(texts)
    named = [_PACKAGE.search(text) for text in texts]
    first = next((m for m in named if m), None)
    found: dict[tuple[str, ...], str] = {}
    for text, own in zip(texts, named, strict=True):
        package = own or first
        for path, doc in _Reader(package[1] + (package[2] or "") if package else "").read(text):
            found.setdefault(path, doc)
    return found


class _Reader:
    """Goes over the tokens of a file once; the statements that are open are a stack of names."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._open: list[tuple[str, str]] = []  # kind, name
        self._words: list[str] = []
        self._doc: list[str] = []

    def read(self, text: str) -> Iterator[tuple[tuple[str, ...], str]]:
        nested = 0  # within (), <> of a statement
        for token in _TOKEN.finditer(text):
            if (line := token["doc"]) is not None:
                if not self._words:
                    self._doc.append(line)
                continue
            mark = token["word"] or token["mark"]
            if mark is None:
                continue
            if mark in ("(", "<", ")", ">"):
                nested = max(0, nested + (1 if mark in "(<" else -1))
                self._take(mark)
            elif mark == "{":
                kind, name = self._named()
                yield from self._told(kind, name)
                if len(self._open) >= _MAX_DEPTH:
                    return
                self._open.append((kind, name))
                nested = 0
            elif mark == "}":
                yield from self._told(*self._named())
                nested = 0
                if self._open:
                    self._open.pop()
            elif mark == ";" or (mark == "," and not nested):
                yield from self._told(*self._named())
                nested = 0
            else:
                self._take(mark)

    def _take(self, mark: str) -> None:
        if len(self._words) < _MAX_WORDS:
            self._words.append(mark)

    def _named(self) -> tuple[str, str]:
        """What the statement is, and the name that it brings in, or ""."""
        words = self._words
        while words and words[0].startswith("@"):  # @since(version = 0.1.0)
            words = (
                words[words.index(")") + 1 :] if "(" in words[1:2] and ")" in words else words[1:]
            )
        if not words:
            return "", ""
        kind = ""
        if len(words) > 1 and words[0] in _KINDS and words[1] != ":":
            kind, words = words[0], words[1:]
        if kind == "package":
            return kind, "".join(words)
        if kind in ("import", "export") and words[1:3] == [":", "interface"]:
            kind = "interface"
        return kind, words[0].removeprefix("%")

    def _told(self, kind: str, name: str) -> Iterator[tuple[tuple[str, ...], str]]:
        """The docs of the statement that ends here; the next one begins."""
        lines, self._words, self._doc = self._doc, [], []
        if not lines or not name:
            return
        text = "\n".join(line.removeprefix(" ").rstrip() for line in lines).strip()[:_MAX_DOC]
        path = self._path(kind, name)
        if path is not None:
            yield path, text

    def _path(self, kind: str, name: str) -> tuple[str, ...] | None:
        package, inner = self._package, self._open
        if inner and inner[0][0] == "package":
            package, inner = inner[0][1], inner[1:]
        if not inner:
            return (_interface(package, name),) if kind == "interface" else None
        (outer, where), parts = inner[0], [n for _, n in inner[1:]]
        if outer == "interface":
            return (_interface(package, where), *parts, name)
        if outer != "world":
            return None
        # An interface within a world goes by its own name alone.
        if len(inner) == 1:
            return (name,) if kind == "interface" else ("", name)
        return (*parts, name) if inner[1][0] == "interface" else ("", *parts, name)


def _interface(package: str, name: str) -> str:
    bare, at, version = package.partition("@")
    return f"{bare}/{name}{at}{version}" if bare else name
