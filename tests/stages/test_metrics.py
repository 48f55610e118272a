from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import prometheus_client
import pytest

from capwasm.errors import AuditError
from capwasm.events import ALLOWED, DENIED, FAILED, KINDS, Event, NullRecorder
from capwasm.record.audit import AuditLog, MemorySink
from capwasm.record.metrics import MAX_PLUGINS, MAX_WORDS, Metrics, serve_metrics
from capwasm.record.recorders import Recorders
from capwasm.record.redact import Redactor
from tests.helpers import ListRecorder

CALL = Event(
    "call",
    ALLOWED,
    "acme.x@1.0.0",
    "handle",
    details={"ms": 30, "fuel": 1000, "host-calls": 7, "net-bytes": 5, "output-bytes": 3},
)


def lines(metrics: Metrics, name: str) -> list[str]:
    return [x for x in metrics.render().decode().splitlines() if x.startswith(name)]


def test_allows_events_to_become_numbers() -> None:
    m = Metrics()
    m.observe(CALL)
    m.record(CALL)
    m.observe(Event("call", FAILED, "acme.x@1.0.1", reason="limit.fuel", details={"ms": 2}))
    m.observe(Event("net", DENIED, "acme.x@1.0.0", "GET", "https://x", "not granted"))
    m.observe(Event("limit", DENIED, "acme.x@1.0.0", reason="limit.fuel"))
    m.observe(Event("crash", FAILED, "acme.x@1.0.0", reason="guest.trap"))
    m.observe(Event("load", DENIED, reason="verify.digest"))
    m.observe(Event("instance", ALLOWED, "acme.x@1.0.0", "sandbox"))
    m.observe(Event("instance", FAILED, "acme.x@1.0.0", "back-off", reason="guest.backoff"))
    m.observe(Event("kill", DENIED, "acme.x@1.0.0", "evict", reason="a person's"))
    m.observe(Event("kill", DENIED, "acme.x@1.0.0", "any.function", reason="a person's"))
    m.observe(Event("log", FAILED, "acme.x@1.0.0", details={"records": 12}))
    text = m.render().decode()
    for line in (
        'capwasm_calls_total{outcome="ok",plugin="acme.x"} 2.0',
        'capwasm_calls_total{outcome="limit.fuel",plugin="acme.x"} 1.0',
        'capwasm_call_seconds_bucket{le="0.05",plugin="acme.x"} 3.0',
        'capwasm_call_seconds_bucket{le="0.01",plugin="acme.x"} 1.0',
        'capwasm_call_fuel_total{plugin="acme.x"} 2000.0',
        'capwasm_host_calls_total{plugin="acme.x"} 14.0',
        'capwasm_net_bytes_total{plugin="acme.x"} 10.0',
        'capwasm_output_bytes_total{plugin="acme.x"} 6.0',
        'capwasm_denials_total{kind="net",plugin="acme.x",reason="not-granted"} 1.0',
        'capwasm_limit_hits_total{limit="limit.fuel",plugin="acme.x"} 1.0',
        'capwasm_crashes_total{plugin="acme.x",reason="guest.trap"} 1.0',
        'capwasm_loads_total{reason="verify.digest",verdict="denied"} 1.0',
        'capwasm_back_offs_total{plugin="acme.x"} 1.0',
        'capwasm_stops_total{action="evict",plugin="acme.x"} 1.0',
        'capwasm_stops_total{action="call",plugin="acme.x"} 1.0',
        'capwasm_log_dropped_total{plugin="acme.x"} 12.0',
        'capwasm_events_total{kind="call",verdict="allowed"} 2.0',
    ):
        assert line in text


def test_refuses_to_use_the_global_registry() -> None:
    Metrics().observe(CALL)
    Metrics().observe(CALL)  # two in one process do not clash
    assert b"capwasm" not in prometheus_client.generate_latest()


def test_refuses_labels_without_bound() -> None:
    m = Metrics()
    for i in range(MAX_PLUGINS + 500):
        m.observe(Event("fs", DENIED, f"acme.p{i}", reason="denied"))
    for i in range(MAX_WORDS + 500):
        m.observe(Event("fs", DENIED, "acme.p0", reason=f"reason-{i}"))
        m.observe(Event("fs", DENIED, "acme.p0", reason='odd "}\n' + "x" * i))
    assert len(lines(m, "capwasm_denials_total")) <= MAX_PLUGINS + MAX_WORDS + 2
    assert len(m._children) < 2 * (MAX_PLUGINS + MAX_WORDS)
    assert any('plugin="other"' in x for x in lines(m, "capwasm_denials_total"))
    assert any('reason="other"' in x for x in lines(m, "capwasm_denials_total"))


def test_refuses_nothing_however_odd_the_event() -> None:
    m = Metrics()
    for kind in KINDS:
        m.observe(
            Event(kind, FAILED, "\x00@", "\n", "", "", {"ms": "x", "fuel": -1, "records": None})
        )
        m.observe(Event(kind, DENIED, "", "", "", "", {"ms": float("nan"), "fuel": True}))
    assert b"nan" not in m.render().lower()


