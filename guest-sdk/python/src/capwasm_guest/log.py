"""The plugin's log: `[log]` in plugin.toml.  Logging never fails; what is too much is dropped.

log.info("cache filled", city="Oslo", entries=3)

logging.basicConfig(handlers=[log.Handler()], level="INFO")     # the standard library's way
"""

from __future__ import annotations

import logging
from typing import Literal, cast

from ._bindings import LogImport, guard, load

__all__ = ["Handler", "debug", "error", "info", "warn", "warning", "write"]

_log = cast("LogImport", load("capwasm_log", "capwasm_guest.log"))

Level = Literal["debug", "info", "warn", "error"]


def write(level: Level, message: str, **fields: object) -> None:
    """Write a record; `fields` are shown as text."""
    guard("log")
    shown = [_log.Field(key=key, value=str(value)) for key, value in fields.items()]
    _log.write(_log.Level[level.upper()], message, shown)


def debug(message: str, **fields: object) -> None:
    """For the author."""
    write("debug", message, **fields)


def info(message: str, **fields: object) -> None:
    """Worth keeping."""
    write("info", message, **fields)


def warn(message: str, **fields: object) -> None:
    """Something to look at."""
    write("warn", message, **fields)


def error(message: str, **fields: object) -> None:
    """Something failed."""
    write("error", message, **fields)


warning = warn


class Handler(logging.Handler):
    """Takes the records of the standard `logging` here.  May be set up at module level."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, its logger as a field."""
        level: Level = "debug"
        if record.levelno >= logging.ERROR:
            level = "error"
        elif record.levelno >= logging.WARNING:
            level = "warn"
        elif record.levelno >= logging.INFO:
            level = "info"
        write(level, self.format(record), logger=record.name)
