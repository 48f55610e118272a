"""Arbitrary and wrong software, and roles that were delegated to: what a target may be."""

from __future__ import annotations

from typing import Any

import pytest
from tuf.api.metadata import MetaFile, TargetFile

from capwasm.capsule.artifact import MAX_CAPSULE_BYTES
from capwasm.registry.model import Release
from capwasm.repository.layout import target_path
from tests.capsules import FILES, signed

from .attacks import by_stranger, dripping, endless, unsigned
from .simulator import BEFORE, CAPSULE, LATER, PATH, QUICK, Desk, Simulator, capsule

# -- targets ---------------------------------------------------------------------------------------


def at(sim: Simulator) -> str:
    return next(path for path in sim.files if path.startswith("/targets/"))


@pytest.mark.case("SIG-17")
def test_arbitrary_software_is_refused(here: Desk) -> None:
    release = here.release()
    where = at(here.sim)
    for data in (
        b"x" * len(CAPSULE),
        CAPSULE[:-1] + bytes([CAPSULE[-1] ^ 1]),
        CAPSULE[:-1],
        b"",
    ):
        here.sim.files[where] = data
        assert here.refused(lambda: here.client().fetch(release)) == "repository.mismatch"
    here.sim.files[where] = CAPSULE
    assert here.client().fetch(release) == CAPSULE


@pytest.mark.case("SIG-19")
def test_a_target_is_no_longer_than_it_was_signed_for(here: Desk) -> None:
    release = here.release()
    where = at(here.sim)
    here.sim.files[where] = CAPSULE + b"x"
    assert here.refused(lambda: here.client().fetch(release)) == "repository.too-large"
    endless(where)(here.sim)
    assert here.refused(lambda: here.client().fetch(release)) == "repository.too-large"
    dripping(where)(here.sim)
    here.patience = QUICK
    assert here.refused(lambda: here.client().fetch(release)) == "repository.timeout"


@pytest.mark.case("SIG-19")
def test_a_length_that_no_capsule_has_is_refused_though_signed(here: Desk) -> None:
    here.sim.targets.targets[PATH].length = MAX_CAPSULE_BYTES + 1
    here.sim.step()
    assert here.refused(here.release) == "repository.metadata"


@pytest.mark.case("SIG-19")
def test_metadata_are_bounded_though_a_larger_length_was_signed(here: Desk) -> None:
    here.sim.timestamp.snapshot_meta = MetaFile(2, length=10**12)
    here.sim.timestamp.version += 1
    here.sim.put("timestamp")
    endless("/metadata/2.snapshot.json")(here.sim)
    assert here.refused() == "repository.too-large"


@pytest.mark.case("SIG-06", "SIG-17")
@pytest.mark.parametrize(
    "other",
    [capsule("1.1.0"), capsule("1.2.0", "acme.other"), b"no capsule"],
    ids=["another version", "another plugin", "no capsule"],
)
def test_wrong_software_in_a_right_name_is_refused(here: Desk, other: bytes) -> None:
    """The targets' key is stolen, or errs: the capsule itself must be what its target is called."""
    here.sim.offer(other, PATH)
    here.sim.step()
    release = here.release()
    assert here.refused(lambda: here.client().fetch(release)) == "repository.identity"


@pytest.mark.case("SIG-06")
def test_a_release_that_became_another_file_is_refused(here: Desk) -> None:
    release = here.release()
    assert here.client().fetch(release) == CAPSULE
    here.sim.offer(signed(members={**FILES, "README.md": b"# Another"}), PATH)
    here.sim.step()
    assert here.refused(lambda: here.client().fetch(release)) == "repository.changed"
    del here.sim.targets.targets[PATH]
    here.sim.step()
    assert here.refused(lambda: here.client().fetch(release)) == "repository.unknown"


@pytest.mark.case("SIG-06")
@pytest.mark.parametrize(
    "custom",
    [
        {"id": "acme.weather", "version": "9.9.9", "published": "2026-01-01T00:00:00Z"},
        {"id": "acme.other", "version": "1.2.0", "published": "2026-01-01T00:00:00Z"},
        {"id": "acme.weather", "version": "1.2.0", "published": "yesterday"},
        {"id": "acme.weather", "version": "1.2.0"},
        {"id": "acme.weather", "version": "1.2.0", "published": "2026-01-01T00:00:00Z", "x": 1},
        "1.2.0",
    ],
)
def test_what_is_said_of_a_target_must_be_of_that_target(here: Desk, custom: Any) -> None:
    here.sim.offer(CAPSULE, PATH, {"capwasm": custom})
    here.sim.step()
    assert here.refused(here.release) == "repository.metadata"


def test_a_target_without_sha256_is_refused(here: Desk) -> None:
    here.sim.targets.targets[PATH] = TargetFile.from_data(PATH, CAPSULE, ["sha512"])
    here.sim.step()
    assert here.refused(here.release) == "repository.metadata"


# -- delegations -----------------------------------------------------------------------------------


def test_a_delegated_role_speaks_for_its_plugins(here: Desk) -> None:
    here.sim.delegate("acme", "acme.*/*/*")
    data = capsule("2.0.0")
    here.sim.offer(data, target_path("acme.weather", "2.0.0"), role="acme")
    here.sim.step()
    found = here.client().releases("acme.weather")
    assert [r.version for r in found] == ["1.2.0", "2.0.0"]
    assert here.client().fetch(found[-1]) == data
    here.away()
    assert [r.version for r in here.client().releases("acme.weather")] == ["1.2.0", "2.0.0"]


@pytest.mark.case("SIG-17")
def test_a_delegated_role_speaks_for_no_others(here: Desk) -> None:
    here.sim.delegate("corp", "corp.*/*/*")
    here.sim.offer(capsule("2.0.0"), target_path("acme.weather", "2.0.0"), role="corp")
    here.sim.step()
    assert [r.version for r in here.client().releases("acme.weather")] == ["1.2.0"]
    changed = Release("acme.weather", "2.0.0", "0" * 64, 1, None, "")
    assert here.refused(lambda: here.client().fetch(changed)) == "repository.unknown"


@pytest.mark.case("SIG-17")
def test_a_role_above_wins_over_the_one_that_it_delegates_to(here: Desk) -> None:
    here.sim.delegate("acme", "acme.*/*/*")
    here.sim.offer(b"another", PATH, role="acme")
    here.sim.step()
    assert here.client().fetch(here.release()) == CAPSULE


@pytest.mark.case("SIG-15", "SIG-18")
def test_a_delegated_role_is_checked_as_the_others_are(here: Desk) -> None:
    here.sim.delegate("acme", "acme.*/*/*")
    here.sim.step()

    def look() -> object:
        return here.client().releases("acme.weather")

    look()
    for attack, code in (
        (by_stranger("acme"), "repository.signature"),
        (unsigned("acme"), "repository.signature"),
    ):
        attack(here.sim)
        assert here.refused(look) == code
    here.sim.delegated["acme"].expires = BEFORE
    here.sim.step()
    assert here.refused(look) == "repository.expired"
    here.sim.delegated["acme"].expires = LATER
    here.sim.step()
    look()
    here.sim.delegated["acme"].version -= 1
    here.sim.snapshot.version += 1
    here.sim.timestamp.version += 1
    here.sim.publish()
    assert here.refused(look) == "repository.rollback"
