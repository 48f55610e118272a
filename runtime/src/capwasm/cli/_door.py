"""The door: how whatever ends a command is told, and with which exit code.

Bad input and denials are told whole: every fault with its path, then the lines that would mend
them, at the left margin and ready to copy.  A defect of ours is told in one line that holds nothing
of the exception's text, which could hold anything; `CAPWASM_DEBUG=1` shows the traceback.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from capwasm.errors import CapwasmError, Fault, InternalError

from ._output import console, say_json, shown

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["BROKEN_PIPE", "DEFECT", "INTERRUPTED", "REFUSED", "tell"]

REFUSED: Final = 1
DEFECT: Final = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE


def tell(error: BaseException, *, as_json: bool) -> int:
    """Tell the user what ended the command, and return its exit code.

    Args:
        error: what the command raised, other than click's own ways to end.
        as_json: as one object on stdout, in place of text on stderr.
    """
    match error:
        case InternalError():
            return _defect(error, error.message, as_json=as_json)
        case CapwasmError():
            if as_json:
                say_json(error.to_dict(), indent=2)
            else:
                console(error=True).print(_block(error))
            return REFUSED
        case BrokenPipeError():
            return _hang_up()
        case click.Abort() if isinstance(error.__context__, EOFError):
            click.echo("error: a question was left without an answer", err=True)
            return REFUSED
        case KeyboardInterrupt() | click.Abort():
            click.echo("interrupted", err=True)
            return INTERRUPTED
        case _:
            return _defect(error, f"{type(error).__name__} {_place(error)}", as_json=as_json)


def _block(error: CapwasmError) -> Text:
    from rich.text import Text

    context = f"{shown(error.context)}: " if error.context else ""
    head, *more = error.message.split("\n")
    text = Text.assemble(
        ("error", "bold red"), (f" [{error.code}] ", "red"), (context + shown(head), "bold")
    )
    for line in more:
        text.append(f"\n  {shown(line)}")
    for fault in error.faults:
        text.append("\n  ")
        if fault.path:
            text.append(shown(fault.path), style="yellow")
            text.append(": ")
        text.append(shown(fault.message))
    fixes = _fixes(error.faults)
    if fixes:
        text.append("\n\nTo mend it, write or run:")
    for fix, paths in fixes.items():
        text.append("\n")
        if paths:
            text.append(f"\n# {', '.join(map(shown, paths))}", style="dim")
        for line in fix.split("\n"):
            text.append(f"\n{shown(line)}", style="green")
    return text


def _fixes(faults: tuple[Fault, ...]) -> dict[str, list[str]]:
    """Each fix once, with the paths of all the faults that it mends."""
    fixes: dict[str, list[str]] = {}
    for fault in faults:
        if fault.fix:
            paths = fixes.setdefault(fault.fix, [])
            if fault.path and fault.path not in paths:
                paths.append(fault.path)
    # What is written comes before what is run: a consent is given once the policy allows it.
    return dict(sorted(fixes.items(), key=lambda fix: fix[0].startswith("capwasm ")))


def _defect(error: BaseException, what: str, *, as_json: bool) -> int:
    if os.environ.get("CAPWASM_DEBUG") == "1":
        traceback.print_exception(error)
    message = f"{shown(what)}: a defect of capwasm; please report it{_where()}"
    if as_json:
        say_json({"error": "InternalError", "code": "internal", "message": message}, indent=2)
    else:
        hint = " (CAPWASM_DEBUG=1 shows the traceback, `capwasm doctor --json` the machine)"
        click.echo(f"error [internal] {message}{hint}", err=True)
    return DEFECT


def _place(error: BaseException) -> str:
    """The last line of ours that the error came through; of a path, only the file's name."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f"{os.sep}capwasm{os.sep}" in f.filename] or frames
    return f"at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "nowhere"


def _where() -> str:
    """Where this distribution says that defects go."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        urls = metadata("capwasm").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    found = dict(url.partition(", ")[::2] for url in urls).get("Issues")
    return f" at {found}" if found else ""


def _hang_up() -> int:
    """Whoever read stdout is gone: say nothing, also not when Python flushes it at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
