"""What a build left in the code of the machine that it was made on: directories, user names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from capwasm.review.finding import Finding, Severity

from .model import Context, Rule, Scanner
from .subject import Subject

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

_NAME: Final = rb"[A-Za-z0-9._-]{1,32}"
_REST: Final = rb"[\w./@+\\ -]{0,120}"
_HOME: Final = re.compile(
    rb"(?:/(?:home|Users)/("
    + _NAME
    + rb")/|[A-Za-z]:\\{1,2}Users\\{1,2}("
    + _NAME
    + rb")\\)"
    + _REST
)
_BUILD: Final = re.compile(
    rb"(?:/root/|/\.cargo/registry/src/|/go/pkg/mod/|/var/lib/jenkins/|/__w/|/builds/"
    rb"|/private/var/folders/|/tmp/pip-)" + _REST
)
# What documentation and standard libraries call the user who is nobody.
_NOBODY: Final = frozenset(
    {b"user", b"username", b"you", b"me", b"name", b"foo", b"example", b"web_user"}
)


def _paths(subject: Subject, _context: Context) -> Iterator[Finding]:
    for text in subject.texts:
        if text.is_document:
            continue
        users: set[bytes] = set()
        for found in _HOME.finditer(text.data):
            user = (found[1] or found[2]).lower()
            if user not in users | _NOBODY:
                users.add(user)
                yield HOME.at(text.place(found.start()), _shown(found[0]))
        # One is enough to tell: the others are of the same build.
        build = None if users else _BUILD.search(text.data)
        if build is not None:
            yield BUILD.at(text.place(build.start()), _shown(build[0]))


def _shown(path: bytes) -> str:
    return path.decode("ascii", "replace")


SCANNERS: Final = (Scanner("paths", _paths, (HOME, BUILD), seconds=60.0),)
