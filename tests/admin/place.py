"""The page as it is served, on a real socket, and somebody who uses it without a browser."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from capwasm import admin
from capwasm.admin.server import Place, serve, settle
from capwasm.capsule.keys import PrivateKey

TOKEN = "t0ken-of-a-test-" + "x" * 20
FORM = re.compile(r'name="form" value="([0-9a-f]+)"')


@dataclass(frozen=True)
class Reply:
    """An answer, whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def form(self) -> str:
        """The token of its first form."""
        found = FORM.search(self.text)
        assert found is not None, self.text[:500]
        return found[1]

    @property
    def code(self) -> str:
        """The code of an error page."""
        found = re.search(r'(?:Code |"hint">)<code>([a-z.-]+)</code>', self.text)
        return found[1] if found else ""


@dataclass
class Site:
    """A page that is served until `close`."""

    home: Path
    page: Any
    place: Place
    thread: threading.Thread
    token: str = TOKEN

    @property
    def port(self) -> int:
        return int(self.place.url.rstrip("/").rpartition(":")[2])

    @property
    def host(self) -> str:
        """What `Host` is."""
        return self.place.url.partition("//")[2].rstrip("/")

    @property
    def origin(self) -> str:
        return self.place.url.rstrip("/")

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request as it is told, and nothing added but `Host`."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            line.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            sent = {"Host": self.host, **(headers or {})}
            if body is not None and "Content-Length" not in sent:
                sent["Content-Length"] = str(len(body))
            for name, value in sent.items():
                line.putheader(name, value)
            line.endheaders(body)
            answer = line.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            line.close()

    def raw(self, data: bytes, *, wait: float = 20.0, end: bool = False) -> bytes:
        """What comes back for these bytes, until the other side ends or is silent for so long."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as line:
            line.sendall(data)
            if end:
                line.shutdown(socket.SHUT_WR)
            found = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while part := line.recv(65536):
                    found += part
            return found


@dataclass
class Visitor:
    """Somebody with a cookie jar, as a browser sends things."""

    site: Site
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Reply:
        sent = {
            "Sec-Fetch-Site": "none",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
        }
        return self._ask("GET", path, None, sent | _named(headers))

    def post(self, path: str, fields: Mapping[str, str], **headers: str) -> Reply:
        sent = {
            "Origin": self.site.origin,
            "Sec-Fetch-Site": "same-origin",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        return self._ask("POST", path, urlencode(fields).encode(), sent | _named(headers))

    def sign_in(self, token: str | None = None) -> Reply:
        form = self.get("/login").form
        return self.post("/login", {"form": form, "token": token or self.site.token})

    @property
    def form(self) -> str:
        """The token that this session's forms carry."""
        return self.get("/about").form

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        if self.cookies:
            jar = "; ".join(f"{n}={v}" for n, v in self.cookies.items())
            headers = {"Cookie": jar, **headers}
        reply = self.site.ask(method, path, body, {n: v for n, v in headers.items() if v})
        for line in reply.headers.get_all("set-cookie") or ():
            name, _, rest = line.partition("=")
            value = rest.partition(";")[0].strip('"')
            if "Max-Age=0" in line:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return reply


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-").title(): value for name, value in headers.items()}


@contextlib.contextmanager
def served(
    home: Path, *, key: PrivateKey | None = None, user: str = "tester", **limits: Any
) -> Iterator[Site]:
    """The page of that home, on a port of its own."""
    place = settle("127.0.0.1", 0)
    page = admin.app(
        home, token=TOKEN, hosts=place.hosts, key=key, user=user, secure=False, **limits
    )
    ready = threading.Event()
    servers: list[Any] = []
    thread = threading.Thread(
        target=serve, args=(page, place), kwargs={"ready": ready.set, "made": servers.append}
    )
    thread.start()
    assert ready.wait(20)
    try:
        yield Site(home, page, place, thread)
    finally:
        servers[0].should_exit = True
        thread.join(20)
        assert not thread.is_alive()
