from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from capwasm.caps.secrets import Vault, VaultKey
from capwasm.cli import capwasm

SECRET = "s3cr3t-value-0123456789"


class Shell:
    """`capwasm vault …` in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *args: str, stdin: str | bytes = "", key: str = "key") -> Result:
        options = ["--home", str(self.home), "--key-file", str(self.home / key)]
        result = CliRunner().invoke(capwasm, ["vault", *args, *options], input=stdin)
        assert SECRET not in result.output
        assert result.exit_code in (0, 1, 2), result.output
        return result

    def code(self, *args: str, **kwargs: str) -> str:
        result = self(*args, "--json", **kwargs)
        assert result.exit_code == 1
        return str(json.loads(result.stdout)["code"])

    def value(self, name: str, key: str = "key") -> bytes:
        return Vault.open(self.home / "vault", VaultKey.load(self.home / key)).get(name).expose()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path / "home")
    assert made("init").exit_code == 0
    return made


def test_allows_to_make_a_private_vault_and_its_key(shell: Shell) -> None:
    assert shell.home.stat().st_mode & 0o777 == 0o700
    for name in ("vault", "key"):
        assert (shell.home / name).stat().st_mode & 0o777 == 0o600


def test_refuses_to_make_it_twice(shell: Shell) -> None:
    shell("set", "acme-token", stdin=SECRET)

    assert shell.code("init") == "capability.vault"
    assert shell.value("acme-token") == SECRET.encode()


@pytest.mark.case("SEC-10")
def test_allows_a_value_from_stdin_without_its_last_newline(shell: Shell) -> None:
    for text in (SECRET, SECRET + "\n", SECRET + "\r\n"):
        assert shell("set", "acme-token", stdin=text).exit_code == 0
        assert shell.value("acme-token") == SECRET.encode()
    assert shell("set", "pem", "--keep-newline", stdin="a\nb\n").exit_code == 0
    assert shell.value("pem") == b"a\nb\n"
    assert shell("set", "raw", stdin=b"\xff\x00").exit_code == 0
    assert shell.value("raw") == b"\xff\x00"


@pytest.mark.case("SEC-10")
def test_refuses_a_value_as_an_argument(shell: Shell) -> None:
    assert shell("set", "acme-token", "x" * 20).exit_code == 2


@pytest.mark.parametrize(("name", "value"), [("Bad Name", SECRET), ("a", ""), ("a", "x" * 70_000)])
def test_refuses_a_bad_name_or_value(shell: Shell, name: str, value: str) -> None:
    assert shell.code("set", name, stdin=value) == "capability.vault"


def test_allows_to_list_names_and_reasons_but_no_value(shell: Shell) -> None:
    assert json.loads(shell("list", "--json").output) == {"secrets": [], "revoked": {}}
    for name in ("b", "a", "old"):
        shell("set", name, stdin=SECRET)
    shell("revoke", "old", "--reason", "leaked in a log")

    assert shell("list").output == "a\nb\nold  revoked: leaked in a log\n"
    assert json.loads(shell("list", "--json").output) == {
        "secrets": ["a", "b"],
        "revoked": {"old": "leaked in a log"},
    }


def test_allows_to_remove_and_refuses_what_is_not_there(shell: Shell) -> None:
    shell("set", "a", stdin=SECRET)

    assert json.loads(shell("remove", "a", "--json").output) == {"removed": "a"}
    assert shell.code("remove", "a") == "capability.no-secret"
    assert shell.code("revoke", "a", "--reason", "x") == "capability.no-secret"


def test_allows_to_rotate_and_refuses_the_old_key(shell: Shell) -> None:
    shell("set", "a", stdin=SECRET)

    assert shell("rotate", "--new-key-file", str(shell.home / "key-2")).exit_code == 0
    assert shell.value("a", "key-2") == SECRET.encode()
    assert shell.code("list") == "capability.vault"
    assert shell("list", key="key-2").output == "a\n"
    assert shell("rotate").exit_code == 2


def test_refuses_another_key_or_none(shell: Shell) -> None:
    VaultKey.generate(shell.home / "other")

    assert shell.code("list", key="other") == "capability.vault"
    assert shell.code("list", key="missing") == "capability.vault-key"


def test_refuses_a_passphrase_that_is_not_typed(shell: Shell) -> None:
    for command in (["list"], ["set", "a"], ["rotate", "--new-passphrase"]):
        assert shell(*command, "--passphrase", stdin="correct horse battery\n").exit_code == 2


def test_allows_the_vault_to_lie_elsewhere(shell: Shell, tmp_path: Path) -> None:
    elsewhere = ("--vault", str(tmp_path / "other"))
    assert shell("init", *elsewhere).exit_code == 0
    assert shell("set", "a", *elsewhere, stdin=SECRET).exit_code == 0

    assert shell("list", *elsewhere).output == "a\n"
    assert shell("list").output == ""
