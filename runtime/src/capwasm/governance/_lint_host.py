"""Rules of `lint` on what lies on the host: directories and programs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from pydantic_core import ValidationError

from capwasm.caps.exec.model import ExecClause
from capwasm.caps.exec.pattern import Hole, Pattern
from capwasm.caps.fs.model import Access, FsClause

from ._ground import Check, Ground, Lint, Place, found

__all__ = ["CHECKS"]

# As a whole: what lies there is everybody's.
_WIDE_TEXT: Final = """
    /bin /boot /etc /home /lib /lib64 /media /mnt /nix /opt /root /run /sbin /snap /srv /tmp /usr /var
    /var/cache /var/lib /var/log /var/mail /var/run /var/spool /var/tmp /usr/local /Users
    /var/lib/docker /var/lib/kubelet /var/lib/containerd
    """
_WIDE: Final = frozenset(_WIDE_TEXT.split())
# With all below it: what lies there is run, or is read by the system.
_SYSTEM: Final = ("/bin", "/boot", "/etc", "/lib", "/lib64", "/root", "/sbin", "/usr", "/nix")
_HOME: Final = re.compile(r"/(home|Users)/[^/]+")
_CREDENTIALS: Final = (
    *(".ssh", ".aws", ".azure", ".config/gcloud", ".docker", ".gnupg", ".kube", ".netrc"),
    *(".password-store", ".pki"),
)

# Programs whose arguments or input are programs, or that run other programs when asked to.
_INTERPRETER: Final = re.compile(
    r"(?:ba|da|z|k|mk|c|tc|fi|a)?sh|busybox|toybox|env|python|pypy|perl|ruby|irb|node|nodejs|deno|bun"
    r"|php|lua|luajit|tclsh|wish|expect|guile|racket|sbcl|ghci|julia|R|Rscript|octave|pwsh|java|jshell"
    r"|scala|groovy|awk|gawk|mawk|nawk|sed|ed|ex|vi|vim|nvim|emacs|xargs|find|parallel|watch|timeout"
    r"|nice|nohup|setsid|stdbuf|time|ssh|scp|rsync|sudo|su|doas|runuser|pkexec|nsenter|unshare|chroot"
    r"|docker|podman|kubectl|systemd-run|strace|ltrace|gdb|lldb|make|cmake|ninja|git|tar|zip|man|less"
    r"|more|curl|wget|nc|ncat|netcat|socat|telnet|openssl|psql|mysql|sqlite3?|screen|tmux|script|at|crontab"
)
# What no narrow expression takes all of.
_ANYTHING: Final = ("../../etc/shadow", "a b;c|d&e", "$(id)`id`", "%n'\"\\<>", "x" * 200)
_PATHS: Final = ("/etc/passwd", "../../etc/passwd", "a/../../b")


def _files(ground: Ground) -> Iterator[Lint]:
    for place in ground.places:
        for clause in place.rule.clauses:
            if isinstance(clause, FsClause):
                yield from _directory(place, clause)


def _directory(place: Place, clause: FsClause) -> Iterator[Lint]:
    path, line = place.rule.path, place.rule.line
    writes = clause.access is Access.READ_WRITE
    if clause.path is None:
        what = "names no directory, so the manifest may name any"
        yield found("fs.any-directory", path, line, what)
    elif _holds_credentials(clause.path):
        what = f"{clause.path} holds credentials"
        yield found("fs.credentials", path, line, what)
    elif _is_wide(clause.path) or (writes and _is_system(clause.path)):
        verb, rule = ("change", "fs.wide-write") if writes else ("read", "fs.wide-read")
        what = f"it can {verb} what is the system's, or other people's, in {clause.path}"
        yield found(rule, path, line, what)
    if writes and clause.quota_bytes is None:
        what = f"it can fill the disk of {clause.path or 'the directory'}"
        yield found("fs.no-quota", path, line, what)


def _is_wide(path: str) -> bool:
    return path in _WIDE or _HOME.fullmatch(path) is not None


def _is_system(path: str) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in _SYSTEM)


def _holds_credentials(path: str) -> bool:
    return any(f"/{name}/" in f"{path}/" for name in _CREDENTIALS)


def _commands(ground: Ground) -> Iterator[Lint]:
    for place in ground.places:
        for clause in place.rule.clauses:
            if isinstance(clause, ExecClause):
                yield from _command(place, clause)


def _command(place: Place, clause: ExecClause) -> Iterator[Lint]:
    path, line = place.rule.path, place.rule.line
    if clause.program is None:
        what = f"{clause.command} has no program, so nothing can be run by it"
        yield found("exec.no-program", path, line, what)
    elif _is_interpreter(clause.program):
        what = f"{clause.program} runs what it is told to, or other programs"
        yield found("exec.interpreter", path, line, what)
    for words in clause.arguments or ():
        for word in Pattern.of(words).words:
            if not isinstance(word, Hole):
                continue
            if all(_fits(word, text) for text in _ANYTHING):
                what = f"{{{word.name}}} takes any text"
                yield found("exec.free-argument", path, line, what)
            elif any(_fits(word, text) for text in _PATHS):
                what = f"{{{word.name}}} takes a path"
                yield found("exec.path-argument", path, line, what)


def _is_interpreter(program: str) -> bool:
    name = program.rpartition("/")[2]
    return _INTERPRETER.fullmatch(re.sub(r"[-.]?[0-9][0-9.]*$", "", name)) is not None


def _fits(hole: Hole, text: str) -> bool:
    try:
        hole.fits.validate_python(text)
    except ValidationError:
        return False
    return True


CHECKS: Final[tuple[Check, ...]] = (_files, _commands)
