"""Serves the page by itself: on the loopback interface, on a name that nobody else has.

Browsers keep cookies by host and not by port, so whatever else listens on 127.0.0.1 would be sent
those of this page.  Therefore it has a name of its own each time, `capwasm-….localhost`, which
browsers lead to the loopback interface by themselves (RFC 6761, section 6.3) and which nobody can
guess.  127.0.0.1 is answered too, for browsers that don't.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from capwasm._files import write_file
from capwasm.errors import AdminError

__all__ = ["Place", "serve", "settle"]

HEAD_SECONDS: Final = 10.0
MAX_CONNECTIONS: Final = 64
MAX_HEAD_BYTES: Final = 20 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where the page is.

    Attributes:
        listener: bound, and listening.
        hosts: what `Host` may be.
        url: without the token, ending in a slash.   other: for who can't open that, or empty.
        certificate, key: files in PEM, or None for plain HTTP.
    """

    listener: socket.socket
    hosts: frozenset[str]
    url: str
    other: str
    certificate: Path | None = None
    key: Path | None = None

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.certificate is not None


def settle(
    host: str,
    port: int,
    *,
    expose: bool = False,
    names: tuple[str, ...] = (),
    certificate: Path | None = None,
    key: Path | None = None,
) -> Place:
    """Take the place to listen at, before anything is told of it.

    Args:
        host: an IP address.
        port: 0 for any that is free.
        expose: whether an address that other machines can reach is meant.
        names: by which browsers call it, beyond the loopback names.
        certificate: a file in PEM, or None for plain HTTP.
        key: of the certificate, in PEM, not encrypted.

    Raises:
        AdminError: `admin.serve`: the address, or without TLS where others reach it; the port is
            taken; the files are no certificate and its key.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise _no(f"{ascii(host)[1:-1]} is not an IP address") from None
    if not address.is_loopback and not expose:
        raise _no(
            f"{address} can be reached by other machines, and whoever has the token there acts as you;"
            " say --expose if that is meant"
        )
    if (certificate is None) != (key is None):
        raise _no("a certificate and its key go together")
    if not address.is_loopback and certificate is None:
        raise _no("other machines are only served over TLS: name --tls-cert and --tls-key")
    if certificate is not None:
        _check_tls(certificate, key)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    # Said to be TCP, for asyncio sends small pieces at once only then.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
        listener.listen(MAX_CONNECTIONS)
    except (OSError, OverflowError) as exc:
        listener.close()
        why = exc.strerror if isinstance(exc, OSError) else "no such port"
        raise _no(f"can't listen at {address} port {port}: {why}") from None
    bound = int(listener.getsockname()[1])
    scheme = "https" if certificate else "http"
    plain = f"[{address}]" if address.version == 6 else str(address)
    own = f"capwasm-{secrets.token_hex(8)}.localhost"
    # Over TLS the name must be the certificate's; and there cookies are bound to https.
    first = names[0] if names else plain if certificate else own
    known = {*names, plain, *({own, "localhost"} if address.is_loopback else ())}
    usual = bound == (443 if certificate else 80)
    hosts = {f"{h}:{bound}".lower() for h in known} | (
        {h.lower() for h in known} if usual else set()
    )
    return Place(
        listener,
        frozenset(hosts),
        f"{scheme}://{first}:{bound}/",
        f"{scheme}://{plain}:{bound}/" if first == own else "",
        certificate,
        key,
    )


def _check_tls(certificate: Path, key: Path | None) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            certificate, key, password=_none
        )
    except (OSError, ValueError):  # an SSLError is an OSError, and may quote nothing of the key
        raise _no("the TLS files are no certificate and the key of it, in PEM") from None


def _none() -> str:
    raise ValueError("the key is encrypted")


def serve(
    page: Any,
    place: Place,
    *,
    ready: Callable[[], None] = lambda: None,
    made: Callable[[uvicorn.Server], None] = lambda _server: None,
) -> None:
    """Serve until the process is told to end (SIGINT, SIGTERM), or the server is.

    Args:
        page: the ASGI application.
        place: where.
        ready: called once it answers.
        made: given the server, whose `should_exit` ends it from another thread.
    """
    config = uvicorn.Config(
        page,
        http=_Protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ssl_certfile=place.certificate,
        ssl_keyfile=place.key,
    )
    server = _Server(config, ready)
    made(server)
    with contextlib.closing(place.listener):
        server.run(sockets=[place.listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End by these signals, and with that be done: the server itself would raise them again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Protocol(H11Protocol):
    """Lets go of who does not send a whole head in time, or does not read; the server itself does not."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._late)

    def _late(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle  # None until the first head is whole
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # to close it would wait until all is read
        elif cycle is None or cycle.response_complete:
            self.transport.close()
        else:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._late)


def write_token(path: Path, text: str) -> None:
    """Write the address with the token for its owner alone.

    Raises:
        AdminError: `admin.serve`.
    """
    write_file(path, text.encode(), AdminError, code="admin.serve", mode=0o600)


def _no(message: str) -> AdminError:
    return AdminError(message, code="admin.serve")
