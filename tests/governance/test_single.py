"""`capwasm policy explain`: one operation, asked of the policy alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from capwasm.caps import standard_capabilities
from capwasm.cli import capwasm
from capwasm.governance.cases import Operation
from capwasm.governance.single import answer
from capwasm.grants.policy import Policy
from tests.governance.test_cases import POLICY

KNOWN = standard_capabilities()


@pytest.mark.parametrize(
    ("plugin", "capability", "text", "allowed_by", "denied_by", "person"),
    [
        ("acme.x", "net", "GET https://api.acme.com/v1/x", ['plugins."acme.*".net[0]'], [], True),
        (
            "acme.x",
            "net",
            "GET https://api.acme.com/v1/admin/x",
            ['plugins."acme.*".net[0]'],
            ["deny.net[0]"],
            None,
        ),
        ("other.x", "net", "GET https://api.acme.com/v1/x", [], [], None),
        ("acme.x", "net", "DELETE https://api.acme.com/v1/x", [], [], None),
        ("acme.weather", "secret", "inject token https://api.acme.com", ["secret[0]"], [], True),
        ("acme.weather", "secret", "reveal token", [], [], None),
        ("acme.weather", "exec", "thumbnail 1x1", ["exec[0]"], [], True),
        ("acme.weather", "exec", "thumbnail x", [], [], None),
        ("acme.weather", "log", "info", ['plugins."acme.*".log'], [], False),
        ("other.x", "clock", "wall", ['plugins."*".clock'], [], False),
        ("other.x", "clock", "sleep", [], [], None),
    ],
)
def test_what_the_policy_says(
    plugin: str,
    capability: str,
    text: str,
    allowed_by: list[str],
    denied_by: list[str],
    person: bool | None,
) -> None:
    policy = Policy.load(POLICY.encode(), KNOWN)
    found = answer(policy, KNOWN, plugin, Operation(capability, text))

    assert [r.path.removeprefix('plugins."acme.weather".') for r in found.allowed_by] == allowed_by
    assert [r.path for r in found.denied_by] == denied_by
    assert (found.person, found.allowed) == (person, person is not None)


def test_a_denial_of_the_program_ends_the_command() -> None:
    text = POLICY + '[[plugins."acme.*".deny.exec]]\nprogram = "/usr/bin/convert"\n'
    policy = Policy.load(text.encode(), KNOWN)
    found = answer(policy, KNOWN, "acme.weather", Operation("exec", "thumbnail 1x1"))

    assert [r.path for r in found.denied_by] == ['plugins."acme.*".deny.exec[0]']
    assert not found.allowed


def test_of_two_rules_one_may_be_left() -> None:
    text = POLICY + (
        '[[plugins."acme.x".deny.exec]]\nprogram = "/bin/a"\n'
        '[[plugins."acme.x".exec]]\ncommand = "run"\nprogram = "/bin/a"\n'
        '[[plugins."acme.x".exec]]\ncommand = "run"\nprogram = "/bin/b"\n'
    )
    found = answer(Policy.load(text.encode(), KNOWN), KNOWN, "acme.x", Operation("exec", "run"))

    assert (len(found.allowed_by), len(found.denied_by), found.allowed) == (2, 1, True)


def run(*args: str, code: int) -> str:
    done = CliRunner().invoke(capwasm, ["policy", "explain", *args])
    assert done.exit_code == code, done.output
    return done.output


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPWASM_HOME", str(tmp_path))
    (tmp_path / "policy.toml").touch(mode=0o600)
    (tmp_path / "policy.toml").write_text(POLICY)
    net = ("acme.x", "net")

    assert "a person has to agree" in run(*net, "GET https://api.acme.com/v1/x", code=0)
    assert 'allowed by  plugins."acme.*".net[0] (line 9)' in run(
        *net, "GET https://api.acme.com/v1/x", code=0
    )
    assert "a denial beats" in run(*net, "GET https://api.acme.com/v1/admin/", code=1)
    assert "no rule allows it" in run(*net, "GET https://evil.example", code=1)
    found = json.loads(run("acme.x", "log", "info", "--json", code=0))
    assert (found["allowed"], found["person"], len(found["allowed-by"])) == (True, False, 1)
    for wrong in (
        ("acme.x", "net", "https://x.example"),
        ("acme.x", "tea", "hot"),
        ("acme.x", "fs", "read /x"),
        ("ACME", "log", "info"),
    ):
        run(*wrong, code=2)
