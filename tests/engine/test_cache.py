"""The cache of compiled code: what only this machine wrote is run, and only as it was checked."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.engine import cache as cache_module
from capwasm.engine import compile as module
from capwasm.engine.cache import CodeCache, entries, prune
from capwasm.engine.compile import CompileLimits, Compiler, Compiling
from capwasm.engine.engine import PluginEngine
from capwasm.engine.sealed import Sealed
from capwasm.errors import ArtifactError
from tests.kit import World, guest

ROOM = 2**30


@pytest.fixture(scope="module")
def engine() -> Iterator[PluginEngine]:
    engine = PluginEngine()
    yield engine
    engine.close()


def compiles(compiler: Compiler, code: bytes) -> bool:
    """Whether the code was compiled, and not taken from the cache."""
    with mock.patch.object(module, "compile_apart", wraps=module.compile_apart) as spy:
        compiler.compile(code)
    return bool(spy.called)


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.cwasm"))


def found(cache: CodeCache, name: str, limit: int = ROOM) -> bytes | None:
    sealed = cache.find(name, limit)
    if sealed is None:
        return None
    with sealed, sealed.view() as view:
        return bytes(view)


def kept(cache: CodeCache, name: str, data: bytes) -> None:
    with Sealed.holding(data) as sealed:
        cache.keep(name, sealed)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# -- sealed memory -----------------------------------------------------------------------------------


@pytest.mark.case("SIG-21")
def test_refuses_every_way_to_change_what_is_sealed() -> None:
    with Sealed.holding(b"checked") as sealed:
        again = os.open(sealed.path, os.O_RDWR)
        for fd in (sealed.fd, again):
            with pytest.raises(PermissionError):
                os.pwrite(fd, b"x", 0)
            for size in (0, 100):
                with pytest.raises(PermissionError):
                    os.ftruncate(fd, size)
            with pytest.raises(PermissionError):
                mmap.mmap(fd, 7, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            with pytest.raises(PermissionError):
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        os.close(again)
        with sealed.view() as view:
            assert bytes(view) == b"checked"
            with pytest.raises(TypeError):
                view[0] = 0


@pytest.mark.case("SIG-21")
def test_refuses_to_seal_what_somebody_can_still_write(tmp_path: Path) -> None:
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(fd, b"checked")
    with mmap.mmap(fd, 7), pytest.raises(OSError, match="busy"):
        Sealed(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    (tmp_path / "file").write_bytes(b"checked")
    with pytest.raises(OSError, match="Invalid"):
        Sealed(os.open(tmp_path / "file", os.O_RDWR))


@pytest.mark.case("SIG-21")
def test_refuses_a_file_that_became_shorter(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    fd = os.open(file, os.O_RDONLY)
    with Sealed.copied(fd, 4) as sealed, sealed.view() as view:
        assert bytes(view) == b"0123"
    before = open_files()
    with pytest.raises(OSError, match="shorter"):
        Sealed.copied(fd, 11)
    assert open_files() == before
    os.close(fd)


def test_allows_file_systems_without_copies_in_the_kernel(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 9000)
    fd = os.open(file, os.O_RDONLY)
    with (
        mock.patch.object(os, "sendfile", side_effect=OSError(22, "Invalid argument")),
        Sealed.copied(fd, file.stat().st_size) as sealed,
        sealed.view() as view,
    ):
        assert bytes(view) == file.read_bytes()
    os.close(fd)


# -- what is used, and what is not ---------------------------------------------------------------------


def test_what_was_compiled_once_is_taken_from_the_cache(
    engine: PluginEngine, tmp_path: Path
) -> None:
    assert compiles(Compiler(engine, tmp_path), guest("hostile"))
    assert not compiles(Compiler(engine, tmp_path), guest("hostile"))
    assert {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "key", *files(tmp_path))} == {
        "key": 0o600,
        files(tmp_path)[0].name: 0o600,
    }
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_code_that_is_loaded_is_in_memory_once(engine: PluginEngine) -> None:
    compiler = Compiler(engine, None)
    one = compiler.compile(guest("hostile"))
    assert compiler.compile(memoryview(guest("hostile"))) is one
    assert compiler.compile(guest("caller")) is not one


def test_a_second_load_reads_nothing_while_the_first_lives(tmp_path: Path) -> None:
    world = World(tmp_path)
    capsule = world.capsule(guest("hostile"))
    world.consent(capsule)
    with mock.patch.object(CodeCache, "find", side_effect=CodeCache.find, autospec=True) as spy:
        with world.runtime.load(capsule):
            asked = spy.call_count
            with world.runtime.load(capsule) as second:
                assert second.call("count") == 1
                assert spy.call_count == asked > 0
        del second
        gc.collect()
        with world.runtime.load(capsule):
            assert spy.call_count > asked  # and nothing is held for plugins that are gone
    world.close()


def test_a_warm_start_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    world = World(tmp_path)
    capsule = world.capsule(guest("hostile"))
    world.consent(capsule)
    world.runtime.load(capsule)
    world.close()
    (tmp_path / "x.capsule").write_bytes(capsule)
    script = """
        import sys
        from capwasm import Runtime
        with Runtime.open(f"{sys.argv[1]}/home", core_version="1.0.0") as runtime:
            answer = runtime.load(f"{sys.argv[1]}/x.capsule").call("count")
        # For a line of the log, for asyncio, for a fetch, for compiling.
        heavy = {"structlog", "rich", "asyncio", "h11", "subprocess"}
        print(answer, sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1 []\n"


@pytest.mark.case("SIG-22", "PER-04")
@pytest.mark.parametrize("at", [0, 100, -29, -28, -16, -1])
def test_refuses_an_entry_of_which_one_byte_changed(
    engine: PluginEngine, tmp_path: Path, at: int
) -> None:
    Compiler(engine, tmp_path).compile(guest("hostile"))
    (entry,) = files(tmp_path)
    good = entry.read_bytes()
    data = bytearray(good)
    data[at] ^= 1
    entry.write_bytes(data)
    again = Compiler(engine, tmp_path)
    assert again._cache is not None
    with mock.patch.object(Compiler, "_load", side_effect=AssertionError("it was run")):
        assert again._find(entry.stem) is None
    assert not entry.exists()
    assert compiles(again, guest("hostile"))
    assert not compiles(Compiler(engine, tmp_path), guest("hostile"))  # it was replaced


@pytest.mark.case("SIG-22", "PER-04")
@settings(deadline=None)  # it writes files
@given(
    data=st.binary(min_size=1, max_size=200),
    cut=st.integers(0, 300),
    more=st.binary(max_size=40),
    flip=st.none() | st.integers(0, 227),
)
def test_refuses_whatever_is_not_what_was_kept(
    data: bytes, cut: int, more: bytes, flip: int | None
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cache = CodeCache(Path(directory), ROOM)
        kept(cache, "a.cwasm", data)
        entry = Path(directory) / "a.cwasm"
        good = entry.read_bytes()
        bad = bytearray(good[: len(good) - cut] if cut < len(good) else good) + more
        if flip is not None and flip < len(bad):
            bad[flip] ^= 0x40
        entry.write_bytes(bad)
        assert found(cache, "a.cwasm") == (data if bad == good else None)


@pytest.mark.case("SIG-22", "PER-04")
def test_refuses_entries_of_other_names_and_other_machines(tmp_path: Path) -> None:
    ours, theirs = CodeCache(tmp_path / "a", ROOM), CodeCache(tmp_path / "b", ROOM)
    kept(ours, "one.cwasm", b"one")
    kept(ours, "two.cwasm", b"two")
    one, two = tmp_path / "a/one.cwasm", tmp_path / "a/two.cwasm"
    (tmp_path / "b/two.cwasm").write_bytes(two.read_bytes())
    assert found(theirs, "two.cwasm") is None
    two.write_bytes(one.read_bytes())
    assert found(ours, "two.cwasm") is None
    assert found(ours, "one.cwasm") == b"one"
    assert found(ours, "one.cwasm", limit=2) is None  # larger than code may be


@pytest.mark.case("SIG-22")
@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "empty"])
def test_refuses_what_is_no_file_of_its_own(tmp_path: Path, kind: str) -> None:
    cache = CodeCache(tmp_path / "cache", ROOM)
    kept(cache, "a.cwasm", b"good")
    entry, aside = tmp_path / "cache/a.cwasm", tmp_path / "aside"
    entry.rename(aside)
    if kind == "link":
        entry.symlink_to(aside)
    elif kind == "fifo":
        os.mkfifo(entry)
    elif kind == "directory":
        entry.mkdir()
    else:
        entry.touch()
    assert found(cache, "a.cwasm") is None
    kept(cache, "a.cwasm", b"new")
    assert found(cache, "a.cwasm") == (None if kind == "directory" else b"new")
    assert aside.exists()


