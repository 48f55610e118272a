"""The guides of docs/, run as they stand: each block of Python, TOML and shell, in order."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from capwasm import (
    Policy,
    PrivateKey,
    Runtime,
    parse_manifest,
    read_artifact,
    sign_capsule,
    standard_capabilities,
)
from capwasm.authoring.builders import builder
from capwasm.capsule.pack import pack
from capwasm.cli import capwasm
from capwasm.demo import owner
from capwasm.demo.publisher import publish
from capwasm.demo.service import WeatherService
from capwasm.home import Home
from tests.builds import CACHE, compiled, share

DOCS = Path(__file__).parents[1] / "docs"
TOKEN = "t0p-s3cret"
SERVICE = "https://api.weather.example"
CAPSULE = "demo.weather-1.0.0.capsule"
GUIDES = ("authors", "embedders", "operators")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXIT = re.compile(r"# exit (\S+)\s*$")


def blocks(guide: str) -> list[tuple[str, str]]:
    """The language and the text of each block."""
    return BLOCK.findall((DOCS / f"guide-{guide}.md").read_text(encoding="utf-8"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that a guide is read in."""
    for name in ("CAPWASM_HOME", "CAPWASM_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE / "cli"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def service() -> Iterator[WeatherService]:
    with WeatherService(TOKEN) as service:
        yield service


def shell(text: str) -> None:
    """Run a block, with `capwasm` in this process; `# exit N` at a line's end is what it exits with."""
    for line in text.splitlines():
        wanted = EXIT.search(line)
        words = shlex.split(line, comments=True)
        given = None
        if words[0] == "printf":
            given, words = words[1], words[3:]
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            os.environ[name] = value
        elif words[:2] == ["mkdir", "-m"]:
            Path(words[3]).mkdir(mode=int(words[2], 8))
        else:
            assert words[0] == "capwasm", line
            done = CliRunner().invoke(capwasm, words[1:], input=given)
            code = wanted[1] if wanted else "0"
            assert code == "any" or done.exit_code == int(code), f"{line}\n{done.output}"
            assert done.exit_code in (0, 1), f"{line}\n{done.output}"


def test_the_blocks_are_of_kinds_that_are_run() -> None:
    for guide in GUIDES:
        text = (DOCS / f"guide-{guide}.md").read_text(encoding="utf-8")
        assert {kind for kind, _ in blocks(guide)} <= {"python", "toml", "sh"}
        assert len(blocks(guide)) == text.count("\n```\n") > 0
        assert len(text.splitlines()) <= 250


@pytest.mark.parametrize("guide", GUIDES)
def test_every_link_leads_somewhere(guide: str) -> None:
    text = (DOCS / f"guide-{guide}.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert [link for link in links if not (DOCS / link).exists()] == []


def test_the_guide_for_embedders(place: Path, service: WeatherService) -> None:
    home, reports = Home(place / "home"), place / "reports"
    home.root.mkdir(mode=0o700)
    reports.mkdir()
    share(compiled(), home.root / "cache")
    key = PrivateKey.generate()
    capsule = publish(place / CAPSULE, key, service.origin)
    owner.trust(home, key.public)
    owner.allow(home, service.origin, reports)
    owner.keep_secret(home, "weather-token", TOKEN)
    with Runtime.open(home.root, core_version="1.0.0") as runtime:
        owner.consent(runtime, capsule, who="tester")

    names: dict[str, object] = {"__name__": "guide", "ORIGIN": service.origin}
    try:
        for number, (_, text) in enumerate(blocks("embedders")):
            exec(compile(text, f"guide-embedders.md, block {number}", "exec"), names)
    finally:
        names["runtime"].close()  # type: ignore[attr-defined]
    share(home.root / "cache", compiled())


def test_the_guide_for_operators(
    place: Path, service: WeatherService, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, reports = PrivateKey.generate(), place / "reports"
    reports.mkdir()
    publish(place / CAPSULE, key, service.origin)
    (place / "demo.weather-1.1.0.capsule").write_bytes(newer(key, service.origin))
    monkeypatch.setenv("CAPWASM_HOME", "")
    capabilities = standard_capabilities()
    for kind, text in blocks("operators"):
        if kind == "sh":
            shell(text)
            continue
        name = text.split()[1].rstrip(":")
        said = text.replace(SERVICE, service.origin).replace("/srv/reports", str(reports))
        said = re.sub(r'public = ".*"', f'public = "{key.public.base64()}"', said)
        (place / name).touch(mode=0o600)
        (place / name).write_text(said)
        if "policy" in text.partition("\n")[0]:
            Policy.load(place / name, capabilities)
    assert [visit.authorized for visit in service.visits] == [True]


def newer(key: PrivateKey, origin: str) -> bytes:
    """The demo's plugin, one version on."""
    here = resources.files("capwasm.demo")
    manifest = (here / "plugin.toml").read_text(encoding="utf-8")
    manifest = manifest.replace("http://127.0.0.1:8973", origin).replace('"1.0.0"', '"1.1.0"')
    code = (here / "weather.wasm").read_bytes()
    packed = pack({"plugin.toml": manifest.encode(), "plugin.wasm": code})
    return sign_capsule(read_artifact(packed), key)


def test_the_guide_for_authors(place: Path) -> None:
    lacking = [tool for tool in builder("rust").tools() if tool.found is None]
    if lacking:
        pytest.skip("; ".join(f"{tool.name}: {tool.install}" for tool in lacking))
    for kind, text in blocks("authors"):
        if kind == "sh":
            shell(text)
        elif kind == "toml":
            asked = parse_manifest(text.encode(), standard_capabilities())
            written = (place / "greeter/plugin.toml").read_bytes()
            assert asked.requests == parse_manifest(written, standard_capabilities()).requests
        else:
            (place / "greeter" / text.split()[1]).write_text(text)
            shell("capwasm test greeter")
    shutil.rmtree(place / "greeter")
