"""`capwasm serve-plugin`: a plugin that answers HTTP requests, behind a server of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ._output import epilog, home_option, json_option, say_json, shown
from ._progress import CompileLine

if TYPE_CHECKING:
    from collections.abc import Collection

    from capwasm.asgi import PluginApp
    from capwasm.plugin import Plugin

__all__ = ["commands"]

_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.command(
    "serve-plugin",
    epilog=epilog(
        "capwasm serve-plugin acme.site",
        "capwasm serve-plugin --port 8080 acme.site-1.0.0.capsule",
        "capwasm serve-plugin --show cookie --send set-cookie acme.site",
        codes="0 it was stopped, 1 it can't be served so, 2 wrong usage",
    ),
)
@home_option
@json_option
@click.option("--core", help="The version of the core, for requires-core; capwasm's own if none.")
@click.option("--port", type=click.IntRange(0, 65535), default=8791, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="The IP address to listen at.")
@click.option("--expose", is_flag=True, help="Other machines are meant to reach it.  Needs TLS.")
@click.option("--tls-cert", type=_FILE, help="Its certificate, in PEM.")
@click.option("--tls-key", type=_FILE, help="The key of that, in PEM.")
@click.option(
    "--show", multiple=True, metavar="HEADER", help="Show it this header of clients, as cookie."
)
@click.option(
    "--send", multiple=True, metavar="HEADER", help="Send clients this header, as set-cookie."
)
@click.argument("source")
def serve_plugin(
    home_path: Path,
    as_json: bool,
    core: str | None,
    port: int,
    host: str,
    expose: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    show: tuple[str, ...],
    send: tuple[str, ...],
    source: str,
) -> None:
    """Hand HTTP requests to the plugin SOURCE, which exports wasi:http/incoming-handler.

    SOURCE is the file of a capsule, or the id of an installed plugin.  What the plugin may do is what
    policy.toml and the consents of --home allow.  Each request is a call, with its limits.  On stderr
    there is a line for each; Ctrl-C stops it.
    """
    from capwasm import admin
    from capwasm.asgi import HIDE, WITHHOLD, PluginApp
    from capwasm.runtime import Runtime

    from ._source import is_id
    from .call import core_version

    admin.require_extra()
    from capwasm.admin.server import serve, settle

    with Runtime.open(
        home_path,
        core_version=core_version(core),
        on_slow=lambda text: click.echo(text, err=True),
        on_compile=CompileLine(),
    ) as runtime:
        plugin = (runtime.load_installed if is_id(source) else runtime.load)(source)
        app = PluginApp(plugin, hide=_less(HIDE, show), withhold=_less(WITHHOLD, send))
        place = settle(host, port, expose=expose, certificate=tls_cert, key=tls_key)
        url = place.other or place.url
        serve(_Logged(app), place, ready=lambda: _say(plugin, url, as_json=as_json))


def _less(names: Collection[str], given: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names) - {name.lower() for name in given}


def _say(plugin: Plugin, url: str, *, as_json: bool) -> None:
    if as_json:
        say_json({"url": url, "plugin": plugin.id, "version": plugin.version})
        return
    click.echo(f"{shown(plugin.name)} answers at {url}\nCtrl-C stops it.")


class _Logged:
    """The application, with a line on stderr for each request."""

    def __init__(self, app: PluginApp) -> None:
        """Log what it answers."""
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, and tell of it: the client, method, path, status, bytes, milliseconds."""
        from capwasm.asgi import Incomplete

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, size, end = time.monotonic(), "-", 0, ""

        async def tell(message: Any) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = str(message["status"])
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, tell)
        except Incomplete:
            end = " broke off"  # the server sees that it did, and closes the connection
        finally:
            client = (scope.get("client") or ("-",))[0]
            ms = round((time.monotonic() - began) * 1000)
            line = f"{client} {scope['method']} {scope['path'][:200]} {status} {size}B {ms}ms{end}"
            click.echo(shown(line), err=True)


commands: list[click.Command] = [serve_plugin]
