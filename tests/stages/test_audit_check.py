"""The chain as it is read: any change is found and named."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.capsule.keys import PrivateKey
from capwasm.errors import AuditError
from capwasm.events import ALLOWED, DENIED, Event
from capwasm.record._chain import seal
from capwasm.record.audit import AuditLog, Head, tail, verify_log
from capwasm.record.redact import Redactor

CALL = Event("call", ALLOWED, "acme.x@1.0.0", "handle", details={"ms": 1.5})
DENIAL = Event("fs", DENIED, "acme.x@1.0.0", "open", "/data", "denied")
KEY = PrivateKey.generate()


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,000 records in three segments, signed."""
    path = tmp_path_factory.mktemp("audit") / "log"
    with AuditLog.open(path, Redactor(), key=KEY, segment_bytes=800_000) as log:
        for number in range(5_000):
            log.record(CALL)
            if number % 500 == 0:
                log.flush()  # a busy machine's flusher may lag by more than a segment
    return path


@pytest.fixture
def log_copy(long_log: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(long_log, tmp_path / "copy"))


def lines_of(path: Path, number: int = 1) -> list[bytes]:
    return (path / f"{number:06d}.jsonl").read_bytes().splitlines(keepends=True)


def write(path: Path, lines: list[bytes], number: int = 1) -> None:
    (path / f"{number:06d}.jsonl").write_bytes(b"".join(lines))


def test_allows_an_untouched_log(long_log: Path) -> None:
    report = verify_log(long_log, keys=[KEY.public])
    assert report.ok, report.problems
    assert report.records > 5_000
    assert report.segments >= 3
    assert report.signed == report.anchors > 5
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


@pytest.mark.case("LOG-10")
def test_refuses_a_change_of_any_byte_and_names_the_record(log_copy: Path) -> None:
    rng = random.Random(1)
    for _ in range(60):
        number = rng.randrange(1, 4)
        lines = lines_of(log_copy, number)
        index = rng.randrange(len(lines))
        at = rng.randrange(len(lines[index]))
        changed = bytearray(lines[index])
        changed[at] ^= 1 << rng.randrange(8)
        seq = json.loads(lines[index])["seq"]
        write(log_copy, [*lines[:index], bytes(changed), *lines[index + 1 :]], number)
        report = verify_log(log_copy)
        write(log_copy, lines, number)
        assert not report.ok, (number, index, at)
        first = report.problems[0]
        assert (first.segment, first.line) == (f"{number:06d}.jsonl", index + 1), (at, first)
        assert first.seq == seq
        # One changed byte is one problem, unless it made two lines of one, or one of two.
        assert report.count == 1 or changed.count(b"\n") != 1 or changed[-1:] != b"\n"
    assert verify_log(log_copy).ok


@pytest.mark.case("LOG-10")
@pytest.mark.parametrize("count", [1, 5])
def test_refuses_removed_records(count: int, log_copy: Path) -> None:
    lines = lines_of(log_copy)
    write(log_copy, lines[:100] + lines[100 + count :])
    report = verify_log(log_copy)
    assert report.count == 1
    assert report.problems[0].line == 101
    assert f"records 101 to {100 + count} are missing" in report.problems[0].message


@pytest.mark.case("LOG-10")
def test_refuses_moved_records(log_copy: Path) -> None:
    lines = lines_of(log_copy)
    lines[200], lines[201] = lines[201], lines[200]
    write(log_copy, lines)
    report = verify_log(log_copy)
    assert [(p.line, p.kind, p.seq) for p in report.problems] == [
        (201, "moved", 202),
        (203, "removed", 203),
    ]


@pytest.mark.case("LOG-10")
def test_refuses_an_inserted_record(log_copy: Path) -> None:
    lines = lines_of(log_copy)
    lines.insert(300, lines[10])  # a copy
    write(log_copy, lines)
    report = verify_log(log_copy)
    assert [(p.line, p.seq) for p in report.problems] == [(301, 11)]

    lines = [*lines[:300], *lines[301:]]
    before = json.loads(lines[299])
    made = seal(
        Head(before["seq"], before["hash"]),
        *("2026-01-01T00:00:00.000000000Z", "0" * 16, "call", ALLOWED, "p", "", "", "", "{}"),
    )
    lines.insert(300, made.line)  # a forgery that fits in front, and not behind
    write(log_copy, lines)
    report = verify_log(log_copy)
    assert not report.ok
    assert report.problems[0].line == 302


@pytest.mark.case("LOG-10")
def test_refuses_a_cut_at_the_end(log_copy: Path) -> None:
    last = max(int(f.stem) for f in log_copy.glob("*.jsonl"))
    lines = lines_of(log_copy, last)
    write(log_copy, lines[:-3], last)
    report = verify_log(log_copy)
    assert report.count == 1
    assert "cut off" in report.problems[0].message
    # Without the mark, a head that was kept elsewhere tells.
    head = Head(json.loads(lines[-1])["seq"], json.loads(lines[-1])["hash"])
    (log_copy / "head.json").unlink()
    assert not verify_log(log_copy, head=head).ok
    write(log_copy, lines, last)
    assert verify_log(log_copy, head=head).ok
    assert not verify_log(log_copy).ok  # nothing would show a cut: that is a problem too


