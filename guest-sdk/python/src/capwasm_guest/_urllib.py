"""`urllib.request` over `capwasm_guest.fetch`, for plugins that use the standard library's way.

A component's sockets are refused, so what `http.client` would do ends there.  Requests go through the host's
checks instead; all else is urllib's own: handlers, redirects (each is a request of its own), errors.
"""

from __future__ import annotations

import email.message
import http.client
import io
import urllib.error
import urllib.request
import urllib.response
from collections.abc import Iterable
from typing import Any

from . import fetch
from .errors import CapabilityError, Timeout

__all__ = ["install"]

# The host frames the message and knows which encodings it can undo.
_OWN = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding"})


class _Body(io.RawIOBase):
    """The body of an answer as a file."""

    def __init__(self, answer: fetch.Response) -> None:
        self._answer = answer

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._answer.read(len(buffer))
        except CapabilityError as exc:
            raise _told(exc) from exc
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._answer.close()
        super().close()


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens `http:` and `https:` URLs."""

    def __init__(self, *_args: object, **_words: object) -> None:
        super().__init__()

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(None, request)

    https_open = http_open

    def do_open(  # what it is given for sockets and TLS is the host's business
        self,
        http_class: object,  # noqa: ARG002
        req: urllib.request.Request,
        **http_conn_args: Any,  # noqa: ARG002
    ) -> Any:
        headers = {**req.unredirected_hdrs, **req.headers}
        kept = [(n, str(v)) for n, v in headers.items() if n.lower() not in _OWN]
        timeout = req.timeout if isinstance(req.timeout, int | float) else None
        try:
            answer = fetch.request(
                req.get_method(),
                req.full_url.partition("#")[0],
                headers=kept,
                body=_whole(req.data),
                timeout=timeout,
                redirects="manual",
            )
        except CapabilityError as exc:
            raise urllib.error.URLError(_told(exc)) from exc
        message = email.message.Message()
        for name, value in answer.headers.pairs:
            message[name] = value
        file = io.BufferedReader(_Body(answer))
        found = urllib.response.addinfourl(file, message, req.full_url, answer.status)
        reason = http.client.responses.get(answer.status, "")
        found.msg = found.reason = reason  # type: ignore[attr-defined]
        return found

    http_request = urllib.request.AbstractHTTPHandler.do_request_
    https_request = http_request


def _whole(data: Any) -> bytes | None:
    """A body as urllib takes it: bytes, a file, or pieces."""
    if data is None or isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    if hasattr(data, "read"):
        return bytes(data.read())
    if isinstance(data, Iterable):
        return b"".join(data)
    raise TypeError("a body must be bytes, a file, or bytes in pieces")


def _told(exc: CapabilityError) -> OSError:
    """As an operating system would put it."""
    if isinstance(exc, Timeout):
        return TimeoutError(str(exc))
    if exc.word in ("denied", "closed"):
        return PermissionError(str(exc))
    return OSError(str(exc))


def install() -> None:
    """Have every opener use it, that of `urlopen` and those that are built."""
    for name in ("HTTPHandler", "HTTPSHandler"):
        if hasattr(urllib.request, name):
            setattr(urllib.request, name, _Handler)
    urllib.request._opener = None  # type: ignore[attr-defined]  # noqa: SLF001  what urlopen keeps
