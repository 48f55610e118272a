from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from capwasm.caps.kv import KvStore
from capwasm.errors import CallInterrupted, CapError, DeadlineExceeded
from capwasm.limits import Limits
from tests.helpers import in_call

ALWAYS: Callable[[int, int], bool] = lambda _size, _keys: True


def admit() -> None:
    pass


def account(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """What the store believes it holds, and what it holds."""
    with sqlite3.connect(path) as db:
        believed = db.execute("SELECT bytes, keys FROM meta").fetchone()
        real = db.execute(
            "SELECT coalesce(sum(length(CAST(key AS BLOB)) + length(value)), 0), count(*)"
            " FROM entries"
        ).fetchone()
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    return believed, real


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kv.sqlite3"


@pytest.fixture
def store(path: Path):
    made = KvStore(path, "acme.demo")
    yield made
    made.close()


def test_allows_a_value_to_outlive_the_process_and_the_version(path: Path) -> None:
    with in_call():
        first = KvStore(path, "acme.demo")
        first.put("k", b"\x00\xff", None, ALWAYS, admit)
        first.close()
        second = KvStore(path, "acme.demo")
        assert second.get("k", admit) == b"\x00\xff"
        second.close()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.case("SEC-03")
def test_refuses_the_store_of_another_plugin(path: Path, store: KvStore) -> None:
    with in_call():
        store.put("k", b"v", None, ALWAYS, admit)
        other = KvStore(path, "evil.demo")
        with pytest.raises(CapError, match="unavailable") as caught:
            other.get("k", admit)
        assert "another plugin" in caught.value.detail


def test_refuses_to_begin_what_was_revoked_while_it_waited(path: Path, store: KvStore) -> None:
    def closed() -> None:
        raise CapError("closed")

    with in_call():
        with pytest.raises(CapError, match="closed"):
            store.put("k", b"v", None, ALWAYS, closed)
        assert store.get("k", admit) is None


# -- damage ----------------------------------------------------------------------------------------


def spoil_garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 300)


def spoil_truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def spoil_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : len(data)] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def spoil_newer(path: Path) -> None:
    run_sql(path, "PRAGMA user_version = 2")


def spoil_trigger(path: Path) -> None:
    run_sql(
        path,
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN UPDATE meta SET bytes = 0, keys = 0; END",
    )


def spoil_view(path: Path) -> None:
    run_sql(path, "ALTER TABLE entries RENAME TO x", "CREATE VIEW entries AS SELECT * FROM x")


def spoil_foreign(path: Path) -> None:
    path.unlink()
    run_sql(path, "CREATE TABLE other (x)")