@pytest.mark.case("SIG-22", "TYP-11")
def test_refuses_entries_of_another_version_and_those_that_do_not_fit(
    engine: PluginEngine, tmp_path: Path
) -> None:
    with mock.patch.object(module, "fingerprint", return_value="another release"):
        Compiler(engine, tmp_path).compile(guest("hostile"))
    assert compiles(Compiler(engine, tmp_path), guest("hostile"))
    # One that is truly ours, and of an engine with other settings.
    foreign = wasmtime.component.Component(
        wasmtime.Engine(wasmtime.Config()), guest("hostile")
    ).serialize()
    cache = CodeCache(tmp_path, ROOM)
    for entry in files(tmp_path):
        kept(cache, entry.name, bytes(foreign))
    assert compiles(Compiler(engine, tmp_path), guest("hostile"))
    assert not compiles(Compiler(engine, tmp_path), guest("hostile"))


@pytest.mark.case("SIG-21", "SIG-22", "PER-04")
def test_refuses_to_run_what_was_written_after_the_check(
    engine: PluginEngine, tmp_path: Path
) -> None:
    Compiler(engine, tmp_path).compile(guest("hostile"))
    (entry,) = files(tmp_path)
    other = bytes(wasmtime.component.Component(engine.wasm, guest("caller")).serialize())
    real = Compiler._load

    def swapped(self: Compiler, compiled: Sealed) -> wasmtime.component.Component:
        # In place, as whoever may write the file can at any moment.
        with entry.open("r+b") as file:
            file.write(other)
            file.truncate()
        return real(self, compiled)

    with mock.patch.object(Compiler, "_load", swapped):
        compiled = Compiler(engine, tmp_path).compile(guest("hostile"))
    assert entry.read_bytes() == other
    entry.write_bytes(b"")  # a mapped file that shrinks would kill the process when it is read
    assert "spin" in compiled.component.type.exports(engine.wasm)
    assert compiles(Compiler(engine, tmp_path), guest("hostile"))


