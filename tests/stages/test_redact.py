from __future__ import annotations

import base64
import hashlib
import html
import json
import logging
import pickle
import re
import threading
import time
from urllib.parse import quote, quote_plus

import pytest

from capwasm.record.redact import MAX_SECRET, VALUES_A_NAME, Redactor, printable

TEXT = "s3cr3t/T0ken+with \"quotes\" & '<(~*!)>' ünïcode\\"
SECRET = TEXT.encode()


def redactor(**secrets: bytes) -> Redactor:
    made = Redactor()
    for name, value in secrets.items():
        assert made.register(name, value)
    return made


FORMS = {
    "raw": TEXT,
    "upper case": TEXT.upper().replace("Ü", "ü").replace("Ï", "ï"),
    "reversed": TEXT[::-1],
    "hex": SECRET.hex(),
    "hex, upper case": SECRET.hex().upper(),
    "base64": base64.b64encode(SECRET).decode(),
    "base64 after one byte": base64.b64encode(b"x" + SECRET + b"y").decode(),
    "base64 after two bytes": base64.b64encode(b"xx" + SECRET + b"y").decode(),
    "base64 for URLs": base64.urlsafe_b64encode(SECRET).decode(),
    "percent-encoded": quote(TEXT, safe=""),
    "percent-encoded path": quote(TEXT),
    "form-encoded": quote_plus(TEXT),
    "every byte percent-encoded": "".join(f"%{b:02X}" for b in SECRET),
    "json": json.dumps(TEXT),
    "json in utf-8": json.dumps(TEXT, ensure_ascii=False),
    "json with escaped slashes": json.dumps(TEXT).replace("/", "\\/"),
    "json in json": json.dumps(json.dumps({"a": TEXT})),
    "repr": repr(TEXT),
    "repr of bytes": repr(SECRET),
    "html": html.escape(TEXT),
    "html with decimal apostrophes": html.escape(TEXT).replace("&#x27;", "&#39;"),
    "html as Go writes it": html.escape(TEXT)
    .replace("&#x27;", "&#39;")
    .replace("&quot;", "&#34;")
    .replace("+", "&#43;"),
    "text of XML": html.escape(TEXT, quote=False),
    "json as Go writes it": re.sub("[<>&]", lambda m: f"\\u{ord(m[0]):04x}", json.dumps(TEXT)),
    "json as .NET writes it": re.sub(
        "[<>&'+`]",
        lambda m: f"\\u{ord(m[0]):04X}",
        json.dumps(TEXT)[1:-1].replace('\\"', "\\u0022"),
    ),
    "every character escaped": "".join(f"\\u{ord(c):04x}" for c in TEXT),
    "encodeURIComponent": quote(TEXT, safe="!~*'()"),
    "a browser's form": quote_plus(TEXT, safe="*").replace("~", "%7E"),
    "percent-encoded twice": quote(quote(TEXT, safe=""), safe=""),
}


@pytest.mark.case("LOG-02")
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_refuses_to_show_a_secret_in_any_form(form: str) -> None:
    shown = redactor(token=SECRET).text(f"before {form} after")
    assert "[secret:token]" in shown
    assert form.strip("\"'=") not in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")


def test_allows_text_without_secrets_to_pass_as_the_same_object() -> None:
    known = redactor(token=SECRET)
    text, data = "nothing to see " * 100, b"nothing " * 100
    plain = {"a": [1, 2.5, None, True, "x"], "b": ("t", 123456789)}
    assert known.text(text) is text
    assert known.data(data) is data
    assert known.value(plain) is plain


@pytest.mark.case("LOG-02", "LOG-04")
@pytest.mark.parametrize("width", [64, 76])
def test_refuses_a_long_secret_in_base64_that_is_broken_into_lines(width: int) -> None:
    secret = hashlib.sha512(b"a").hexdigest().encode()
    text = base64.b64encode(secret).decode()
    lines = [text[at : at + width] for at in range(0, len(text), width)]
    shown = redactor(key=secret).text("\r\n".join(lines))
    assert shown == "\r\n".join(["[secret:key]"] * len(lines))


