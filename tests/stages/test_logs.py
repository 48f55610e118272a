"""Log lines of the library: the final text is redacted, and nobody else's logging is touched."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from capwasm.record.logs import (
    RedactingFormatter,
    configure_logging,
    get_logger,
    redacted_unraisable,
)
from capwasm.record.redact import Redactor

SECRET = "tok_9f8e7d6c5b4a39281706"


@pytest.fixture
def redactor() -> Redactor:
    made = Redactor()
    made.register("token", SECRET.encode())
    return made


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """Records as an embedder's own handler gets them."""
    got: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            got.append(record)

    handler, logger = Keep(), logging.getLogger("capwasm")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield got
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@pytest.mark.case("LOG-07")
def test_refuses_words_forged_by_a_message_or_a_key(
    redactor: Redactor, lines: list[logging.LogRecord]
) -> None:
    log = get_logger(redactor, "capwasm.test", plugin="evil.x@1")
    log.info("done plugin=good.y@1 level=error", fields={"k} plugin=good.y@1 {a": "v} b=c"})
    log.info("done, all of it")
    assert lines[0].getMessage() == (
        '"done plugin=good.y@1 level=error" plugin=evil.x@1'
        ' fields={"k} plugin=good.y@1 {a"="v} b=c"}'
    )
    assert lines[1].getMessage() == "done, all of it plugin=evil.x@1"


@pytest.mark.case("LOG-01", "LOG-08")
def test_refuses_to_leave_half_a_secret_where_a_long_message_is_cut(
    redactor: Redactor, lines: list[logging.LogRecord]
) -> None:
    half = len(SECRET) // 2
    get_logger(redactor, "capwasm.test").info("x" * (16 * 1024 - half) + SECRET + "y" * 20_000)
    extra = lines[0].__dict__["capwasm"]["event"]
    assert SECRET[:half] not in extra
    assert SECRET[:half] not in lines[0].getMessage()


class Loud:
    def __str__(self) -> str:
        return f"loud {SECRET}"

    __repr__ = __str__


def fail() -> None:
    raise ValueError(f"bad token {SECRET}") from KeyError(SECRET.encode())


@pytest.mark.case("LOG-01")
def test_refuses_a_secret_in_arguments_exceptions_and_objects(
    redactor: Redactor, lines: list[logging.LogRecord]
) -> None:
    log = get_logger(redactor, "capwasm.test", bound=Loud())
    log.info("got %s and %r", SECRET, SECRET.encode())
    message = f"in the message {SECRET}"
    log.info(message, token=SECRET, data=SECRET.encode(), nested={"a": Loud()})
    log.warning("as an object", it=Loud(), keys={SECRET: 1})
    try:
        fail()
    except ValueError:
        log.exception("failed")
    assert len(lines) == 4
    for record in lines:
        # All that a formatter, a JSON handler or an error tracker could take from it.
        everything = (
            f"{record.getMessage()} {record.__dict__!r} {logging.Formatter().format(record)}"
        )
        assert SECRET not in everything
        assert "[secret:token]" in record.getMessage()
        assert not record.args
        assert record.exc_info is None
    assert "ValueError" in lines[3].getMessage()
    assert "KeyError" in lines[3].getMessage()


def test_allows_fields_to_reach_an_embedders_handler(
    redactor: Redactor, lines: list[logging.LogRecord]
) -> None:
    get_logger(redactor, plugin="acme.x@1").info("done: 100%", target="a b", fields={"k": "v"})
    assert lines[0].getMessage() == 'done: 100% plugin=acme.x@1 target="a b" fields={k=v}'
    assert lines[0].capwasm["plugin"] == "acme.x@1"  # type: ignore[attr-defined]
    assert lines[0].levelno == logging.INFO