def test_allows_a_system_without_proc(engine: PluginEngine, tmp_path: Path) -> None:
    with mock.patch.object(Sealed, "path", "/nowhere/1"):
        compiled = Compiler(engine, tmp_path).compile(guest("hostile"))
        assert "spin" in compiled.component.type.exports(engine.wasm)
        assert not compiles(Compiler(engine, tmp_path), guest("hostile"))


# -- the directory and its key -----------------------------------------------------------------------


@pytest.mark.case("SIG-22", "SIG-25")
def test_refuses_a_key_that_others_can_read(engine: PluginEngine, tmp_path: Path) -> None:
    Compiler(engine, tmp_path).compile(guest("hostile"))
    (tmp_path / "key").chmod(0o644)
    assert compiles(Compiler(engine, tmp_path), guest("hostile"))
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["file", "link", "key directory", "key fifo", "key link"])
def test_a_cache_that_can_not_be_used_costs_time_only(
    engine: PluginEngine, tmp_path: Path, kind: str
) -> None:
    cache, key = tmp_path / "cache", tmp_path / "cache" / "key"
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    if kind == "file":
        cache.write_text("")
    elif kind == "link":
        cache.symlink_to(other)
    else:
        cache.mkdir()
        if kind == "key directory":
            key.mkdir()
        elif kind == "key fifo":
            os.mkfifo(key)
        else:
            (tmp_path / "known").write_bytes(b"k" * 32)
            (tmp_path / "known").chmod(0o600)
            key.symlink_to(tmp_path / "known")
    told: list[str] = []
    compiler = Compiler(engine, cache, on_slow=told.append)
    compiler.compile(guest("hostile"))
    if kind == "key fifo":  # unsafe, and replaced
        assert key.is_file()
        return
    assert len(told) == 1
    assert "not cached" in told[0]
    assert not list(other.iterdir())
    assert other.stat().st_mode & 0o777 == 0o755


