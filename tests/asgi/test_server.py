"""Behind a real server: much data with little memory, and clients that do not behave."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from capwasm.asgi import Bounds, PluginApp

from .clients import head, read_all, serving
from .conftest import WIDE, Load

MUCH = 100_000_000
PIECE = bytes(1_000_000)


def resident() -> int:
    """Bytes of memory that this process has."""
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in x]
    return int(line.split()[1]) * 1024


def send_much(connection: socket.socket) -> None:
    for _ in range(MUCH // len(PIECE)):
        connection.sendall(PIECE)


def test_allows_much_data_both_ways_in_little_memory(load: Load) -> None:
    app = PluginApp(load(WIDE), bounds=Bounds(body=MUCH))
    with serving(app) as connect:
        connection = connect()
        connection.sendall(head("/echo", "Content-Length: 1"))
        connection.sendall(b"x")
        assert b"\r\nx" in read_all(connection)
        before = resident()

        connection = connect()
        connection.sendall(head("/echo", f"Content-Length: {MUCH}"))
        sender = threading.Thread(target=send_much, args=[connection])
        sender.start()
        size, most = 0, 0
        with connection:
            while part := connection.recv(1 << 20):
                size += len(part)
                most = max(most, resident())
        sender.join()
    assert size > MUCH
    assert most - before < 24_000_000


def test_allows_a_plugin_that_reads_slowly_and_holds_its_client_back(load: Load) -> None:
    app = PluginApp(load({**WIDE, "wall-ms": 3_000}), bounds=Bounds(body=MUCH))
    with serving(app) as connect, connect() as connection:
        connection.sendall(head("/sink?100", f"Content-Length: {MUCH}"))
        connection.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < MUCH:
                sent += connection.send(PIECE)
        assert sent < 30_000_000  # what sockets hold, and 64 KiB each tenth of a second


@pytest.mark.case("NET-23")
def test_refuses_a_body_that_comes_too_slowly(load: Load) -> None:
    app = PluginApp(load({"wall-ms": 600}))
    with serving(app) as connect:
        connection = connect()
        connection.sendall(head("/sink", "Content-Length: 100"))
        for _ in range(3):
            connection.sendall(b"a")
            time.sleep(0.05)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"guest" not in answer


def test_refuses_to_go_on_when_a_client_hangs_up(load: Load) -> None:
    plugin = load({**WIDE, "wall-ms": 30_000})
    with serving(PluginApp(plugin)) as connect:
        for path, line in (
            ("/wait", ""),
            ("/source?900000000", ""),
            ("/sink", "Content-Length: 9"),
        ):
            connection = connect()
            connection.sendall(head(path, *([line] if line else [])))
            if path == "/source?900000000":
                connection.recv(1000)
            time.sleep(0.1)
            connection.close()
            until = time.monotonic() + 10
            while plugin.under_way() and time.monotonic() < until:
                time.sleep(0.02)
            plugin.wait_quiet(10)
            assert plugin.under_way() == []


def test_refuses_what_a_server_would_not_take_apart(load: Load) -> None:
    with serving(PluginApp(load())) as connect:
        for request in (
            head("/head", "X: a\r\n b"),
            head("/head", "X: a\0b"),
            head("/head", "Host: b"),
            head("/head", "Content-Length: 1", "Content-Length: 2"),
            head("/head", *(f"X-{i}: {'a' * 100}" for i in range(400))),
        ):
            connection = connect()
            connection.sendall(request)
            assert b"x: a\n" not in read_all(connection)
        connection = connect()
        connection.sendall(head("/head", method="GET"))
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_refuses_to_end_what_broke_off(load: Load) -> None:
    with serving(PluginApp(load({"wall-ms": 300}))) as connect:
        connection = connect()
        connection.sendall(head("/silent", method="GET"))
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"then silence" in answer
    assert not answer.endswith(b"0\r\n\r\n")  # so a client knows that it has not got all