def test_allows_counting_from_many_threads() -> None:
    m = Metrics()
    threads = [
        threading.Thread(target=lambda: [m.observe(CALL) for _ in range(500)]) for _ in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert 'capwasm_calls_total{outcome="ok",plugin="acme.x"} 2000.0' in m.render().decode()


@pytest.mark.case("LOG-08")
def test_refuses_to_let_the_words_of_one_metric_hide_those_of_another() -> None:
    m = Metrics()
    for i in range(MAX_WORDS + 1):
        m.observe(Event("kill", DENIED, "a.b@1", reason=f"case {i}"))
    m.observe(Event("limit", DENIED, "a.b@1", reason="limit.memory"))
    assert any('limit="limit.memory"' in x for x in lines(m, "capwasm_limit_hits_total"))


def test_allows_scraping_on_loopback_and_refuses_other_addresses() -> None:
    m = Metrics()
    m.observe(CALL)
    with serve_metrics(m, port=0) as server:
        url = f"http://127.0.0.1:{server.port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"capwasm_calls_total" in answer.read()
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=2)
    for addr in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(ValueError, match="public=True"):
            serve_metrics(m, addr, 0)


# -- all recorders together ------------------------------------------------------------------------


def recorders(
    audit: Any, hook: Callable[[Event], None] | None = None, **more: Any
) -> tuple[Recorders, Metrics, Redactor]:
    redactor, metrics = Redactor(), Metrics()
    redactor.register("token", b"tok_0123456789abcdef")
    return Recorders(audit, redactor, metrics=metrics, hook=hook, **more), metrics, redactor


def test_allows_one_event_to_reach_all(caplog: pytest.LogCaptureFixture) -> None:
    got: list[Event] = []
    audit = ListRecorder()
    all_, metrics, _ = recorders(audit, got.append)
    with caplog.at_level("DEBUG", "capwasm"):
        all_.record(CALL)
        all_.record(Event("fs", DENIED, "p", "open", "/x", "denied"))
    assert audit.events == got
    assert "call allowed" in caplog.text
    assert [r.levelname for r in caplog.records] == ["DEBUG", "WARNING"]
    assert 'capwasm_events_total{kind="fs",verdict="denied"} 1.0' in metrics.render().decode()


@pytest.mark.case("LOG-01")
def test_refuses_a_secret_to_the_hook_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    got: list[Event] = []
    all_, _, _ = recorders(ListRecorder(), got.append)
    secret = "tok_0123456789abcdef"
    with caplog.at_level("DEBUG", "capwasm"):
        all_.record(
            Event("net", DENIED, "p", "GET", f"https://x/?t={secret}", "", {secret: secret})
        )
    assert secret not in repr(got)
    assert got[0].details == {"[secret:token]": "[secret:token]"}
    assert secret not in caplog.text


def test_allows_many_events_to_reach_all() -> None:
    got: list[Event] = []
    sink = MemorySink()
    all_, metrics, _ = recorders(AuditLog(sink, Redactor()), got.append)
    all_.record_all([CALL, CALL])
    assert got == [CALL, CALL]
    assert [r["kind"] for r in sink.records] == ["anchor", "call", "call"]
    assert lines(metrics, "capwasm_calls_total")[0].endswith(" 2.0")


@pytest.mark.case("LOG-09")
def test_refuses_the_operation_when_the_audit_fails_and_tells_nobody_it_happened() -> None:
    log = AuditLog(MemorySink(), Redactor())
    log.close()
    got: list[Event] = []
    all_, metrics, _ = recorders(log, got.append)
    with pytest.raises(AuditError):
        all_.record(CALL)
    with pytest.raises(AuditError):
        all_.record_all([CALL, CALL])
    assert got == []
    assert 'record_failures_total{recorder="audit"} 3.0' in metrics.render().decode()
    assert lines(metrics, "capwasm_calls_total") == []


def test_allows_a_hook_that_fails_and_records_that_it_did() -> None:
    audit = ListRecorder()

    def bad(_event: Event) -> None:
        raise RuntimeError("tok_0123456789abcdef")

    all_, metrics, _ = recorders(audit, bad)
    for _ in range(100):
        all_.record(CALL)
    gaps = [e for e in audit.events if e.kind == "gap"]
    assert len(audit.events) - len(gaps) == 100
    assert 1 <= len(gaps) <= 5  # once a second, not once an event
    assert (gaps[0].action, gaps[0].reason, gaps[0].target) == ("hook", "RuntimeError", "call")
    assert 'record_failures_total{recorder="hook"} 100.0' in metrics.render().decode()


def test_allows_a_hook_that_records_without_running_away() -> None:
    audit = ListRecorder()
    all_, _, _ = recorders(audit, lambda _event: all_.record(CALL))
    all_.record(CALL)
    assert len(audit.events) == 2


def test_refuses_a_recorder_that_keeps_nothing_unless_told() -> None:
    with pytest.raises(ValueError, match="unaudited=True"):
        recorders(NullRecorder())
    recorders(NullRecorder(), unaudited=True)[0].record(CALL)
