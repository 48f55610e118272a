"""`capwasm doctor`: what is told of this machine, and of machines that lack something."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.cli import capwasm
from capwasm.engine import config
from capwasm.errors import CapabilityError
from capwasm.machine import Check, check_machine
from capwasm_shim.layers import DEFAULT_REQUIRED, Layer
from capwasm_shim.probe import LayerStatus

NAMES = [
    "platform",
    "kernel",
    "python",
    "engine",
    "calls",
    "instances",
    "files",
    *map(str, Layer),
]


def run(*args: str) -> Result:
    return CliRunner().invoke(capwasm, ["doctor", *args])


def data(code: int = 0) -> dict[str, Any]:
    done = run("--json")
    assert done.exit_code == code
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(name: str) -> Check:
    return next(c for c in check_machine() if c.name == name)


def test_allows_a_machine_that_has_all_that_is_required() -> None:
    found = data()

    assert found["ok"] is True
    assert [c["name"] for c in found["checks"]] == NAMES
    assert {c["name"] for c in found["checks"] if c["required"]} == {
        "platform",
        "python",
        "engine",
        "files",
    }
    assert {a["reachable"] for a in found["advisories"]} <= {False}
    assert all(a["because"] for a in (*found["advisories"], *found["python-advisories"]))


def test_allows_people_to_read_it() -> None:
    done = run()

    assert done.exit_code == 0
    assert all(name in done.stdout for name in NAMES)
    assert "GHSA-5m8g-xhq4-4h93" in done.stdout
    assert "Nothing that is required is missing." in done.stdout
    commands = {t["install"] for lang in data()["toolchains"] for t in lang["tools"]}
    lines = [line for line in done.stdout.splitlines() if line.strip() not in commands]
    assert max(map(len, lines)) <= 100


def test_tells_what_is_missing_to_build_in_a_language_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from importlib.metadata import PackageNotFoundError

    from capwasm.authoring.builders import python as builder

    def none(_name: str) -> str:
        raise PackageNotFoundError

    def of_python() -> dict[str, Any]:
        done = run("--lang", "python", "--json")
        assert done.exit_code == 0  # it is no failure
        [found] = json.loads(done.stdout)["toolchains"]
        return dict(found)

    assert data()["toolchains"][0]["language"] == "python"
    monkeypatch.setattr(builder, "version", lambda _name: "0.25.1")
    assert of_python()["ready"] is True
    assert of_python()["tools"][0]["install"] is None
    monkeypatch.setattr(builder, "version", none)
    assert of_python()["ready"] is False
    command = 'pip install "capwasm[build-python]"'
    assert of_python()["tools"][0]["install"] == command
    assert command in run("--lang", "python").stdout
    assert run("--lang", "cobol").exit_code == 2


def test_the_languages_of_the_option_are_those_of_the_builders() -> None:
    from capwasm.authoring.builders import LANGUAGES as KNOWN
    from capwasm.cli.doctor import LANGUAGES

    assert LANGUAGES == KNOWN


def test_refuses_a_machine_that_can_not_confine_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise CapabilityError("files can't be confined on plan9", code="grant.platform")

    monkeypatch.setattr("capwasm.caps.fs.beneath.best", none)
    monkeypatch.setattr(sys, "platform", "plan9")
    found = data(code=1)

    assert found["ok"] is False
    lacking = {c["name"] for c in found["checks"] if c["required"] and c["status"] == "lacks"}
    assert lacking == {"platform", "files"}
    assert "MISSING" in run().stdout


def test_refuses_when_a_known_advisory_comes_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_RAW_OFF", ())
    found = data(code=1)

    assert {a["name"] for a in found["advisories"] if a["reachable"]} >= {"GHSA-xrvr-8678-5wp8"}
    assert "REACHABLE GHSA-5m8g-xhq4-4h93" in run().stdout


def test_refuses_an_engine_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("no such library")

    monkeypatch.setattr(config, "make_config", broken)

    assert check("engine") == Check(
        "engine", "lacks", "OSError: no such library", "runs the plugins", required=True
    )
    assert check("engine").failed


def test_allows_the_slow_ways_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capwasm.engine.capi.layout_faults", lambda: ["a new wheel"])
    monkeypatch.setattr("capwasm.caps.fs.beneath.best", object)

    assert (check("calls").status, check("calls").value) == ("note", "the slow way: a new wheel")
    assert check("files").status == "note"
    assert data()["ok"] is True


def test_allows_instances_without_a_pool_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check("instances").value == "a pool for 1024"
    monkeypatch.setattr("capwasm.engine.pool._has_room", lambda *_: False)
    found = check("instances")

    assert (found.status, found.required) == ("note", False)
    assert found.value.startswith("no pool: no address space for 1024 instances of 4 GiB")
    assert data()["ok"] is True


@pytest.mark.case("NAT-23")
def test_allows_a_machine_without_a_sandbox_for_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refuser = tmp_path / "python"
    refuser.write_text("#!/bin/sh\nexit 1\n")
    refuser.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(refuser))
    found = {c["name"]: c for c in data()["checks"]}

    lacking = {name for name in NAMES[7:] if found[name]["status"] == "lacks"}
    assert lacking == {*map(str, DEFAULT_REQUIRED), "own-user", "user-namespace"}
    assert found["seccomp"]["value"] == "it could not be tried: CalledProcessError"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert check("seccomp").value == "it could not be tried: FileNotFoundError"


def test_tells_what_each_layer_stops_and_why_one_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = [
        LayerStatus(Layer.LANDLOCK_NET, "TCP", False, "Landlock ABI 3: too old", True),
        LayerStatus(Layer.OWN_USER, "the host's user", False, "only root", False),
        LayerStatus(Layer.USER_NAMESPACE, "each other", True, "", False),
        LayerStatus(Layer.CGROUP_CPU, "the host's time", False, "not writable", False),
    ]
    monkeypatch.setattr("capwasm_shim.probe.probe", lambda: old)
    found = {c.name: c for c in check_machine()[7:]}

    assert found["landlock-net"] == Check(
        "landlock-net",
        "lacks",
        "Landlock ABI 3: too old",
        "sandbox of a process: against TCP",
    )
    assert {n: c.status for n, c in found.items()} == {
        "landlock-net": "lacks",
        "own-user": "note",
        "user-namespace": "ok",
        "cgroup-cpu": "note",
    }


def lacking(monkeypatch: pytest.MonkeyPatch, *missing: Layer) -> None:
    """A machine that lacks these layers."""
    found = [
        LayerStatus(
            layer,
            "something",
            layer not in missing,
            "too old" if layer in missing else "",
            layer in DEFAULT_REQUIRED,
        )
        for layer in Layer
    ]
    monkeypatch.setattr("capwasm_shim.probe.probe", lambda: found)


def policy(home: Path, text: str) -> tuple[str, str]:
    home.mkdir(mode=0o700)
    (home / "policy.toml").write_text(f'schema = 1\n[revocation]\nstale = "report"\n{text}')
    return "--home", str(home)


@pytest.mark.parametrize(
    "text",
    ['process = ["acme.*"]', 'native = ["acme.x"]', f'legacy = ["sha256:{"a" * 64}"]'],
)
def test_refuses_where_a_plugin_of_the_policy_would_not_start(
    monkeypatch: pytest.MonkeyPatch, own_home: Path, text: str
) -> None:
    lacking(monkeypatch, Layer.LANDLOCK_NET)
    home = policy(own_home, f"[isolation]\n{text}\n")

    done = run(*home)

    assert done.exit_code == 1
    assert "MISSING   landlock-net" in done.stdout
    assert "too old; what must have it does not start" in done.stdout


@pytest.mark.parametrize(
    "text",
    ["", "[isolation]", '[isolation]\nprocess = ["*"]\nrequire = ["seccomp"]'],
    ids=["silent", "empty", "not required"],
)
def test_allows_a_missing_layer_that_no_plugin_needs(
    monkeypatch: pytest.MonkeyPatch, own_home: Path, text: str
) -> None:
    lacking(monkeypatch, Layer.LANDLOCK_NET)

    done = run(*policy(own_home, text))

    assert done.exit_code == 0, done.stdout
    assert "MISSING" not in done.stdout


def test_a_layer_that_only_this_policy_requires_is_missing_where_it_can_not_be_had(
    monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    lacking(monkeypatch, Layer.CGROUP_MEMORY)
    text = '[isolation]\nprocess = ["*"]\n'
    assert run(*policy(own_home, text)).exit_code == 0
    (own_home / "policy.toml").write_text(f'schema = 1\n{text}require = ["cgroup-memory"]\n')

    done = run("--json", "--home", str(own_home))

    assert done.exit_code == 1
    found = {c["name"]: c for c in json.loads(done.stdout)["checks"]}
    assert (found["cgroup-memory"]["status"], found["cgroup-memory"]["required"]) == ("lacks", True)
    assert not found["seccomp"]["required"]
