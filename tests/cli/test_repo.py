"""`capwasm repo`: a repository from nothing to an installed version, by its commands alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.capsule.keys import PrivateKey
from capwasm.cli import capwasm
from capwasm.home import Home
from capwasm.registry.model import Source
from capwasm.repository.layout import ROLES
from tests.capsules import KEY, signed
from tests.helpers import ListRecorder
from tests.repository.shop import serving
from tests.repository.simulator import CAPSULE, capsule


class Shell:
    """`capwasm repo …`, for an owner and a consumer on one machine."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        self.directory = folder / "plugins"
        home.mkdir(mode=0o700)
        (home / "trust.toml").write_text(
            f'schema = 1\n[[key]]\nname = "acme"\npublic = "{KEY.public.base64()}"\n'
            'roles = ["publisher"]\nids = ["acme.*"]\n'
        )

    def __call__(self, *args: object, stdin: str = "") -> Result:
        result = CliRunner().invoke(capwasm, ["repo", *map(str, args)], input=stdin)
        assert result.exit_code in (0, 1, 2), result.output
        return result

    def ok(self, *args: object, stdin: str = "") -> str:
        result = self(*args, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.output

    def json(self, *args: object) -> Any:
        return json.loads(self.ok(*args, "--json"))

    def code(self, *args: object) -> str:
        result = self(*args, "--json")
        assert result.exit_code == 1, result.output
        return str(json.loads(result.stdout)["code"])

    def file(self, version: str = "1.2.0", data: bytes | None = None) -> Path:
        path = self.folder / f"{version}.capsule"
        path.write_bytes(data or capsule(version))
        return path

    def trust(self, url: str, *more: str) -> str:
        root = self.directory / "root.json"
        return self.ok("trust", "main", url, "--root", root, "--ids", "acme.*", *more)


@pytest.fixture
def shell(tmp_path: Path, own_home: Path) -> Shell:
    return Shell(tmp_path, own_home)


@pytest.fixture
def url(shell: Shell) -> Iterator[str]:
    """A repository with one version, served."""
    shell.ok("init", shell.directory)
    shell.ok("add", shell.directory, shell.file("1.2.0", CAPSULE))
    shell.ok("publish", shell.directory)
    with serving(shell.directory / "public") as where:
        yield where


def test_from_nothing_to_a_capsule(shell: Shell, url: str) -> None:
    assert "main" in shell.trust(url)
    [row] = shell.json("list")
    assert row["code"] == "repository.unreachable"  # nothing was asked yet
    [row] = shell.json("sync")
    assert row["versions"] == {"root": 1, "targets": 2, "snapshot": 2, "timestamp": 2}
    found = shell.json("releases", "acme.weather")
    assert [r["version"] for r in found["releases"]] == ["1.2.0"]
    source: Source = Home(shell.home).sources(ListRecorder())
    assert source.fetch(source.releases("acme.weather")[0]) == CAPSULE
    [row] = shell.json("list")
    assert row["offline"]


def test_people_read_tables(shell: Shell, url: str) -> None:
    assert "no repository is trusted" in shell.ok("list")
    assert "capwasm repo sync main" in shell.trust(url)
    assert "never heard" in shell.ok("list")
    assert "good" in shell.ok("sync")
    assert "1.2.0" in shell.ok("releases", "acme.weather")
    assert "offers nothing" in shell.ok("releases", "acme.none")
    assert shell.ok("keys", shell.directory).count("file:keys/") == 4


def test_private_keys_are_private_and_root_is_told_of(shell: Shell) -> None:
    assert "Keep it offline" in shell.ok("init", shell.directory)
    for role in ROLES:
        assert (shell.directory / f"keys/{role}.key").stat().st_mode & 0o777 == 0o600
    assert (shell.directory / "keys").stat().st_mode & 0o777 == 0o700
    assert not list((shell.directory / "public").rglob("*.key"))
    assert shell.code("init", shell.directory) == "repository.release"


def test_keys_of_ones_own_with_a_threshold(shell: Shell) -> None:
    for name in ("a", "b"):
        PrivateKey.generate().save(shell.folder / f"{name}.key", b"passphrase")
    (shell.folder / "pass").write_bytes(b"passphrase\n")
    (shell.folder / "pass").chmod(0o600)
    words = ["--key", "root", shell.folder / "a.key", "--key", "root", shell.folder / "b.key"]
    words += ["--threshold", "root", 2, "--days", "timestamp", 1]
    words += ["--passphrase-file", shell.folder / "pass"]
    shell.ok("init", shell.directory, *words)
    [root, *_] = shell.json("keys", shell.directory)
    assert (root["threshold"], len(root["keys"])) == (2, 2)
    assert shell.code("init", shell.folder / "other", "--threshold", "root", 2) == "repository.key"
    assert shell("init", shell.folder / "third", "--days", "root", 0).exit_code == 2


def test_a_passphrase_is_asked_for_by_name(shell: Shell) -> None:
    PrivateKey.generate().save(shell.folder / "a.key", b"passphrase")
    words = ("init", shell.directory, "--key", "timestamp", shell.folder / "a.key")
    assert f"Passphrase of {shell.folder}/a.key" in shell.ok(*words, stdin="passphrase\n" * 2)
    assert shell("refresh", shell.directory, stdin="wrong\n").exit_code == 1
    assert shell("refresh", shell.directory, stdin="").exit_code == 1


def test_keys_are_rotated(shell: Shell, url: str) -> None:
    shell.trust(url)
    shell.ok("sync")
    PrivateKey.generate().save(shell.folder / "new.key")
    old = shell.json("keys", shell.directory)[3]["keys"][0]["key-id"]
    words = ("--add", shell.folder / "new.key", "--remove", old[:16])
    shell.ok("rotate", shell.directory, "timestamp", *words)
    shell.ok("refresh", shell.directory)
    [row] = shell.json("sync")
    assert row["versions"]["root"] == 2
    assert shell.code("rotate", shell.directory, "timestamp", "--remove", "ffff") == (
        "repository.unknown"
    )


def test_a_token_is_named_by_its_uri_and_public_key(shell: Shell) -> None:
    key = PrivateKey.generate()
    (shell.folder / "pem").write_bytes(key.pem())
    (shell.folder / "pub").write_bytes(key.public.pem())
    uri = f"file2:{shell.folder}/pem"
    shell.ok("init", shell.directory, "--signer", "timestamp", uri, shell.folder / "pub")
    shell.ok("refresh", shell.directory)
    assert shell.json("keys", shell.directory)[3]["keys"][0]["place"] == uri


def test_a_version_is_withdrawn(shell: Shell, url: str) -> None:
    shell.trust(url)
    shell.ok("add", shell.directory, shell.file("1.3.0"))
    shell.ok("publish", shell.directory)
    shell.ok("withdraw", shell.directory, "acme.weather@1.3.0")
    assert shell.json("publish", shell.directory)["withdrawn"] == ["acme.weather@1.3.0"]
    assert [r["version"] for r in shell.json("releases", "acme.weather")["releases"]] == ["1.2.0"]
    assert shell("withdraw", shell.directory, "acme.weather").exit_code == 2


@pytest.mark.case("SIG-24")
def test_refuses_to_add_what_is_not_trusted(shell: Shell) -> None:
    shell.ok("init", shell.directory)
    path = shell.file("1.2.0", signed(PrivateKey.generate()))
    assert shell.code("add", shell.directory, path) == "verify.untrusted-key"


def test_a_refusal_is_told_and_the_exit_code_says_so(shell: Shell, url: str) -> None:
    shell.trust(url)
    shell.ok("sync")
    (shell.directory / "public/metadata/timestamp.json").write_bytes(b"{}")
    result = shell("sync")
    assert result.exit_code == 1
    assert "repository.metadata" in result.output
    assert shell.code("sync", "other") == "repository.unknown"


# -- installing from one -----------------------------------------------------------------------------


def install(*args: str) -> Any:
    result = CliRunner().invoke(capwasm, ["install", *args, "--json"])
    return json.loads(result.stdout)


def test_a_plugin_is_installed_by_its_name(shell: Shell, url: str) -> None:
    for version in ("1.3.0", "2.0.0-rc.1"):
        shell.ok("add", shell.directory, shell.file(version))
    shell.ok("publish", shell.directory)
    shell.trust(url)
    assert install("acme.weather@1.2.0")["serving"] == "1.2.0"
    assert install("acme.weather")["serving"] == "1.3.0"  # no pre-release, unless it is named
    shown = CliRunner().invoke(capwasm, ["show", "acme.weather", "--json"])
    [old, new] = sorted(json.loads(shown.stdout)["versions"], key=lambda v: v["version"])
    assert (old["source"], new["source"]) == ("repository main", "repository main")
    assert new["published"]
    assert install("acme.weather@1.2.0")["code"] == "verify.rollback"


@pytest.mark.case("SIG-06", "SIG-18")
def test_what_a_repository_offers_is_verified_by_our_own_trust_store(
    shell: Shell, url: str
) -> None:
    """A repository whose keys are all stolen can't make us run what we don't trust."""
    shell.trust(url)
    trust = shell.home / "trust.toml"
    own = trust.read_text()
    trust.write_text(own.replace(KEY.public.base64(), PrivateKey.generate().public.base64()))
    assert install("acme.weather")["code"] == "verify.untrusted-key"
    trust.write_text(own)
    assert install("acme.weather")["serving"] == "1.2.0"


def test_refuses_to_install_what_is_not_offered(shell: Shell, url: str) -> None:
    assert install("acme.weather")["code"] == "repository.unknown"  # no repository is trusted
    shell.trust(url)
    for name in ("acme.weather@9.9.9", "acme.none", "corp.tool"):
        assert install(name)["code"] == "repository.unknown"
    assert install("./acme.weather")["code"] == "artifact.unreadable"
    assert install("acme.weather-1.2.0.capsule")["code"] == "artifact.unreadable"


# -- refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "url", "ids"),
    [
        ("Main", "https://plugins.example/", "acme.*"),
        ("../main", "https://plugins.example/", "acme.*"),
        ("main", "http://plugins.example/", "acme.*"),
        ("main", "file:///srv", "acme.*"),
        ("main", "https://plugins.example/", "acme**"),
    ],
)
def test_refuses_to_trust_what_is_malformed(shell: Shell, name: str, url: str, ids: str) -> None:
    shell.ok("init", shell.directory)
    words = ("--root", shell.directory / "root.json", "--ids", ids)
    assert shell.code("trust", name, url, *words) == "repository.config"
    assert not (shell.home / "repositories.toml").exists()
    assert not (shell.home / "roots").exists()