@pytest.mark.case("PER-02")
def test_a_cache_that_can_not_be_written_costs_time_only(
    engine: PluginEngine, tmp_path: Path
) -> None:
    with mock.patch.object(cache_module, "copy", side_effect=OSError(28, "full")):
        Compiler(engine, tmp_path).compile(guest("hostile"))
    assert {p.name for p in tmp_path.iterdir()} == {"key", "lock"}


def test_what_a_killed_process_left_in_the_cache_is_swept(tmp_path: Path) -> None:
    old, new = tmp_path / ".new-old", tmp_path / ".new-young"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (1, 1))
    CodeCache(tmp_path, ROOM)
    assert not old.exists()
    assert new.exists()


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = CodeCache(tmp_path, 400)
    for age, name in enumerate(("c", "b", "a")):
        kept(cache, f"{name}.cwasm", b"x" * 72)
        os.utime(tmp_path / f"{name}.cwasm", (1000 + age, 1000 + age))
    assert found(cache, "c.cwasm") is not None  # used just now
    kept(cache, "d.cwasm", b"x" * 72)
    assert {e.name for e in entries(tmp_path)} == {"a.cwasm", "b.cwasm", "c.cwasm", "d.cwasm"}
    kept(cache, "e.cwasm", b"x" * 72)
    assert {e.name for e in entries(tmp_path)} == {"a.cwasm", "c.cwasm", "d.cwasm", "e.cwasm"}
    kept(cache, "f.cwasm", b"x" * 400)  # larger than all that may be kept
    assert len(entries(tmp_path)) == 4
    assert [e.name for e in prune(tmp_path, 250)] == ["a.cwasm", "c.cwasm"]
    assert len(prune(tmp_path, 0)) == 2
    assert {p.name for p in tmp_path.iterdir()} == {"key"}


def test_refuses_to_prune_behind_a_link_or_what_is_no_entry(tmp_path: Path) -> None:
    real = tmp_path / "real"
    cache = CodeCache(real, ROOM)
    kept(cache, "a.cwasm", b"x")
    (real / "notes.txt").write_text("mine")
    (real / "b.cwasm").mkdir()
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        prune(tmp_path / "link", 0)
    assert [e.name for e in prune(real, 0)] == ["a.cwasm"]
    assert {p.name for p in real.iterdir()} == {"key", "notes.txt", "b.cwasm"}


# -- many at once ------------------------------------------------------------------------------------


@pytest.mark.case("PER-06")
def test_many_threads_compile_the_same_code_once(engine: PluginEngine, tmp_path: Path) -> None:
    with mock.patch.object(module, "compile_apart", wraps=module.compile_apart) as spy:
        answers: list[object] = []

        def work() -> None:
            answers.append(Compiler(engine, tmp_path).compile(guest("hostile")))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(answers) == 6
    assert spy.call_count == 2  # its skeleton, and itself
    assert len(files(tmp_path)) == 1


def process(code: str, *args: object) -> subprocess.Popen[str]:
    head = """
        import sys, time
        from pathlib import Path
        from capwasm.engine import compile as module
        from capwasm.engine.cache import CodeCache
        from capwasm.engine.compile import Compiler
        from capwasm.engine.engine import PluginEngine
        from capwasm.engine.sealed import Sealed
        from tests.kit import World, guest
        place = Path(sys.argv[1])
    """
    script = textwrap.dedent(head) + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, args)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.case("PER-06")
def test_many_processes_compile_the_same_code_once(tmp_path: Path) -> None:
    code = """
        real, made = module.compile_apart, []
        module.compile_apart = lambda *a: (made.append(1), real(*a))[1]
        compiler = Compiler(PluginEngine(), place / "cache")
        (place / f"ready-{sys.argv[2]}").touch()
        while not (place / "go").exists():
            time.sleep(0.001)
        compiled = compiler.compile(guest("prober"))
        print(len(made), len(compiled.component.type.imports(compiler._engine.wasm)) > 5)
    """
    started = [process(code, tmp_path, n) for n in range(4)]
    while len(list(tmp_path.glob("ready-*"))) < 4:
        assert all(p.poll() is None for p in started)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    told = sorted(p.communicate(timeout=60)[0].strip() for p in started)
    assert told == ["0 True", "0 True", "0 True", "2 True"]
    assert len(files(tmp_path / "cache")) == 1


