"""A plugin has no outside: no environment, no input, no terminal; its output is counted."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from capwasm.caps.log.handle import PluginRecord
from capwasm.errors import AuditError, GuestTrap, OutputLimitExceeded
from capwasm.limits import DEFAULTS
from capwasm.values import Err, Ok
from capwasm.wasi import GuestExit, WasiConfig
from tests.helpers import in_call

from .served import CLOSED, Wasi, log_state


@pytest.mark.case("SEC-01")
def test_refuses_the_hosts_environment_and_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPWASM_TEST_SECRET", "do-not-tell")
    wasi = Wasi()

    assert wasi["cli/environment.get-environment"]() == []
    assert wasi["cli/environment.get-arguments"]() == []
    assert wasi["cli/environment.initial-cwd"]() is None


@pytest.mark.case("SEC-01")
def test_allows_what_the_core_gives_and_no_more() -> None:
    wasi = Wasi(config=WasiConfig(args=("tool", "-v"), env={"LANG": "C"}))

    assert wasi["cli/environment.get-environment"]() == [("LANG", "C")]
    assert wasi["cli/environment.get-arguments"]() == ["tool", "-v"]


@pytest.mark.parametrize(
    "config",
    [
        {"args": ("a\0b",)},
        {"args": ("\udcff",)},
        {"env": {"": "x"}},
        {"env": {"A=B": "x"}},
        {"env": {"A": "\0"}},
        {"env": {"A": "\ud800"}},
    ],
)
def test_refuses_a_word_that_can_be_no_argument_or_variable(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not fit"):
        WasiConfig(**config)  # type: ignore[arg-type]


def test_allows_words_in_any_language() -> None:
    assert WasiConfig(args=("héllo wörld\n\t日本",), env={"ключ": ""}).args[0].startswith("h")


@pytest.mark.parametrize(
    ("function", "argument", "status"),
    [("exit", Ok(None), 0), ("exit", Err(None), 1), ("exit-with-code", 42, 42)],
)
def test_allows_a_plugin_to_end_itself(function: str, argument: object, status: int) -> None:
    with pytest.raises(GuestExit, match=rf"exit\({status}\)") as caught:
        Wasi()[f"cli/exit.{function}"](argument)

    assert caught.value.status == status
    assert isinstance(caught.value, GuestTrap)


def test_refuses_input_and_terminals() -> None:
    wasi = Wasi()
    stdin = wasi["cli/stdin.get-stdin"]()

    with in_call():
        assert wasi.method("pollable", "ready", stdin.subscribe()) is True
        assert wasi.method("input-stream", "blocking-read", stdin, 10) == CLOSED
    for name in ("stdin", "stdout", "stderr"):
        assert wasi[f"cli/terminal-{name}.get-terminal-{name}"]() is None


def test_allows_output_to_the_log_where_granted() -> None:
    kept: list[PluginRecord] = []
    log = log_state(kept)
    wasi = Wasi({"log": log})

    with in_call() as call:
        # Two handles of a channel are one channel: a line may come in parts through both.
        first, second = wasi["cli/stdout.get-stdout"](), wasi["cli/stdout.get-stdout"]()
        assert wasi.method("output-stream", "blocking-write-and-flush", first, b"h") is None
        assert wasi.method("output-stream", "blocking-write-and-flush", second, b"i\nyou") is None
        wasi["cli/stderr.get-stderr"]().blocking_write_and_flush(b"oh\n")
    log.close()

    assert [(r.channel, r.level, r.message) for r in kept] == [
        ("stdout", "info", "hi"),
        ("stderr", "warn", "oh"),
        ("stdout", "info", "you"),
    ]
    assert call.output_bytes == 9
    assert not wasi.events


@pytest.mark.case("RES-20", "RES-21")
def test_refuses_output_without_a_log_and_keeps_none_of_it() -> None:
    wasi = Wasi()

    with in_call(replace(DEFAULTS, output_bytes=2**40)) as call:
        out = wasi["cli/stdout.get-stdout"]()
        out.blocking_write_and_flush(b"x")
        block = bytes(64 * 1024)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(16 * 1024):  # 1 GiB
            out.check_write()
            assert out.write(block) is None
        after, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert call.output_bytes == 2**30 + 1
    assert max(after, peak) - before < 64_000
    assert [e.action for e in wasi.events] == ["wasi:cli/stdout.write"]


@pytest.mark.case("RES-21")
@pytest.mark.parametrize("granted", [False, True])
def test_refuses_output_over_the_limit(granted: bool) -> None:
    wasi = Wasi({"log": log_state([])} if granted else {})

    with in_call(replace(DEFAULTS, output_bytes=1000)):
        out = wasi["cli/stderr.get-stderr"]()
        for _ in range(3):
            out.blocking_write_and_flush(bytes(300))
        with pytest.raises(OutputLimitExceeded):
            out.blocking_write_and_flush(bytes(300))


def test_refuses_to_go_on_when_a_refusal_cannot_be_recorded() -> None:
    wasi = Wasi()

    def broken(_event: object) -> None:
        raise AuditError("full")

    wasi.recorder.record = broken  # type: ignore[method-assign]
    with in_call():
        out = wasi["cli/stdout.get-stdout"]()
        for _ in range(2):
            with pytest.raises(AuditError):
                out.blocking_write_and_flush(b"x")
