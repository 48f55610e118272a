"""What an attacker can do to a repository, as functions of the simulator."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import MetaFile

from .simulator import BEFORE, LATER, Simulator

STAMP = "/metadata/timestamp.json"


def older(role: str) -> Callable[[Simulator], None]:
    def attack(sim: Simulator) -> None:
        getattr(sim, role).version -= 1
        if role == "timestamp":
            sim.put(role)
            return
        # The keys of what refers to it are the attacker's too: nothing else would be looked at.
        sim.timestamp.version += 1
        if role == "targets":
            sim.snapshot.version += 1
        sim.publish()

    return attack


def back(sim: Simulator) -> None:
    for role in (sim.timestamp, sim.snapshot, sim.targets):
        role.version = max(role.version, 2) + 1
    sim.publish()


def expired(role: str) -> Callable[[Simulator], None]:
    def attack(sim: Simulator) -> None:
        getattr(sim, role).expires = BEFORE
        sim.step()

    return attack


def renewed(sim: Simulator) -> None:
    for role in (sim.timestamp, sim.snapshot, sim.targets):
        role.expires = LATER
    sim.step()


def unsigned(role: str) -> Callable[[Simulator], None]:
    def attack(sim: Simulator) -> None:
        honest = sim.signers[role]
        sim.signers[role] = []
        sim.step()
        sim.signers[role] = honest

    return attack


def by_stranger(role: str) -> Callable[[Simulator], None]:
    def attack(sim: Simulator) -> None:
        honest = sim.signers[role]
        sim.signers[role] = [CryptoSigner.generate_ed25519()]
        sim.step()
        sim.signers[role] = honest

    return attack


def by_role(role: str, other: str) -> Callable[[Simulator], None]:
    def attack(sim: Simulator) -> None:
        honest = sim.signers[role]
        sim.signers[role] = sim.signers[other]
        sim.step()
        sim.signers[role] = honest

    return attack


def named_as(role: str) -> Callable[[Simulator], None]:
    """A stranger signs in the name of the true key."""

    def attack(sim: Simulator) -> None:
        honest = sim.signers[role]
        key_id = honest[0].public_key.keyid
        sim.signers[role] = [CryptoSigner.generate_ed25519(keyid=key_id)]
        sim.step()
        sim.signers[role] = honest

    return attack


def mixed(role: str) -> Callable[[Simulator], None]:
    """The new timestamp, and under the new name the old file of a role, or one nobody bound."""

    def attack(sim: Simulator) -> None:
        before = sim.files[f"/metadata/{getattr(sim, role).version}.{role}.json"]
        sim.step()
        sim.files[f"/metadata/{getattr(sim, role).version}.{role}.json"] = before

    return attack


def other_content(role: str) -> Callable[[Simulator], None]:
    """Truly signed, of the right version, but not the file that was bound."""

    def attack(sim: Simulator) -> None:
        sim.step()
        getattr(sim, role).expires += timedelta(days=1)
        sim.put(role)

    return attack


def unbound(attack: Callable[[Simulator], None]) -> Callable[[Simulator], None]:
    """The same where only versions bind, without hashes."""

    def both(sim: Simulator) -> None:
        sim.hashes = False
        attack(sim)

    return both


def forgotten(sim: Simulator) -> None:
    """A snapshot that no longer speaks of a role which it spoke of."""
    del sim.snapshot.meta["targets.json"]
    sim.snapshot.meta["other.json"] = MetaFile(9)
    sim.snapshot.version += 1
    sim.timestamp.snapshot_meta = MetaFile(sim.snapshot.version)
    sim.put("snapshot")
    sim.timestamp.version += 1
    sim.put("timestamp")


def served(path: str, data: bytes) -> Callable[[Simulator], None]:
    def attack(sim: Simulator) -> None:
        sim.files[path] = data

    return attack


def another_type(sim: Simulator) -> None:
    """A snapshot, truly signed by the timestamp's key, in the place of a timestamp."""
    sim.files["/metadata/timestamp.json"] = sim.sign(sim.snapshot, sim.signers["timestamp"])


def signed_twice(sim: Simulator) -> None:
    sim.step()
    document = json.loads(sim.files["/metadata/timestamp.json"])
    document["signatures"] *= 2
    sim.files["/metadata/timestamp.json"] = json.dumps(document).encode()


def too_long(role: str) -> Callable[[Simulator], None]:
    def attack(sim: Simulator) -> None:
        sim.step()
        path = "/metadata/timestamp.json"
        if role != "timestamp":
            path = f"/metadata/{getattr(sim, role).version}.{role}.json"
        sim.files[path] += b" " * 40_000_000

    return attack


def endless(path: str) -> Callable[[Simulator], None]:
    def pieces() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 X\r\n\r\n"
        while True:
            yield b" " * 65536

    def attack(sim: Simulator) -> None:
        sim.special[path] = pieces

    return attack


def dripping(path: str) -> Callable[[Simulator], None]:
    def pieces() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 X\r\nContent-Length: 99\r\n\r\n"
        for _ in range(100):
            yield b" "
            time.sleep(0.1)

    def attack(sim: Simulator) -> None:
        sim.special[path] = pieces

    return attack


def answering(path: str, answer: bytes) -> Callable[[Simulator], None]:
    def attack(sim: Simulator) -> None:
        sim.special[path] = lambda: answer

    return attack


def mended(sim: Simulator) -> None:
    sim.special.clear()
    sim.step()
