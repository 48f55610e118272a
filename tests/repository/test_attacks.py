"""The attacks that TUF names, each by a real server, each as a row; and the way out of each.

The rows follow the tables of python-tuf's own tests and of the conformance suite for TUF's clients.
"Extraneous dependencies" has no row: a capsule has no dependencies, it is whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from capwasm.repository.layout import target_path
from tests.caps.net.servers import http, redirect

from .attacks import (
    STAMP,
    another_type,
    answering,
    back,
    by_role,
    by_stranger,
    dripping,
    endless,
    expired,
    forgotten,
    mended,
    mixed,
    named_as,
    older,
    other_content,
    renewed,
    served,
    signed_twice,
    too_long,
    unbound,
    unsigned,
)
from .simulator import (
    BEFORE,
    CAPSULE,
    LATER,
    PATIENT,
    QUICK,
    Desk,
    Simulator,
    capsule,
    clock_of_tuf,
)


@dataclass(frozen=True)
class Row:
    """What the attacker serves after the client has seen version 2 of all, and what comes of it."""

    attack: Callable[[Simulator], object]
    code: str
    cases: tuple[str, ...]
    owner: Callable[[Simulator], object] = Simulator.step
    """What the owner does about it, after which all is well."""


ROWS: dict[str, Row] = {
    # -- rollback
    "rollback of the timestamp": Row(older("timestamp"), "repository.rollback", ("SIG-15",), back),
    "rollback of the snapshot": Row(older("snapshot"), "repository.rollback", ("SIG-15",), back),
    "rollback of the targets": Row(older("targets"), "repository.rollback", ("SIG-15",), back),
    "a role is forgotten": Row(forgotten, "repository.metadata", ("SIG-15",), back),
    # -- indefinite freeze
    "freeze: timestamp": Row(expired("timestamp"), "repository.expired", ("SIG-16",), renewed),
    "freeze: snapshot": Row(expired("snapshot"), "repository.expired", ("SIG-16",), renewed),
    "freeze: targets": Row(expired("targets"), "repository.expired", ("SIG-16",), renewed),
    # -- mix and match
    "mix: old snapshot": Row(mixed("snapshot"), "repository.mismatch", ("SIG-17",)),
    "mix: old targets": Row(mixed("targets"), "repository.mismatch", ("SIG-17",)),
    "mix: other snapshot": Row(other_content("snapshot"), "repository.mismatch", ("SIG-17",)),
    "mix: other targets": Row(other_content("targets"), "repository.mismatch", ("SIG-17",)),
    "mix: old snapshot, no hashes": Row(
        unbound(mixed("snapshot")), "repository.rollback", ("SIG-17",)
    ),
    "mix: old targets, no hashes": Row(
        unbound(mixed("targets")), "repository.rollback", ("SIG-17",)
    ),
    # -- arbitrary metadata
    **{
        f"{what}: {role}": Row(how(role), "repository.signature", ("SIG-18",))
        for role in ("timestamp", "snapshot", "targets")
        for what, how in {
            "unsigned": unsigned,
            "by a stranger": by_stranger,
            "by a stranger in the key's name": named_as,
        }.items()
    },
    "targets by the timestamp's key": Row(
        by_role("targets", "timestamp"), "repository.signature", ("SIG-18",)
    ),
    "snapshot by the timestamp's key": Row(
        by_role("snapshot", "timestamp"), "repository.signature", ("SIG-18",)
    ),
    "another type of metadata": Row(another_type, "repository.metadata", ("SIG-09", "SIG-17")),
    "one signature twice": Row(signed_twice, "repository.metadata", ("SIG-12",)),
    "no JSON": Row(served(STAMP, b"\xff"), "repository.metadata", ("SIG-17",)),
    "deep JSON": Row(served(STAMP, b"[" * 16_000), "repository.metadata", ("SIG-19",)),
    "a number of 16,000 digits": Row(
        served(STAMP, b'{"signed": ' + b"9" * 16_000 + b"}"), "repository.metadata", ("SIG-19",)
    ),
    # -- endless data, slow retrieval
    **{
        f"too long: {role}": Row(too_long(role), "repository.too-large", ("SIG-19",))
        for role in ("timestamp", "snapshot", "targets")
    },
    "endless: timestamp": Row(endless(STAMP), "repository.too-large", ("SIG-19",), mended),
    "endless: root": Row(
        endless("/metadata/2.root.json"), "repository.too-large", ("SIG-19",), mended
    ),
    "slow: timestamp": Row(dripping(STAMP), "repository.timeout", ("SIG-19",), mended),
    "slow: root": Row(dripping("/metadata/2.root.json"), "repository.timeout", ("SIG-19",), mended),
    # -- the server itself
    "redirected": Row(
        answering(STAMP, redirect("http://127.0.0.1:1/")), "repository.status", ("SIG-17",), mended
    ),
    "broken": Row(answering(STAMP, http(b"", 500)), "repository.status", ("SIG-16",), mended),
    "no timestamp": Row(answering(STAMP, http(b"", 404)), "repository.status", ("SIG-16",), mended),
    "root withheld by an error": Row(
        answering("/metadata/2.root.json", http(b"", 500)),
        "repository.status",
        ("SIG-16", "SIG-18"),
        mended,
    ),
}


@pytest.mark.parametrize(
    "row", [pytest.param(r, id=n, marks=pytest.mark.case(*r.cases)) for n, r in ROWS.items()]
)
def test_refuses(here: Desk, row: Row) -> None:
    here.sim.step()
    seen = here.refresh()
    row.attack(here.sim)
    here.patience = QUICK if row.code == "repository.timeout" else PATIENT
    assert here.refused() == row.code
    # What was refused was not taken in on the way: what is trusted is still of the owner.
    assert here.cached("targets").version == seen["targets"]
    assert here.refused() == row.code
    row.owner(here.sim)
    here.patience = PATIENT
    assert here.refresh()["timestamp"] >= seen["timestamp"]
    assert here.client().fetch(here.release()) == CAPSULE


@pytest.mark.case("SIG-15", "SIG-16")
def test_the_same_again_is_no_attack(here: Desk) -> None:
    assert here.refresh() == here.refresh()


@pytest.mark.case("SIG-15")
def test_a_timestamp_that_expired_still_keeps_older_ones_out(
    here: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = here.sim.files[STAMP]
    here.sim.timestamp.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    here.sim.step()
    here.refresh()
    clock_of_tuf(monkeypatch, timedelta(hours=3))
    assert here.refused() == "repository.expired"
    here.sim.files[STAMP] = before
    assert here.refused() == "repository.rollback"


@pytest.mark.case("SIG-15")
def test_versions_seen_in_an_update_that_failed_are_a_floor_too(here: Desk) -> None:
    here.refresh()
    before = here.sim.files[STAMP]
    here.sim.step()
    good = here.sim.files.pop("/metadata/2.targets.json")
    assert here.refused() == "repository.status"
    here.sim.files[STAMP] = before
    assert here.refused() == "repository.rollback"
    here.sim.put("timestamp")
    here.sim.files["/metadata/2.targets.json"] = good
    assert here.refresh()["targets"] == 2


# -- fast-forward, and the way back ----------------------------------------------------------------

FAR = 2**31 - 2


@pytest.mark.case("SIG-17")
@pytest.mark.parametrize("roles", [("timestamp",), ("timestamp", "snapshot")])
def test_fast_forward_is_recovered_from_by_new_keys(here: Desk, roles: tuple[str, ...]) -> None:
    here.refresh()
    versions = {role: getattr(here.sim, role).version for role in roles}
    for role in roles:
        getattr(here.sim, role).version = FAR
    here.sim.publish()
    assert here.refresh()["timestamp"] == FAR
    # The owner goes on from where he was: by the old keys nobody hears him...
    for role in roles:
        getattr(here.sim, role).version = versions[role] + 1
    here.sim.publish()
    assert here.refused() == "repository.rollback"
    # ... by a new key for each role whose key was stolen, everybody does.
    for role in roles:
        here.sim.rotate(role)
    here.sim.publish()
    assert here.refresh()["timestamp"] == versions["timestamp"] + 1


@pytest.mark.case("SIG-17")
def test_fast_forward_of_targets_is_recovered_from_by_a_new_snapshot_key(here: Desk) -> None:
    here.sim.targets.version = FAR
    here.sim.publish()
    assert here.refresh()["targets"] == FAR
    here.sim.targets.version = 2
    here.sim.snapshot.version += 1
    here.sim.timestamp.version += 1
    here.sim.publish()
    assert here.refused() == "repository.rollback"
    here.sim.rotate("snapshot")
    here.sim.rotate("timestamp")
    here.sim.publish()
    assert here.refresh()["targets"] == 2


# -- roots -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewRoot:
    """A second root that is offered; `code` is why it is refused."""

    make: Callable[[Simulator], bytes]
    code: str


def root_by(*signers: str, version: int = 2, threshold: int = 1) -> Callable[[Simulator], bytes]:
    """Signed by the `old` key, by the `new` one that it names, or by a `stranger`."""

    def make(sim: Simulator) -> bytes:
        keys = {
            "old": sim.signers["root"][0],
            "new": CryptoSigner.generate_ed25519(),
            "stranger": CryptoSigner.generate_ed25519(),
        }
        root = Root.from_dict(json.loads(sim.first_root)["signed"])
        root.revoke_key(keys["old"].public_key.keyid, "root")
        root.add_key(keys["new"].public_key, "root")
        root.version = version
        root.roles["root"].threshold = threshold
        return sim.sign(root, [keys[name] for name in signers])

    return make


def root_with(key: Any) -> Callable[[Simulator], bytes]:
    """A true root, that makes a strange key the timestamp's."""

    def make(sim: Simulator) -> bytes:
        root = Root.from_dict(json.loads(sim.first_root)["signed"])
        root.version = 2
        data = json.loads(sim.sign(root, []))
        signed = data["signed"]
        signed["keys"]["strange"] = key
        signed["roles"]["timestamp"]["keyids"].append("strange")
        again = Metadata[Root].from_bytes(json.dumps(data).encode())
        again.sign(sim.signers["root"][0])
        return again.to_bytes()

    return make


