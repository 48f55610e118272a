"""The sandbox as a whole: all layers together, on machines that have them, and on those that don't."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from capwasm_shim import sandbox
from capwasm_shim.layers import DEFAULT_REQUIRED, File, Layer, Limits, Spec
from capwasm_shim.probe import probe

from .boxes import EVERYTHING, Box, small

L = Layer
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the servers under test start as root")
NAMESPACES = {layer for layer in Layer if layer.endswith("-namespace")}
GROUPS = {L.CGROUP_MEMORY, L.CGROUP_PIDS, L.CGROUP_CPU}
STRICT = Spec("native")


@pytest.fixture(scope="module")
def boxes() -> Iterator[Callable[[str], Box]]:
    made: dict[str, Box] = {}

    def box(mode: str) -> Box:
        return made.setdefault(mode, made.get(mode) or Box(mode))

    yield box
    for each in made.values():
        each.close()


@pytest.mark.parametrize(
    ("mode", "missing"),
    [
        ("root", {L.USER_NAMESPACE}),
        ("user", {L.OWN_USER, *GROUPS}),
        ("container", {L.OWN_USER, *GROUPS}),
    ],
)
def test_allows_all_that_a_machine_has(
    boxes: Callable[[str], Box], mode: str, missing: set[Layer]
) -> None:
    came = boxes(mode).try_("who", spec=STRICT, files=["code"])
    assert came.report is not None

    groups_here = {layer for layer in GROUPS if layer not in came.report.missing}
    wanted = missing if mode != "container" else {L.USER_NAMESPACE, *(GROUPS - groups_here)}
    assert set(came.report.missing) - GROUPS == wanted - GROUPS
    assert set(came.report.applied) == set(Layer) - set(came.report.missing)
    assert all(came.report.missing.values())
    if mode == "user":
        assert came.result is not None
        assert came.result.startswith("65534 65534")


@pytest.mark.case("NAT-02", "NAT-15")
def test_gives_each_process_a_user_of_its_own_that_owns_nothing(
    boxes: Callable[[str], Box],
) -> None:
    users = [boxes("root").try_("who", spec=STRICT).result for _ in range(3)]
    first, group, groups = str(users[0]).split(" ", 2)

    assert len(set(users)) == 3
    assert (first, groups) == (group, "[]")
    assert int(first) >= 0x70000000
    # A container has fewer; there it is of the upper half.
    inside = str(boxes("container").try_("who", spec=STRICT).result).split()[0]
    assert 2**15 <= int(inside) < 2**16 - 2


@pytest.mark.case("NAT-23", "NAT-13")
def test_refuses_where_a_required_layer_is_missing(boxes: Callable[[str], Box]) -> None:
    """An ordinary user of a machine that allows no user namespaces."""
    came = boxes("bare").try_("who", spec=STRICT)

    assert (came.report, came.result) == (None, None)
    assert came.failed is not None
    assert came.failed[:2] == ["pid-namespace", "EPERM"]
    for layer in sorted(NAMESPACES - {L.CGROUP_NAMESPACE}):
        only = replace(STRICT, required=frozenset({layer}))
        found = boxes("bare").try_("who", spec=only).failed
        assert found is not None
        assert found[0] == layer
    told = boxes("bare").try_("who", spec=replace(STRICT, required=frozenset({L.USER_NAMESPACE})))
    assert told.failed == [
        "user-namespace", "", "no user namespaces here: unshare: No space left on device"
    ]  # fmt: skip


@pytest.mark.case("NAT-13", "NAT-23")
def test_allows_policy_to_do_without_namespaces_and_says_what_is_missing(
    boxes: Callable[[str], Box],
) -> None:
    waived = replace(STRICT, required=DEFAULT_REQUIRED - NAMESPACES)
    box = boxes("bare")
    came = box.try_("read_own", "f0", spec=waived, files=["code"])

    assert came.result == "code"
    assert came.report is not None
    assert set(came.report.missing) == {L.OWN_USER, *NAMESPACES, *GROUPS}
    # What is left holds: its own file and no other, no system calls, no signals.
    assert box.try_("open_file", "/etc/passwd", spec=waived).result == "EACCES"
    assert box.try_("tcp", 1, spec=waived).result == "EPERM"
    assert box.try_("signal_server", spec=waived).result == "EPERM"
    assert box.try_("capability_sets", layers={*EVERYTHING} - {L.SECCOMP, L.LANDLOCK_FILES}, spec=waived).failed is None  # fmt: skip


@pytest.mark.case("NAT-14", "NAT-21", "NAT-24")
@pytest.mark.parametrize("mode", ["root", "user"])
def test_gives_it_its_files_and_nothing_else(boxes: Callable[[str], Box], mode: str) -> None:
    box = boxes(mode)
    loose = {*EVERYTHING} - {L.LANDLOCK_FILES, L.SECCOMP}

    assert box.try_("read_own", "f1", spec=STRICT, files=["first", "second"]).result == "second"
    assert box.try_("list_root", layers=loose, files=["a", "b"]).result in {"f0 f1", "f1 f0"}
    assert box.try_("write_file", "/new", layers=loose).result == "EROFS"
    # Also of what it owns, and with all power in its namespace.
    stronger = loose - {L.NO_CAPABILITIES, L.OWN_USER}
    assert box.try_("change_own", "f0", layers=stronger, files=["a"]).result == "EROFS"
    for path in ("/proc", "/dev/null", "/sys", "/etc/passwd", "/../etc/passwd"):
        assert box.try_("open_file", path, layers=loose).result == "ENOENT"
    assert box.try_("open_file", "/", spec=STRICT).result == "EACCES"


@pytest.mark.case("NAT-01")
def test_keeps_the_descriptors_that_it_is_told_to_and_no_other(boxes: Callable[[str], Box]) -> None:
    box = boxes("root")

    assert box.try_("use_left_descriptor", spec=STRICT).result == "EBADF"
    assert box.try_("use_left_descriptor", spec=STRICT, keep=True).result == "secret"
    loose = {*EVERYTHING} - {L.MOUNT_NAMESPACE, L.LANDLOCK_FILES, L.NON_DUMPABLE, L.OWN_USER}
    found = box.try_("open_descriptors", layers=loose).result
    assert found == "/dev/null /dev/null /dev/null pipe"


def test_allows_threads_and_refuses_more_than_were_given(boxes: Callable[[str], Box]) -> None:
    spec = replace(STRICT, limits=Limits(threads=4))

    assert boxes("root").try_("many_threads", 3, spec=spec).result == "3"
    assert boxes("root").try_("keep_threads", 3, spec=spec).result == "3"
    assert boxes("root").try_("keep_threads", 8, spec=spec).result == "can't start new thread"


@pytest.mark.case("NAT-17")
def test_ends_what_uses_up_its_processor_time(boxes: Callable[[str], Box]) -> None:
    spec = replace(STRICT, limits=Limits(cpu_seconds=1))

    assert boxes("root").try_("burn", 20, spec=spec).result == "killed:SIGKILL"


@pytest.mark.case("NAT-17")
def test_can_neither_stop_nor_shield_itself(boxes: Callable[[str], Box]) -> None:
    assert boxes("root").try_("stop_itself", layers={L.PID_NAMESPACE}).result == "goes on"


@pytest.mark.case("NAT-18")
@pytest.mark.parametrize("mode", ["root", "user"])
def test_ends_with_the_server(mode: str) -> None:
    for layers, ends in ((EVERYTHING, True), ({*EVERYTHING} - {L.PARENT_DEATH}, False)):
        box = Box(mode)
        box.send("sleep_on", spec=replace(STRICT, layers=tuple(layers)), tell=True)
        pidfd = os.pidfd_open(box.told()["pid"])
        ready = bool(select.select([pidfd], [], [], 0.2)[0])
        box.kill()
        try:
            assert not ready
            assert bool(select.select([pidfd], [], [], 10 if ends else 0.3)[0]) is ends
        finally:
            if not ends:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


@pytest.mark.case("NAT-18")
@pytest.mark.parametrize("ends", [True, False])
def test_ends_if_the_server_ended_first(ends: bool) -> None:
    layers = EVERYTHING if ends else tuple({*EVERYTHING} - {L.PARENT_DEATH})
    box = Box("root")
    box.send("sleep_on", spec=replace(STRICT, layers=layers), orphan=True, tell=True)
    pidfd = os.pidfd_open(box.told()["pid"])
    box.kill()  # only now does the child go on, and enter its sandbox
    try:
        assert bool(select.select([pidfd], [], [], 10 if ends else 0.8)[0]) is ends
    finally:
        if not ends:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def test_leaves_no_cgroup_behind_even_of_a_server_that_was_killed() -> None:
    def groups() -> set[str]:
        return {str(p) for p in Path("/sys/fs/cgroup").rglob("capwasm-*")}

    before = groups()
    box = Box("root")
    assert box.try_("who", layers=[L.CGROUP_PIDS], spec=small()).result
    left = groups() - before
    box.kill()
    assert left
    assert groups() >= left
    Box("root").close()

    assert not groups() & left


def test_tells_by_probing_what_this_machine_has() -> None:
    found = {each.layer: each for each in probe()}

    assert list(found) == list(Layer)
    assert all(bool(each.why_not) is not each.applied for each in found.values())
    assert {each.layer for each in found.values() if each.required} == DEFAULT_REQUIRED
    assert {each.layer for each in found.values() if not each.applied} <= {
        L.USER_NAMESPACE,
        *GROUPS,
    }
    assert all(each.stops for each in found.values())


@pytest.mark.case("NAT-23")
def test_tells_by_probing_that_nothing_can_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    found = probe()

    assert not any(each.applied for each in found)
    assert {each.why_not for each in found} == {"it could not be tried: ValueError"}


def test_refuses_to_be_used_in_the_wrong_order() -> None:
    with pytest.raises(RuntimeError, match="prepare: was not called"):
        sandbox.spawn(STRICT)
    with pytest.raises(RuntimeError, match="prepare: was not called"):
        sandbox.enter(STRICT, (), ())
    assert sandbox.forget(1) is False
    program = "from capwasm_shim import sandbox as s; s.prepare(); s.prepare()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert b"prepare: called twice" in done.stderr


def test_refuses_descriptors_that_do_not_fit(boxes: Callable[[str], Box]) -> None:
    box = boxes("root")
    two = replace(STRICT, files=(File("a"), File("b")))
    for files, keep in (([], []), ([50], []), ([50, 50], []), ([50, 51], [51]), ([1, 50], [])):
        box.send("who", spec=two, raw=[files, keep])
        assert "files: " in box.told()["result"]


def test_refuses_a_process_that_has_threads(boxes: Callable[[str], Box]) -> None:
    """What one thread gives up, the others keep: capabilities, privileges, Landlock."""
    came = boxes("root").try_("who", spec=replace(STRICT, limits=Limits(threads=4)), threads=True)

    assert (came.report, came.result) == (
        None,
        "RuntimeError('enter: this process has more than one thread')",
    )