def spoil_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def spoil_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def spoil_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def run_sql(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.case("PER-03", "PER-05")
@pytest.mark.parametrize("spoil", [f for n, f in sorted(globals().items()) if n[:6] == "spoil_"])
def test_refuses_a_file_that_is_not_exactly_ours(path: Path, spoil: Callable[[Path], None]) -> None:
    with in_call():
        store = KvStore(path, "acme.demo")
        for n in range(50):
            store.put(f"k{n}", b"v" * 1000, None, ALWAYS, admit)
        store.close()
        spoil(path)

        store = KvStore(path, "acme.demo")
        operations = [
            lambda: store.put("k1", b"v", None, ALWAYS, admit),
            lambda: [store.get(f"k{n}", admit) for n in range(50)],
            lambda: store.delete("k2", admit),
            lambda: store.increment("n", 1, ALWAYS, admit),
        ]
        words = []
        for operation in operations:
            try:
                operation()
            except CapError as exc:
                words.append(exc.word)
        assert words
        assert set(words) == {"unavailable"}
        store.close()


@pytest.mark.case("PER-05")
def test_refuses_a_foreign_database_without_touching_it(path: Path) -> None:
    run_sql(path, "CREATE TABLE other (x)")
    before = path.read_bytes()

    with in_call(), pytest.raises(CapError, match="unavailable"):
        KvStore(path, "acme.demo").put("k", b"v", None, ALWAYS, admit)

    assert path.read_bytes() == before


@pytest.mark.case("PER-03")
def test_allows_only_a_guests_word_whatever_byte_is_flipped(path: Path) -> None:
    with in_call():
        store = KvStore(path, "acme.demo")
        for n in range(20):
            store.put(f"k{n}", b"v" * 100, None, ALWAYS, admit)
        store.close()
    good = path.read_bytes()
    words = set()

    for position in [*range(100), *range(100, len(good), 37)]:
        bad = bytearray(good)
        bad[position] ^= 0xFF
        path.write_bytes(bad)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        with in_call():
            store = KvStore(path, "acme.demo")
            try:
                store.get("k3", admit)
                store.put("k4", b"w", None, ALWAYS, admit)
                store.keys("", "", admit)
            except CapError as exc:
                words.add(exc.word)
            store.close()
    # A flipped bit of the account may make it seem full.
    assert "unavailable" in words
    assert words <= {"unavailable", "quota"}


@pytest.mark.case("PER-02")
def test_refuses_on_a_full_disk_and_works_again_when_there_is_room(path: Path) -> None:
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from capwasm.call import CallRecord, entered
        from capwasm.caps.kv import KvStore
        from capwasm.errors import CapError
        from capwasm.limits import DEFAULTS

        store = KvStore(Path(sys.argv[1]), "acme.demo")
        always, admit = (lambda s, k: True), (lambda: None)
        with entered(CallRecord("acme.demo", "run", DEFAULTS)):
            store.put("before", b"x" * 1000, None, always, admit)
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
            words = set()
            for n in range(40):
                try:
                    store.put(f"k{n}", b"y" * 8000, None, always, admit)
                except CapError as exc:
                    words.add(exc.word)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            store.put("after", b"z", None, always, admit)
            print(words, len(store.get("before", admit)), store.get("after", admit))
        store.close()
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout.strip() == "{'unavailable'} 1000 b'z'"
    believed, real = account(path)
    assert believed == real


@pytest.mark.case("PER-02")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any directory")
def test_refuses_where_the_file_cannot_be_made(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with in_call(), pytest.raises(CapError, match="unavailable"):
            KvStore(tmp_path / "kv", "acme.demo").get("k", admit)
    finally:
        tmp_path.chmod(0o700)


def test_refuses_where_the_directory_is_gone(tmp_path: Path) -> None:
    with in_call(), pytest.raises(CapError, match="unavailable"):
        KvStore(tmp_path / "gone" / "kv", "acme.demo").get("k", admit)


# -- time --------------------------------------------------------------------------------------------


@pytest.fixture
def locked(path: Path, store: KvStore):
    """The store, while another connection holds its write lock."""
    with in_call():
        store.put("k", b"v", None, ALWAYS, admit)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield other
    other.close()


@pytest.mark.case("PER-05", "RES-04")
@pytest.mark.parametrize(
    ("limits", "error"),
    [(Limits(host_call_ms=100), CapError), (Limits(wall_ms=100), DeadlineExceeded)],
)
def test_refuses_to_wait_for_a_lock_past_the_calls_time(
    store: KvStore, locked: sqlite3.Connection, limits: Limits, error: type[Exception]
) -> None:
    begin = time.monotonic()
    with in_call(limits), pytest.raises(error):
        store.put("k", b"w", None, ALWAYS, admit)

    assert 0.05 < time.monotonic() - begin < 5


def test_refuses_to_wait_for_a_lock_once_cancelled(
    store: KvStore, locked: sqlite3.Connection
) -> None:
    begin = time.monotonic()
    with in_call() as call:
        timer = threading.Timer(0.05, lambda: call.interrupt("killed"))
        timer.start()
        with pytest.raises(CallInterrupted):
            store.put("k", b"w", None, ALWAYS, admit)
        timer.join()

    assert time.monotonic() - begin < 3


def test_allows_the_change_once_the_lock_is_free(
    store: KvStore, locked: sqlite3.Connection
) -> None:
    def put() -> None:
        with in_call():
            store.put("k", b"w", None, ALWAYS, admit)

    writer = threading.Thread(target=put)
    writer.start()
    time.sleep(0.05)
    assert writer.is_alive()
    locked.execute("COMMIT")
    writer.join(timeout=10)
    with in_call():
        assert store.get("k", admit) == b"w"


# -- together --------------------------------------------------------------------------------------

WORKER = textwrap.dedent(
    """
    import sys, threading
    from pathlib import Path
    from capwasm.call import CallRecord, entered
    from capwasm.caps.kv import KvStore
    from capwasm.limits import Limits

    def work(rounds, shared):
        store = shared or KvStore(Path(sys.argv[1]), "acme.demo")
        limits = Limits(wall_ms=120_000, host_call_ms=60_000)
        for _ in range(rounds):
            with entered(CallRecord("acme.demo", "run", limits)):
                store.increment("n", 1, lambda s, k: True, lambda: None)

    shared = KvStore(Path(sys.argv[1]), "acme.demo")
    threads = [threading.Thread(target=work, args=(int(sys.argv[2]), s))
               for s in (shared, shared, None, None)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    """
)


@pytest.mark.case("PER-06")
def test_allows_four_threads_in_each_of_two_processes_to_count_together(path: Path) -> None:
    rounds = 60
    processes = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(path), str(rounds)]) for _ in range(2)
    ]
    assert [p.wait(timeout=120) for p in processes] == [0, 0]

    with in_call():
        store = KvStore(path, "acme.demo")
        assert store.get("n", admit) == b"%d" % (2 * 4 * rounds)
        store.close()
    believed, real = account(path)
    assert believed == real


