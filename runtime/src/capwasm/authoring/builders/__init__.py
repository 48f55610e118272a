"""One builder a language: from a project's directory to a component.

A builder only reads the author's tree.  What it makes stands in the scratch directory of the build, or
in a cache outside the tree that makes the next build fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from capwasm.grants.manifest import Manifest

__all__ = ["LANGUAGES", "Builder", "Component", "Task", "Tool", "builder", "builders"]

LANGUAGES: Final = ("python", "js", "rust", "go", "c")
"""The languages that there are builders for, each a module of this package."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool that a language's builds need.

    Attributes:
        name: what people call it.   found: its version here, or None.
        needed: which versions do.   install: the exact command that brings it.
        why: what it does.
    """

    name: str
    found: str | None
    needed: str
    install: str
    why: str


@dataclass(frozen=True, slots=True)
class Task:
    """What to build.

    Attributes:
        project: the directory with `plugin.toml`; only read.
        manifest: its; `world` says which world, if `wit/` has several.
        declared: the interfaces that it declares, name without version → with version.
        scratch: an empty directory, removed after the build.
        cache: a directory of this language's own, kept between builds; made when needed.
        module: the author's module, for languages where the project doesn't say.
        say: told what goes on, a line at a time.
    """

    project: Path
    manifest: Manifest
    declared: Mapping[str, str]
    scratch: Path
    cache: Path
    module: str = "plugin"
    say: Callable[[str], None] = lambda _line: None


@dataclass(frozen=True, slots=True)
class Component:
    """What came out, how long it took, and by what: `componentize-py 0.25.0`."""

    code: bytes
    seconds: float
    tool: str


class Builder(Protocol):
    """Builds the projects of one language.

    Attributes:
        name: one of `LANGUAGES`.   title: for people.   takes: how long a build takes, for people.
    """

    name: str
    title: str
    takes: str

    def detects(self, project: Path, module: str = "plugin") -> bool:
        """Whether that directory is a project of this language."""

    def tools(self) -> list[Tool]:
        """What a build needs, and what of that is here."""

    def check(self, manifest: Manifest) -> None:
        """Pass if plugins in this language can start with that manifest.

        Raises:
            ManifestError: with the lines that are missing.
        """

    def build(self, task: Task) -> Component:
        """Build the component.

        Raises:
            BuildError: `build.toolchain` with the exact command to install what is missing;
                `build.project`; `build.failed` with what the tool said, by file and line of the
                author's own source.
        """

    def names(self, project: Path, module: str = "plugin") -> set[str] | None:
        """The names by which the sources use capabilities, or None where the imports tell.

        Some toolchains have a component import all that its world has, used or not.
        """


def builder(name: str) -> Builder:
    """The builder of that language, imported when it is asked for.

    Raises:
        KeyError: there is none.
    """
    if name not in LANGUAGES:
        raise KeyError(name)
    found: Builder = import_module(f".{name}", __name__).BUILDER
    return found


def builders() -> Iterator[Builder]:
    """All that there are."""
    for name in LANGUAGES:
        try:
            yield builder(name)
        except ModuleNotFoundError as exc:
            if exc.name != f"{__name__}.{name}":
                raise
