from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from capwasm.caps.log import Log, LogClause, LogState, PluginRecord
from capwasm.caps.log.handle import LINE_BYTES, Buckets
from capwasm.errors import OutputLimitExceeded
from capwasm.events import DENIED, FAILED
from capwasm.lattice import Clause
from capwasm.limits import DEFAULTS
from capwasm.record.redact import Redactor
from tests.helpers import ListRecorder, grant_of, in_call, open_context

SECRET = "tok_9f8e7d6c5b4a39281706"
LIMITS = replace(DEFAULTS, output_bytes=1 << 30)


@dataclass
class Field:
    key: str
    value: str


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A log with everything in reach."""

    def __init__(self, tmp_path: Path, *clauses: Clause, deny: tuple[Clause, ...] = ()) -> None:
        self.clock, self.recorder, self.redactor = Clock(), ListRecorder(), Redactor()
        self.redactor.register("token", SECRET.encode())
        self.got: list[PluginRecord] = []
        self.sink: Callable[[PluginRecord], None] = self.got.append
        self.grant = grant_of(*(clauses or (LogClause(),)), deny=deny)
        self.context = open_context(tmp_path, recorder=self.recorder)
        self.buckets = Buckets(self.clock)
        self.log = self.open()

    def open(self) -> LogState:
        return LogState(
            self.grant,
            self.context,
            self.redactor,
            self.buckets,
            lambda record: self.sink(record),  # noqa: PLW0108  a test may change it
            self.clock,
        )

    @property
    def messages(self) -> list[str]:
        return [r.message for r in self.got]

    @property
    def told(self) -> list[tuple[str, str, int]]:
        return [(e.verdict, e.reason, e.details["records"]) for e in self.recorder.events]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_allows_records_of_every_level(bench: Bench) -> None:
    with in_call() as call:
        for level in ("debug", "info", "warn", "error"):
            bench.log.write(level, "grüße", [Field("k", "v"), Field("key.2", "")])
        assert call.output_bytes == 4 * (7 + 2 + 5)
    assert [r.level for r in bench.got] == ["debug", "info", "warn", "error"]
    assert bench.got[0] == PluginRecord(
        "acme.demo@1.0.0", 1, "debug", "grüße", {"k": "v", "key.2": ""}
    )
    bench.log.close()
    assert bench.told == []


def test_refuses_records_below_the_level_without_a_word(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LogClause("warn"))
    with in_call() as call:
        bench.log.write("info", "x" * 100)
        bench.log.write("warn", "kept")
        assert call.output_bytes == 4
    assert bench.messages == ["kept"]
    assert bench.told == []


def test_refuses_what_is_denied_or_revoked_and_tells(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LogClause(), deny=(LogClause("error"),))
    with in_call():
        bench.log.write("error", "x")
        bench.log.write("info", "kept")
        bench.grant.allow[0].lease.revoke("test")
        bench.log.write("info", "gone")
        bench.log.stream("stdout").write(b"gone\n")
    bench.log.close()
    assert bench.messages == ["kept"]
    assert bench.told == [(DENIED, "denied", 1), (DENIED, "revoked", 2)]


@pytest.mark.case("LOG-08")
def test_refuses_records_over_the_rate_and_counts_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LogClause(rate=10))
    with in_call(LIMITS):
        for _ in range(1000):
            bench.log.write("info", "x")
        assert len(bench.got) == 10
        assert bench.told == [(FAILED, "rate", 1)]  # the first is told at once
        bench.clock.now += 1
        for _ in range(1000):
            bench.log.write("info", "x")
        assert len(bench.got) == 20
    bench.log.close()
    assert sum(n for _, _, n in bench.told) == 1980
    assert len(bench.told) <= 3  # once a second, not once a record


@pytest.mark.case("LOG-08")
def test_refuses_a_fresh_rate_to_a_fresh_instance(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LogClause(rate=10))
    with in_call(LIMITS):
        for _ in range(10):
            state = bench.open()
            for _ in range(10):
                state.write("info", "x")
            state.close()
    assert len(bench.got) == 10


@pytest.mark.case("LOG-08")
def test_refuses_output_over_the_calls_limit(bench: Bench) -> None:
    with in_call(replace(DEFAULTS, output_bytes=1000)):
        bench.log.write("info", "x" * 999)
        with pytest.raises(OutputLimitExceeded):
            bench.log.write("info", "", [Field("k", "v")])


@pytest.mark.case("LOG-08")
def test_refuses_more_than_a_records_size(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LogClause(record_bytes=200))
    fields = [Field(f"key{i}", "😀" * 50) for i in range(100)]
    with in_call(LIMITS):
        bench.log.write("info", "é" * 10_000_000)
        bench.log.write("info", "short", fields)
        bench.log.write("info", "x", [Field("k", "1"), Field("k", "2"), Field("é\n", "3")])
    for record in bench.got:
        size = len(record.message.encode()) + sum(
            len(k) + len(v.encode()) for k, v in record.fields.items()
        )
        assert size <= 200
        assert record.left_off > 0
    assert bench.got[0].left_off >= 9_999_000
    assert bench.got[2].fields == {"k": "1", "__": "3"}
    bench.log.close()
    assert {t[1] for t in bench.told} == {"cut"}


@pytest.mark.case("LOG-07")
def test_refuses_forged_lines_and_terminal_escapes(bench: Bench) -> None:
    with in_call():
        bench.log.write(
            "info", "a\nERROR root: b\x1b[2J\x00\u202e", [Field("k\n=\x1b", "v\r\n\u2066")]
        )
        bench.log.stream("stderr").write(b"\x1b]0;title\x07 \xff\xfe\r\nnext\n")
    assert all(m.isprintable() for m in bench.messages)
    assert bench.messages[0] == "a\\nERROR root: b\\x1b[2J\\x00\\u202e"
    assert bench.got[0].fields == {"k___": "v\\r\\n\\u2066"}
    assert bench.messages[1:] == ["\\x1b]0;title\\x07 ��", "next"]


@pytest.mark.case("LOG-01", "LOG-02", "LOG-05", "SEC-08")
def test_refuses_a_secret_anywhere_and_tells_the_guest_nothing(bench: Bench) -> None:
    with in_call():
        answer = bench.log.write(
            "info",
            f"got {SECRET} and {SECRET.encode().hex()}",
            [Field(SECRET, "x"), Field("v", SECRET[::-1])],
        )
    assert answer is None
    assert SECRET not in repr(bench.got)
    assert bench.messages == ["got [secret:token] and [secret:token]"]
    assert bench.got[0].fields == {"_secret_token_": "x", "v": "[secret:token]"}


@pytest.mark.case("LOG-03")
@pytest.mark.parametrize("cut", range(1, len(SECRET)))
def test_refuses_a_secret_split_over_two_writes(cut: int, bench: Bench) -> None:
    data = f"see {SECRET}!".encode()
    with in_call():
        out = bench.log.stream("stdout")
        out.write(data[: 4 + cut])
        out.write(data[4 + cut :] + b"\n")
    assert bench.messages == ["see [secret:token]!"]


@pytest.mark.case("LOG-03", "LOG-08")
def test_refuses_half_a_secret_at_the_cut(bench: Bench) -> None:
    with in_call(LIMITS):
        for before in range(LINE_BYTES - 30, LINE_BYTES + 3):
            bench.clock.now += 1
            bench.log.stream("stdout").write(b"." * before + SECRET.encode() + b"." * 9000 + b"\n")
            bench.log.write("info", "." * before + SECRET + "." * 9000)
    assert len(bench.got) == 66
    assert not any("tok_" in m or "9f8e" in m for m in bench.messages)


def test_allows_lines_in_pieces_and_an_end_without_a_newline(bench: Bench) -> None:
    with in_call():
        out, err = bench.log.stream("stdout"), bench.log.stream("stderr")
        assert out is bench.log.stream("stdout")
        out.write(b"one\ntw")
        err.write(b"oops")
        out.write(b"o\n\nfour")
    bench.log.close()
    assert bench.messages == ["one", "two", "", "four", "oops"]
    assert [(r.level, r.channel) for r in bench.got][-2:] == [
        ("info", "stdout"),
        ("warn", "stderr"),
    ]
    with pytest.raises(ValueError, match="stdout"):
        bench.log.stream("stdin")


@pytest.mark.case("LOG-08")
def test_refuses_a_line_of_100_megabytes_in_little_room_and_time(bench: Bench) -> None:
    piece = b"y" * 1_000_000
    began = time.perf_counter()
    with in_call(LIMITS):
        out = bench.log.stream("stdout")
        for _ in range(100):
            out.write(piece)
            assert len(out._held) <= LINE_BYTES + 2 * bench.redactor.longest
        out.write(b"\nnext\n")
    assert time.perf_counter() - began < 5
    assert bench.got[0].message == "y" * LINE_BYTES
    assert bench.got[0].left_off >= 100_000_000 - LINE_BYTES - 2 * bench.redactor.longest
    assert bench.messages[1:] == ["next"]
    assert bench.told[0][1] == "cut"


@pytest.mark.case("LOG-08")
def test_refuses_a_million_lines_at_once_in_little_time(bench: Bench) -> None:
    began = time.perf_counter()
    with in_call(LIMITS):
        bench.log.stream("stdout").write(b"z\n" * 1_000_000)
    bench.log.close()
    assert time.perf_counter() - began < 2
    assert len(bench.got) == 100
    assert sum(n for _, _, n in bench.told) == 999_900


def test_allows_an_embedders_handler_to_fail(bench: Bench) -> None:
    def bad(_record: PluginRecord) -> None:
        raise RuntimeError(SECRET)

    bench.sink = bad
    with in_call():
        bench.log.write("info", "x")
    assert bench.told == [(FAILED, "sink", 1)]


# -- as a capability ---------------------------------------------------------------------------------


def test_allows_records_to_reach_the_logger_and_the_embedder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    redactor, got = Redactor(), []
    redactor.register("token", SECRET.encode())
    capability = Log(redactor, got.append)
    state = capability.open(grant_of(LogClause()), open_context(tmp_path))
    interface = capability.serve(state)[0]
    assert interface.name in Log.interfaces
    with in_call(), caplog.at_level(logging.DEBUG, "capwasm.plugin"):
        fields = [Field("event", "x"), Field("plugin", "forged"), Field("t", SECRET)]
        interface.functions["write"]("warn", "hello %s", fields)
        state.stream("stdout").write(b"printed\n")
    capability.close(state)
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]
    record = caplog.records[0]
    assert record.name == "capwasm.plugin"
    assert record.getMessage().startswith("hello %s plugin=acme.demo@1.0.0 instance=1 ")
    assert record.capwasm["fields"]["plugin"] == "forged"  # type: ignore[attr-defined]
    assert record.capwasm["plugin"] == "acme.demo@1.0.0"  # type: ignore[attr-defined]
    assert SECRET not in json.dumps(record.capwasm)  # type: ignore[attr-defined]
    assert [r.channel for r in got] == ["log", "stdout"]
