"""Two processes with two threads each change one registry at once: no record is lost, none is half.

`CAPWASM_SCHEDULES=400` makes it run for minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.registry.model import State
from tests.registry.shop import ACME, GLOBEX, ID, KEYS, SHM, Shop, capsule

ROOT = Path(__file__).resolve().parents[2]
OTHER = "acme.other"
CAPSULES = {
    (name, version, who): "hex:" + capsule(version, id=name, keys=(key,)).hex()
    for name in (ID, OTHER)
    for version in ("1.0.0", "1.1.0", "2.0.0")
    for who, key in (("acme", ACME), ("globex", GLOBEX))
}
REFUSALS = {
    "verify.rollback", "verify.revoked", "registry.name-taken", "registry.state",
    "registry.unknown", "registry.pinned",
}  # fmt: skip
NAMES = st.sampled_from([ID, ID, OTHER])
ORDERS = st.one_of(
    st.sampled_from(sorted(CAPSULES)).map(lambda which: ("install", [CAPSULES[which]])),
    st.tuples(st.sampled_from(["activate", "rollback", "suspend", "reject", "remove"]), NAMES).map(
        lambda o: (o[0], [o[1]])
    ),
    st.tuples(NAMES, st.sampled_from(["1.0.0", "1.1.0"])).map(lambda o: ("revoke", list(o))),
    st.tuples(NAMES, st.sampled_from([None, "1.0.0", "1.1.0"])).map(lambda o: ("pin", list(o))),
    st.sampled_from(sorted(CAPSULES)).map(lambda which: ("submit", [CAPSULES[which]])),
    st.just(("collect", [])),
)
# Each round is done at once: what each of four threads in two processes does.
ROUNDS = st.lists(st.lists(ORDERS, min_size=2, max_size=4), min_size=2, max_size=6)


class Workers:
    """Two processes that do as they are told."""

    def __init__(self, keys: Path) -> None:
        ACME.save(keys / "acme.key")
        GLOBEX.save(keys / "globex.key")
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.registry.worker"],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, KEYS: str(keys)},
            )
            for _ in range(2)
        ]  # fmt: skip
        self.number = 0

    def at_once(self, home: Path, orders: list[tuple[str, list[Any]]]) -> list[dict[str, Any]]:
        waiting = [0, 0]
        for index, (verb, args) in enumerate(orders):
            self.number += 1
            order = {"n": self.number, "home": str(home), "verb": verb, "args": args}
            stdin = self.processes[index % 2].stdin
            assert stdin is not None
            stdin.write(json.dumps(order) + "\n")
            waiting[index % 2] += 1
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.flush()
        answers = []
        for process, count in zip(self.processes, waiting, strict=True):
            assert process.stdout is not None
            answers += [json.loads(process.stdout.readline()) for _ in range(count)]
        return answers

    def close(self) -> None:
        for process in self.processes:
            process.communicate(timeout=20)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    made = Workers(tmp_path_factory.mktemp("keys"))
    yield made
    made.close()


@pytest.mark.case("PER-06")
@settings(
    max_examples=int(os.environ.get("CAPWASM_SCHEDULES", "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(rounds=ROUNDS)
def test_allows_any_schedule_and_loses_no_record(
    workers: Workers, rounds: list[list[tuple[str, list[Any]]]]
) -> None:
    changes = 0
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        with Shop(home).registry() as registry:
            for orders in rounds:
                answers = workers.at_once(home, orders)
                assert {a["code"] for a in answers if "code" in a} <= REFUSALS, answers
                done = [a["action"] for a in answers if "action" in a]
                changes += sum(action not in {"none", "unchanged"} for action in done)
                report = registry.verify()
                assert report.problems == ()
                assert report.sequence == changes
                for name in (ID, OTHER):
                    plugin = registry.find(name)
                    if plugin is None:
                        continue
                    steps = registry.history(name)
                    assert [s.number for s in steps] == list(range(1, len(steps) + 1))
                    active = [v.version for v in plugin.versions if v.state is State.ACTIVE]
                    assert active in ([], [plugin.serving])
                    if active:
                        assert registry.serving(name)[0].version == plugin.serving


@pytest.mark.case("PER-06")
def test_two_first_installs_at_once_make_one_registry(workers: Workers, tmp_path: Path) -> None:
    for n in range(10):
        home = tmp_path / str(n)
        home.mkdir(mode=0o700)
        orders = [("install", [CAPSULES[name, "1.0.0", "acme"]]) for name in (ID, OTHER, ID, OTHER)]
        answers = workers.at_once(home, orders)

        assert sorted(a.get("action", str(a)) for a in answers) == [
            "installed", "installed", "unchanged", "unchanged",
        ]  # fmt: skip
        with Shop(home).registry() as registry:
            assert registry.verify().problems == ()
            assert [p.id for p in registry.list()] == [OTHER, ID]
