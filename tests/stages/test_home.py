"""The home directory: what of it must be out of every plugin's reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from capwasm.errors import CapabilityError, PolicyError
from capwasm.home import Home
from tests.kit import World

FS = '[[fs]]\nmount = "/data"\nbind = "notes"\naccess = "read-write"\n'
ALLOW = '[[plugins."*".fs]]\nmount = "/data"\nbind = "notes"\npath = "{}"\naccess = "read-write"\n'


@pytest.mark.case("FS-21", "LOG-10")
@pytest.mark.parametrize("link", ["audit", "policy.toml", "consents", "trust/acme.toml"])
def test_refuses_a_grant_over_what_a_link_in_the_home_leads_to(tmp_path: Path, link: str) -> None:
    world = World(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    world.policy(ALLOW.format(elsewhere))
    name, target = world.home / link, elsewhere / Path(link).name
    if name.exists():
        name.rename(target)
    elif link.startswith("trust/"):
        name.parent.mkdir()
        (world.home / "trust.toml").rename(target)
    else:
        target.mkdir(mode=0o700)
    name.symlink_to(target)

    with pytest.raises(CapabilityError) as caught:
        world.prober(FS)
    assert "which is the runtime's own" in str(caught.value)
    world.close()


@pytest.mark.case("FS-21")
def test_allows_a_grant_beside_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "beside").mkdir()
    world.policy(ALLOW.format(tmp_path / "beside"))
    prober = world.prober(FS)
    prober("fs.write", "/data/x", "hello")
    assert (tmp_path / "beside" / "x").read_text() == "hello"
    world.close()


def test_refuses_two_trust_stores(tmp_path: Path) -> None:
    place = Home(tmp_path)
    (tmp_path / "trust").mkdir()
    assert place.trust() is not None
    (tmp_path / "trust.toml").write_text("schema = 1\n")
    with pytest.raises(PolicyError) as caught:
        place.trust()
    assert caught.value.code == "trust.invalid"
    assert caught.value.faults[0].fix
