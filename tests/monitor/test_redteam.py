"""Attacks on the watch by somebody who had not written it: each a hole that was there once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from capwasm.monitor.live import Live
from capwasm.registry.model import State
from tests.helpers import ListRecorder
from tests.isolation.ways import GRANTED, granted_world, load_way
from tests.kit import Refused
from tests.monitor.test_strikes import DENIAL, PROTOCOL, Court, installed
from tests.registry.shop import ID, Shop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path / "home", ListRecorder())
    shop.home.mkdir(mode=0o700)
    yield shop
    shop.close()


def test_refuses_to_let_a_plugin_run_on_where_strikes_can_t_be_counted(shop: Shop) -> None:
    (shop.home / "strikes.db").write_bytes(b"no database at all" * 100)

    assert set(Court(shop).after(*[DENIAL] * 5)) == {"suspended"}
    assert set(Court(shop, evict_after=3).after(*[DENIAL] * 5)) == {"suspended"}
    assert set(Court(shop, grave=("guest.protocol",)).after(PROTOCOL)) == {"evicted"}


def test_refuses_to_let_an_installed_version_serve_on_where_strikes_can_t_be_counted(
    shop: Shop,
) -> None:
    (shop.home / "strikes.db").write_bytes(b"no database at all" * 100)
    registry = installed(shop)
    Court(shop, registry, evict_after=3).after(*[DENIAL] * 5)

    assert registry.show(ID).state is State.SUSPENDED


def test_allows_a_plugin_below_the_bound_where_strikes_can_t_be_counted(shop: Shop) -> None:
    (shop.home / "strikes.db").write_bytes(b"no database at all" * 100)

    assert Court(shop).after(*[DENIAL] * 4) == []


class Faulty(SpanProcessor):
    """An embedder's processor with a defect, at the beginning or at the end of each span."""

    def __init__(self, at: str) -> None:
        self.at = at

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        if self.at == "start":
            raise OSError("secret text of a collector")

    def on_end(self, span: ReadableSpan) -> None:
        if self.at == "end":
            raise OSError("secret text of a collector")


@pytest.mark.parametrize("at", ["start", "end"])
def test_refuses_a_defect_of_a_span_processor_to_break_a_call(tmp_path: Path, at: str) -> None:
    provider = TracerProvider()
    provider.add_span_processor(Faulty(at))
    with granted_world(tmp_path, "in-process") as (world, origin):
        world.options["tracer_provider"] = provider
        _, probe = load_way(world, "in-process", GRANTED.format(port=origin.port))
        assert probe("kv.get", "none") is not None
        with pytest.raises(Refused):
            probe("fs.read", "/etc/passwd")


def record(when: str, calls: int = 1) -> dict[str, Any]:
    return {
        "time": when,
        "kind": "call",
        "verdict": "allowed",
        "plugin": "acme.a@1.0.0",
        "details": {"ms": 1, "calls": calls},
    }


def test_a_clock_that_was_ahead_for_a_moment_does_not_blind_top() -> None:
    live = Live(60)
    live.take(record("2036-01-01T00:00:00Z"))
    live.take(record("2026-01-01T00:00:00Z"))

    (row,) = live.rows(1767225600.0)
    assert row.calls > 0


def test_times_that_run_back_do_not_swell_top() -> None:
    live = Live(60)
    for second in range(2_000):
        live.take(
            record(
                f"2026-01-01T{9 - second // 3600:02}:{59 - second // 60 % 60:02}:{59 - second % 60:02}Z"
            )
        )

    assert len(live._plugins["acme.a"].cells) <= 2 * 60 + 1
