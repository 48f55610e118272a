"""An audit log that somebody made to hurt whoever reads it: never a traceback, memory or a hang."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import AuditError
from capwasm.record.audit import AuditLog, tail, verify_log
from capwasm.record.redact import Redactor

NONE = "0" * 64


def line(seq: object, more: str = '"kind":"gap","details":{}', prev: str = NONE) -> bytes:
    """A record whose own hash holds."""
    rest = f'"prev":"{prev}","seq":{seq},{more}}}'.encode()
    return b'{"hash":"%b",%b\n' % (hashlib.sha256(rest).hexdigest().encode(), rest)


def log_of(directory: Path, *lines: bytes, number: int = 1) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / f"{number:06d}.jsonl").write_bytes(b"".join(lines))
    return directory


def peak(work: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.case("LOG-10")
@pytest.mark.parametrize("seq", ["9" * 4300, 2**63, 0, -5, "true", "1.0", '"1"'])
def test_refuses_a_number_that_is_no_place_in_the_chain(tmp_path: Path, seq: object) -> None:
    report = verify_log(log_of(tmp_path, line(seq), line(5), b"junk\n"))
    assert "no place in the chain" in report.problems[0].message


@pytest.mark.case("LOG-08", "LOG-10")
@pytest.mark.parametrize("glue", [b"", b" ", b"x", b"\0"], ids=["nothing", "space", "x", "zero"])
def test_refuses_a_thousand_records_in_one_line(tmp_path: Path, glue: bytes) -> None:
    small = glue.join(line(n, '"a":1').rstrip() for n in range(1, 1_200))
    report = verify_log(log_of(tmp_path, small[: 128 * 1024 - 2] + b"\n", line(5)))
    assert not report.ok
    assert {p.line for p in report.problems} <= {0, 1, 2}


@pytest.mark.case("LOG-10")
@pytest.mark.parametrize("end", [b"", b"x\n", b"x"], ids=["cut", "other", "joined"])
def test_refuses_what_is_sound_and_no_json_at_a_broken_end(tmp_path: Path, end: bytes) -> None:
    bad = line(1, '"a":').rstrip()
    report = verify_log(log_of(tmp_path, bad + end + (line(2) if end == b"x" else b"")))
    assert not report.ok


@pytest.mark.case("LOG-08", "LOG-10")
def test_refuses_to_keep_all_that_a_log_says_of_its_gaps(tmp_path: Path) -> None:
    padding = "x" * 50_000
    lines, prev = [], NONE
    for n in range(1, 301):
        lines.append(line(n, f'"kind":"gap","details":{{"a":"{padding}"}}', prev))
        prev = lines[-1][9:73].decode()
    log_of(tmp_path, *lines)
    assert peak(lambda: verify_log(tmp_path)) < 3_000_000
    report = verify_log(tmp_path)
    assert (report.gap_count, len(report.gaps)) == (300, 100)


@pytest.mark.case("LOG-08")
@pytest.mark.parametrize("before", [b"", line(1)], ids=["nothing", "a record"])
def test_refuses_to_read_an_endless_line_into_memory(tmp_path: Path, before: bytes) -> None:
    log_of(tmp_path, before)
    os.truncate(tmp_path / "000001.jsonl", 200_000_000)
    found: list[dict[str, Any]] = []
    assert peak(lambda: found.extend(tail(tmp_path, 5))) < 3_000_000
    assert ["broken" in record for record in found] == [False, True][-1 - bool(before) :]


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 100])
def test_allows_the_last_records_behind_an_endless_line(tmp_path: Path, count: int) -> None:
    log_of(tmp_path, line(1), b"\0" * 1_000_000 + b"\n", *(line(n) for n in range(2, 7)))
    found = [r.get("seq") for r in tail(tmp_path, count)]
    assert found == [1, None, 2, 3, 4, 5, 6][-count:]


@pytest.mark.parametrize("read", [verify_log, lambda d: list(tail(d))], ids=["verify", "tail"])
def test_refuses_a_directory_in_a_segments_place(tmp_path: Path, read: Callable[..., Any]) -> None:
    (log_of(tmp_path, line(1)) / "000002.jsonl").mkdir()
    with pytest.raises(AuditError, match="not a regular file"):
        read(tmp_path)


@pytest.mark.case("LOG-10")
def test_refuses_a_directory_that_anyone_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(AuditError, match="chmod o-w"):
        AuditLog.open(tmp_path, Redactor())


def test_refuses_to_go_on_under_a_name_that_a_stranger_chose(tmp_path: Path) -> None:
    log_of(tmp_path, line(9, '"kind":"gap","details":{"log":"' + "y" * 90_000 + '"}'), number=2)
    AuditLog.open(tmp_path, Redactor()).close()
    assert (tmp_path / "000002.jsonl").stat().st_size < 95_000


@pytest.mark.case("LIFE-10")
def test_allows_a_forked_child_to_end_while_a_thread_was_writing(tmp_path: Path) -> None:
    log = AuditLog.open(tmp_path / "log", Redactor())
    held, done = threading.Event(), threading.Event()

    def write() -> None:
        with log._io:
            held.set()
            done.wait(60)

    writer = threading.Thread(target=write)
    writer.start()
    held.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        log.close()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    done.set()
    writer.join()
    log.close()
    assert os.waitstatus_to_exitcode(status) == 0
    assert verify_log(tmp_path / "log").ok
