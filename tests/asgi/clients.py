"""A server of our own around an application, and clients that it may not like."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

Message = MutableMapping[str, Any]


def scope(path: str = "/head", **over: Any) -> dict[str, Any]:
    """An HTTP scope, as a server makes it."""
    raw, _, query = path.partition("?")
    return {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": raw,
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"app.example")],
        **over,
    }


@dataclass
class Client:
    """One client, in process: what it sends, and what it was sent.

    Attributes:
        body: what it sends, piece by piece.   gone: whether it leaves after that.
        slow: whether it takes nothing of a body.
    """

    body: list[bytes] = field(default_factory=lambda: [b""])
    gone: bool = False
    open_end: bool = False
    slow: bool = False
    sent: list[Message] = field(default_factory=list)

    async def receive(self) -> Message:
        if self.body:
            piece = self.body.pop(0)
            more = bool(self.body) or self.open_end or self.gone
            return {"type": "http.request", "body": piece, "more_body": more}
        if self.gone:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if self.slow and message["type"] == "http.response.body":
            await asyncio.Event().wait()

    @property
    def status(self) -> int | None:
        starts = [m["status"] for m in self.sent if m["type"] == "http.response.start"]
        assert len(starts) < 2
        return starts[0] if starts else None

    @property
    def headers(self) -> dict[str, str]:
        (start,) = [m for m in self.sent if m["type"] == "http.response.start"]
        return {n.decode(): v.decode() for n, v in start["headers"]}

    @property
    def text(self) -> str:
        parts = [m["body"] for m in self.sent if m["type"] == "http.response.body"]
        return b"".join(parts).decode()

    @property
    def whole(self) -> bool:
        return any(not m.get("more_body") for m in self.sent if m["type"].endswith(".body"))

    async def visit(self, app: Any, path: str = "/head", **over: Any) -> Client:
        await app(scope(path, **over), self.receive, self.send)
        return self


def ask(app: Any, path: str = "/head", client: Client | None = None, **over: Any) -> Client:
    """One request, to its end."""
    return asyncio.run((client or Client()).visit(app, path, **over))


@contextmanager
def serving(app: Any) -> Iterator[Callable[[], socket.socket]]:
    """A real server on loopback; gives connections to it."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    config = uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield lambda: socket.create_connection(listener.getsockname(), timeout=30)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
    assert not thread.is_alive()


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    """A request's head."""
    every = (f"{method} {path} HTTP/1.1", "Host: app.example", "Connection: close", *lines, "", "")
    return "\r\n".join(every).encode()


def read_all(connection: socket.socket) -> bytes:
    """All that comes, until the server closes."""
    with connection:
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)
