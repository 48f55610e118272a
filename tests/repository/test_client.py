"""A repository's client where nobody attacks: what it finds, fetches, keeps and tells."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from capwasm.errors import RepositoryError
from capwasm.registry.model import Release
from capwasm.repository.client import Repository
from capwasm.repository.layout import identity_of_path, target_path
from capwasm.web import Web
from tests.helpers import ListRecorder

from .simulator import CAPSULE, PATH, Desk, capsule, clock_of_tuf


def offer(version: str, published: str = "2026-01-02T03:04:05Z") -> dict[str, object]:
    return {"capwasm": {"id": "acme.weather", "version": version, "published": published}}


def test_a_release_is_found_and_fetched(here: Desk) -> None:
    client = here.client()
    [found] = client.releases("acme.weather")
    assert found == Release(
        "acme.weather",
        "1.2.0",
        hashlib.sha256(CAPSULE).hexdigest(),
        len(CAPSULE),
        None,
        "repository main",
    )
    assert client.fetch(found) == CAPSULE


def test_releases_come_in_the_order_of_versions_with_when_they_were_published(here: Desk) -> None:
    for version in ("1.10.0", "1.9.0", "2.0.0-rc.1", "2.0.0"):
        path = target_path("acme.weather", version)
        here.sim.offer(capsule(version), path, offer(version))
    here.sim.offer(capsule("1.0.0", "acme.other"), target_path("acme.other", "1.0.0"))
    here.sim.step()
    found = here.client().releases("acme.weather")
    assert [r.version for r in found] == ["1.2.0", "1.9.0", "1.10.0", "2.0.0-rc.1", "2.0.0"]
    assert found[0].published is None
    assert found[1].published == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert here.client().releases("acme.none") == ()


def test_one_refresh_answers_for_the_looks_that_follow(here: Desk) -> None:
    client = here.client()
    client.releases("acme.weather")
    assert here.sim.asked == ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]
    here.sim.asked.clear()
    client.releases("acme.weather")
    assert here.sim.asked == []
    client.refresh()
    assert here.sim.asked == ["2.root.json", "timestamp.json"]


def test_standing_tells_the_versions_and_what_expires_first(here: Desk) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    here.sim.snapshot.expires = soon
    here.sim.step()
    standing = here.client().refresh()
    assert standing.versions == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2}
    assert standing.expires == soon
    assert not standing.offline
    assert abs(standing.refreshed - datetime.now(UTC)) < timedelta(minutes=1)


def test_it_speaks_for_the_plugins_it_may_and_for_no_others(here: Desk) -> None:
    release = here.release()
    client = here.client(ids=["acme.other", "corp.*"])
    assert client.releases("acme.weather") == ()
    assert here.refused(lambda: client.fetch(release)) == "repository.unknown"
    assert here.client(ids=["acme.*"]).fetch(release) == CAPSULE


def test_what_is_no_capsule_is_not_offered(here: Desk) -> None:
    for path in ("acme.weather/notes.txt", "acme.weather/9.0.0/acme.other-9.0.0.capsule", "x"):
        here.sim.offer(b"x", path)
    here.sim.step()
    assert [r.version for r in here.client().releases("acme.weather")] == ["1.2.0"]


@pytest.mark.parametrize(
    "path",
    [
        "acme.weather/1.2.0/acme.weather-1.2.1.capsule",
        "acme.weather/01.2.0/acme.weather-01.2.0.capsule",
        "Acme.Weather/1.2.0/Acme.Weather-1.2.0.capsule",
        "../1.2.0/..-1.2.0.capsule",
        "acme.weather/1.2.0/acme.weather-1.2.0.capsule\n",
        "a/" + PATH,
    ],
)
def test_refuses_a_path_that_is_no_capsules(path: str) -> None:
    assert identity_of_path(path) is None
    assert identity_of_path(PATH) == ("acme.weather", "1.2.0")


# -- offline ---------------------------------------------------------------------------------------


def test_what_is_cached_serves_while_the_server_is_away(here: Desk) -> None:
    here.refresh()
    here.away()
    client = here.client()
    assert client.refresh().offline
    assert [r.version for r in client.releases("acme.weather")] == ["1.2.0"]
    assert here.refused(lambda: client.fetch(here.release())) == "repository.unreachable"


def test_nothing_is_asked_for_offline(here: Desk) -> None:
    assert here.refused(here.client(offline=True).refresh) == "repository.unreachable"
    assert here.sim.asked == []
    here.refresh()
    here.sim.asked.clear()
    assert here.client(offline=True).refresh().offline
    assert [r.version for r in here.client(offline=True).releases("acme.weather")] == ["1.2.0"]
    assert here.sim.asked == []


@pytest.mark.case("SIG-16")
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root"])
def test_what_is_cached_serves_until_it_expires(
    here: Desk, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    getattr(here.sim, role).expires = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    if role == "root":
        here.sim.new_root()
    here.sim.step()
    here.refresh()
    here.away()
    assert here.client().refresh().offline
    clock_of_tuf(monkeypatch, timedelta(hours=3))
    assert here.refused() == "repository.expired"


@pytest.mark.case("PER-09", "SIG-16")
def test_a_clock_that_went_back_is_refused(here: Desk) -> None:
    here.refresh()
    [stamp] = (here.folder / "main").glob("g*/refreshed")
    ahead = datetime.now(UTC) + timedelta(minutes=5)
    stamp.write_text(ahead.strftime("%Y-%m-%dT%H:%M:%SZ"))
    here.refresh()
    [stamp] = (here.folder / "main").glob("g*/refreshed")
    stamp.write_text((ahead + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert here.refused() == "repository.clock"


# -- what is recorded ------------------------------------------------------------------------------


def test_refreshes_and_fetches_are_recorded(here: Desk) -> None:
    recorder = ListRecorder()
    client = here.client(recorder=recorder)
    client.fetch(client.releases("acme.weather")[0])
    assert [(e.kind, e.verdict, e.action) for e in recorder.events] == [
        ("repository", "allowed", "refresh"),
        ("repository", "allowed", "fetch"),
    ]
    assert recorder.events[1].target == f"main: {PATH}"
    here.sim.timestamp.version = 0
    recorder.events.clear()
    here.sim.files["/metadata/timestamp.json"] = b"{}"
    with pytest.raises(RepositoryError):
        client.refresh()
    [event] = recorder.events
    assert (event.verdict, event.reason) == ("denied", "repository.metadata")


def test_a_server_that_is_away_is_no_denial(here: Desk) -> None:
    recorder = ListRecorder()
    here.away()
    with pytest.raises(RepositoryError):
        here.client(recorder=recorder).refresh()
    [event] = recorder.events
    assert (event.verdict, event.reason) == ("failed", "repository.unreachable")


@pytest.mark.parametrize(
    "root",
    [b"", b"{}", b"\xff", b"[" * 100_000, b'{"signed": {"_type": "root"}, "signatures": []}'],
)
def test_refuses_a_first_root_that_is_none(here: Desk, root: bytes) -> None:
    client = Repository("main", here.sim.url, root=root, cache=here.folder / "x", web=Web())
    assert here.refused(client.refresh) == "repository.metadata"
    assert here.sim.asked == []
