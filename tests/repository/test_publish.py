"""The release side: what it publishes, clients accept; at each moment, whoever was killed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from capwasm.capsule.keys import PrivateKey, PublicKey
from capwasm.capsule.trust import TrustStore
from capwasm.errors import VerificationError
from capwasm.repository.layout import ROLES, target_path
from capwasm.repository.publish import Publisher
from capwasm.repository.signers import Days, KeyPlace
from capwasm.repository.tree import KEPT
from tests.capsules import FILES, STORE, signed

from .shop import Shop, code_of
from .simulator import CAPSULE, capsule


def test_what_is_published_is_what_consumers_get(shop: Shop) -> None:
    shop.init()
    assert shop.versions() == []
    shop.offer("1.2.0", CAPSULE)
    shop.offer("1.3.0")
    assert shop.versions() == []  # staged is not published
    summary = shop.publisher.publish(STORE)
    assert summary.added == ["acme.weather@1.2.0", "acme.weather@1.3.0"]
    found = shop.client().releases("acme.weather")
    assert [r.version for r in found] == ["1.2.0", "1.3.0"]
    assert found[0].published is not None
    assert abs(found[0].published - datetime.now(UTC)) < timedelta(minutes=5)
    assert shop.client().fetch(found[0]) == CAPSULE
    again = shop.publisher.publish(STORE)
    assert again.added == []
    assert again.versions == summary.versions  # nothing to do, nothing done


def test_a_version_is_for_good(shop: Shop) -> None:
    shop.init()
    shop.offer("1.2.0")
    shop.publisher.publish(STORE)
    other = signed(members={**FILES, "README.md": b"# Another"})
    assert code_of(lambda: shop.offer("1.2.0", other)) == "repository.changed"
    shop.offer("1.2.0")  # the same again is no change
    assert shop.publisher.publish(STORE).added == []
    # Nor does its name become free when it is withdrawn: who has it, has the true one.
    shop.publisher.withdraw("acme.weather", "1.2.0")
    shop.publisher.publish(STORE)
    assert code_of(lambda: shop.offer("1.2.0", other)) == "repository.changed"
    (shop.publisher.staged / "acme.weather@1.2.0.capsule").write_bytes(other)
    assert code_of(lambda: shop.publisher.publish(STORE)) == "repository.changed"
    shop.offer("1.2.0")
    assert shop.publisher.publish(STORE).added == ["acme.weather@1.2.0"]


@pytest.mark.case("SIG-06", "SIG-24")
def test_what_is_not_trusted_is_neither_staged_nor_published(shop: Shop) -> None:
    shop.init()
    stranger = signed(PrivateKey.generate())
    assert code_of(lambda: shop.offer("1.2.0", stranger)) == "verify.untrusted-key"
    # Somebody writes into staged/, or the trust store changed since.
    (shop.publisher.staged / "acme.weather@1.2.0.capsule").write_bytes(stranger)
    with pytest.raises(VerificationError):
        shop.publisher.publish(STORE)
    (shop.publisher.staged / "acme.weather@1.2.0.capsule").write_bytes(capsule("1.1.0"))
    assert code_of(lambda: shop.publisher.publish(STORE)) == "repository.release"
    (shop.publisher.staged / "acme.weather@1.2.0.capsule").unlink()
    shop.offer("1.2.0")
    assert code_of(lambda: shop.publisher.publish(TrustStore.empty())) == "verify.no-trust-store"
    assert shop.versions() == []
    shop.publisher.publish(STORE)
    assert shop.versions() == ["1.2.0"]


def test_what_is_withdrawn_is_offered_no_more(shop: Shop) -> None:
    shop.init()
    shop.offer("1.2.0")
    shop.offer("1.3.0")
    shop.publisher.publish(STORE)
    assert code_of(lambda: shop.publisher.withdraw("acme.weather", "9.0.0")) == "repository.unknown"
    shop.publisher.withdraw("acme.weather", "1.3.0")
    assert shop.publisher.publish(STORE).withdrawn == ["acme.weather@1.3.0"]
    assert shop.versions() == ["1.2.0"]


@pytest.mark.case("SIG-16")
def test_refresh_renews_the_timestamp_and_what_is_past_half_of_its_time(shop: Shop) -> None:
    shop.init(days=Days(timestamp=1, snapshot=10, targets=10))
    before = shop.publisher.status()
    after = shop.publisher.refresh()
    assert after.versions == {"root": 1, "targets": 1, "snapshot": 1, "timestamp": 2}
    text = (shop.folder / "repo/signers.toml").read_text()
    (shop.folder / "repo/signers.toml").write_text(text.replace("targets = 10", "targets = 30"))
    after = shop.publisher.refresh()
    assert after.versions == {"root": 1, "targets": 2, "snapshot": 2, "timestamp": 3}
    assert after.expires["targets"] > before[1].expires + timedelta(days=19)
    assert shop.client().refresh().versions == after.versions


def test_refresh_needs_the_online_keys_alone(shop: Shop) -> None:
    shop.init()
    shop.offer()
    shop.publisher.publish(STORE)
    for role in ("root", "targets"):
        (shop.keys / f"{role}.key").unlink()
    shop.publisher.refresh()
    assert shop.versions() == ["1.2.0"]
    (shop.keys / "timestamp.key").unlink()
    assert code_of(shop.publisher.refresh) == "repository.signer"
    assert shop.versions() == ["1.2.0"]


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.case("SIG-18")
@pytest.mark.parametrize("role", ROLES)
def test_keys_are_rotated_and_consumers_go_on(shop: Shop, role: str) -> None:
    shop.init()
    shop.offer("1.2.0")
    shop.publisher.publish(STORE)
    assert shop.versions() == ["1.2.0"]
    [old] = next(s.keys for s in shop.publisher.status() if s.role == role)
    shop.publisher.rotate(role, add=[shop.key("new")], remove=[old.key_id[:12]])
    (shop.keys / f"{role}.key").unlink()
    shop.offer("1.3.0")
    shop.publisher.publish(STORE)
    shop.publisher.refresh()
    assert shop.versions() == ["1.2.0", "1.3.0"]
    assert shop.versions("another") == ["1.2.0", "1.3.0"]
    assert shop.client().refresh().versions["root"] == 2


@pytest.mark.case("SIG-18")
def test_a_lost_key_is_replaced_without_it(shop: Shop) -> None:
    shop.init()
    [old] = shop.publisher.status()[3].keys
    signers = shop.folder / "repo/signers.toml"
    lines = signers.read_text().split("\n\n")
    public = json.loads((shop.folder / "repo/root.json").read_text())
    assert public["signed"]["roles"]["timestamp"]["keyids"] == [old.key_id]
    gone = PublicKey.load(_pub(shop, "timestamp")).base64()
    signers.write_text("\n\n".join(part for part in lines if gone not in part))
    assert code_of(shop.publisher.refresh) == "repository.signer"
    shop.publisher.rotate("timestamp", add=[shop.key("new")], remove=[old.key_id])
    assert shop.client().refresh().versions["root"] == 2


def _pub(shop: Shop, role: str) -> Path:
    path = shop.folder / f"{role}.pub"
    path.write_bytes(PrivateKey.load(shop.keys / f"{role}.key").public.pem())
    return path


@pytest.mark.case("SIG-12", "SIG-18")
def test_a_threshold_holds(shop: Shop) -> None:
    keys: dict[str, Sequence[KeyPlace]] = {role: [shop.key(role)] for role in ROLES}
    keys["root"] = [shop.key(f"root{i}") for i in range(3)]
    shop.publisher.init(keys, {"root": 2})
    (shop.keys / "root0.key").unlink()
    assert code_of(lambda: shop.publisher.rotate("timestamp", add=[shop.key("new")])) == (
        "repository.signer"  # signers.toml names it, and it is not there
    )
    text = (shop.folder / "repo/signers.toml").read_text().split("\n\n")
    kept = [part for part in text if "root0.key" not in part]
    (shop.folder / "repo/signers.toml").write_text("\n\n".join(kept))
    shop.publisher.rotate("timestamp", add=[shop.key("newer")])
    assert shop.client().refresh().versions["root"] == 2
    kept = [part for part in kept if "root1.key" not in part]
    (shop.folder / "repo/signers.toml").write_text("\n\n".join(kept))
    assert code_of(lambda: shop.publisher.rotate("root")) == "repository.signer"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({"threshold": 2}, "repository.key"),
        ({"threshold": 0}, "repository.key"),
        ({"remove": ["ffff"]}, "repository.unknown"),
        ({"remove": [""]}, "repository.key"),
    ],
)
def test_refuses_a_rotation_that_leaves_too_few(shop: Shop, words: Any, code: str) -> None:
    shop.init()
    assert code_of(lambda: shop.publisher.rotate("timestamp", **words)) == code
    assert shop.publisher.status()[0].version == 1


def test_a_root_is_renewed_before_it_expires(shop: Shop) -> None:
    shop.init()
    shop.publisher.rotate("root")
    assert shop.client().refresh().versions["root"] == 2


def test_an_encrypted_key_asks_for_its_passphrase(shop: Shop) -> None:
    keys = {role: [shop.key(role, passphrase=b"passphrase")] for role in ROLES}
    shop.publisher.init(keys)
    shop.client().refresh()
    other = Publisher(shop.publisher.directory, lambda _: b"wrong")
    assert code_of(other.refresh) == "repository.signer"


@pytest.mark.case("SIG-25")
def test_a_key_that_others_can_read_is_refused(shop: Shop) -> None:
    shop.init()
    (shop.keys / "timestamp.key").chmod(0o644)
    assert code_of(shop.publisher.refresh) == "repository.signer"
    (shop.keys / "timestamp.key").chmod(0o600)
    shop.publisher.directory.chmod(0o777)
    assert code_of(shop.publisher.refresh) == "repository.release"


def test_a_key_may_be_anywhere_that_securesystemslib_reaches(shop: Shop, tmp_path: Path) -> None:
    made = CryptoSigner.generate_ed25519()
    pem = tmp_path / "pem"
    pem.write_bytes(made.private_bytes)
    public = PrivateKey.parse(made.private_bytes).public
    keys = {role: [shop.key(role)] for role in ROLES}
    keys["timestamp"] = [KeyPlace(public, f"file2:{pem}")]
    shop.publisher.init(keys)
    shop.client().refresh()
    assert shop.publisher.status()[3].keys[0].place == f"file2:{pem}"
    pem.write_bytes(CryptoSigner.generate_ed25519().private_bytes)  # another key
    again = Publisher(shop.publisher.directory, lambda _: b"")
    assert code_of(again.refresh) == "repository.signer"
    for uri in ("nothing:x", "hsm:", "file:missing.key"):
        keys["timestamp"] = [KeyPlace(public, uri)]
        shop.publisher._signers_file.write_text(
            f'schema = 1\n[[signer]]\npublic = "{public.base64()}"\nuri = "{uri}"\n'
        )
        assert code_of(again.refresh) == "repository.signer"


# -- what it reads back ----------------------------------------------------------------------------


@pytest.mark.case("SIG-18", "SIG-25")
def test_what_others_wrote_into_the_served_files_is_not_signed(shop: Shop) -> None:
    shop.init()
    shop.offer()
    shop.publisher.publish(STORE)
    metadata = shop.folder / "repo/public/metadata"
    evil = json.loads((metadata / "2.targets.json").read_text())
    path = target_path("acme.weather", "1.2.0")
    evil["signed"]["targets"][path]["hashes"]["sha256"] = "0" * 64
    honest = (metadata / "2.targets.json").read_bytes()
    (metadata / "2.targets.json").write_text(json.dumps(evil))
    for verb in (shop.publisher.refresh, lambda: shop.publisher.publish(STORE)):
        assert code_of(verb).startswith("repository.")
    (metadata / "2.targets.json").write_bytes(honest)
    (metadata / "2.root.json").write_bytes((metadata / "1.root.json").read_bytes())
    assert code_of(shop.publisher.refresh) == "repository.metadata"


def test_refuses_to_begin_twice_or_to_go_on_without_a_beginning(shop: Shop) -> None:
    assert code_of(shop.publisher.refresh) == "repository.release"
    shop.init()
    keys = {role: [shop.key(f"again-{role}")] for role in ROLES}
    assert code_of(lambda: shop.publisher.init(keys)) == "repository.release"


def test_old_versions_stay_for_slow_readers_and_then_go(shop: Shop) -> None:
    shop.init()
    for number in range(KEPT + 3):
        shop.offer(f"1.{number}.0")
        shop.publisher.publish(STORE)
    metadata = shop.folder / "repo/public/metadata"
    for role in ("snapshot", "targets"):
        versions = sorted(int(p.name.split(".")[0]) for p in metadata.glob(f"*.{role}.json"))
        assert versions == list(range(5, KEPT + 5))
    assert (metadata / "1.root.json").exists()
    assert len(shop.versions()) == KEPT + 3
