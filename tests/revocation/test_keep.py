"""What is kept of feeds: never older again, whole after any kill, one at a time."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from capwasm import _files
from capwasm.errors import RevocationError
from capwasm.revocation.feed import parse
from capwasm.revocation.keep import Keeper
from tests.revocation.desk import BEN, NOW, feed

FILES = ("accepted", "head", "key")


def accept(directory: Path, sequence: int, **lists: object) -> bool:
    return Keeper(directory).accept(parse(feed(sequence, **lists)), NOW) is not None  # type: ignore[arg-type]


def kept(directory: Path) -> int | None:
    found = Keeper(directory).load()
    return None if found is None else found.feed.sequence


def code_of(work: object, *args: object) -> str | None:
    try:
        work(*args)  # type: ignore[operator]
    except RevocationError as exc:
        return exc.code
    return None


def test_nothing_is_kept_before_the_first(tmp_path: Path) -> None:
    assert kept(tmp_path / "new") is None
    assert not (tmp_path / "new").exists()


@pytest.mark.case("SIG-15", "PER-08")
def test_refuses_an_older_feed_also_after_a_restart(tmp_path: Path) -> None:
    assert accept(tmp_path, 5)
    assert code_of(accept, tmp_path, 4) == "revocation.rollback"
    assert accept(tmp_path, 6)
    assert code_of(accept, tmp_path, 5) == "revocation.rollback"
    assert kept(tmp_path) == 6


def test_the_same_again_is_nothing_new_and_another_of_its_number_is_refused(tmp_path: Path) -> None:
    assert accept(tmp_path, 5)
    assert not accept(tmp_path, 5)
    assert not accept(tmp_path, 5, keys=(BEN,)), "other signatures, the same content"
    assert code_of(lambda: accept(tmp_path, 5, deny={"plugins": {"a.b": ""}})) == (
        "revocation.conflict"
    )


@pytest.mark.case("SIG-23", "PER-08")
def test_refuses_whatever_was_put_back_swapped_or_removed(tmp_path: Path) -> None:
    home, old = tmp_path / "home", tmp_path / "old"
    accept(home, 1)
    shutil.copytree(home, old)
    accept(home, 2)

    def broken(*names: str, source: Path | None = old) -> str | None:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(home, copy)
        for name in names:
            (copy / name).unlink()
            if source is not None:
                shutil.copy(source / name, copy / name)
        return code_of(kept, copy)

    assert broken("accepted") == "revocation.state"
    assert broken("head") is None, "behind by one: a kill came before it was written"
    for name in FILES:
        assert broken(name, source=None) == "revocation.state", name
    assert broken("head", "accepted", source=None) is None, "nothing tells that there was one"
    other = tmp_path / "other"
    accept(other, 9)
    for name in FILES:
        assert broken(name, source=other) == "revocation.state", name


@pytest.mark.case("PER-03", "SIG-23")
def test_refuses_every_byte_that_was_changed_or_cut(tmp_path: Path) -> None:
    accept(tmp_path, 3)
    for name in FILES:
        path = tmp_path / name
        data = path.read_bytes()
        for place in range(len(data)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            assert code_of(kept, tmp_path) == "revocation.state", (name, place)
        for cut in (0, 1, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:cut])
            assert code_of(kept, tmp_path) == "revocation.state", (name, cut)
        path.write_bytes(data)
    assert kept(tmp_path) == 3


@pytest.mark.case("SIG-25")
def test_refuses_what_others_may_write_or_what_is_a_link(tmp_path: Path) -> None:
    accept(tmp_path, 3)
    for name in ("accepted", "head"):
        (tmp_path / name).chmod(0o622)
        assert code_of(kept, tmp_path) == "revocation.state"
        (tmp_path / name).chmod(0o600)
    (tmp_path / "key").chmod(0o640)
    assert code_of(kept, tmp_path) == "revocation.state"
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "accepted").rename(tmp_path / "away")
    (tmp_path / "accepted").symlink_to(tmp_path / "away")
    assert code_of(kept, tmp_path) == "revocation.state"


@pytest.mark.case("PER-02")
def test_a_disk_that_fails_leaves_the_old_feed_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th sync fails, for each n there is."""
    real = os.fsync
    for n in range(1, 12):
        directory = tmp_path / str(n)
        accept(directory, 1)
        left = n

        def fsync(fd: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(28, "No space left on device")
            real(fd)

        with monkeypatch.context() as patch:
            patch.setattr(_files.os, "fsync", fsync)
            code = code_of(accept, directory, 2)
        assert code in (None, "revocation.state")
        assert kept(directory) in ((2,) if code is None else (1, 2))
        assert code_of(accept, directory, 1) == (
            "revocation.rollback" if kept(directory) == 2 else None
        )
        assert accept(directory, 3)
        if code is None:
            return
    pytest.fail("no number of syncs was enough")


_WRITER = """
import itertools, sys
from pathlib import Path
from tests.revocation.test_keep import accept
directory, first = Path(sys.argv[1]), int(sys.argv[2])
print("go", flush=True)
for n in itertools.count(first):
    accept(directory, n)
    print(n, flush=True)
"""


@pytest.mark.case("PER-01", "PER-07")
def test_a_kill_at_any_moment_leaves_what_was_accepted_or_the_next(tmp_path: Path) -> None:
    last = 0
    for turn in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), str(last + 1)],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        ) as writer:  # fmt: skip
            assert writer.stdout is not None
            assert writer.stdout.readline() == "go\n"
            time.sleep(0.02 + 0.0037 * turn)
            writer.send_signal(signal.SIGKILL)
            told = [int(n) for n in writer.stdout.read().split()]
        newest = told[-1] if told else last
        found = kept(tmp_path) or 0
        assert found in (newest, newest + 1)
        if found:
            assert code_of(accept, tmp_path, found - 1 or 1) in ("revocation.rollback", None)
        last = found
    assert last > 0
    accept(tmp_path, last + 1)
    assert {p.name for p in tmp_path.iterdir()} == {*FILES, "lock"}, "litter"


def _race(directory: str, first: int) -> list[int]:
    won = []
    for n in range(first, first + 40):
        try:
            if accept(Path(directory), n):
                won.append(n)
        except RevocationError as exc:
            assert exc.code == "revocation.rollback"  # noqa: PT017
        assert (kept(Path(directory)) or 0) >= n
    return won


@pytest.mark.case("PER-06")
def test_several_processes_never_go_back(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        won = list(pool.map(_race, [str(tmp_path)] * 4, (1, 3, 5, 7)))
    every = [n for each in won for n in each]
    assert len(every) == len(set(every)), "a number was accepted twice"
    assert kept(tmp_path) == 46


@pytest.mark.case("PER-09")
def test_the_latest_time_that_was_seen_is_remembered(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    keeper.note_time(NOW)
    assert not (tmp_path / "head").exists(), "there is nothing whose age could matter"
    accept(tmp_path, 1)
    keeper.note_time(NOW + timedelta(hours=3))
    keeper.note_time(NOW + timedelta(hours=1))
    found = keeper.load()
    assert found is not None
    assert found.latest == NOW + timedelta(hours=3)
    accept(tmp_path, 2)
    found = keeper.load()
    assert found is not None
    assert found.latest == NOW, "a new feed shows what time it is"
