"""What a build left in the code of the machine that it was made on: directories, user names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from capwasm.review.finding import Finding, Severity

from .model import Context, Rule, Scanner
from .subject import Subject
from .texts import found_at

__all__ = ["SCANNERS"]

HOME: Final = Rule(
    "paths.home",
    Severity.LOW,
    "The code holds paths of the machine that it was built on, with the name of a user.",
    "Build with --remap-path-prefix (Rust), -trimpath (Go) or -ffile-prefix-map (C), or strip it.",
)
BUILD: Final = Rule(
    "paths.build",
    Severity.NOTE,
    "The code holds paths of the place that it was built in.",
    "Build with --remap-path-prefix (Rust), -trimpath (Go) or -ffile-prefix-map (C), or strip it.",
)

_HOMES: Final = (b"/home/", b"/Users/", b":\\Users\\", b":\\\\Users\\\\")
_USER: Final = re.compile(rb"([A-Za-z0-9._-]{1,32})[/\\][\w./@+\\ -]{0,120}")
_BUILDS: Final = (
    b"/root/",
    b"/home/runner/",
    b"/.cargo/registry/src/",
    b"/go/pkg/mod/",
    b"/var/lib/jenkins/",
    b"/__w/",
    b"/builds/",
    b"/private/var/folders/",
    b"/tmp/pip-",
)
_PATH: Final = re.compile(rb"[\w./@+-]{6,120}")
# What documentation and standard libraries call the user who is nobody, and build services theirs.
_NOBODY: Final = frozenset(
    {b"user", b"username", b"you", b"me", b"name", b"foo", b"example", b"web_user", b"runner"}
)


def _paths(subject: Subject, _context: Context) -> Iterator[Finding]:
    for text in subject.texts:
        if text.is_document:
            continue
        users: set[bytes] = set()
        for at, home in found_at(text.data, _HOMES):
            found = _USER.match(text.data, at + len(home))
            if found is not None and (user := found[1].lower()) not in users | _NOBODY:
                users.add(user)
                at -= home.startswith(b":")  # noqa: PLW2901  the drive's letter
                yield HOME.at(text.place(at), _shown(text.data[at : found.end()]))
        for at, _ in [] if users else found_at(text.data, _BUILDS):
            # One is enough to tell: the others are of the same build.
            build = _PATH.match(text.data, at)
            if build is not None:
                yield BUILD.at(text.place(at), _shown(build[0]))
                break


def _shown(path: bytes) -> str:
    return path.decode("ascii", "replace")


SCANNERS: Final = (Scanner("paths", _paths, (HOME, BUILD), seconds=60.0),)