def test_refuses_to_trust_from_a_root_that_is_none(shell: Shell) -> None:
    shell.ok("init", shell.directory)
    for path in ("public/metadata/timestamp.json", "signers.toml"):
        words = ("--root", shell.directory / path, "--ids", "acme.*")
        assert shell.code("trust", "main", "https://plugins.example/", *words) == "repository.root"
    document = json.loads((shell.directory / "root.json").read_text())
    document["signed"]["version"] = 7
    forged = shell.folder / "forged.json"
    forged.write_text(json.dumps(document))
    words = ("--root", forged, "--ids", "acme.*")
    assert shell.code("trust", "main", "https://plugins.example/", *words) == "repository.root"
    forged.write_bytes((shell.directory / "root.json").read_bytes())
    forged.chmod(0o666)
    assert shell.code("trust", "main", "https://plugins.example/", *words) == "repository.root"


def test_refuses_to_trust_two_by_one_name_and_keeps_what_the_operator_wrote(
    shell: Shell, url: str
) -> None:
    shell.trust(url)
    path = shell.home / "repositories.toml"
    path.write_text("# ours\n" + path.read_text())
    root = shell.directory / "root.json"
    before = (shell.home / "roots/main.json").read_bytes()
    assert shell.code("trust", "main", url, "--root", root, "--ids", "b.*") == "repository.config"
    assert (shell.home / "roots/main.json").read_bytes() == before
    shell.ok("trust", "second", url, "--root", root, "--ids", "corp.*")
    assert path.read_text().startswith("# ours\n")
    assert [r["name"] for r in shell.json("list")] == ["main", "second"]


@pytest.mark.case("SIG-25")
def test_refuses_a_list_of_repositories_that_others_can_write(shell: Shell, url: str) -> None:
    shell.trust(url)
    (shell.home / "repositories.toml").chmod(0o666)
    assert shell.code("sync") == "repository.config"


def test_what_is_trusted_is_recorded(shell: Shell, url: str) -> None:
    shell.trust(url)
    shell.ok("sync")
    lines = (shell.home / "audit-commands/000001.jsonl").read_text().splitlines()
    actions = [json.loads(line).get("action") for line in lines]
    assert "trust" in actions
    assert "refresh" in actions
