"""Capsules by digest: what is handed out was hashed again, and what is wrong is put aside."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import RegistryError
from capwasm.registry.registry import Registry
from capwasm.registry.store import Store
from tests.registry.shop import ID, Shop, capsule

WHO: dict[str, Any] = {"who": "ann"}


@pytest.fixture
def registry(shop: Shop) -> Registry:
    return shop.registry()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o400)


def truncate(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size // 2)
    path.chmod(0o400)


def empty(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, 0)
    path.chmod(0o400)


def link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o400)


def another(path: Path) -> None:
    path.unlink()
    path.write_bytes(capsule("0.0.1"))
    path.chmod(0o400)


DAMAGES = [flip, truncate, empty, link, fifo, another]


def test_allows_a_capsule_to_be_put_and_got(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    digest = store.put(b"capsule")

    assert digest == hashlib.sha256(b"capsule").hexdigest()
    assert store.get(digest) == b"capsule"
    assert store.put(b"capsule") == digest
    path = store.path(digest)
    assert path == tmp_path / "store/sha256" / digest[:2] / f"{digest}.capsule"
    assert path.stat().st_mode & 0o777 == 0o400
    assert all(p.stat().st_mode & 0o777 == 0o700 for p in path.parents[:3])
    assert store.verify().sound == {digest}


@pytest.mark.parametrize("name", ["", "../x", "A" * 64, "a" * 63, "a" * 64 + "/", "é" * 64])
def test_refuses_what_is_no_digest(tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="no digest"):
        Store(tmp_path).get(name)


@pytest.mark.case("PER-03")
@pytest.mark.parametrize("damage", DAMAGES)
def test_refuses_a_damaged_capsule_puts_it_aside_and_takes_it_again(
    registry: Registry, damage: Callable[[Path], None]
) -> None:
    registry.install(capsule(), **WHO)
    record = registry.show(ID).versions[0]
    damage(registry.store.path(record.bundle))

    with pytest.raises(RegistryError) as caught:
        registry.serving(ID)
    assert caught.value.code == "registry.bundle"
    problems = registry.verify().problems
    assert any("moved aside" in p for p in problems)
    assert any(f"the capsule of {ID}@1.0.0 is gone" in p for p in problems)
    assert len(list((registry.root / "store/quarantine").iterdir())) == 1
    assert registry.install(capsule(), **WHO).action == "unchanged"
    assert registry.verify().problems == ()
    assert registry.serving(ID)[1] == record


@pytest.mark.case("PER-03")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_capsule_is_replaced_by_the_install_itself(
    registry: Registry, damage: Callable[[Path], None]
) -> None:
    registry.install(capsule(), **WHO)
    damage(registry.store.path(registry.show(ID).versions[0].bundle))

    registry.install(capsule(), **WHO)
    assert registry.serving(ID)


@pytest.mark.case("SIG-23", "PER-03")
def test_refuses_a_capsule_in_anothers_place(registry: Registry) -> None:
    registry.install(capsule("1.0.0"), **WHO)
    registry.install(capsule("1.1.0"), **WHO)
    old, new = (registry.store.path(v.bundle) for v in registry.show(ID).versions)
    new.unlink()
    os.link(old, new)

    with pytest.raises(RegistryError) as caught:
        registry.serving(ID)
    assert caught.value.code == "registry.bundle"
    new.rename(new.parent.parent / old.parent.name / new.name)
    assert len(registry.verify().problems) == 2


@pytest.mark.case("SIG-25")
def test_refuses_a_capsule_that_others_may_write(registry: Registry) -> None:
    registry.install(capsule(), **WHO)
    registry.store.path(registry.show(ID).versions[0].bundle).chmod(0o622)

    with pytest.raises(RegistryError) as caught:
        registry.serving(ID)
    assert caught.value.code == "registry.permissions"


def test_collects_what_nobody_refers_to_and_nothing_else(registry: Registry) -> None:
    registry.install(capsule("1.0.0"), **WHO)
    registry.install(capsule("1.1.0"), **WHO)
    orphan = registry.store.put(b"nobody's")
    litter = registry.store.path(orphan).with_name(".x.tmp")
    young = registry.store.path(orphan).with_name(".y.tmp")
    for path in (litter, young):
        path.write_text("half")
    os.utime(litter, (0, 0))

    assert registry.verify().orphans == (orphan,)
    assert registry.collect() == (1, 8)
    assert (litter.exists(), young.exists()) == (False, True)
    assert registry.collect() == (0, 0)
    assert registry.verify().capsules == 2
    registry.remove(ID, **WHO)
    assert registry.collect()[0] == 2


def test_collecting_where_nothing_was_ever_kept(registry: Registry, shop: Shop) -> None:
    assert registry.collect() == (0, 0)
    assert shop.files() == set()


@pytest.mark.case("PER-06")
def test_an_install_whose_capsule_was_collected_meanwhile_stores_it_again(
    registry: Registry, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.install(capsule("1.0.0"), **WHO)
    put = Store.put
    collected = []

    def and_collect(store: Store, data: bytes) -> str:
        digest = put(store, data)
        if not collected:
            collected.append(shop.registry().collect())
        return digest

    monkeypatch.setattr(Store, "put", and_collect)
    registry.install(capsule("1.1.0"), **WHO)

    assert collected[0][0] == 1
    assert registry.serving(ID)[0].version == "1.1.0"
