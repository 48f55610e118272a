"""Spans: who called whom, how it ended, what was asked for; and nothing that is nobody's business."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import StatusCode

from capwasm.errors import GuestError
from capwasm.monitor.traces import MOST_CHILDREN, _origin
from tests.isolation.ways import GRANTED, WAYS, granted_world, load_way
from tests.kit import Refused, World, guest

SECRET = "hunter2-hunter2"


class Spans:
    """A provider that keeps what ends in memory."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.kept = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self.kept))
        self.tracer = self.provider.get_tracer("the core")

    def take(self) -> list[ReadableSpan]:
        """All that have ended, oldest first."""
        found = sorted(self.kept.get_finished_spans(), key=lambda s: s.start_time or 0)
        self.kept.clear()
        return found


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def world(tmp_path: Path, spans: Spans) -> Iterator[World]:
    world = World(tmp_path, tracer_provider=spans.provider)
    yield world
    world.close()


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def child(found: list[ReadableSpan], parent: ReadableSpan) -> list[ReadableSpan]:
    assert parent.context is not None
    return [s for s in found if s.parent is not None and s.parent.span_id == parent.context.span_id]


def text_of(found: list[ReadableSpan]) -> str:
    return "".join(str(json.loads(s.to_json())) for s in found)


@pytest.mark.parametrize("way", WAYS)
def test_a_call_is_a_span_and_what_it_asks_for_are_its_children(
    tmp_path: Path, spans: Spans, way: str
) -> None:
    with granted_world(tmp_path, way) as (world, origin):
        world.options["tracer_provider"] = spans.provider
        _, probe = load_way(world, way, GRANTED.format(port=origin.port))
        probe("kv.get", "none")
        spans.take()
        with spans.tracer.start_as_current_span("request"):
            probe("fs.read", "/data/a.txt")
            probe("fetch", "GET", f"http://127.0.0.1:{origin.port}/open/x?token=abc", "secret:sent")
            probe("kv.set", "k", SECRET)
            with pytest.raises(Refused):
                probe("fs.read", "/etc/passwd")
        found = spans.take()
    request = next(s for s in found if s.name == "request")
    calls = [s for s in child(found, request) if "(start)" not in s.name]

    assert len(calls) == 4
    assert {about(c)["capwasm.plugin"] for c in calls} == {"test.guest"}
    assert all(c.status.status_code is not StatusCode.ERROR for c in calls)
    read, fetch, kept, denied = (child(found, c) for c in calls)
    assert any(about(s).get("capwasm.target") == "/data/a.txt" for s in read)
    (fetched,) = [s for s in fetch if s.name.startswith("capwasm:fetch/")][:1]
    assert about(fetched)["capwasm.target"] == f"http://127.0.0.1:{origin.port}"
    assert about(fetched)["capwasm.action"] == "GET"
    assert any(s.name.startswith("capwasm:kv/") for s in kept)
    refused = next(s for s in denied if s.status.status_code is StatusCode.ERROR)
    assert about(refused)["error.type"] == "denied"
    assert [e.name for e in refused.events] == ["fs denied"]
    assert (refused.events[0].attributes or {})["capwasm.reason"]
    everything = text_of(found)
    for secret in (SECRET, "token=abc", "/open/x", "s3cret"):
        assert secret not in everything


@pytest.mark.parametrize("isolation", ["in-process", "process"])
def test_a_call_that_fails_says_so_by_its_code_and_nothing_else(
    world: World, spans: Spans, isolation: Any
) -> None:
    capsule = world.capsule(guest("hostile"), "[limits]\nfuel = 1000000\n")
    plugin = world.runtime.load(capsule, isolation=isolation)
    spans.take()
    for function in ("trap", "spin"):
        with pytest.raises(GuestError) as caught:
            plugin.call(function)
        span = spans.take()[-1]
        assert span.name == f"test.guest {function}"
        assert span.status.status_code is StatusCode.ERROR
        assert about(span)["error.type"] == caught.value.code == span.status.description
        assert {e.name for e in span.events} <= {"crash failed", "limit denied"}
        assert caught.value.message not in text_of([span])


def test_acall_and_threads_of_ours_go_on_with_the_caller_s_span(world: World, spans: Spans) -> None:
    plugin = world.load(guest("hostile"))

    async def main() -> None:
        with spans.tracer.start_as_current_span("request"):
            await plugin.acall("bytes", 3)

    asyncio.run(main())
    found = spans.take()
    request = next(s for s in found if s.name == "request")
    assert "test.guest bytes" in [s.name for s in child(found, request)]


def test_sessions_are_told_of_and_use_is_on_the_span(world: World, spans: Spans) -> None:
    with world.load(guest("hostile")).session() as session:
        spans.take()
        session.call("bytes", 3)
    (span,) = spans.take()
    assert about(span)["capwasm.fuel"] > 0
    assert about(span)["capwasm.plugin.version"] == "1.0.0"


def test_refuses_to_make_a_span_of_each_call_of_a_flood(tmp_path: Path, spans: Spans) -> None:
    with granted_world(tmp_path, "in-process") as (world, origin):
        world.options["tracer_provider"] = spans.provider
        manifest = GRANTED.format(port=origin.port) + "[limits]\nhandles = 1000\n"
        _, probe = load_way(world, "in-process", manifest)
        spans.take()
        assert probe("fs.hold", "/data/a.txt", "500") == "500"
        found = spans.take()
    (call,) = (s for s in found if s.name == "test.guest probe.run")
    assert about(call)["capwasm.host_calls"] > 500
    assert MOST_CHILDREN // 2 < len(found) <= MOST_CHILDREN + 1


def test_refuses_to_follow_what_is_not_sampled(tmp_path: Path) -> None:
    spans = Spans(ALWAYS_OFF)
    world = World(tmp_path, tracer_provider=spans.provider)
    try:
        assert world.load(guest("hostile")).call("bytes", 2)
        assert spans.take() == []
    finally:
        world.close()


def test_without_a_provider_nothing_of_it_is_there(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from tests.kit import World, guest\n"
        "world = World(Path(sys.argv[1])); plugin = world.load(guest('hostile'))\n"
        "assert plugin.call('bytes', 2); world.close()\n"
        "print(any(m.startswith('opentelemetry') for m in sys.modules))\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), root],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("https://api.acme.com/a/b?c=d", "https://api.acme.com"),
        ("https://user:pw@api.acme.com:8443?x", "https://api.acme.com:8443"),
        ("https://api.acme.com#top", "https://api.acme.com"),
        ("api.acme.com?x=1", "api.acme.com"),
        ("", ""),
    ],
)
def test_an_address_is_told_without_path_query_and_user(target: str, told: str) -> None:
    assert _origin(target) == told
