"""A new project from the templates: the common part, and over it that of the language."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from capwasm._files import why
from capwasm._shipped import templates
from capwasm.capsule.identity import check_id
from capwasm.errors import BuildError, Fault, InternalError

from .builders import LANGUAGES, Builder, builder

__all__ = ["New", "new_project", "shipped_languages"]

MAX_NAME: Final = 40
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z][a-z0-9]*)*")
_LEFT: Final = re.compile(r"__[A-Z]+__")
_DOT: Final = "dot-"
# A name becomes a WIT world and package, a Rust crate, a type: what is a word there can't be one.
_WIT: Final = """
as async bool borrow char constructor enum export f32 f64 flags from func future import include
interface list map option own package record resource result s16 s32 s64 s8 static stream string tuple
type u16 u32 u64 u8 use variant with world
"""
_OTHERS: Final = """
abstract alloc api await become box break case catch class const continue core crate default defer
delete do dyn else exports extern fallthrough false final fn for go goto greeting if impl in int let
loop macro main match mod move mut new none null package priv pub range ref return select self std
struct super switch test this trait true try typeof union unsafe unsized var virtual void where while
yield
"""
_WORDS_OF_WIT: Final = frozenset(_WIT.split())
_TAKEN: Final = _WORDS_OF_WIT | frozenset(_OTHERS.split())
# Interfaces of these namespaces are ours, or the standard's.
_NAMESPACES: Final = frozenset({"capwasm", "wasi"})


@dataclass(frozen=True, slots=True)
class New:
    """What to make.

    Attributes:
        name: the project's, `rain-gauge`.   language: one of `LANGUAGES`.
        id: the plugin's; `example.NAME` if empty.   directory: the one to make; `NAME` if None.
    """

    name: str
    language: str
    id: str = ""
    directory: Path | None = None

    @property
    def plugin_id(self) -> str:
        """The plugin's id."""
        return self.id or f"example.{self.name}"

    @property
    def target(self) -> Path:
        """The directory to make."""
        return self.directory or Path(self.name)


def shipped_languages() -> list[str]:
    """Those that there is both a template and a builder for."""
    return [name for name in LANGUAGES if templates(name) and _builder(name) is not None]


def new_project(new: New) -> list[str]:
    """Write the project, whole or not at all.

    Returns:
        Its files, by their paths below `new.target`.

    Raises:
        BuildError: `build.project`: a name that can't be used, a directory that is there, a
            language without a template; with every fault.
    """
    faults = list(_faults(new))
    if faults:
        raise BuildError(
            "can't make that project", code="build.project", context=new.name, faults=faults
        )
    made = builder(new.language)
    texts: dict[str, str] = {}
    words = _words(new, made.title)
    for root in templates(new.language):
        for path in sorted(p for p in root.rglob("*") if p.is_file() and _wanted(p, root)):
            inner = _filled(path.relative_to(root).as_posix(), words, path)
            texts[_dotted(inner)] = _filled(path.read_text(encoding="utf-8"), words, path)
    _write(new.target, texts)
    return sorted(texts)


def _faults(new: New) -> Iterator[Fault]:
    if (said := _name_fault(new.name)) is not None:
        yield Fault("NAME", said)
    if new.id:  # what is made of NAME is as good as NAME
        yield from (Fault("--id", said) for said in _id_faults(new.id))
    languages = shipped_languages()
    if new.language not in languages:
        known = ", ".join(languages) or "none"
        yield Fault("--lang", f"there is no template for {new.language}; there are: {known}")
    target = new.target
    if target.exists() or target.is_symlink():
        yield Fault("--dir", f"{target} is there already; nothing in it is touched")
    elif not target.absolute().parent.is_dir():
        yield Fault("--dir", f"there is no directory {target.absolute().parent}")


def _name_fault(name: str) -> str | None:
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        near = "-".join(re.findall(r"[a-z][a-z0-9]*", name.lower().replace("_", "-")))[:MAX_NAME]
        hint = f"; such as {near.rstrip('-')}" if near else ", such as rain-gauge"
        return (
            "not a name: words of a-z and 0-9 joined by -, each beginning with a letter, at most"
            f" {MAX_NAME} characters{hint}"
        )
    if name in _TAKEN:
        return f"{name} is a word of WIT or of a language, or taken by the template; take another"
    return None


def _id_faults(text: str) -> Iterator[str]:
    try:
        check_id(text)
    except ValueError as exc:
        yield str(exc)
        return
    namespace = text.partition(".")[0]
    if not _NAME.fullmatch(namespace) or namespace in _WORDS_OF_WIT:
        yield f"its first word is the namespace of a WIT package, and {namespace} can't be one"
    elif namespace in _NAMESPACES:
        yield f"the namespace {namespace} is taken"


def _builder(name: str) -> Builder | None:
    try:
        return builder(name)
    except (KeyError, ModuleNotFoundError):
        return None


def _words(new: New, title: str) -> dict[str, str]:
    """What stands in the place of each word; guest-sdk/README.md lists them."""
    namespace = new.plugin_id.partition(".")[0]
    return {
        "__NAME__": new.name,
        "__SNAKE__": new.name.replace("-", "_"),
        "__PASCAL__": "".join(part.capitalize() for part in new.name.split("-")),
        "__ID__": new.plugin_id,
        "__NAMESPACE__": namespace,
        "__SPACE__": namespace.replace("-", "_"),
        "__PACKAGE__": f"{namespace}:{new.name}",
        "__TITLE__": title,
        "__CAPWASM__": version("capwasm"),
    }


def _wanted(path: Path, root: Path) -> bool:
    """Whether it belongs to the template, and was not left there by a tool."""
    parts = path.relative_to(root).parts
    return "__pycache__" not in parts and not any(part.startswith(".") for part in parts)


def _filled(text: str, words: Mapping[str, str], path: Path) -> str:
    def put(found: re.Match[str]) -> str:
        word = found[0]
        if word not in words:
            raise InternalError(f"the template's {path.name} holds {word}, which means nothing")
        return words[word]

    return _LEFT.sub(put, text)


def _dotted(inner: str) -> str:
    head, slash, name = inner.rpartition("/")
    return head + slash + (f".{name[len(_DOT) :]}" if name.startswith(_DOT) else name)


def _write(target: Path, texts: Mapping[str, str]) -> None:
    """Beside its place first, so that half a project never has its name."""
    place = None
    try:
        place = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.absolute().parent))
        place.chmod(0o755)
        for inner, text in texts.items():
            file = place / inner
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        place.rename(target)
    except OSError as exc:
        raise BuildError(
            f"can't be written: {why(exc)}", code="build.project", context=str(target)
        ) from None
    finally:
        if place is not None and place.exists():
            shutil.rmtree(place, ignore_errors=True)