def the_same_key_again(sim: Simulator) -> bytes:
    return root_with(sim.signers["timestamp"][0].public_key.to_dict())(sim)


def unknown_algorithm(sim: Simulator) -> bytes:
    document = json.loads(root_with(sim.signers["root"][0].public_key.to_dict())(sim))
    document["signed"]["keys"]["strange"]["scheme"] = "none"
    return json.dumps(document).encode()


SMALL_ORDER = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "01" + "00" * 31}}
RSA = CryptoSigner.generate_rsa(size=2048).public_key.to_dict()
P384 = CryptoSigner.generate_ecdsa(scheme="ecdsa-sha2-nistp384").public_key.to_dict()
ROOTS: dict[str, NewRoot] = {
    "not signed by the old key": NewRoot(root_by("new"), "repository.signature"),
    "not signed by the new key": NewRoot(root_by("old"), "repository.signature"),
    "by a stranger": NewRoot(root_by("new", "stranger"), "repository.signature"),
    "below its own threshold": NewRoot(root_by("old", "new", threshold=2), "repository.signature"),
    "the same version": NewRoot(root_by("old", "new", version=1), "repository.rollback"),
    "a version is left out": NewRoot(root_by("old", "new", version=3), "repository.rollback"),
    "an RSA key": NewRoot(root_with(RSA), "repository.key"),
    "a key of another curve": NewRoot(root_with(P384), "repository.key"),
    "a key of small order": NewRoot(root_with(SMALL_ORDER), "repository.key"),
    "one key under two ids": NewRoot(the_same_key_again, "repository.key"),
    "an unknown algorithm": NewRoot(unknown_algorithm, "repository.metadata"),
}