KILLED = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from capwasm.call import CallRecord, entered
    from capwasm.caps.kv import KvStore
    from capwasm.limits import DEFAULTS

    store = KvStore(Path(sys.argv[1]), "acme.demo")
    n = 0
    while True:
        n += 1
        with entered(CallRecord("acme.demo", "run", DEFAULTS)):
            store.put(f"k{n % 7}", b"%d" % n * (n % 300 + 1), None, lambda s, k: True, lambda: None)
            print(n, flush=True)
    """
)


@pytest.mark.case("PER-01", "PER-07")
def test_allows_a_kill_at_any_moment_to_lose_nothing_that_was_stored(path: Path) -> None:
    for _ in range(6):
        worker = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        lines = [worker.stdout.readline() for _ in range(5)]
        time.sleep(0.02)
        worker.kill()
        lines += worker.stdout.read().splitlines()
        worker.wait(timeout=10)
        worker.stdout.close()
        told = int([line for line in lines if line.strip()][-1])

        believed, real = account(path)
        assert believed == real
        with in_call():
            store = KvStore(path, "acme.demo")
            # At most one round after the last that it told of was begun, and that has another key.
            value = store.get(f"k{told % 7}", admit)
            assert value == b"%d" % told * (told % 300 + 1)
            store.close()


@pytest.mark.case("LIFE-10")
def test_allows_a_child_of_fork_a_connection_of_its_own(path: Path, store: KvStore) -> None:
    script = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from capwasm.call import CallRecord, entered
        from capwasm.caps.kv import KvStore
        from capwasm.limits import DEFAULTS

        always, admit = (lambda s, k: True), (lambda: None)
        store = KvStore(Path(sys.argv[1]), "acme.demo")
        with entered(CallRecord("acme.demo", "run", DEFAULTS)):
            store.put("parent", b"1", None, always, admit)
            child = os.fork()
            if child == 0:
                store.put("child", b"2", None, always, admit)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            print(store.get("parent", admit), store.get("child", admit))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout.strip() == "b'1' b'2'", done.stderr
