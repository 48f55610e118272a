"""Whether a load may go on: denied, stale, or not to be believed."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from capwasm.errors import AuditError, CapwasmError
from capwasm.events import Event
from capwasm.revocation.guard import Guard
from tests.helpers import ListRecorder
from tests.revocation.desk import ANN, BEN, EVE, NOW, feed, guard, subject, trust

DENY = {"versions": {"acme.weather": {"<1.2.3": "leaks keys"}}}
HOUR = timedelta(hours=1)


class Clock:
    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> datetime:
        return self.time


def code_of(asked: Guard, version: str = "1.2.0") -> str | None:
    try:
        asked.admit(subject(version=version))
    except CapwasmError as exc:
        return exc.code
    return None


def told(recorder: ListRecorder) -> list[tuple[str, str, str]]:
    return [(e.verdict, e.action, e.reason) for e in recorder.events]


def test_refuses_what_is_denied_with_the_entry_and_the_reason(tmp_path: Path) -> None:
    asked = guard(tmp_path)
    assert code_of(asked) is None
    assert asked.take(feed(4, deny=DENY), "a file")
    with pytest.raises(CapwasmError) as caught:
        asked.admit(subject())
    assert caught.value.code == "verify.revoked"
    assert str(caught.value).startswith(
        "acme.weather@1.2.0: revoked by feed 4: version acme.weather <1.2.3: leaks keys"
    )
    assert code_of(asked, "1.2.3") is None


def test_every_process_follows_at_its_next_question(tmp_path: Path) -> None:
    one, other = guard(tmp_path), guard(tmp_path)
    assert code_of(other) is None
    one.take(feed(1, deny=DENY), "a file")
    assert code_of(other) == "verify.revoked"
    other.take(feed(2), "a file")
    assert code_of(one) is None


def test_what_is_refused_changes_nothing_and_is_recorded(tmp_path: Path) -> None:
    recorder = ListRecorder()
    asked = guard(tmp_path, recorder)
    asked.take(feed(5, deny=DENY), "mail")
    for data, code in (
        (feed(4), "revocation.rollback"),
        (feed(5), "revocation.conflict"),
        (feed(6, keys=(EVE,)), "verify.untrusted-key"),
        (feed(6, issued=NOW - 9 * HOUR, good=HOUR), "revocation.expired"),
        (b"{}", "verify.envelope"),
    ):
        with pytest.raises(CapwasmError) as caught:
            asked.take(data, "mail")
        assert caught.value.code == code
        assert code_of(asked) == "verify.revoked"
        assert told(recorder)[-1] == ("denied", "refused", code)
    assert told(recorder)[0] == ("allowed", "accepted", "")
    assert recorder.events[0].details["signers"] == ["ann"]
    assert not asked.take(feed(5, deny=DENY), "mail")
    assert len(recorder.events) == 6


@pytest.mark.parametrize("stale", ["refuse", "report"])
@pytest.mark.case("SIG-16")
def test_a_stale_feed_refuses_or_is_told_of_as_policy_says(tmp_path: Path, stale: str) -> None:
    clock, recorder = Clock(), ListRecorder()
    asked = guard(tmp_path, recorder, now=clock, stale=stale, max_age_hours=6)
    late = "revocation.stale" if stale == "refuse" else None

    assert code_of(asked, "9.0.0") == late, "no feed was ever accepted"
    asked.take(feed(1, deny=DENY), "a file")
    asked.report()
    assert code_of(asked, "9.0.0") is None
    clock.time = NOW + 6 * HOUR
    assert code_of(asked, "9.0.0") is None
    clock.time = NOW + 7 * HOUR
    assert code_of(asked, "9.0.0") == late
    assert code_of(asked) == "verify.revoked", "what is denied stays denied"
    asked.report()
    asked.report()
    asked.take(feed(2, issued=clock.time), "a file")
    asked.report()
    assert code_of(asked, "9.0.0") is None
    assert [t for t in told(recorder) if t[1] == "stale"] == [
        ("failed", "stale", "revocation.stale"), ("allowed", "stale", ""),
    ]  # fmt: skip


def test_a_feed_that_expires_is_stale_and_its_denials_stay(tmp_path: Path) -> None:
    clock = Clock()
    asked = guard(tmp_path, now=clock, stale="refuse", max_age_hours=1000)
    asked.take(feed(1, deny=DENY, good=2 * HOUR), "a file")
    clock.time = NOW + 2 * HOUR
    assert code_of(asked, "9.0.0") == "revocation.stale"
    assert code_of(guard(tmp_path, now=clock)) == "verify.revoked"
    assert "expired" in str(asked.status().stale)


@pytest.mark.case("SIG-18")
def test_when_its_signers_are_trusted_no_more_it_is_stale_and_its_denials_stay(
    tmp_path: Path,
) -> None:
    guard(tmp_path).take(feed(1, deny=DENY), "a file")
    later = guard(tmp_path, by=trust(revoked=True), stale="refuse")
    assert code_of(later) == "verify.revoked"
    assert code_of(later, "9.0.0") == "revocation.stale"
    assert "verify.key-revoked" in str(later.status().stale)
    two = guard(tmp_path, by=trust(2), stale="refuse")
    assert code_of(two, "9.0.0") == "revocation.stale"
    two.take(feed(2, keys=(ANN, BEN)), "a file")
    assert code_of(two, "9.0.0") is None


@pytest.mark.case("PER-09", "SIG-16")
def test_a_clock_that_is_put_back_makes_nothing_young_again(tmp_path: Path) -> None:
    clock, recorder = Clock(), ListRecorder()
    words = {"now": clock, "stale": "refuse", "max_age_hours": 6}
    asked = guard(tmp_path, recorder, **words)  # type: ignore[arg-type]
    asked.take(feed(1), "a file")
    clock.time = NOW + 7 * HOUR
    asked.note_time()
    clock.time = NOW + HOUR
    again = guard(tmp_path, recorder, **words)  # type: ignore[arg-type]
    assert code_of(again) == "revocation.stale"
    assert "went back" in str(again.status().clock)
    again.report()
    assert ("failed", "clock", "revocation.future") in told(recorder)
    again.take(feed(2, issued=clock.time), "a file")
    assert code_of(again) is None, "a new feed shows what time it is"
    assert again.status().clock is None


@pytest.mark.case("PER-09")
def test_a_clock_that_goes_back_while_it_runs_is_noticed(tmp_path: Path) -> None:
    clock = Clock()
    asked = guard(tmp_path, now=clock)
    asked.take(feed(1), "a file")
    clock.time = NOW - timedelta(minutes=4)
    assert asked.status().clock is None
    clock.time = NOW - timedelta(minutes=6)
    assert asked.status().clock is not None


@pytest.mark.case("SIG-23", "PER-08")
def test_refuses_every_load_when_what_is_kept_cannot_be_believed(tmp_path: Path) -> None:
    recorder = ListRecorder()
    home, copy = tmp_path / "home", tmp_path / "copy"
    asked = guard(home, recorder)
    asked.take(feed(1), "a file")
    shutil.copytree(home, copy)
    asked.take(feed(2, deny=DENY), "a file")
    shutil.rmtree(home)
    shutil.copytree(copy, home)  # all of it is as it was: only who was there can tell

    assert code_of(asked, "9.0.0") == "revocation.state"
    assert code_of(asked) == "verify.revoked", "the feed that was read serves on"
    asked.report()
    assert told(recorder)[-1] == ("failed", "state", "revocation.state")
    assert code_of(guard(home), "9.0.0") is None
    (home / "accepted").write_bytes(b"")
    assert code_of(guard(home), "9.0.0") == "revocation.state"
    assert code_of(guard(home, stale="report"), "9.0.0") == "revocation.state"


def test_a_watcher_that_falls_silent_makes_it_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = guard(tmp_path, stale="refuse")
    asked.take(feed(1), "a file")
    asked.beat()
    assert code_of(asked) is None
    monkeypatch.setattr("capwasm.revocation.guard.SILENT_SECONDS", -1.0)
    assert code_of(asked) == "revocation.stale"


def test_a_feed_is_in_force_even_if_that_cannot_be_recorded(tmp_path: Path) -> None:
    class Full:
        def record(self, event: Event) -> None:
            raise AuditError("no room", code="audit.sink")

    asked = guard(tmp_path, Full())
    with pytest.raises(AuditError):
        asked.take(feed(1, deny=DENY), "a file")
    assert code_of(asked) == "verify.revoked"
    assert code_of(guard(tmp_path)) == "verify.revoked"


def test_many_threads_see_one_feed_or_the_next(tmp_path: Path) -> None:
    """Each feed denies one version; at no time is none of them denied."""
    asked = guard(tmp_path)
    last = 30

    def of(n: int) -> bytes:
        return feed(n, deny={"versions": {"acme.weather": {f">={n}": "", "<1": ""}}})

    asked.take(of(1), "a file")
    wrong: list[str | None] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            wrong.extend(c for v in ("0.1.0", f"{last}.0.0") if (c := code_of(asked, v)) is None)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    writers = [guard(tmp_path), asked]
    for n in range(2, last + 1):
        writers[n % 2].take(of(n), "a file")
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    asked.refresh()
    assert asked.status().feed is not None
    assert asked.index is not None
    assert asked.index.sequence == last


@pytest.mark.case("LIFE-10")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_a_thread_holds_the_lock_is_answered(tmp_path: Path) -> None:
    asked = guard(tmp_path)
    asked.take(feed(1, deny=DENY), "a file")
    with asked._lock:
        child = multiprocessing.get_context("fork").Process(
            target=lambda: sys.exit({"verify.revoked": 7}.get(code_of(asked) or "", 1))
        )
        started = threading.Thread(target=child.start)  # not the thread that holds it
        started.start()
        started.join()
    child.join(20)
    assert child.exitcode == 7