@pytest.mark.case("LOG-10")
@pytest.mark.parametrize("which", ["middle", "last", "swapped", "emptied"])
def test_refuses_missing_and_moved_segments(which: str, log_copy: Path) -> None:
    files = sorted(log_copy.glob("*.jsonl"))
    if which == "middle":
        files[1].unlink()
    elif which == "last":
        files[-1].unlink()
    elif which == "emptied":
        files[1].write_bytes(b"")
    else:
        data = files[0].read_bytes()
        files[0].write_bytes(files[1].read_bytes())
        files[1].write_bytes(data)
    assert not verify_log(log_copy).ok


@pytest.mark.case("LOG-10")
def test_refuses_a_beginning_that_the_log_does_not_tell_of(log_copy: Path) -> None:
    (log_copy / "000001.jsonl").unlink()
    report = verify_log(log_copy, keys=[KEY.public])
    assert report.first > 1
    assert [(p.kind, p.line) for p in report.problems] == [("removed", 1)]
    assert f"records 1 to {report.first - 1} are missing" in report.problems[0].message


@pytest.mark.case("LOG-10")
def test_refuses_a_whole_new_chain_without_the_key(log_copy: Path, tmp_path: Path) -> None:
    head = verify_log(log_copy).head
    for key in (None, PrivateKey.generate()):
        forged = tmp_path / f"forged-{key is None}"
        with AuditLog.open(forged, Redactor(), key=key) as log:
            for _ in range(6_000):
                log.record(CALL)
        assert verify_log(forged).ok  # all that a chain alone can say
        assert not verify_log(forged, keys=[KEY.public]).ok
        assert not verify_log(forged, head=head).ok


@pytest.mark.case("LOG-10")
def test_refuses_anchors_of_another_log(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        with AuditLog.open(path, Redactor(), key=KEY) as log:
            log.record(DENIAL)
    lines = lines_of(paths[0])[:-1] + lines_of(paths[1])[-1:]
    write(paths[0], lines)
    assert not verify_log(paths[0], keys=[KEY.public]).ok


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        b"\x00" * 5000,
        b'{"hash":"' + b"0" * 64 + b'",}\n',
        b"x" * 500_000,
        b"[" * 100_000 + b"\n",
    ],
    ids=["nothing", "empty", "object", "zeros", "no record", "endless", "deep"],
)
def test_refuses_garbage_without_a_traceback(line: bytes, log_copy: Path) -> None:
    last = max(int(f.stem) for f in log_copy.glob("*.jsonl"))
    lines = lines_of(log_copy, last)
    write(log_copy, [*lines[:5], line, *lines[5:]], last)
    report = verify_log(log_copy)
    assert report.ok == (line == b"")
    list(tail(log_copy, 10_000))
    for data in (b"{}", b"x" * 2000, b'{"seq":1e400}', b"[]", b""):
        (log_copy / "head.json").write_bytes(data)
        assert not verify_log(log_copy).ok


def test_allows_whoever_waits_to_see_how_far_it_is(long_log: Path) -> None:
    told: list[tuple[int, int]] = []
    assert verify_log(long_log, progress=lambda done, total: told.append((done, total))).ok
    size = sum(f.stat().st_size for f in long_log.glob("*.jsonl"))
    assert told[-1] == (size, size)
    assert len(told) > 4
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_refuses_a_place_without_a_log(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(AuditError):
            verify_log(path)
        with pytest.raises(AuditError):
            list(tail(path))


def test_allows_verification_while_the_log_is_written(tmp_path: Path) -> None:
    stop = threading.Event()
    with AuditLog.open(tmp_path / "log", Redactor(), segment_bytes=200_000) as log:

        def work() -> None:
            while not stop.is_set():
                log.record(CALL)
                log.record(DENIAL)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            end, reports = time.monotonic() + 30, [verify_log(tmp_path / "log")]
            while time.monotonic() < end and (len(reports) < 15 or reports[-1].records < 400):
                reports.append(verify_log(tmp_path / "log"))
        finally:
            stop.set()
            thread.join()
    assert [p for r in reports for p in r.problems] == []
    assert reports[-1].records > reports[0].records


# -- tail ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 20, 1_500, 100_000])
def test_allows_the_last_records_over_segments(count: int, long_log: Path) -> None:
    seqs = [r["seq"] for r in tail(long_log, count)]
    newest = verify_log(long_log).head.seq
    assert seqs == list(range(max(1, newest - count + 1), newest + 1))[: max(count, 0)]


def test_refuses_to_pass_a_changed_record_as_good(log_copy: Path) -> None:
    last = max(int(f.stem) for f in log_copy.glob("*.jsonl"))
    lines = lines_of(log_copy, last)
    write(log_copy, [*lines[:-1], lines[-1].replace(b"anchor", b"anchov")], last)
    assert "changed" in next(tail(log_copy, 1))["broken"]


def test_allows_following_over_a_rotation(tmp_path: Path) -> None:
    got: list[int] = []
    stop = threading.Event()
    with AuditLog.open(tmp_path / "log", Redactor(), segment_bytes=3_000) as log:
        log.record(DENIAL)

        def follow() -> None:
            records: Iterator[dict[str, object]] = tail(
                tmp_path / "log", 1, follow=True, stop=stop.is_set
            )
            got.extend(int(str(r["seq"])) for r in records)

        thread = threading.Thread(target=follow)
        thread.start()
        for _ in range(30):
            log.record(DENIAL)
            time.sleep(0.005)
        end = time.monotonic() + 20
        head = log.head.seq
        while (not got or got[-1] < head) and time.monotonic() < end:
            time.sleep(0.02)
        stop.set()
        thread.join()
    assert got == list(range(got[0], head + 1))
    assert len(list((tmp_path / "log").glob("*.jsonl"))) > 3
