"""The chain as it is written: what is on the disk when, and what happens when it can't be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from capwasm.capsule.keys import PrivateKey
from capwasm.errors import AuditError
from capwasm.events import ALLOWED, DENIED, FAILED, Event
from capwasm.record import sinks
from capwasm.record.audit import AuditLog, MemorySink, verify_log
from capwasm.record.redact import Redactor

CALL = Event("call", ALLOWED, "acme.x@1.0.0", "handle", details={"ms": 1.5, "fuel": 12})
DENIAL = Event("fs", DENIED, "acme.x@1.0.0", "open", "/data", "denied")


def open_log(directory: Path, **options: int) -> AuditLog:
    return AuditLog.open(directory / "log", Redactor(), **options)


def on_disk(directory: Path) -> list[dict[str, object]]:
    """What another process would see now."""
    files = sorted((directory / "log").glob("*.jsonl"))
    return [json.loads(line) for f in files for line in f.read_bytes().splitlines()]


def kinds(directory: Path) -> list[str]:
    return [str(r["kind"]) for r in on_disk(directory)]


def test_allows_a_log_to_be_written_and_verified(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        for _ in range(10):
            log.record(CALL)
            log.record(DENIAL)
    report = verify_log(tmp_path / "log")
    assert report.ok
    assert report.records == 22
    assert kinds(tmp_path)[0] == kinds(tmp_path)[-1] == "anchor"
    record = on_disk(tmp_path)[1]
    assert record["plugin"] == "acme.x@1.0.0"
    assert record["details"] == {"ms": 1.5, "fuel": 12}
    assert str(record["time"]).endswith("Z")
    assert (tmp_path / "log" / "000001.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "event",
    [
        DENIAL,
        Event("load", ALLOWED),
        Event("grant", ALLOWED),
        Event("consent", ALLOWED),
        Event("revoke", ALLOWED),
        Event("kill", ALLOWED),
        Event("crash", FAILED),
        Event("runtime.start", ALLOWED),
    ],
    ids=lambda e: f"{e.kind} {e.verdict}",
)
def test_allows_nothing_grave_to_go_on_before_it_is_synced(
    event: Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fdatasync
    with open_log(tmp_path, flush_ms=60_000) as log:
        log.record(CALL)
        assert kinds(tmp_path) == ["anchor"]
        monkeypatch.setattr(os, "fdatasync", lambda fd: (synced.append(fd), real(fd))[1])
        log.record(event)
        # The earlier call went with it, for the order is one.
        assert kinds(tmp_path) == ["anchor", "call", event.kind]
        assert len(synced) == 1


def test_allows_many_events_at_once_and_waits_for_the_disk_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fdatasync
    grants = [Event("grant", ALLOWED, action=str(n)) for n in range(30)]
    with open_log(tmp_path, flush_ms=60_000, anchor_records=10) as log:
        monkeypatch.setattr(os, "fdatasync", lambda fd: (synced.append(fd), real(fd))[1])
        log.record_all([Event("load", ALLOWED), *grants])
        told = [r["action"] for r in on_disk(tmp_path) if r["kind"] == "grant"]
        assert told == [str(n) for n in range(30)]
        assert kinds(tmp_path).count("anchor") >= 3
        assert len(synced) == 1
    assert verify_log(tmp_path / "log").ok


@pytest.mark.case("LOG-09", "PER-02")
def test_refuses_all_of_many_when_the_disk_is_full_or_one_has_no_such_kind(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    with pytest.raises(ValueError, match="no such kind"):
        log.record_all([DENIAL, Event("gossip", ALLOWED)])
    assert kinds(tmp_path) == ["anchor"]
    segment = log._done.segment
    real, full = segment.fd, os.open("/dev/full", os.O_RDWR)
    segment.fd = full
    with pytest.raises(AuditError, match="No space left"):
        log.record_all([DENIAL, DENIAL])
    segment.fd = real
    os.close(full)
    log.close()
    with pytest.raises(AuditError, match="closed"):
        log.record_all([DENIAL])
    assert verify_log(tmp_path / "log").ok


def test_allows_calls_to_wait_for_the_flusher_and_no_longer(tmp_path: Path) -> None:
    with open_log(tmp_path, flush_ms=20) as log:
        log.record(CALL)
        end = time.monotonic() + 10
        while "call" not in kinds(tmp_path) and time.monotonic() < end:
            time.sleep(0.01)
        assert "call" in kinds(tmp_path)


def test_allows_only_so_many_calls_to_wait(tmp_path: Path) -> None:
    with open_log(tmp_path, flush_ms=60_000, flush_records=16) as log:
        for _ in range(40):
            log.record(CALL)
        assert kinds(tmp_path).count("call") >= 32


@pytest.mark.case("LOG-07")
def test_refuses_secrets_controls_and_giants_in_a_record(tmp_path: Path) -> None:
    redactor = Redactor()
    redactor.register("key", b"abcdefghijklmnopqrstuvwxyz")
    secret = "abcdefghijklmnopqrstuvwxyz"

    class Shy:
        def __repr__(self) -> str:
            return secret

    odd = {
        "a": f"x {secret}",
        secret: b"bytes",
        "c": Shy(),
        "d": float("nan"),
        "e": {"deep": {"deep": {"deep": {"deep": 1}}}},
        "f": "é😀" * 10_000,
        "g": [None] * 10_000,
        "h": 2**70,
        "i": "line\n\x1b[31m\u202e",
    }
    with AuditLog.open(tmp_path / "log", redactor) as log:
        log.record(Event("fs", DENIED, "p", secret, "t" * 1020 + secret, "r" * 9999, odd))
        log.record(Event("fs", DENIED, "😀" * 5000, "😀" * 5000, "😀" * 5000, "😀" * 5000, odd))
    data = (tmp_path / "log" / "000001.jsonl").read_bytes()
    assert verify_log(tmp_path / "log").ok
    assert b"abcd" not in data
    assert data.isascii()
    assert max(map(len, data.splitlines())) < 128 * 1024
    assert not any(byte < 32 for byte in data.replace(b"\n", b""))
    record = on_disk(tmp_path)[1]
    assert record["action"] == "[secret:key]"
    details = record["details"]
    assert isinstance(details, dict)
    assert details["a"] == "x [secret:key]"
    assert details["[secret:key]"] == "[bytes]"
    assert details["c"] == "[Shy]"
    assert details["d"] == "[not a finite number]"
    assert len(str(record["reason"])) < 1100


def test_refuses_an_event_of_an_unknown_kind(tmp_path: Path) -> None:
    with open_log(tmp_path) as log, pytest.raises(ValueError, match="no such kind"):
        log.record(Event("misc", ALLOWED))
    with open_log(tmp_path) as log, pytest.raises(ValueError, match="no such kind"):
        log.record(Event("call", "perhaps"))


def test_allows_threads_to_record_in_one_order(tmp_path: Path) -> None:
    with open_log(tmp_path, segment_bytes=20_000, anchor_records=50) as log:

        def work() -> None:
            for i in range(200):
                log.record(DENIAL if i % 20 == 0 else CALL)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    report = verify_log(tmp_path / "log")
    assert report.ok, report.problems
    assert report.segments > 3
    assert kinds(tmp_path).count("call") == 6 * 190
    assert kinds(tmp_path).count("fs") == 6 * 10


def test_allows_a_log_to_go_on_after_reopening(tmp_path: Path) -> None:
    for _ in range(3):
        with open_log(tmp_path, segment_bytes=1500) as log:
            for _ in range(4):
                log.record(DENIAL)
    report = verify_log(tmp_path / "log")
    assert report.ok, report.problems
    assert len({r["run"] for r in on_disk(tmp_path)}) == 3
    assert report.segments > 1
    assert report.gaps == []


def test_refuses_a_second_writer(tmp_path: Path) -> None:
    with open_log(tmp_path):
        with pytest.raises(AuditError, match="another runtime"):
            open_log(tmp_path)
        code = "from capwasm.record.sinks import FileSink; FileSink(__import__('sys').argv[1])"
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "log"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "another runtime" in done.stderr
    open_log(tmp_path).close()


def test_refuses_a_forked_child_and_a_closed_log(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    # Not a real fork: pytest has threads, and so has the log.
    log._pid += 1
    with pytest.raises(AuditError, match="forked"):
        log.record(CALL)
    log._pid -= 1
    log.close()
    log.close()
    with pytest.raises(AuditError, match="closed"):
        log.record(DENIAL)


@pytest.mark.parametrize("what", ["fifo", "link", "directory", "file in place of the directory"])
def test_refuses_a_place_that_is_no_log(what: str, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    target = tmp_path / "log" / "000001.jsonl"
    if what == "fifo":
        os.mkfifo(target)
    elif what == "link":
        target.symlink_to(tmp_path / "elsewhere")
    elif what == "directory":
        target.mkdir()
    else:
        (tmp_path / "log").rmdir()
        (tmp_path / "log").touch()
    with pytest.raises(AuditError) as caught:
        open_log(tmp_path)
    assert caught.value.code == "audit.sink"
    assert not (tmp_path / "elsewhere").exists()


# -- failure ---------------------------------------------------------------------------------------


@pytest.mark.case("LOG-09", "PER-02")
def test_refuses_to_go_on_while_the_disk_is_full_and_says_so_after(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    segment = log._done.segment
    real, full = segment.fd, os.open("/dev/full", os.O_RDWR)
    segment.fd = full  # the kernel's own ENOSPC
    with pytest.raises(AuditError, match="No space left"):
        log.record(DENIAL)
    for _ in range(5):
        with pytest.raises(AuditError, match="No space left"):
            log.record(CALL)
    segment.fd = real
    os.close(full)
    log.record(CALL)
    log.close()
    # What was tried is there once, what was refused is counted, and the chain is whole.
    assert kinds(tmp_path) == ["anchor", "fs", "gap", "call", "anchor"]
    assert on_disk(tmp_path)[2]["details"] == {"refused": 5}
    assert verify_log(tmp_path / "log").ok


@pytest.mark.case("LOG-09")
def test_refuses_to_lose_the_flusher_to_an_error_nobody_foresaw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(tmp_path, flush_ms=10)
    with monkeypatch.context() as broken:
        broken.setattr(log._done.segment, "sync", lambda: 1 // 0)
        log.record(CALL)
        end = time.monotonic() + 10
        while log._failure is None and time.monotonic() < end:
            time.sleep(0.01)
        assert log._failure == "ZeroDivisionError"
    log.record(CALL)
    end = time.monotonic() + 10
    while kinds(tmp_path).count("call") < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert log._flusher.is_alive()
    log.close()
    assert kinds(tmp_path).count("call") == 2


@pytest.mark.case("LOG-09")
def test_refuses_an_ordinary_call_once_the_flusher_has_failed(tmp_path: Path) -> None:
    log = open_log(tmp_path, flush_ms=10)
    segment = log._done.segment
    real, full = segment.fd, os.open("/dev/full", os.O_RDWR)
    segment.fd = full
    log.record(CALL)  # accepted: the failure is not known yet
    end = time.monotonic() + 10
    while log._failure is None and time.monotonic() < end:
        time.sleep(0.01)
    with pytest.raises(AuditError):
        log.record(CALL)
    segment.fd = real
    os.close(full)
    log.close()
    assert kinds(tmp_path).count("call") == 1


@pytest.mark.case("PER-02")
def test_refuses_for_good_after_a_failed_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(tmp_path)

    def fail(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(AuditError, match="Input/output"):
            log.record(DENIAL)
    for _ in range(2):  # a second sync that succeeds proves nothing
        with pytest.raises(AuditError, match="open the log again"):
            log.record(DENIAL)
    with pytest.raises(AuditError):
        log.close()
    with open_log(tmp_path) as again:
        again.record(DENIAL)
    assert verify_log(tmp_path / "log").ok


@pytest.mark.case("PER-02", "LOG-09")
def test_refuses_at_the_file_size_limit_without_half_a_record(tmp_path: Path) -> None:
    code = """
        import resource, sys
        from capwasm.record.audit import AuditLog
        from capwasm.errors import AuditError
        from capwasm.events import Event
        from capwasm.record.redact import Redactor
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        log = AuditLog.open(sys.argv[1], Redactor())
        kept = 0
        try:
            for _ in range(1000):
                log.record(Event("fs", "denied"))
                kept += 1
        except AuditError as exc:
            print(exc.code, kept, flush=True)
        import os; os._exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "log"],
        capture_output=True,
        text=True,
        check=True,
    )
    code_, kept = done.stdout.split()
    assert code_ == "audit.sink"
    assert int(kept) > 5
    with open_log(tmp_path):
        pass
    found = kinds(tmp_path).count("fs")
    assert found >= int(kept)
    assert verify_log(tmp_path / "log").ok
    assert "gap" in kinds(tmp_path)  # the record that was written in part was cut, and noted


