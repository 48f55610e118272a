"""The weather service of the demo: a real HTTP server on a loopback port, which wants a token."""

from __future__ import annotations

import hmac
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["Visit", "WeatherService"]


@dataclass(frozen=True, slots=True)
class Visit:
    """One request as the service saw it: which path, and whether it brought the right token."""

    path: str
    authorized: bool


class WeatherService:
    """Serves `/v1/weather?city=…` to whoever brings the token, and keeps count."""

    def __init__(self, token: str) -> None:
        """Take a free port of 127.0.0.1; requests are answered from `__enter__` on."""
        self.visits: list[Visit] = []
        self._wanted = f"Bearer {token}".encode()
        service = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                sent = self.headers.get("Authorization", "").encode("latin-1")
                authorized = hmac.compare_digest(sent, service._wanted)
                service.visits.append(Visit(self.path, authorized))
                body: dict[str, Any] = {"error": "who are you?"}
                if authorized:
                    body = {"celsius": -3.5, "summary": "light snow"}
                data = json.dumps(body).encode()
                self.send_response(200 if authorized else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_args: object) -> None:
                """Say nothing: the demo tells what happened."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="demo-weather", daemon=True
        )

    @property
    def origin(self) -> str:
        """Scheme, address and port."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _v: BaseException | None, _b: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
