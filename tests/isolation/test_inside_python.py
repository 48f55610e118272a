"""A plugin written in Python, with its interpreter, in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import DeadlineExceeded, GuestError
from tests.guests_python.bench import LAB, MISSING, Author

pytestmark = [
    pytest.mark.toolchain("componentize-py"),
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]

POLICY = """
[[fs]]
bind = "data"
path = "{root}/data"
access = "read-write"
[log]
[clock]
[random]
[kv]
[config]
values = {{ units = "metric" }}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("lab")
    author = Author(root, LAB, "test.lab")
    author.directory("data")
    author.directory("fixed")
    author.allow(POLICY.format(root=root))
    policy = author.world.home / "policy.toml"
    policy.write_text(policy.read_text() + '[isolation]\nprocess = ["test.lab"]\n')
    try:
        yield author.load()
    finally:
        author.close()


def processes(lab: Any) -> Any:
    return lab._opener.code.supervisor.processes


def test_it_runs_and_uses_what_it_was_granted(lab: Any, tmp_path: Path) -> None:
    source = """
from pathlib import Path
import time, random
Path("/data/x").write_text("y" * 10_000)
time.sleep(0.01)
print(len(Path("/data/x").read_text()), random.random() < 1)
"""
    assert lab.call("run", source).unwrap() == "10000 True\n"


def test_its_code_is_that_which_the_host_has_mapped(lab: Any) -> None:
    with lab.session() as session:
        assert session.call("run", "print('here')").unwrap() == "here\n"
        [process] = processes(lab)
        sealed = os.fstat(lab._opener.code._code._compiled.sealed.fd)
        shared = Path(f"/proc/{process._started.pid}/maps").read_text()
        assert f" {sealed.st_ino} " in shared
        # Forty megabytes of code, and little of it is anybody's own.
        rollup = Path(f"/proc/{process._started.pid}/smaps_rollup").read_text().splitlines()
        private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private"))
        assert private < 40_000 < sealed.st_size // 1024 + 10_000


def test_an_endless_loop_ends_with_its_time(lab: Any) -> None:
    with pytest.raises((DeadlineExceeded, GuestError)) as told:
        lab.call("run", "while True: pass")
    assert told.value.code in {"limit.deadline", "limit.fuel"}
    assert lab.call("run", "print('again')").unwrap() == "again\n"