@pytest.mark.case("PER-01", "LOG-09")
def test_refuses_to_lose_a_denial_to_kill_9(tmp_path: Path) -> None:
    code = """
        import sys, threading
        from capwasm.record.audit import AuditLog
        from capwasm.events import Event
        from capwasm.record.redact import Redactor
        log = AuditLog.open(sys.argv[1], Redactor(), segment_bytes=20000)
        lock = threading.Lock()
        def work(n):
            for i in range(10**9):
                log.record(Event("call", "allowed"))
                log.record(Event("fs", "denied", target=f"{sys.argv[2]}-{n}-{i}"))
                with lock:
                    print(f"{sys.argv[2]}-{n}-{i}", flush=True)
        for n in range(2):
            threading.Thread(target=work, args=(n,)).start()
    """
    told: list[str] = []
    for round_ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), tmp_path / "log", str(round_)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        told.append(child.stdout.readline().strip())
        time.sleep(0.01 * (round_ % 5))
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate()
        told += rest.split("\n")[:-1]  # whole lines only
    open_log(tmp_path).close()
    report = verify_log(tmp_path / "log")
    assert report.ok, report.problems
    kept = {str(r["target"]) for r in on_disk(tmp_path)}
    assert len(told) > 24
    assert not {t for t in told if t} - kept