def is_taken(directory: Path, name: str) -> bool:
    """Whether somebody is at making that entry."""
    with open(directory / "lock", "r+b") as file:  # noqa: PTH123
        taken = not cache_module._lock(file.fileno(), name, fcntl.F_WRLCK)
        cache_module._lock(file.fileno(), name, fcntl.F_UNLCK)
    return taken


@pytest.mark.case("PER-06", "PER-04")
def test_refuses_to_wait_for_a_process_that_was_killed(tmp_path: Path) -> None:
    cache = CodeCache(tmp_path, ROOM)
    code = """
        with CodeCache(place, 2**30).turn("x", 60, print):
            print("mine", flush=True)
            time.sleep(60)
    """
    first = process(code, tmp_path)
    assert first.stdout is not None
    assert first.stdout.readline() == "mine\n"
    assert is_taken(tmp_path, "x")
    assert not is_taken(tmp_path, "y")  # other code is not held up
    waited: list[float] = []

    def waiting(seconds: float) -> None:
        waited.append(seconds)
        first.kill()

    began = time.monotonic()
    with cache.turn("x", 60, waiting):
        assert is_taken(tmp_path, "x")
    assert waited
    assert time.monotonic() - began < 20
    assert not is_taken(tmp_path, "x")
    first.communicate()


@pytest.mark.case("PER-06")
def test_refuses_to_wait_without_end_for_one_that_hangs(
    engine: PluginEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.8)
    told: list[Compiling] = []
    compiler = Compiler(engine, tmp_path, on_compile=told.append)
    seen: list[str] = []
    real = CodeCache.turn
    monkeypatch.setattr(CodeCache, "turn", lambda *a: (seen.append(a[1]), real(*a))[1])
    compiler.compile(guest("hostile"))
    assert told == []  # quick, and nothing is told
    prune(tmp_path, 0)
    with CodeCache(tmp_path, ROOM).turn(seen[0], 0, print):
        assert compiles(Compiler(engine, tmp_path, on_compile=told.append), guest("hostile"))
    assert told[0].elsewhere
    assert told[-1].done
    assert len(files(tmp_path)) == 1


@pytest.mark.case("PER-04", "PER-07")
def test_refuses_nothing_and_runs_nothing_torn_after_kills_in_the_middle(tmp_path: Path) -> None:
    code = """
        import itertools
        cache = CodeCache(place, 2**30)
        print("on", flush=True)
        for n in itertools.count():
            with Sealed.holding(bytes([n % 256]) * 3_000_000) as sealed:
                cache.keep("x.cwasm", sealed)
    """
    cache = CodeCache(tmp_path, ROOM)
    for pause in (0.001, 0.004, 0.01, 0.02, 0.05):
        writer = process(code, tmp_path)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        data = found(cache, "x.cwasm")
        assert data is None or data == data[:1] * 3_000_000
    kept(cache, "x.cwasm", b"good")
    assert found(cache, "x.cwasm") == b"good"
    for left in tmp_path.glob(".new-*"):
        os.utime(left, (1, 1))
    CodeCache(tmp_path, ROOM)
    assert not list(tmp_path.glob(".new-*"))


def test_works_where_there_are_no_locks(engine: PluginEngine, tmp_path: Path) -> None:
    with mock.patch.object(fcntl, "fcntl", wraps=fcntl.fcntl) as spy:

        def refuse(fd: int, what: int, arg: object = 0) -> object:
            if what == fcntl.F_OFD_SETLK:
                raise OSError(37, "No locks available")
            return mock.DEFAULT

        spy.side_effect = refuse
        assert compiles(Compiler(engine, tmp_path), guest("hostile"))
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").mkdir()
    prune(tmp_path, 0)
    assert compiles(Compiler(engine, tmp_path), guest("hostile"))


@pytest.mark.case("RES-22")
def test_refuses_more_compiled_code_than_is_allowed_from_the_cache_too(
    engine: PluginEngine, tmp_path: Path
) -> None:
    Compiler(engine, tmp_path).compile(guest("hostile"))
    small = Compiler(engine, tmp_path, CompileLimits(output_bytes=4096))
    with pytest.raises(ArtifactError) as caught:
        small.compile(guest("hostile"))
    assert caught.value.code == "artifact.compile-limit"
