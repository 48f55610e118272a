"""All repositories as one source: each plugin has one, whatever the others offer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.errors import RepositoryError
from capwasm.registry.model import Release
from capwasm.repository.config import load
from capwasm.repository.layout import target_path
from capwasm.repository.sources import Sources
from tests.helpers import ListRecorder

from .simulator import CAPSULE, Desk, capsule, desk


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Desk, Desk, Path]]:
    """Our own repository, and a public one that offers a newer version of our plugin."""
    for name in ("ours", "public"):
        (tmp_path / name).mkdir()
    with desk(tmp_path / "ours") as ours, desk(tmp_path / "public") as public:
        public.sim.offer(capsule("9.0.0"), target_path("acme.weather", "9.0.0"))
        public.sim.offer(capsule("1.0.0", "corp.tool"), target_path("corp.tool", "1.0.0"))
        public.sim.step()
        lines = ["schema = 1"]
        for name, place, ids in (("ours", ours, '["acme.*"]'), ("public", public, '["*"]')):
            (tmp_path / f"{name}.json").write_bytes(place.root)
            lines += ["[[repository]]", f'name = "{name}"', f'url = "{place.sim.url}/"']
            lines += [f'root = "{name}.json"', f"ids = {ids}"]
        file = tmp_path / "repositories.toml"
        file.write_text("\n".join(lines))
        yield ours, public, file


def code_of(act: object) -> str:
    assert callable(act)
    with pytest.raises(RepositoryError) as caught:
        act()
    return caught.value.code


@pytest.mark.case("SIG-26")
def test_a_stranger_cannot_offer_a_higher_version_of_our_plugin(
    two: tuple[Desk, Desk, Path], tmp_path: Path
) -> None:
    ours, public, file = two
    sources = Sources.load(file, tmp_path / "tuf")
    found = sources.releases("acme.weather")
    assert [(r.version, r.source) for r in found] == [("1.2.0", "repository ours")]
    assert sources.fetch(found[0]) == CAPSULE
    assert [r.version for r in sources.releases("corp.tool")] == ["1.0.0"]
    assert [r.version for r in public.client().releases("acme.weather")] == ["1.2.0", "9.0.0"]
    # Nor when ours is away, or its answer is refused.
    public.sim.asked.clear()
    ours.sim.files["/metadata/timestamp.json"] = b"{}"
    again = Sources.load(file, tmp_path / "tuf")
    assert code_of(lambda: again.releases("acme.weather")) == "repository.metadata"
    assert public.sim.asked == []


def test_refuses_what_another_repository_promised(
    two: tuple[Desk, Desk, Path], tmp_path: Path
) -> None:
    sources = Sources.load(two[2], tmp_path / "tuf")
    promised = Release("acme.weather", "9.0.0", "0" * 64, 1, None, "repository public")
    assert code_of(lambda: sources.fetch(promised)) == "repository.changed"


def test_one_that_fails_does_not_keep_the_others(
    two: tuple[Desk, Desk, Path], tmp_path: Path
) -> None:
    ours, _, file = two
    ours.sim.files["/metadata/timestamp.json"] = b"{}"
    recorder = ListRecorder()
    found = Sources.load(file, tmp_path / "tuf", recorder=recorder).refresh()
    assert isinstance(found["ours"], RepositoryError)
    assert not isinstance(found["public"], RepositoryError)
    assert [e.verdict for e in recorder.events] == ["denied", "allowed"]


def test_many_plugins_are_one_look_at_each_repository(
    two: tuple[Desk, Desk, Path], tmp_path: Path
) -> None:
    ours, public, file = two
    public.sim.offer(capsule("2.0.0", "corp.tool"), target_path("corp.tool", "2.0.0"))
    public.sim.step()
    found = Sources.load(file, tmp_path / "tuf").offers(["acme.weather", "corp.tool", "corp.none"])
    versions = {
        i: [r.version for r in rs] for i, rs in found.items() if not isinstance(rs, Exception)
    }
    assert versions == {
        "acme.weather": ["1.2.0"],
        "corp.tool": ["1.0.0", "2.0.0"],
        "corp.none": [],
    }
    assert public.sim.asked.count("timestamp.json") == 1
    ours.sim.files["/metadata/timestamp.json"] = b"{}"
    found = Sources.load(file, tmp_path / "tuf").offers(["acme.weather", "corp.tool"])
    assert isinstance(found["acme.weather"], RepositoryError)
    assert len(found["corp.tool"]) == 2


def test_no_file_is_no_repository(tmp_path: Path) -> None:
    sources = Sources.load(tmp_path / "none.toml", tmp_path / "tuf")
    assert sources.repositories == ()
    with pytest.raises(RepositoryError) as caught:
        sources.releases("acme.weather")
    assert caught.value.code == "repository.unknown"
    assert "capwasm repo trust" in caught.value.faults[0].fix


GOOD = '[[repository]]\nname = "a"\nurl = "https://a.example/"\nroot = "a.json"\nids = ["*"]\n'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "schema = 2\n" + GOOD,
        "schema = 1\n" + GOOD + GOOD,
        "schema = 1\n" + GOOD.replace("https", "http"),
        "schema = 1\n" + GOOD.replace('"*"', '"**"'),
        "schema = 1\n" + GOOD.replace('["*"]', "[]"),
        "schema = 1\n" + GOOD + "x = 1\n",
        "schema = 1\n" + GOOD.replace('name = "a"', 'name = "../a"'),
        "schema = 1\n" + GOOD.replace('root = "a.json"\n', ""),
        "schema = 1\n" + GOOD + 'plain-http = "yes"\n',
        "schema = [",
    ],
)
@pytest.mark.case("MAN-01")
def test_refuses_a_file_with_faults(tmp_path: Path, text: str) -> None:
    path = tmp_path / "repositories.toml"
    path.write_text("schema = 1\n" + GOOD)
    assert load(path)[0].ids == ("*",)
    path.write_text(text)
    assert code_of(lambda: load(path)) == "repository.config"


def test_allows_plain_http_where_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "repositories.toml"
    path.write_text("schema = 1\n" + GOOD.replace("https", "http") + "plain-http = true\n")
    assert load(path)[0].plain_http