@pytest.mark.case("LOG-10")
@pytest.mark.parametrize("cut", [1, 40, 400])
def test_allows_a_torn_last_record_to_be_cut_and_tells(cut: int, tmp_path: Path) -> None:
    log = open_log(tmp_path, flush_ms=60_000)
    log.record(DENIAL)
    for _ in range(3):
        log.record(CALL)
    log._flush(sync=False)  # written, not synced: `head.json` is still at the denial
    log._stop.put(None)
    log._wake.put(None)
    log._flusher.join(10)
    log._sink.close()
    file = tmp_path / "log" / "000001.jsonl"
    os.truncate(file, file.stat().st_size - cut)
    with open_log(tmp_path):
        pass
    report = verify_log(tmp_path / "log")
    assert report.ok, report.problems
    gap = next(r for r in on_disk(tmp_path) if r["kind"] == "gap")
    assert gap["reason"] == "torn"
    assert len(report.gaps) == 1
    assert "fs" in kinds(tmp_path)


@pytest.mark.case("LOG-10")
@pytest.mark.parametrize("damage", ["cut", "changed", "emptied", "segment gone"])
def test_refuses_to_open_a_log_whose_synced_part_is_damaged(damage: str, tmp_path: Path) -> None:
    with open_log(tmp_path, segment_bytes=3000) as log:
        for _ in range(20):
            log.record(DENIAL)
    file = max((tmp_path / "log").glob("*.jsonl"))
    data = file.read_bytes()
    if damage == "cut":
        file.write_bytes(b"".join(data.splitlines(keepends=True)[:-1]))
    elif damage == "changed":
        file.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    elif damage == "emptied":
        file.write_bytes(b"")
    else:
        file.unlink()
    before = {f.name: f.read_bytes() for f in (tmp_path / "log").iterdir()}
    with pytest.raises(AuditError) as caught:
        open_log(tmp_path)
    assert caught.value.code == "audit.tampered"
    assert {f.name: f.read_bytes() for f in (tmp_path / "log").iterdir()} == before
    assert not verify_log(tmp_path / "log").ok


