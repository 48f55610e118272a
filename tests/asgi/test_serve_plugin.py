"""`capwasm serve-plugin`, as a user runs it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import World, guest

POLICY = '[plugins."test.guest".clock]\n[plugins."test.guest".log]\n'
MAIN = "from capwasm.cli import main; main()"


def command(tmp_path: Path, code: str, *options: str) -> subprocess.Popen[str]:
    world = World(tmp_path)
    world.policy(POLICY)
    capsule = world.capsule(guest(code), "[clock]\n[log]\n")
    world.consent(capsule)
    world.close()
    (tmp_path / "x.capsule").write_bytes(capsule)
    words = ["serve-plugin", "--home", str(world.home), "--core", "1.0.0", *options]
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *words, str(tmp_path / "x.capsule")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_allows_requests_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    process = command(tmp_path, "responder", "--port", "0", "--json", "--send", "Set-Cookie")
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        place = said["url"].removeprefix("http://").rstrip("/")
        assert place.startswith("127.0.0.1:")
        connection = http.client.HTTPConnection(place, timeout=20)
        connection.request("GET", "/powers?secret=1", headers={"Cookie": "a=b"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"done")
        assert answer.getheader("set-cookie") == "session=mine"
        assert answer.getheader("x-sendfile") is None
        connection.close()
    finally:
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "127.0.0.1 GET /powers 200 4B" in errors
    assert "secret" not in errors


def test_refuses_other_machines_unless_they_are_meant(tmp_path: Path) -> None:
    process = command(tmp_path, "responder", "--host", "0.0.0.0")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "--expose" in errors


def test_refuses_a_plugin_that_answers_no_requests(tmp_path: Path) -> None:
    process = command(tmp_path, "shout")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "incoming-handler" in errors