@pytest.mark.case("LOG-04")
def test_refuses_each_line_of_a_secret_of_several_lines() -> None:
    lines = [base64.b64encode(hashlib.sha384(bytes([i])).digest()).decode() for i in range(4)]
    pem = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(lines) + "\n-----END PRIVATE KEY-----\n"
    known = redactor(key=pem.encode())
    for line in lines:
        assert known.text(f"> {line}") == "> [secret:key]"
        assert lines[0] not in known.text(json.dumps(pem))
    assert known.text(pem).strip() == "[secret:key]"
    assert known.text("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


@pytest.mark.case("LOG-06")
def test_refuses_the_fields_of_a_json_secret() -> None:
    value = {"user": "robot-account", "nested": [{"password": "hunter2-hunter2"}], "n": 1}
    known = redactor(cred=json.dumps(value).encode())
    assert known.text("login robot-account:hunter2-hunter2") == "login [secret:cred]:[secret:cred]"
    assert known.text("hunter3") == "hunter3"


def test_refuses_a_secret_that_was_stored_with_a_line_end() -> None:
    assert redactor(t=b"tok_0123456789\n").text("Bearer tok_0123456789!") == "Bearer [secret:t]!"


@pytest.mark.case("LOG-05")
@pytest.mark.parametrize("value", [b"", b"on", b"short", b"000000000", b"ababababab"])
def test_refuses_to_mask_what_is_too_common(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    known = Redactor()
    with caplog.at_level(logging.WARNING, "capwasm"):
        assert not known.register("flag\n", value)
    assert "flag_" in caplog.text
    assert known.text("turn it on, 000000000, short") == "turn it on, 000000000, short"


def test_allows_the_shortest_secret_and_refuses_one_over_the_limit() -> None:
    known = Redactor()
    assert known.register("pin", b"a1b2c3")
    assert known.text("it is A1B2C3.") == "it is [secret:pin]."
    for pad in range(9):
        assert known.text("x" * pad + "a1b2c3") == "x" * pad + "[secret:pin]"
    assert not known.register("huge", b"ab c" * (MAX_SECRET // 4) + b"!")


def test_refuses_a_secret_in_keys_numbers_bytes_and_deep_down() -> None:
    known = redactor(pin=b"918273645", key=b"correct-horse")
    value = {"correct-horse": 1, "n": 918273645, "b": b"..correct-horse", "l": [("correct-horse",)]}
    assert known.value(value) == {
        "[secret:key]": 1,
        "n": "[secret:pin]",
        "b": b"..[secret:key]",
        "l": [("[secret:key]",)],
    }
    deep: object = "correct-horse"
    for _ in range(100):
        deep = [deep]
    assert "correct-horse" not in str(known.value(deep))
    assert known.value({"x": object()}) == {"x": "[object]"}


@pytest.mark.case("LOG-03")
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 64])
def test_refuses_a_secret_split_over_chunks(size: int) -> None:
    known = redactor(a=b"first-secret-value", b=b"value-of-the-second")
    data = b"..first-secret-value--first-secret-value-of-the-second.." * 3
    stream = known.stream()
    out = b"".join(stream.feed(data[i : i + size]) for i in range(0, len(data), size))
    out += stream.finish()
    assert out == known.data(data) == b"..[secret:a]--[secret:a].." * 3
    assert stream.feed(b"again ") + stream.finish() == b"again "


@pytest.mark.case("LOG-03")
def test_refuses_to_grow_with_one_endless_secret() -> None:
    stream = redactor(a=b"abcabcabc").stream()
    out = b"".join(stream.feed(b"abc" * 1000) for _ in range(20)) + stream.finish()
    assert out == b"[secret:a]"


def test_refuses_to_cut_a_secret_in_two() -> None:
    known = redactor(a=b"abcdefghijklmnop")
    for before in range(40):
        text = "." * before + "abcdefghijklmnop" + "." * 40
        kept, left_off = known.cut(text, 20)
        assert len(kept) <= 20
        assert left_off == len(text) - 20
        assert "ab" not in kept
    assert known.cut("short", 20) == ("short", 0)


def test_allows_registering_from_many_threads_while_others_read() -> None:
    known, stop = Redactor(), threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            if known.text("plain text") != "plain text":
                wrong.append("changed")

    def write(n: int) -> None:
        for i in range(50):
            value = f"value-{n}-{i}-{'x' * 12}"
            known.register(f"n{n}-{i}", value.encode())
            if value in known.text(f"see {value}"):
                wrong.append(value)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    reader.start()
    for t in writers:
        t.start()
    for t in writers:
        t.join()
    stop.set()
    reader.join()
    assert wrong == []


def test_allows_rotation_without_growing_and_masks_the_newest_values() -> None:
    known = Redactor()
    for i in range(3 * VALUES_A_NAME):
        known.register("rotating", f"rotated-value-{i:04d}".encode())
    size = len(known._table.long)
    for i in range(3 * VALUES_A_NAME, 4 * VALUES_A_NAME):
        known.register("rotating", f"rotated-value-{i:04d}".encode())
        assert known.text(f"rotated-value-{i:04d}") == "[secret:rotating]"
    assert len(known._table.long) <= size + VALUES_A_NAME
    known.register("rotating", b"rotated-value-0063")  # known: nothing changes
    assert known.text("rotated-value-0063") == "[secret:rotating]"


@pytest.mark.case("SEC-10")
def test_refuses_to_show_or_copy_its_secrets() -> None:
    known = redactor(token=SECRET)
    assert "s3cr3t" not in repr(known)
    assert "s3cr3t" not in repr(known._table)
    assert "s3cr3t" not in repr(known._values)
    with pytest.raises(TypeError):
        pickle.dumps(known)


def test_allows_a_megabyte_in_milliseconds_however_many_secrets() -> None:
    known = Redactor()
    for i in range(100):
        known.register(f"s{i}", f"{i:03d}-secret-of-some-length".encode())
    data = base64.b64encode(bytes(range(256)) * 3000)
    began = time.perf_counter()
    assert known.data(data) is data
    assert time.perf_counter() - began < 1.0  # about 0.006 s; a search per form takes seconds


@pytest.mark.case("LOG-07")
def test_refuses_control_ansi_bidi_and_invisible_characters() -> None:
    bad = "a\r\nb\x1b[31mc\x00d\u202ee\u200bf\u2028g\x85h\ud800i\U000e0041j\u00adk"
    shown = printable(bad)
    assert shown.isprintable()
    assert shown.startswith("a\\r\\nb\\x1b[31mc\\x00d\\u202ee\\u200bf\\u2028g\\x85h\\ud800i")
    assert printable("naïve 日本語\u3000😀") == "naïve 日本語\u3000😀"


@pytest.mark.case("LOG-07")
def test_refuses_to_join_the_halves_of_a_secret() -> None:
    known = redactor(a=b"abcdefghijkl")
    assert "abcdefghijkl" not in printable(known.text("abcdef\u200bghijkl"))
