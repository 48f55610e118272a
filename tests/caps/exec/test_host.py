"""What a load makes of granted commands."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from capwasm.caps.exec import Exec, ExecClause
from capwasm.errors import CapabilityError
from capwasm.isolation.commands import Commands
from capwasm_shim.layers import Layer

from .desk import CAT, Desk


def refused(
    spawner: Commands | None, directory: Path, *clauses: ExecClause, **about: object
) -> str:
    with pytest.raises(CapabilityError) as caught:
        Desk(spawner, directory, *clauses, **about)
    assert caught.value.code == "capability.exec"
    return "\n".join(f"{f.path}: {f.message} {f.fix or ''}" for f in caught.value.faults)


def test_refuses_commands_where_no_process_can_be_started(tmp_path: Path) -> None:
    assert "starts no processes" in refused(None, tmp_path, CAT)
    # Declared and not granted: it is served, and refuses.
    assert Desk(None, tmp_path).word("cat") == "denied"


@pytest.mark.case("NAT-23")
def test_refuses_commands_without_the_layers_that_policy_requires(
    spawner: Commands, tmp_path: Path
) -> None:
    # Root has the one, everybody else the other.
    other = Layer.USER_NAMESPACE if os.geteuid() == 0 else Layer.OWN_USER
    strict = Commands(spawner.server, frozenset({other}))

    why = refused(strict, tmp_path, CAT)
    assert f"cat: the sandbox's layer {other} can't be had" in why
    assert "[isolation]\nrequire = []" in why
    assert Desk(spawner, tmp_path, CAT)("cat", data=b"x").stdout == b"x"


def test_refuses_a_command_that_the_policy_leaves_open(spawner: Commands, tmp_path: Path) -> None:
    assert "names no program" in refused(spawner, tmp_path, ExecClause("cat"))


def test_tells_of_every_command_that_can_not_be_run(spawner: Commands, tmp_path: Path) -> None:
    why = refused(
        spawner,
        tmp_path,
        ExecClause("a", str(tmp_path / "gone")),
        replace(CAT, command="b", reads=frozenset({str(tmp_path / "none")})),
        ExecClause("c", str(tmp_path)),
        CAT,
    )

    assert "exec: a: " in why
    assert "exec: b: " in why
    assert "exec: c: " in why
    assert "cat: " not in why


def test_refuses_two_meanings_of_one_name(spawner: Commands, tmp_path: Path) -> None:
    assert "says twice" in refused(spawner, tmp_path, CAT, replace(CAT, arguments=(("-n",),)))
    Desk(spawner, tmp_path, CAT, replace(CAT, command="dog", arguments=(("-n",),)))


@pytest.mark.case("FS-21")
def test_refuses_to_show_a_command_the_runtimes_own_files(
    spawner: Commands, tmp_path: Path
) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    for place in (home, other):
        place.mkdir()
    link = tmp_path / "link"
    link.symlink_to(home)
    for path in (home, link, tmp_path):
        clause = replace(CAT, reads=frozenset({str(path)}))
        assert "the runtime's own" in refused(spawner, tmp_path, clause, protected=[home])
    Desk(spawner, tmp_path, replace(CAT, reads=frozenset({str(other)})), protected=[home])


def test_refuses_a_program_that_a_rule_denies_by_another_name(
    spawner: Commands, tmp_path: Path
) -> None:
    assert CAT.program
    link = tmp_path / "link"
    link.symlink_to(CAT.program)
    by_link = ExecClause("cat", str(link))

    denied = Desk(spawner, tmp_path, by_link, deny=(ExecClause(None, CAT.program),))
    assert denied.word("cat") == "denied"
    assert [e.reason for e in denied.events("open")] == ["denied-by-rule"]
    other = Desk(spawner, tmp_path, by_link, deny=(ExecClause("dog", CAT.program),))
    assert other("cat", data=b"x").stdout == b"x"


def test_tries_a_command_out_once_a_runtime(spawner: Commands, tmp_path: Path) -> None:
    class Counting(Commands):
        trials = 0

        def start(self, spec, fds, seconds, *, trial=False):  # type: ignore[no-untyped-def]
            self.trials += trial
            return super().start(spec, fds, seconds, trial=trial)

    counting = Counting(spawner.server)
    shared = Exec(counting)
    for _ in range(3):
        Desk(None, tmp_path, CAT, exec=shared)

    assert counting.trials == 1
