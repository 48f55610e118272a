"""The quick verification and a slow one that follows the definition agree, whatever is done to a log."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.capsule.keys import PrivateKey
from capwasm.events import ALLOWED, DENIED, Event
from capwasm.record.audit import AuditLog, verify_log
from capwasm.record.redact import Redactor

KEY = PrivateKey.generate()
Files = list[list[bytes]]  # lines, by segment


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "log"
    with AuditLog.open(path, Redactor(), key=KEY, segment_bytes=5_000, anchor_records=7) as made:
        for n in range(40):
            event = Event("call", ALLOWED, "acme.x@1.0.0", f"f{n}", details={"hash": {"hash": n}})
            made.record(event)
            if n % 5 == 0:
                made.record(Event("fs", DENIED, "acme.x@1.0.0", target='{"hash":"'))
    assert len(list(path.glob("*.jsonl"))) >= 3
    return path


def read(log: Path) -> Files:
    return [f.read_bytes().splitlines(keepends=True) for f in sorted(log.glob("*.jsonl"))]


def write(files: Files, log: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    (to / "head.json").write_bytes((log / "head.json").read_bytes())
    for number, lines in enumerate(files, 1):
        (to / f"{number:06d}.jsonl").write_bytes(b"".join(lines))
    return to


def is_intact(log: Path) -> bool:
    """By definition, and no more: each byte is what the chain says, and each segment begins rightly."""
    before, seq = "0" * 64, 0
    mark = json.loads((log / "head.json").read_bytes())
    marked = False
    for number, path in enumerate(sorted(log.glob("*.jsonl")), 1):
        data = path.read_bytes()
        if path.name != f"{number:06d}.jsonl" or not data.endswith(b"\n"):
            return False
        for index, line in enumerate(data[:-1].split(b"\n")):
            seq += 1
            try:
                fields = json.loads(line)
            except ValueError:
                return False
            digest = hashlib.sha256(line[75:]).hexdigest()
            if line[:75] != b'{"hash":"%b",' % digest.encode():
                return False
            if (fields["prev"], fields["seq"]) != (before, seq):
                return False
            if index == 0 and fields["details"].get("segment") != number:
                return False
            marked = marked or (seq, digest) == (mark["seq"], mark["hash"])
            before = digest
    return marked


# -- what is done to it: each returns where it was done, as segment and line ---------------------

Place = tuple[int, int]


def pick(data: Any, files: Files) -> Place:
    segment = data.draw(st.integers(0, len(files) - 1))
    return segment, data.draw(st.integers(0, len(files[segment]) - 1))


def flip(data: Any, files: Files) -> Place:
    s, i = pick(data, files)
    line = bytearray(files[s][i])
    at = data.draw(st.sampled_from([0, 8, 9, 73, 75, len(line) - 2, len(line) - 1])) | 0
    at = data.draw(st.integers(0, len(line) - 1) | st.just(at))
    line[at] ^= data.draw(st.integers(1, 255))
    files[s][i] = bytes(line)
    return s, i


def take_byte(data: Any, files: Files) -> Place:
    s, i = pick(data, files)
    at = data.draw(st.integers(0, len(files[s][i]) - 1))
    files[s][i] = files[s][i][:at] + files[s][i][at + 1 :]
    return s, i


def put_bytes(data: Any, files: Files) -> Place:
    s, i = pick(data, files)
    at = data.draw(st.integers(0, len(files[s][i]) - 1))
    more = data.draw(st.binary(min_size=1, max_size=3) | st.just(b"\n"))
    files[s][i] = files[s][i][:at] + more + files[s][i][at:]
    return s, i


def remove(data: Any, files: Files) -> Place:
    s, i = pick(data, files)
    del files[s][i : i + data.draw(st.integers(1, 4))]
    return s, i


def duplicate(data: Any, files: Files) -> Place:
    s, i = pick(data, files)
    t, j = pick(data, files)
    files[s].insert(i, files[t][j])
    return s, i


def move(data: Any, files: Files) -> Place:
    s, i = pick(data, files)
    line = files[s].pop(i)
    t, j = data.draw(st.just((s, i))) if not any(files) else pick(data, [f or [b""] for f in files])
    files[t].insert(j, line)
    return min((s, i), (t, j))


def forge(data: Any, files: Files) -> Place:
    """A record whose own hash holds, in the place of another."""
    s, i = pick(data, files)
    rest = files[s][i][75:-1].replace(b'"mono":', b'"mono":1')
    files[s][i] = b'{"hash":"%b",%b\n' % (hashlib.sha256(rest).hexdigest().encode(), rest)
    return s, i


def swap_segments(data: Any, files: Files) -> Place:
    files[0], files[1] = files[1], files[0]
    return 0, 0


def drop_segment(data: Any, files: Files) -> Place:
    at = data.draw(st.integers(0, len(files) - 1))
    del files[at]
    return at, 0


ALL: list[Callable[[Any, Files], Place]] = [
    flip, take_byte, put_bytes, remove, duplicate, move, forge, swap_segments, drop_segment,
]  # fmt: skip


@pytest.mark.case("LOG-10")
@settings(max_examples=400, deadline=None)
@given(data=st.data(), hows=st.lists(st.sampled_from(ALL), max_size=3))
def test_refuses_just_what_the_slow_way_refuses(
    data: st.DataObject,
    hows: list[Callable[[Any, Files], Place]],
    log: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    files = read(log)
    for how in hows:
        if len(files) > 1 and all(files):
            how(data, files)
    copy = write(files, log, tmp_path_factory.getbasetemp() / "changed")
    report = verify_log(copy)
    assert report.ok == is_intact(copy), report.problems
    assert report.count >= len(report.problems)
    if report.ok:
        assert verify_log(copy, keys=[KEY.public]).ok


@pytest.mark.case("LOG-10")
@settings(max_examples=300, deadline=None)
@given(data=st.data(), how=st.sampled_from(ALL))
def test_refuses_one_change_by_its_place_in_few_words(
    data: st.DataObject,
    how: Callable[[Any, Files], Place],
    log: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    before, files = read(log), read(log)
    segment, line = how(data, files)
    if files == before:
        return
    copy = write(files, log, tmp_path_factory.getbasetemp() / "one")
    report = verify_log(copy)
    assert not report.ok
    assert report.count <= 6, report.problems
    # The line where it was done, or the next, before which something is missing.
    spot = report.problems[0]
    number = sum(map(len, before[:segment])) + line
    found = sum(map(len, files[: int(spot.segment[:6]) - 1])) + max(0, spot.line - 1)
    last = spot.line == 0 or how in (remove, drop_segment, move)
    assert last or abs(found - number) <= 1, (number, found, report.problems)