@pytest.mark.case("SIG-18", "SIG-11", "SIG-12", "SIG-13")
@pytest.mark.parametrize("row", ROOTS.values(), ids=ROOTS)
def test_refuses_a_root(here: Desk, row: NewRoot) -> None:
    here.refresh()
    here.sim.files["/metadata/2.root.json"] = row.make(here.sim)
    assert here.refused() == row.code
    assert here.refused() == row.code
    # It was not even remembered: a true one takes its place.
    here.sim.new_root()
    here.sim.step()
    assert here.refresh()["root"] == 2


@pytest.mark.case("SIG-18")
def test_allows_roots_one_after_the_other(here: Desk) -> None:
    here.refresh()
    for _ in range(3):
        here.sim.rotate("root")
    here.sim.rotate("root", count=3, threshold=2)
    assert here.refresh()["root"] == 5
    here.sim.asked.clear()
    assert here.refresh()["root"] == 5  # each time from the first root on; those known are at hand
    assert here.sim.asked == ["6.root.json", "timestamp.json"]


@pytest.mark.case("SIG-18")
def test_a_root_that_expired_on_the_way_is_passed_and_the_last_one_counts(here: Desk) -> None:
    here.sim.root.expires = BEFORE
    here.sim.new_root()
    assert here.refused() == "repository.expired"
    here.sim.root.expires = LATER
    here.sim.new_root()
    assert here.refresh()["root"] == 3