def test_allows_a_lost_mark_but_records_it(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.record(DENIAL)
    (tmp_path / "log" / "head.json").unlink()
    assert not verify_log(tmp_path / "log").ok
    with open_log(tmp_path):
        pass
    assert [r["reason"] for r in on_disk(tmp_path) if r["kind"] == "gap"] == ["no-mark"]
    assert verify_log(tmp_path / "log").ok


# -- interrupts ------------------------------------------------------------------------------------


def test_allows_keyboard_interrupts_anywhere_without_breaking_the_chain(tmp_path: Path) -> None:
    code = """
        import signal, sys
        from capwasm.record.audit import AuditLog
        from capwasm.events import Event
        from capwasm.record.redact import Redactor
        log = AuditLog.open(sys.argv[1], Redactor(), segment_bytes=30000, anchor_records=7)
        interrupts = 0
        def interrupt(_signal, frame):
            global interrupts
            while frame is not None and "capwasm" not in frame.f_code.co_filename:
                frame = frame.f_back
            if frame is not None:  # else it would hit this script
                interrupts += 1
                raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0013)
        while interrupts < 300:
            try:
                log.record(Event("call", "allowed"))
                log.record(Event("fs", "denied"))
            except KeyboardInterrupt:
                pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        log.close()
        print(interrupts)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "log"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.strip() >= "300", done.stderr
    report = verify_log(tmp_path / "log")
    assert report.ok, report.problems
    assert report.segments > 1


def test_allows_a_signal_handler_to_record(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        done = []
        real = sinks._FileSegment.sync

        def sync_with_handler(segment: sinks._FileSegment) -> None:
            real(segment)
            if not done:
                done.append(1)
                log.record(DENIAL)  # what a handler does while its own thread waits for the disk

        log._done.segment.sync = lambda: sync_with_handler(log._done.segment)
        log.record(DENIAL)
        log.record(DENIAL)
    assert kinds(tmp_path).count("fs") == 3
    assert verify_log(tmp_path / "log").ok


# -- anchors, memory -------------------------------------------------------------------------------


def test_allows_signed_anchors_and_says_up_to_where(tmp_path: Path) -> None:
    key = PrivateKey.generate()
    with AuditLog.open(tmp_path / "log", Redactor(), key=key, anchor_records=10) as log:
        for _ in range(25):
            log.record(CALL)
        head = log.anchor()
        assert head == log.head
    report = verify_log(tmp_path / "log", keys=[key.public], head=head)
    assert report.ok, report.problems
    assert report.signed == report.anchors >= 4
    assert report.signed_to == report.head.seq - 1


def test_allows_memory_as_a_sink() -> None:
    sink = MemorySink()
    with AuditLog(sink, Redactor(), segment_bytes=2000) as log:
        for _ in range(20):
            log.record(DENIAL)
    assert [r["seq"] for r in sink.records] == list(range(1, len(sink.records) + 1))
    assert len(sink.segments) > 1
    assert sink.marked is not None
    assert sink.marked.head.seq == sink.records[-1]["seq"]
