"""Killed at any step, the release side leaves what clients accept, and a cache what a client uses."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from capwasm.errors import RepositoryError
from capwasm.repository.publish import Publisher
from tests.capsules import STORE

from .dying import dying_at
from .shop import Shop
from .simulator import Desk, capsule

# -- at each step ----------------------------------------------------------------------------------


def rotate(role: str) -> Callable[[Shop], object]:
    def act(shop: Shop) -> object:
        [status] = [s for s in shop.publisher.status() if s.role == role]
        key = shop.key(f"{role}-{len(list(shop.keys.iterdir()))}")
        return shop.publisher.rotate(role, add=[key], remove=[k.key_id for k in status.keys])

    return act


def publish(shop: Shop) -> object:
    shop.offer("1.3.0")
    return shop.publisher.publish(STORE)


@pytest.fixture
def no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested is the order of changes; that they are waited for has a test of its own."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("no_wait_for_the_disk")
@pytest.mark.case("PER-01")
@pytest.mark.parametrize(
    "act",
    [publish, lambda s: s.publisher.refresh(), *map(rotate, ("timestamp", "targets", "root"))],
    ids=["publish", "refresh", "rotate timestamp", "rotate targets", "rotate root"],
)
def test_dead_at_any_step_it_leaves_what_clients_accept(
    shop: Shop, act: Callable[[Shop], object]
) -> None:
    shop.init()
    shop.offer("1.2.0")
    shop.publisher.publish(STORE)
    allowed = (["1.2.0"], ["1.2.0", "1.3.0"])
    step = 0
    while True:
        step += 1
        with dying_at(step) as life:
            act(shop)
        # Consumers that have been there before, and new ones.
        assert shop.versions() in allowed
        assert shop.versions(f"new-{step}") in allowed
        if not life.is_over:
            break
        shop.publisher.refresh()  # and the owner goes on from there
    assert step > 5


@pytest.mark.usefixtures("no_wait_for_the_disk")
@pytest.mark.case("PER-01")
@pytest.mark.parametrize("rotated", [False, True], ids=["new versions", "a new root too"])
def test_dead_at_any_step_a_client_leaves_a_whole_cache(here: Desk, rotated: bool) -> None:
    before = here.refresh()
    cache, saved = here.folder / "main", here.folder / "saved"
    shutil.copytree(cache, saved, symlinks=True)
    if rotated:
        here.sim.rotate("timestamp")
    here.sim.step()
    new = {role: getattr(here.sim, role).version for role in before}
    step = 0
    while True:
        step += 1
        with dying_at(step) as life:
            here.refresh()
        assert here.client(offline=True).refresh().versions in (before, new)
        assert here.refresh() == new
        assert [path.name[0] for path in sorted(cache.iterdir())] == ["g", "l"]
        if not life.is_over:
            break
        shutil.rmtree(cache)
        shutil.copytree(saved, cache, symlinks=True)
    assert step > 10


@pytest.mark.case("PER-07")
def test_a_new_state_is_on_the_disk_before_it_has_its_name_and_its_name_before_the_old_one_goes(
    here: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.refresh()
    here.sim.step()
    done: list[str] = []
    real_sync, real_rename, real_rmdir = os.fsync, os.rename, os.rmdir

    def name(path: object) -> str:
        return re.sub(r"\.stage-[0-9a-f]+|\.[\w.]+\.tmp", "*", Path(str(path)).name)

    def sync(fd: int) -> None:
        done.append(f"sync {name(Path(f'/proc/self/fd/{fd}').readlink())}")
        real_sync(fd)

    def rename(old: object, new: object) -> None:
        done.append(f"rename {name(old)}")
        real_rename(old, new)

    def rmdir(path: object, **words: object) -> None:
        done.append("rmdir")
        real_rmdir(path, **words)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "rmdir", rmdir)
    here.refresh()
    kept = done[-1 - done[::-1].index("rename *") :]
    before = done[: -len(kept)]
    for file in ("refreshed", "timestamp.json", "snapshot.json", "targets.json", "*"):
        assert f"sync {file}" in before
    assert before[-1] == "sync *"
    assert kept[1] == "sync main"
    assert "rmdir" in kept[2:]


@pytest.mark.case("PER-02")
def test_a_disk_that_fills_up_leaves_a_whole_cache(
    here: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = here.refresh()
    here.sim.step()
    real = os.fsync
    for allowed in range(4):
        left = iter([True] * allowed)

        def fsync(fd: int, left: Iterator[bool] = left) -> None:
            if not next(left, False):
                raise OSError(28, "No space left on device")
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)
        assert here.refused() == "repository.cache"
        monkeypatch.setattr(os, "fsync", real)
        assert here.client(offline=True).refresh().versions == before
    assert here.refresh()["timestamp"] == before["timestamp"] + 1


@pytest.mark.case("PER-02", "SIG-25")
def test_a_cache_that_others_can_write_or_that_is_no_directory_is_refused(here: Desk) -> None:
    here.refresh()
    (here.folder / "main").chmod(0o777)
    assert here.refused() == "repository.cache"
    (here.folder / "main").chmod(0o700)
    here.refresh()
    (here.folder / "main").rename(here.folder / "other")
    (here.folder / "main").write_bytes(b"")
    assert here.refused() == "repository.cache"


@pytest.mark.case("PER-03", "SIG-18")
@pytest.mark.parametrize("name", ["timestamp", "snapshot", "targets", "root_history/1.root"])
@pytest.mark.parametrize("how", ["empty", "flipped", "gone"])
def test_a_damaged_cache_is_never_believed(here: Desk, name: str, how: str) -> None:
    here.refresh()
    [generation] = (here.folder / "main").glob("g*")
    path = generation / f"{name}.json"
    data = path.read_bytes()
    path.unlink()
    if how != "gone":
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes(b"" if how == "empty" else flipped)
    assert here.refresh()["root"] == 1
    assert [r.version for r in here.client(offline=True).releases("acme.weather")] == ["1.2.0"]


@pytest.mark.case("PER-06")
def test_many_clients_share_a_cache(here: Desk) -> None:
    failures: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(8):
                here.client().releases("acme.weather")
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        here.sim.timestamp.version += 1
        here.sim.put("timestamp")
    for thread in threads:
        thread.join()
    assert failures == []


# -- by a signal ----------------------------------------------------------------------------------------

WORK = """
import sys
from pathlib import Path
from capwasm.repository.publish import Publisher
from capwasm.repository.signers import KeyPlace
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.trust import TrustStore
folder = Path(sys.argv[1])
publisher = Publisher(folder / "repo", lambda _: b"")
trust = TrustStore.load(folder / "trust.toml")
number = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
while True:
    number += 1
    publisher.add(folder / f"capsules/1.{number % 40}.0.capsule", trust)
    publisher.publish(trust)
    publisher.refresh()
    if number % 3 == 0:
        role = ("timestamp", "snapshot", "targets", "root")[number // 3 % 4]
        key = PrivateKey.generate()
        path = folder / f"keys/{role}-{key.public.key_id[:12]}.key"
        key.save(path)
        old = [k.key_id for s in publisher.status() if s.role == role for k in s.keys]
        publisher.rotate(role, add=[KeyPlace(key.public, f"file:{path}")], remove=old)
"""


@pytest.mark.case("PER-01")
def test_killed_at_any_moment_it_leaves_what_clients_accept(shop: Shop) -> None:
    shop.init()
    key = STORE.keys[0]
    (shop.folder / "trust.toml").write_text(
        f'schema = 1\n[[key]]\nname = "acme"\npublic = "{key.key.base64()}"\n'
        'roles = ["publisher"]\nids = ["acme.*"]\n'
    )
    (shop.folder / "capsules").mkdir()
    for number in range(40):
        (shop.folder / f"capsules/1.{number}.0.capsule").write_bytes(capsule(f"1.{number}.0"))
    seen: list[str] = []
    rounds, number = 6, 0
    for turn in range(rounds):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORK, str(shop.folder), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdout.readline()
        worker.stdin.write(b"\n")
        worker.stdin.flush()
        time.sleep(0.05 + turn * 0.07)
        # While it works, readers see a whole state each time, old clients and new ones.
        shop.versions()
        shop.versions(f"new-{turn}")
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        worker.stdin.close()
        worker.stdout.close()
        found = shop.versions()
        assert set(seen) <= set(found)
        assert shop.versions(f"newer-{turn}") == found
        seen, number = found, number + 5
        shop.publisher.refresh()  # and the bot goes on from there
    assert len(seen) > 3


def test_two_at_once_wait_for_each_other(shop: Shop) -> None:
    shop.init()
    failures: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(5):
                Publisher(shop.publisher.directory, lambda _: b"").refresh()
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert shop.client().refresh().versions["timestamp"] == 16


def test_a_full_disk_leaves_the_old_state(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.init()
    shop.offer("1.2.0")
    shop.publisher.publish(STORE)
    shop.offer("1.3.0")
    real = os.fsync
    for allowed in range(12):
        left = iter([True] * allowed)

        def fsync(fd: int, left: Iterator[bool] = left) -> None:
            if not next(left, False):
                raise OSError(28, "No space left on device")
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)
        with contextlib.suppress(RepositoryError):
            shop.publisher.publish(STORE)
        monkeypatch.setattr(os, "fsync", real)
        assert shop.versions(f"c{allowed}") in (["1.2.0"], ["1.2.0", "1.3.0"])
    shop.publisher.publish(STORE)
    assert shop.versions() == ["1.2.0", "1.3.0"]
