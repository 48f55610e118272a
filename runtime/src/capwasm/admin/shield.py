"""What every request passes before anything is looked up, and every answer before it leaves.

An ASGI layer with no page in it.  It bounds what can be sent, in bytes and in time; takes requests
for its own names only (a page elsewhere whose name is made to lead here is refused); refuses what
other sites have a browser do; and puts on each answer the headers that keep a page to itself.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from pathlib import PurePath
from typing import Any, Final

from capwasm.errors import AdminError

__all__ = ["BODY", "HEADERS", "MAX_BODY", "Shield", "header"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Refuse = Callable[[AdminError, int, Send], Awaitable[None]]

LOGGER: Final = logging.getLogger("capwasm.admin")
BODY: Final = "capwasm.body"
"""Key of the scope under which the whole body stands."""
MAX_BODY: Final = 16 * 1024
MAX_URL: Final = 2048
MAX_HEADERS: Final = 64
MAX_HEADER_BYTES: Final = 16 * 1024
BODY_SECONDS: Final = 10.0
FORM: Final = "application/x-www-form-urlencoded"

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: a browser then sends `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "permissions-policy": (
        "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
    ),
    "cache-control": "no-store",
}
"""What every answer carries, whatever it is."""

STATUS: Final = {
    "admin.host": 421,
    "admin.origin": 403,
    "admin.request": 400,
    "admin.not-found": 404,
    "admin.session": 403,
    "admin.csrf": 403,
    "admin.token": 403,
    "admin.throttled": 429,
    "admin.key": 403,
}


class Shield:
    """Stands before an ASGI application."""

    def __init__(
        self,
        app: App,
        *,
        hosts: Collection[str],
        secure: bool,
        refuse: Refuse,
        max_body: int = MAX_BODY,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        """Stand before `app`.

        Args:
            app: the application.
            hosts: what `Host` may be, in small letters, with the port if it is not the usual one.
            secure: whether browsers see it over https.
            refuse: tells an error, with a status.
            max_body: bytes.
            body_seconds: until the whole of a body must be here.
        """
        self._app, self._hosts, self._refuse = app, frozenset(hosts), refuse
        self._scheme = "https" if secure else "http"
        self._max_body, self._body_seconds = max_body, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that may pass."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [
                    *(h for h in message.get("headers", ()) if h[0].decode() not in HEADERS),
                    *((k.encode(), v.encode()) for k, v in HEADERS.items()),
                ]
            await send(message)

        try:
            self._check(scope)
            scope[BODY] = await self._body(scope, receive)
            await self._app(scope, _Whole(scope[BODY], receive), guarded)
        except _Refusal as exc:
            await self._refuse(exc.error, exc.status, guarded)
        except Exception as exc:
            if started:
                raise
            _log(exc)
            await self._refuse(AdminError("a defect of capwasm", code="internal"), 500, guarded)

    def _check(self, scope: Scope) -> None:
        headers = scope["headers"]
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_URL:
            raise _Refusal("the address is too long", 414)
        if (
            len(headers) > MAX_HEADERS
            or sum(len(k) + len(v) for k, v in headers) > MAX_HEADER_BYTES
        ):
            raise _Refusal("there are too many headers", 431)
        named = [v for k, v in headers if k == b"host"]
        if len(named) != 1 or named[0].decode("latin-1").lower() not in self._hosts:
            raise _Refusal("the request names another host", 421, "admin.host")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            raise _Refusal("only GET, HEAD and POST are answered", 405)
        self._check_origin(scope, named[0].decode("latin-1").lower())

    def _check_origin(self, scope: Scope, host: str) -> None:
        """Refuse what another site has a browser do.

        What only looks, and is no navigation, is refused too, so that no other site can even
        measure it.  For what changes something the browser must say that it is ours.
        """
        site, origin = header(scope, "sec-fetch-site"), header(scope, "origin")
        mode, post = header(scope, "sec-fetch-mode"), scope["method"] == "POST"
        navigates = mode == "navigate" and header(scope, "sec-fetch-dest") in (None, "document")
        good = (None, "same-origin") if post else (None, "same-origin", "none")
        if site not in good and (post or not navigates):
            raise _Refusal("another site asked for this", 403, "admin.origin")
        ours = f"{self._scheme}://{host}"
        if origin is not None and origin.lower() != ours:
            raise _Refusal("another site asked for this", 403, "admin.origin")
        if post and origin is None and site is None:
            raise _Refusal("the browser does not say whose form this is", 403, "admin.origin")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, in time and within bounds."""
        length, coded = header(scope, "content-length"), header(scope, "transfer-encoding")
        if scope["method"] != "POST":
            if length not in (None, "0") or coded is not None:
                raise _Refusal("this request has no body", 400)
            return b""
        kind = (header(scope, "content-type") or "").partition(";")[0].strip().lower()
        if kind != FORM:
            raise _Refusal(f"a form is sent as {FORM}", 415)
        if length is not None and not (length.isascii() and length.isdecimal()):
            raise _Refusal("the length is malformed", 400)
        if length is not None and (len(length) > 9 or int(length) > self._max_body):
            raise _Refusal(f"a form is at most {self._max_body} bytes", 413)
        try:
            async with asyncio.timeout(self._body_seconds):
                return await self._read(receive)
        except TimeoutError:
            raise _Refusal("the form took too long to come", 408) from None

    async def _read(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Refusal("the form ended early", 400)
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body:
                raise _Refusal(f"a form is at most {self._max_body} bytes", 413)
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)


def _log(exc: Exception) -> None:
    """Say what broke and where, without its text, which could hold anything."""
    frames = traceback.extract_tb(exc.__traceback__)
    place = f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
    LOGGER.error("a defect of the admin page: %s at %s", type(exc).__name__, place)
    LOGGER.debug("its traceback", exc_info=exc)


class _Refusal(Exception):
    def __init__(self, message: str, status: int, code: str = "admin.request") -> None:
        self.error, self.status = AdminError(message, code=code), status
        super().__init__(message)


class _Whole:
    """Gives a body that is here already, then whatever comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()


def header(scope: Scope, name: str) -> str | None:
    """A header's value; None if it is not there, and an impossible one if it is there twice."""
    found = [v for k, v in scope["headers"] if k == name.encode()]
    if len(found) > 1:
        return "\0"
    return found[0].decode("latin-1") if found else None