@pytest.mark.case("LOG-07")
def test_refuses_forged_lines_and_terminal_escapes(
    redactor: Redactor, lines: list[logging.LogRecord]
) -> None:
    get_logger(redactor).info("one\nERROR two\x1b[2J", k="\r\u202e")
    assert lines[0].getMessage().isprintable()
    assert "one\\nERROR two\\x1b[2J" in lines[0].getMessage()


@pytest.mark.case("LOG-01")
@pytest.mark.parametrize("as_json", [False, True])
def test_refuses_a_secret_in_lines_that_came_another_way(as_json: bool, redactor: Redactor) -> None:
    out = io.StringIO()
    handler = configure_logging(redactor, json=as_json, stream=out)
    logger = logging.getLogger("capwasm.other")
    try:
        logger.info("%s %r", SECRET, SECRET.encode())
        try:
            fail()
        except ValueError:
            logger.exception("failed")
        get_logger(redactor).info("own", token=SECRET)
        logger.debug("below the level")
    finally:
        logging.getLogger("capwasm").removeHandler(handler)
        logging.getLogger("capwasm").propagate = True
        logging.getLogger("capwasm").setLevel(logging.NOTSET)
    text = out.getvalue()
    assert SECRET not in text
    assert text.count("[secret:token]") >= 4
    assert "below" not in text
    if as_json:
        assert [json.loads(line)["level"] for line in text.splitlines()] == [
            "info",
            "error",
            "info",
        ]


def test_allows_configuring_twice_without_doubling_lines(redactor: Redactor) -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging(redactor, stream=first)
    handler = configure_logging(redactor, stream=second)
    logging.getLogger("capwasm").info("once")
    logging.getLogger("capwasm").removeHandler(handler)
    logging.getLogger("capwasm").propagate = True
    logging.getLogger("capwasm").setLevel(logging.NOTSET)
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
    with pytest.raises(ValueError, match="valid: debug"):
        configure_logging(level="loud")


@pytest.mark.case("LOG-01")
def test_allows_an_embedder_to_wrap_its_own_formatter(redactor: Redactor) -> None:
    record = logging.LogRecord("app", 20, "f", 1, "x %s\x1b", (SECRET,), None)
    shown = RedactingFormatter(redactor, logging.Formatter("<%(message)s>")).format(record)
    assert shown == "<x [secret:token]\\x1b>"
    assert record.args == (SECRET,)  # the record is not ours to change


@pytest.mark.case("LOG-11")
def test_refuses_to_print_what_could_not_be_raised(
    redactor: Redactor, lines: list[logging.LogRecord], capfd: pytest.CaptureFixture[str]
) -> None:
    class Bad:
        def __del__(self) -> None:
            raise ValueError(SECRET)

    before = sys.unraisablehook
    with redacted_unraisable(redactor):
        Bad()  # collected at once
    assert sys.unraisablehook is before
    assert SECRET not in capfd.readouterr().err
    assert SECRET not in lines[0].getMessage()
    assert "ValueError: [secret:token]" in lines[0].getMessage()


@pytest.mark.case("LOG-11")
def test_refuses_to_change_global_logging_on_import() -> None:
    code = """
import logging, sys
hook, level, handlers = sys.unraisablehook, logging.root.level, list(logging.root.handlers)
factory, last = logging.getLogRecordFactory(), logging.lastResort
import capwasm.record.logs, capwasm.record.audit, capwasm.record.metrics, capwasm.record.recorders, capwasm.caps.log
from capwasm.record.redact import Redactor
capwasm.record.logs.get_logger(Redactor()).warning("nobody listens")
import structlog
assert not structlog.is_configured()
assert (hook, level, handlers) == (sys.unraisablehook, logging.root.level, logging.root.handlers)
assert (factory, last) == (logging.getLogRecordFactory(), logging.lastResort)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_refuses_to_load_slow_modules_on_import() -> None:
    code = """
import sys
import capwasm.record.logs, capwasm.record.audit, capwasm.record.metrics, capwasm.record.recorders, capwasm.record.redact
print([m for m in ("structlog", "prometheus_client", "cryptography", "rich") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
