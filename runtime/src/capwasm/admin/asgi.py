"""The admin page as an ASGI application, for `capwasm serve` or for a core that mounts it."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route as WebRoute
from starlette.routing import Router

from capwasm.errors import AdminError, CapwasmError, InternalError
from capwasm.events import ALLOWED, DENIED

from . import render, routes
from .asking import Answer, Ask, Go, Page, Route
from .forms import Fields, checked
from .office import Office
from .session import Doorkeeper, Flash, Session
from .shield import BODY, STATUS, Message, Receive, Scope, Send, Shield

__all__ = ["AdminApp"]

MAX_AT_ONCE: Final = 8
"""Requests that read or change something at a time; the others wait."""
LOGIN: Final = "/login"
_ROTATED: Final = "capwasm.rotated"
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{24}")


class AdminApp:
    """The whole page.  Made by `capwasm.admin.app`."""

    def __init__(
        self,
        office: Office,
        *,
        token: str,
        hosts: Collection[str],
        secure: bool,
        mounted: bool = False,
        **limits: Any,
    ) -> None:
        """Make it; nothing is read yet.

        Args:
            office: what it shows and does.
            token: what a person must show, see `Doorkeeper`.
            hosts: what `Host` may be, with the port.
            secure: whether browsers see it over https.
            mounted: whether it stands below a path of another application.
            limits: of the `Shield`.
        """
        self.office, self.door = office, Doorkeeper(token)
        self._secure = secure
        # A prefix that browsers let nobody set from elsewhere, nor without TLS, nor for a part.
        host_only = secure and not mounted
        self._session = "__Host-capwasm" if host_only else "capwasm-session"
        self._stranger = "__Host-capwasm-in" if host_only else "capwasm-in"
        self._limiter = CapacityLimiter(MAX_AT_ONCE)
        router = Router(
            [
                *(self._web(route) for route in routes.ROUTES),
                WebRoute(LOGIN, self._login, methods=["GET", "POST"]),
                WebRoute("/logout", self._logout, methods=["POST"]),
                *(
                    WebRoute(f"/static/{name}", functools.partial(_static, name), methods=["GET"])
                    for name in render.STATIC
                ),
            ],
            redirect_slashes=False,
            default=self._nothing,
        )
        self._shield = Shield(
            router, hosts=hosts, secure=secure, refuse=self._refused_early, **limits
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._shield(scope, receive, send)

    # -- pages -------------------------------------------------------------------------------------

    def _web(self, route: Route) -> WebRoute:
        methods = [m for m, h in (("GET", route.get), ("POST", route.post)) if h is not None]

        async def answer(request: Request) -> Response:
            return await self._answer(route, request)

        return WebRoute(route.path, self._told(answer), methods=methods)

    async def _answer(self, route: Route, request: Request) -> Response:
        root = _root(request)
        session, made = self.door.find(self._cookie(request, self._session), quiet=route.quiet)
        request.scope[_ROTATED] = made
        post = request.method == "POST"
        if session is None:
            if post or route.quiet:
                raise AdminError("nobody is signed in, or the session ended", code="admin.session")
            return RedirectResponse(root + LOGIN, 303)
        form = Fields.parse(request.scope[BODY]) if post else Fields({})
        if post:
            session.check(form.raw("form"))
        query = Fields.parse(request.scope["query_string"])
        ask = Ask(self.office, session, checked(request.path_params), query, form)
        handler = route.post if post else route.get
        assert handler is not None
        answer = await to_thread.run_sync(handler, ask, limiter=self._limiter)
        return self._response(answer, session, root, request.url.path)

    def _response(self, made: Answer, session: Session, root: str, path: str) -> Response:
        if isinstance(made, Go):
            if made.told:
                session.flash = Flash("done", made.told)
            return RedirectResponse(root + made.path, 303)
        if isinstance(made, Page):
            flash, session.flash = session.flash, None
            html = render.page(
                made.template,
                made.about,
                root=root,
                path=path.removeprefix(root),
                session=session,
                office=self.office,
                flash=flash,
            )
            return HTMLResponse(html, made.status)
        return PlainTextResponse(made.text)

    # -- in and out --------------------------------------------------------------------------------

    async def _login(self, request: Request) -> Response:
        return await self._told(self._sign_in)(request)

    async def _sign_in(self, request: Request) -> Response:
        root, nonce = _root(request), self._cookie(request, self._stranger)
        if request.method != "POST":
            nonce = nonce if _NONCE.fullmatch(nonce) else self.door.nonce()
            response: Response = HTMLResponse(
                render.plain("login.html", root=root, form=self.door.stranger_form(nonce))
            )
            self._set(response, self._stranger, nonce, root)
            return response
        form = Fields.parse(request.scope[BODY])
        self.door.check_stranger(nonce, form.raw("form"))
        try:
            made = self.door.enter(form.raw("token").strip())
        except AdminError as exc:
            if exc.code == "admin.token":  # a throttled try is told of once, by the one before it
                await self._record(DENIED, "sign-in", exc.code)
            raise
        await self._record(ALLOWED, "sign-in")
        response = RedirectResponse(f"{root}/", 303)
        self._set(response, self._session, made, root)
        response.delete_cookie(self._stranger, **self._how(root))
        return response

    async def _logout(self, request: Request) -> Response:
        return await self._told(self._sign_out)(request)

    async def _sign_out(self, request: Request) -> Response:
        root = _root(request)
        session, _ = self.door.find(self._cookie(request, self._session))
        if session is None:
            raise AdminError("nobody is signed in, or the session ended", code="admin.session")
        session.check(Fields.parse(request.scope[BODY]).raw("form"))
        self.door.leave(session)
        await self._record(ALLOWED, "sign-out")
        response = RedirectResponse(root + LOGIN, 303)
        response.delete_cookie(self._session, **self._how(root))
        return response

    async def _record(self, verdict: str, action: str, reason: str = "") -> None:
        record = functools.partial(self.office.record, verdict, action, reason)
        await to_thread.run_sync(record, limiter=self._limiter)

    # -- cookies -----------------------------------------------------------------------------------

    def _cookie(self, request: Request, name: str) -> str:
        # Ours have no quotes; those of `http.cookies` cost a stranger's header the square of its length.
        for pair in request.headers.get("cookie", "").split(";"):
            word, _, value = pair.strip().partition("=")
            if word == name:
                return value
        return ""

    def _how(self, root: str) -> dict[str, Any]:
        return {
            "path": root or "/",
            "secure": self._secure,
            "httponly": True,
            "samesite": "strict",
        }

    def _set(self, response: Response, name: str, value: str, root: str) -> None:
        response.set_cookie(name, value, max_age=8 * 3600, **self._how(root))

    # -- what goes wrong ---------------------------------------------------------------------------

    def _told(
        self, answer: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """The same, with our errors as pages, and with the session's new id if it got one."""

        async def safe(request: Request) -> Response:
            try:
                response = await answer(request)
            except CapwasmError as exc:
                response = self._fault(exc, request)
            made = request.scope.get(_ROTATED)
            if made is not None:
                self._set(response, self._session, made, _root(request))
            return response

        return safe

    def _fault(self, error: CapwasmError, request: Request) -> Response:
        status = STATUS.get(error.code) or _STATUS.get(error.code, 409)
        if isinstance(error, InternalError):
            status = 500
        session, _ = self.door.find(self._cookie(request, self._session), quiet=True)
        about = {"error": error, "status": status}
        if session is None:
            html = render.plain("fault.html", root=_root(request), **about)
        else:
            html = render.page(
                "error.html",
                about,
                root=_root(request),
                path=request.url.path.removeprefix(_root(request)),
                session=session,
                office=self.office,
                flash=None,
            )
        response = HTMLResponse(html, status)
        if status == 429:
            response.headers["retry-after"] = "60"
        return response

    async def _refused_early(self, error: AdminError, status: int, send: Send) -> None:
        html = render.plain("fault.html", root="", error=error, status=status, bare=True)
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"connection", b"close")]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD, POST"))
        body = html.encode()
        headers.append((b"content-length", str(len(body)).encode()))
        start: Message = {"type": "http.response.start", "status": status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": body})

    async def _nothing(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        error = AdminError("there is no such page", code="admin.not-found")
        await self._fault(error, request)(scope, receive, send)


_STATUS: Final[Mapping[str, int]] = {
    "registry.unknown": 404,
    "registry.busy": 503,
    "audit.busy": 503,
    "internal": 500,
}


async def _static(name: str, _request: Request) -> Response:
    kind, data = render.STATIC[name]
    return Response(data, media_type=kind)


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")
