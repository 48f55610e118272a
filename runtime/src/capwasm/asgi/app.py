"""A plugin that exports `wasi:http/incoming-handler`, as an ASGI application."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from capwasm.engine.exports import Export
from capwasm.errors import LinkError
from capwasm.plugin import Plugin

from .conversation import Conversation, Receive, Send, say
from .heads import HIDE, WITHHOLD, Bounds, NotServed, request_head

__all__ = ["PluginApp"]

_INTERFACE: Final = "wasi:http/incoming-handler"


class PluginApp:
    """An ASGI 3 application that hands each request to a plugin.

    Each is one call of the plugin, with its limits, its record in the audit log, and an instance of its
    own where the manifest says no other thing.  A client that goes away interrupts it.

    A client is told of a plugin that answers badly by a status alone: 502 if it traps, breaks a limit or
    gives no answer, 504 if its time is over, 503 if it is busy, killed or out of service.  If a
    response had begun, the connection is closed instead.  The log `capwasm.asgi` says why.
    """

    def __init__(
        self,
        plugin: Plugin,
        *,
        hide: Collection[str] = HIDE,
        withhold: Collection[str] = WITHHOLD,
        bounds: Bounds | None = None,
        send_seconds: float = 30.0,
    ) -> None:
        """Serve that plugin, for as long as it is loaded.

        Args:
            plugin: loaded; it exports `wasi:http/incoming-handler`.
            hide: headers of clients that it is not shown.
            withhold: headers of its responses that clients are not sent.
            bounds: of requests.
            send_seconds: how long a client may take for what is left of a response, at most 256 KiB
                and a piece, once the plugin is done.

        Raises:
            LinkError: `link.export`: it answers no requests.
        """
        export = _handler_of(plugin)
        if export is None:
            raise LinkError(
                f"it answers no requests: it does not export {_INTERFACE}",
                code="link.export",
                context=plugin.name,
            )
        self._plugin, self._function = plugin, export.whole
        self._hide = frozenset(name.lower() for name in hide)
        self._withhold = frozenset(name.lower() for name in withhold)
        self._bounds = bounds or Bounds()
        self._send_seconds = send_seconds
        single = plugin.manifest.plugin.instance == "single"
        self._most = 1 if single else plugin.limits.concurrency
        self._busy = 0

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, or live along with the server.

        Raises:
            Incomplete: a response broke off that had begun.
            ValueError: it is of a protocol that is not served.
        """
        match scope["type"]:
            case "http":
                await self._answer(scope, receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1000})
            case "lifespan":
                await _live(receive, send)
            case other:
                raise ValueError(f"{str(other)[:40]!r} is not served")

    async def _answer(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        bodiless = scope["method"] == "HEAD"
        try:
            head = request_head(scope, self._bounds, self._hide)
        except NotServed as exc:
            await say(send, exc.status, head=bodiless)
            return
        # Asked here, so that a flood of requests does not become one of records.
        if self._busy >= self._most:
            await say(send, 503, head=bodiless)
            return
        self._busy += 1
        try:
            await Conversation(
                self._plugin.name,
                head,
                lambda request, out: self._plugin.acall(
                    self._function, request, out, wait_seconds=0
                ),
                max_body=self._bounds.body,
                withhold=self._withhold,
                send_seconds=self._send_seconds,
            ).run(scope, receive, send)
        finally:
            self._busy -= 1


def _handler_of(plugin: Plugin) -> Export | None:
    found = (e for e in plugin.functions if e.interface.startswith(f"{_INTERFACE}@"))
    return next((e for e in found if e.name == "handle"), None)


async def _live(receive: Receive, send: Send) -> None:
    """The plugin was loaded before and is closed by whoever did so; there is nothing to do."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
