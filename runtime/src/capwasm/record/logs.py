"""Log lines of the library: through structlog to the standard logger `capwasm`, and no further.

Neither the root logger nor structlog's own configuration is touched; both are the embedder's.  A
record is made into its final text here, and that text is redacted (LOG-01): what reaches a handler
has no arguments, no exception and no object in it that could still tell a secret.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TextIO

from .redact import Redactor, printable

if TYPE_CHECKING:  # structlog takes longer to import than all of this package may
    import structlog

__all__ = ["LEVELS", "RedactingFormatter", "configure_logging", "get_logger", "redacted_unraisable"]

LEVELS: Final = {"debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40, "critical": 50}
MAX_CHARS: Final = 16 * 1024

# The usual courtesy of a library: without it, Python prints warnings to stderr by itself.
logging.getLogger("capwasm").addHandler(logging.NullHandler())


def get_logger(redactor: Redactor, name: str = "capwasm", **bound: Any) -> structlog.BoundLogger:
    """A structlog logger whose lines come out redacted at the standard logger `name`.

    Args:
        redactor: takes the secrets out.
        name: `capwasm` or a name below it.
        bound: fields of every line.
    """
    import structlog

    logger: structlog.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, _Final(redactor)],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    ).bind(**bound)
    return logger


class _Final:
    """The one processor: the event as its final text, and beside it the same as plain fields."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(
        self, _logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> tuple[tuple[str], dict[str, Any]]:
        error = event.pop("exc_info", None)
        message = _text(event.pop("event", ""))
        args = event.pop("positional_args", ())
        if args:
            with contextlib.suppress(Exception):  # a wrong format is no reason to lose the line
                message %= args
        fields = {str(k): v if isinstance(v, dict) else _text(v) for k, v in event.items()}
        if error:
            fields["exception"] = _exception(error, method)
        # Before it is cut, and before it is one line: a secret may lie across the fields.
        extra = self._redactor.value({"event": message, **fields})
        message, *values = extra.values()
        words = (
            f"{_quoted(_text(k))}={_quoted(v)}" for k, v in zip([*extra][1:], values, strict=True)
        )
        line = " ".join([_quoted(message, '="'), *words])
        clean = self._redactor.cut(line, MAX_CHARS)[0]
        extra["event"] = message[:MAX_CHARS]
        # `exc_info`: the logger's `exception` would add the traceback again, as it is.
        return (printable(clean),), {"exc_info": None, "extra": {"capwasm": extra}}


def _text(value: object) -> str:
    try:
        return value if isinstance(value, str) else str(value)
    except Exception:  # noqa: BLE001  somebody's __str__
        return f"[{type(value).__name__}]"


def _quoted(value: Any, odd: str = ' ="\n{}') -> str:
    """In quotes where it could be taken for more than one word: a plugin forges no `plugin=…`."""
    if isinstance(value, Mapping):
        words = (f"{_quoted(_text(k))}={_quoted(_text(v))}" for k, v in value.items())
        return "{" + " ".join(words) + "}"
    text: str = value
    return json.dumps(text, ensure_ascii=False) if not text or set(odd) & set(text) else text


def _exception(error: Any, _method: str) -> str:
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if not isinstance(error, BaseException):
        return _text(error)
    return "".join(traceback.format_exception(error)).rstrip()  # never with local variables


class RedactingFormatter(logging.Formatter):
    """Wraps a formatter and redacts what it made: the whole text, traceback and all.

    For the handlers of an embedder that wants its own lines redacted too.
    """

    def __init__(self, redactor: Redactor, inner: logging.Formatter | None = None) -> None:
        """Redact the text of `inner`, or of the standard formatter."""
        super().__init__()
        self._redactor = redactor
        self._inner = inner or logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The final text.  Line ends stay, other control characters are spelt out."""
        # A copy: the formatter keeps the traceback on the record, where other handlers find it.
        text = self._redactor.text(self._inner.format(logging.makeLogRecord(record.__dict__)))
        return "\n".join(printable(line) for line in text.split("\n"))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "capwasm", None)
        if not isinstance(fields, dict):
            fields = {"event": record.getMessage()}
            if record.exc_info:
                fields["exception"] = self.formatException(record.exc_info)
        head = {"time": self.formatTime(record), "level": record.levelname.lower()}
        return json.dumps({**fields, **head, "logger": record.name}, default=_text)


def configure_logging(
    redactor: Redactor | None = None,
    *,
    json: bool = False,
    level: str = "info",
    stream: TextIO | None = None,
) -> logging.Handler:
    """Show the library's lines on `stream` (stderr).  For the CLI and for small programs.

    Only the logger `capwasm` is changed: it gets the handler that is returned, which replaces the
    one of an earlier call, and no longer passes its lines up.

    Args:
        redactor: also takes secrets out of lines that did not come through `get_logger`.
        json: one object a line instead of text.
        level: a word of `LEVELS`.
        stream: where to write.

    Raises:
        ValueError: an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}; valid: {', '.join(LEVELS)}")
    logger = logging.getLogger("capwasm")
    for old in [h for h in logger.handlers if getattr(h, "capwasm", False)]:
        logger.removeHandler(old)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.capwasm = True  # type: ignore[attr-defined]
    handler.setFormatter(
        RedactingFormatter(redactor or Redactor(), _JsonFormatter() if json else None)
    )
    logger.addHandler(handler)
    logger.setLevel(LEVELS[level])
    logger.propagate = False
    return handler


@contextlib.contextmanager
def redacted_unraisable(redactor: Redactor) -> Iterator[None]:
    """While the body runs, what Python can't raise is logged, redacted, not printed (LOG-11).

    An exception in a callback from C, or in a finaliser, ends at `sys.unraisablehook`, which prints
    it with its text.  Importing this package changes no hook; a program that wants it does so here.
    """
    logger = get_logger(redactor)
    before = sys.unraisablehook

    def hook(found: sys.UnraisableHookArgs) -> None:
        logger.error(
            "an exception could not be raised", where=found.err_msg or "", exc_info=found.exc_value
        )

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
