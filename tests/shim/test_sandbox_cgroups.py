"""Where cgroups are made: found in both versions, in and out of containers.

What they stop is tested with the layers; version 2 is laid out here as directories, since a machine
has its controllers in one of the two.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from capwasm_shim.layers import Layer, Limits
from capwasm_shim.sandbox import cgroups
from capwasm_shim.sandbox.cgroups import Groups
from capwasm_shim.sandbox.kernel import Lacks

THREE = "cpu memory pids"


class Machine:
    """The two files of /proc that say where cgroups are, and a place for them."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.memberships = self.mounts = ""
        read = cgroups._read
        patch.setattr(
            cgroups,
            "_read",
            lambda path: (
                {
                    "/proc/self/cgroup": self.memberships,
                    "/proc/self/mountinfo": self.mounts,
                }.get(path)
                or read(path)
            ),
        )

    def unified(self, path: str, shown: str = "/") -> None:
        self.memberships = f"0::{path}\n"
        self.mounts = f"30 23 0:26 {shown} {self.root} rw - cgroup2 cgroup2 rw,nsdelegate\n"

    def group(self, path: str, divides: str = "", controllers: str = THREE) -> Path:
        made = self.root / path
        made.mkdir(parents=True, exist_ok=True)
        (made / "cgroup.controllers").write_text(controllers)
        (made / "cgroup.subtree_control").write_text(divides)
        return made


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def homes(groups: Groups) -> set[Path]:
    return {home.path.parent for home in groups._homes.values() if not isinstance(home, Lacks)}


def test_divides_its_own_group_where_that_is_delegated(machine: Machine) -> None:
    machine.unified("/app")
    own = machine.group("app", divides=THREE)
    groups = Groups()

    assert homes(groups) == {own}
    home = next(own.glob("capwasm-*"))
    (home / "7").mkdir()
    for file in ("memory.swap.max", "memory.oom.group"):
        (home / "7" / file).touch()
    for layer in (Layer.CGROUP_MEMORY, Layer.CGROUP_PIDS, Layer.CGROUP_CPU):
        groups.put(7, layer, Limits(memory=2**20, threads=3, cpu_percent=25))
    told = {file.name: file.read_text() for file in (home / "7").iterdir()}
    assert told == {
        "memory.max": str(33 * 2**20),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "3",
        "cpu.weight": "50",
        "cpu.max": "25000 100000",
        "cgroup.procs": "7",
    }


def test_stands_beside_its_own_group_where_that_holds_processes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.unified("/slice/app")
    beside = machine.group("slice", divides=THREE)
    own = machine.group("slice/app")
    delegate = cgroups._delegate

    def busy(group: Path, controller: str) -> None:
        if group == own:
            raise OSError(16, "Device or resource busy")
        delegate(group, controller)

    monkeypatch.setattr(cgroups, "_delegate", busy)

    assert homes(Groups()) == {beside}


def test_finds_its_group_in_a_container_that_shows_a_part(machine: Machine) -> None:
    machine.unified("/machine/c1/app", shown="/machine/c1")
    own = machine.group("app", divides=THREE)
    assert homes(Groups()) == {own}

    # Another container's is not its own.
    machine.unified("/machine/c10/app", shown="/machine/c1")
    assert homes(Groups()) == set()


@pytest.mark.parametrize(
    ("memberships", "controllers", "why"),
    [
        ("", THREE, "no cgroup hierarchy has the controller memory"),
        ("0::/app\n", "io", "no cgroup hierarchy has the controller memory"),
        ("0::/gone\n", THREE, "no cgroup hierarchy has the controller memory"),
    ],
)
def test_says_why_there_is_none(
    machine: Machine, memberships: str, controllers: str, why: str
) -> None:
    machine.unified("/app")
    machine.group("app", divides=THREE, controllers=controllers)
    machine.memberships = memberships

    with pytest.raises(Lacks, match=why):
        Groups().put(7, Layer.CGROUP_MEMORY, Limits())


def test_sweeps_what_a_dead_server_left_and_nothing_of_a_live_one(machine: Machine) -> None:
    machine.unified("/app")
    own = machine.group("app", divides=THREE)
    dead, alive, foreign = own / "capwasm-dead", own / "capwasm-alive", own / "other"
    for home in (dead, alive, foreign):
        (home / "12").mkdir(parents=True)
    held = os.open(alive, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    try:
        groups = Groups()
    finally:
        os.close(held)

    assert not dead.exists()
    assert (alive / "12").exists()
    assert (foreign / "12").exists()
    groups.close()
