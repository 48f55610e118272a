"""What there is now, as Prometheus sees it; and the dashboard and the alerts speak of nothing else."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from capwasm.errors import GuestError
from capwasm.monitor.docket import Docket
from capwasm.monitor.gauges import STATES
from capwasm.record.metrics import Metrics
from capwasm.runtime import Runtime
from tests.isolation.ways import GRANTED, granted_world, load_way
from tests.kit import World, guest

DOCS = Path(__file__).resolve().parents[2] / "docs/monitoring"
_NAME = re.compile(r"\bcapwasm_[a-z_]+")
_LABELS = re.compile(r"(capwasm_[a-z_]+)\{([^}]*)\}|\bby \(([a-z_, ]+)\)")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def world(tmp_path: Path, metrics: Metrics) -> Iterator[World]:
    world = World(tmp_path, metrics=metrics)
    yield world
    world.close()


def values(metrics: Metrics) -> dict[str, float]:
    lines = [x for x in metrics.render().decode().splitlines() if not x.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_tells_of_what_is_loaded_and_no_more_when_it_is_closed(
    world: World, metrics: Metrics
) -> None:
    plugin = world.load(guest("hostile"), instance="pooled")
    world.load(guest("hostile"), id="test.other")
    plugin.call("bytes", 2)
    now = values(metrics)

    assert now['capwasm_plugin_state{plugin="test.guest",state="loaded"}'] == 1
    assert now['capwasm_instances{plugin="test.guest"}'] == 1
    assert now['capwasm_calls_under_way{plugin="test.guest"}'] == 0
    assert now['capwasm_memory_limit_bytes{plugin="test.guest"}'] == plugin.limits.memory
    assert now["capwasm_runtime_instances"] >= 2
    assert now["capwasm_runtime_instances_limit"] >= now["capwasm_runtime_instances"]
    sources = {
        s: now[f'capwasm_compilations_total{{source="{s}"}}']
        for s in ("memory", "cache", "compiler")
    }
    assert sum(sources.values()) == 2
    assert sources["memory"] == 1
    if sources["compiler"]:
        assert now["capwasm_compile_seconds_total"] > 0
    plugin.close()
    assert 'capwasm_instances{plugin="test.guest"}' not in values(metrics)
    world.close()
    assert not any("instances" in name for name in values(metrics))


def test_a_hold_and_a_suspension_are_states(world: World, metrics: Metrics) -> None:
    with contextlib.closing(Docket(world.home)) as docket:
        docket.end("test.held", "1.0.0", "suspended", "x", int(time.time()), held=True)
        registry: Any = world.runtime.registry
        registry.install(world.capsule(guest("hostile")), who="ann")
        world.runtime.load_installed("test.guest")
        assert values(metrics)['capwasm_plugin_state{plugin="test.guest",state="loaded"}'] == 1
        registry.suspend("test.guest", who="ann")
    now = values(metrics)
    assert now['capwasm_plugin_state{plugin="test.guest",state="suspended"}'] == 1
    assert now['capwasm_plugin_state{plugin="test.held",state="held"}'] == 1
    states = [n for n in now if n.startswith('capwasm_plugin_state{plugin="test.guest"')]
    assert len(states) == 1, "a plugin is in one state"
    assert all(re.search(r'state="([^"]+)"', n)[1] in STATES for n in states)  # type: ignore[index]


def test_strikes_and_outcomes_are_numbers(world: World, metrics: Metrics) -> None:
    plugin = world.load(guest("hostile"), "[limits]\nwall-ms = 50\n")
    for function in ("trap", "spin"):
        with pytest.raises(GuestError):
            plugin.call(function)
    until = time.monotonic() + 20
    name = 'capwasm_strikes{plugin="test.guest"}'
    while name not in (now := values(metrics)) and time.monotonic() < until:
        time.sleep(0.05)
    assert now[name] == 70
    assert now['capwasm_calls_total{outcome="limit.deadline",plugin="test.guest"}'] == 1
    assert now['capwasm_calls_total{outcome="guest.trap",plugin="test.guest"}'] == 1


@pytest.mark.parametrize("way", ["process", "native"])
def test_processes_are_counted_with_the_memory_that_they_had(
    tmp_path: Path, metrics: Metrics, way: str
) -> None:
    with granted_world(tmp_path, way) as (world, origin):
        world.options["metrics"] = metrics
        _, probe = load_way(world, way, GRANTED.format(port=origin.port))
        probe("kv.get", "x")
        now = values(metrics)
        assert now['capwasm_processes{plugin="test.guest"}'] == 1
        assert now['capwasm_process_starts_total{plugin="test.guest"}'] == 1
        assert now['capwasm_process_peak_bytes{plugin="test.guest"}'] > 1_000_000


def test_refuses_to_clash_where_two_runtimes_share_metrics(
    tmp_path: Path, metrics: Metrics
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        Runtime.open(tmp_path / "one", core_version="1", metrics=metrics),
        Runtime.open(tmp_path / "two", core_version="1", metrics=metrics),
    ):
        assert values(metrics)["capwasm_runtime_instances"] == 0


# -- the dashboard and the alerts -----------------------------------------------------------------------


def known(world: World, metrics: Metrics) -> dict[str, set[str]]:
    """Every metric that there can be, with its labels."""
    world.load(guest("hostile")).call("bytes", 2)
    found: dict[str, set[str]] = {}
    for collector in set(metrics.registry._collector_to_names):
        for family in collector.collect():
            labels = {*getattr(collector, "_labelnames", ()), *getattr(family, "_labelnames", ())}
            labels |= {label for sample in family.samples for label in sample.labels}
            for name in metrics.registry._collector_to_names[collector]:
                if name.startswith(family.name):
                    found.setdefault(name, set()).update(labels)
    return found


def expressions() -> list[tuple[str, str]]:
    board = json.loads((DOCS / "dashboard.json").read_text(encoding="utf-8"))
    rules = yaml.safe_load((DOCS / "alerts.yml").read_text(encoding="utf-8"))
    texts = [
        (panel["title"], target["expr"])
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]
    texts += [
        ("templating", t["query"]["query"])
        for t in board["templating"]["list"]
        if t["type"] == "query"
    ]
    return texts + [(r["alert"], r["expr"]) for g in rules["groups"] for r in g["rules"]]


def test_dashboard_and_alerts_ask_for_metrics_and_labels_that_there_are(
    world: World, metrics: Metrics
) -> None:
    names = known(world, metrics)
    assert len(expressions()) >= 20
    for title, text in expressions():
        used = _NAME.findall(text)
        assert used, f"{title}: asks for nothing of ours"
        for name in used:
            assert name in names, f"{title}: {name}"
        allowed = set().union(*(names[n] for n in used)) | {"le", "job", "instance"}
        for _, inside, by in _LABELS.findall(text):
            labels = set(re.findall(r"([a-z_]+)\s*(?:=|!=|=~|!~)", inside)) | set(
                re.findall(r"[a-z_]+", by)
            )
            assert labels <= allowed, f"{title}: {labels - allowed}"


def test_every_metric_is_in_the_page(world: World, metrics: Metrics) -> None:
    page = (DOCS.parent / "monitoring.md").read_text(encoding="utf-8")
    for name in known(world, metrics):
        if not name.endswith(("_created", "_bucket", "_sum", "_count")):
            assert f"`{name}`" in page or f"`{name}_total`" in page, name


def test_alerts_and_panels_are_complete() -> None:
    rules = yaml.safe_load((DOCS / "alerts.yml").read_text(encoding="utf-8"))
    for rule in (r for g in rules["groups"] for r in g["rules"]):
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert all(rule["annotations"][word] for word in ("summary", "runbook"))
    board = json.loads((DOCS / "dashboard.json").read_text(encoding="utf-8"))
    ids = [p["id"] for p in board["panels"]]
    assert len(ids) == len(set(ids))
