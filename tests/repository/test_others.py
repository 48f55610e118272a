"""Others read what we publish, we read what others publish, and noise is only ever refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.ngclient import Updater

from capwasm.errors import RepositoryError
from capwasm.repository.layout import target_path
from tests.capsules import STORE

from .shop import Shop
from .simulator import CAPSULE, Desk


def test_a_plain_client_of_tuf_reads_what_we_publish(shop: Shop, tmp_path: Path) -> None:
    shop.init()
    shop.offer("1.2.0", CAPSULE)
    shop.publisher.publish(STORE)
    [old] = shop.publisher.status()[3].keys
    shop.publisher.rotate("timestamp", add=[shop.key("new")], remove=[old.key_id])
    shop.publisher.refresh()
    metadata, targets = tmp_path / "m", tmp_path / "t"
    targets.mkdir()
    updater = Updater(
        str(metadata),
        f"{shop.url}/metadata/",
        str(targets),
        f"{shop.url}/targets/",
        bootstrap=(shop.folder / "repo/root.json").read_bytes(),
    )
    updater.refresh()
    info = updater.get_targetinfo(target_path("acme.weather", "1.2.0"))
    assert info is not None
    assert info.custom["capwasm"]["version"] == "1.2.0"
    assert Path(updater.download_target(info)).read_bytes() == CAPSULE


COUNT = itertools.count()
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node)
    found = [path] if path else []
    for key, child in children:
        if isinstance(child, dict | list):
            found += places(child, (*path, key))
        else:
            found.append((*path, key))
    return found


@pytest.mark.case("SIG-17", "SIG-19")
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_a_true_key_signs_it_is_accepted_or_refused_and_nothing_else(
    here: Desk, role: str, data: st.DataObject
) -> None:
    """The worst case: the key is the attacker's, and what it signs is any JSON."""
    sim = here.sim
    name = {"timestamp": "timestamp", "root": "2.root"}.get(role, f"1.{role}")
    path = f"/metadata/{name}.json"
    honest = sim.files.get(path)
    document = json.loads(honest or sim.first_root)
    if role == "root":
        document["signed"]["version"] = 2
    place = data.draw(st.sampled_from(places(document["signed"])))
    node = document["signed"]
    for step in place[:-1]:
        node = node[step]
    if data.draw(st.booleans()):
        node[place[-1]] = data.draw(LEAVES)
    elif isinstance(node, dict):
        del node[place[-1]]
    document["signatures"] = [
        {"keyid": s.public_key.keyid, "sig": s.sign(_canonical(document["signed"])).signature}
        for s in sim.signers[role]
    ]
    sim.files[path] = json.dumps(document).encode()
    sim.hashes = False
    sim.timestamp.snapshot_meta.length = sim.timestamp.snapshot_meta.hashes = None
    for meta in sim.snapshot.meta.values():
        meta.length = meta.hashes = None
    for other in {"timestamp", "snapshot"} - {role}:
        sim.put(other)
    client = here.client(cache=f"cache-{next(COUNT)}")
    try:
        client.releases("acme.weather")
    except RepositoryError:
        pass
    finally:
        if honest is None:
            del sim.files[path]
        else:
            sim.files[path] = honest


def _canonical(signed: Any) -> bytes:
    from securesystemslib.formats import encode_canonical

    try:
        return str(encode_canonical(signed)).encode("utf-8", "surrogatepass")
    except Exception:  # what has no canonical form can't be signed
        return b""
