"""Whatever is thrown at it, a registered secret does not come out in a form that is promised."""

from __future__ import annotations

import base64
import json
import logging
from itertools import pairwise
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.events import DENIED, Event
from capwasm.record.audit import AuditLog, MemorySink
from capwasm.record.logs import get_logger
from capwasm.record.redact import Redactor, printable

EXAMPLES = settings(max_examples=150, deadline=None)

text_secrets = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=8, max_size=60
)
secrets = (st.binary(min_size=8, max_size=60) | text_secrets.map(lambda s: s.encode())).filter(
    lambda s: len(set(s)) > 3 and b"[secret" not in s and b"secret:" not in s
)

ENCODINGS: dict[str, Any] = {
    "raw": lambda s: s,
    "upper": lambda s: s.upper(),
    "reversed": lambda s: s[::-1],
    "hex": lambda s: s.hex().encode(),
    "HEX": lambda s: s.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
    "percent": lambda s: quote(s, safe="").encode(),
    "plus": lambda s: quote_plus(s).encode(),
    "repr": lambda s: repr(s)[2:-1].encode(),
}
TEXT_ENCODINGS: dict[str, Any] = {
    "json": lambda s: json.dumps(s)[1:-1],
    "json utf-8": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    "json json": lambda s: json.dumps(json.dumps([s])),
}


def known(secret: bytes) -> Redactor:
    redactor = Redactor()
    assert redactor.register("it", secret)
    return redactor


@pytest.mark.case("LOG-02", "LOG-03")
@EXAMPLES
@given(secrets, st.sampled_from(sorted(ENCODINGS)), st.binary(max_size=40), st.binary(max_size=40))
def test_refuses_any_form_in_bytes_and_in_any_chunks(
    secret: bytes, how: str, before: bytes, after: bytes
) -> None:
    redactor, form = known(secret), ENCODINGS[how](secret)
    data = before + form + after
    clean = redactor.data(data)
    assert form.lower() not in clean.lower()
    for size in (1, 3, 16, len(form)):
        stream = redactor.stream()
        pieces = [stream.feed(data[i : i + size]) for i in range(0, len(data), size)]
        assert b"".join([*pieces, stream.finish()]) == clean


@pytest.mark.case("LOG-02")
@EXAMPLES
@given(text_secrets, st.sampled_from(sorted(TEXT_ENCODINGS)), st.text(max_size=20))
def test_refuses_any_escaped_form_in_text(secret: str, how: str, around: str) -> None:
    if len(set(secret.encode())) <= 3:
        return
    form = TEXT_ENCODINGS[how](secret)
    clean = known(secret.encode()).text(around + form + around)
    assert form not in clean or "[secret:it]" in around
    assert "[secret:it]" in clean


@pytest.mark.case("LOG-03")
@EXAMPLES
@given(secrets, st.lists(st.integers(0, 200), max_size=8), st.integers(1, 5))
def test_allows_chunks_to_mean_nothing(secret: bytes, cuts: list[int], copies: int) -> None:
    redactor = known(secret)
    data = (b"<" + secret) * copies + secret[:-1] + b">"
    places = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    stream = redactor.stream()
    out = b"".join(stream.feed(data[a:b]) for a, b in pairwise(places))
    assert out + stream.finish() == redactor.data(data)


plain_texts = st.text(st.characters(codec="utf-8"), max_size=30)


@pytest.mark.case("LOG-01", "LOG-02", "LOG-05")
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    secret=st.text("abcdefghijklmnopqrstuvwxyz0123456789/+=_-", min_size=12, max_size=40),
    how=st.sampled_from(["raw", "base64", "hex", "percent", "reversed"]),
    around=plain_texts,
    where=st.integers(0, 5),
)
def test_refuses_a_secret_in_every_field_of_a_record_and_a_log_line(
    secret: str, how: str, around: str, where: int, caplog: pytest.LogCaptureFixture
) -> None:
    if len(set(secret)) <= 3:
        return
    redactor = known(secret.encode())
    form = ENCODINGS[how](secret.encode()).decode()
    value = around + form + around
    places: list[Any] = ["p", "a", "t", "r", {"k": "v"}]
    places[min(where, 3)] = value
    places[4] = {value: value, "list": [value, {"deep": value}], "n": 1}
    sink = MemorySink()
    with AuditLog(sink, redactor) as log:
        log.record(Event("fs", DENIED, *places))
    data = bytes(sink.segments[0].data)
    assert form.encode() not in data
    assert json.dumps(form)[1:-1].encode() not in data
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "capwasm"):
        logger = get_logger(redactor, field=value)
        logger.info("with %s", value, more={value: value})
        try:
            raise ValueError(value) from RuntimeError(form.encode())
        except ValueError:
            logger.exception(value)
    assert len(caplog.records) == 2
    for record in caplog.records:
        assert form not in record.getMessage()
        assert form not in repr(record.__dict__)


@EXAMPLES
@given(st.binary(max_size=300), st.lists(secrets, max_size=4))
def test_allows_what_holds_no_secret(data: bytes, values: list[bytes]) -> None:
    redactor = Redactor()
    for i, value in enumerate(values):
        redactor.register(f"s{i}", value)
    clean = redactor.data(data)
    assert clean is data or b"[secret:s" in clean


@EXAMPLES
@given(st.text())
def test_allows_only_visible_characters_on_one_line(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in shown)
    assert not set("\u200b\u202e\u2066\u2028\ufeff") & set(shown)