@pytest.mark.case("SIG-18")
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_revoked_key_counts_no_more(here: Desk, role: str) -> None:
    here.refresh()
    stolen = here.sim.rotate(role)
    here.sim.step()
    assert here.refresh()["root"] == 2
    honest, here.sim.signers[role] = here.sim.signers[role], stolen
    here.sim.step()
    assert here.refused() == "repository.signature"
    here.sim.signers[role] = honest
    here.sim.step()
    here.refresh()


@pytest.mark.case("SIG-18")
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_what_is_cached_is_judged_by_the_keys_of_today(here: Desk, role: str) -> None:
    """A key was revoked: what it signed is trusted no more, though it was, and lies in the cache."""
    here.refresh()
    here.sim.rotate(role)
    assert here.refused() == "repository.signature"
    here.away()
    assert here.refused() in {"repository.signature", "repository.unreachable"}


@pytest.mark.case("SIG-18")
def test_a_revocation_is_remembered_though_the_rest_was_refused(here: Desk) -> None:
    here.refresh()
    stolen = here.sim.rotate("timestamp")
    here.sim.files[STAMP] = b"{}"
    assert here.refused() == "repository.metadata"
    # The attacker hides the new root and signs with the old key.
    del here.sim.files["/metadata/2.root.json"]
    here.sim.signers["timestamp"] = stolen
    here.sim.step()
    assert here.refused() == "repository.signature"


@pytest.mark.case("SIG-18")
def test_a_cache_cannot_speak_for_itself(here: Desk) -> None:
    """Whoever could write a root into the cache wins nothing: all begins with the operator's."""
    here.refresh()
    other = Simulator()
    with other.origin:
        [generation] = (here.folder / "main").glob("g*")
        other.new_root()
        for name in ("1.root.json", "2.root.json"):
            (generation / "root_history" / name).write_bytes(other.files[f"/metadata/{name}"])
        (generation / "timestamp.json").write_bytes(other.files[STAMP])
    assert here.refresh() == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}


# -- compromise below a threshold ------------------------------------------------------------------


@pytest.mark.case("SIG-12", "SIG-18")
@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_keys_below_the_threshold_can_do_nothing(here: Desk, role: str) -> None:
    here.sim.rotate(role, count=3, threshold=2)
    here.sim.step()
    here.refresh()
    honest = here.sim.signers[role]
    here.sim.signers[role] = [honest[0], CryptoSigner.generate_ed25519()]
    if role == "root":
        here.sim.new_root()
    here.sim.step()
    assert here.refused() == "repository.signature"
    here.sim.signers[role] = honest[1:]  # two of three are enough
    if role == "root":
        here.sim.put_root()
    here.sim.step()
    here.refresh()


@pytest.mark.case("SIG-17", "SIG-18")
def test_online_keys_alone_bring_no_capsule_in(here: Desk) -> None:
    """Timestamp and snapshot are stolen; what is installed is the targets' key's to say."""
    here.refresh()
    evil = capsule("9.0.0")
    here.sim.offer(evil, target_path("acme.weather", "9.0.0"))
    honest = here.sim.signers["targets"]
    here.sim.signers["targets"] = here.sim.signers["snapshot"]
    here.sim.step()
    assert here.refused(lambda: here.client().releases("acme.weather")) == "repository.signature"
    here.sim.signers["targets"] = honest
