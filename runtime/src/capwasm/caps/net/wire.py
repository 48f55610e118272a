"""Sockets: a connection to exactly the address that was checked, TLS by name, nothing ambient.

No proxy, no netrc, no cookie jar, no variable of the environment is ever read here (NET-21).
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import httpcore

from capwasm.caps._descriptors import is_reserved
from capwasm.errors import InternalError

from .refusal import Refusal, refusal
from .url import Address, Url
from .watch import Watch

__all__ = ["Dial", "PinnedStream", "connect", "tls_context"]

T = TypeVar("T")

_PENDING: Final = frozenset({0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR})
_CHUNK: Final = 64 * 1024


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """A client's TLS settings: by name, TLS 1.2 or later, HTTP/1.1.

    Args:
        ca_file: PEM file of the only authorities to trust; None for the system's, at the places
            that OpenSSL was built with, and certifi's where there are none.  `SSL_CERT_FILE`,
            `SSL_CERT_DIR` and `SSLKEYLOGFILE` are not looked at.

    Raises:
        OSError: the file can't be read, or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the name, requires a certificate
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
        return context
    paths = ssl.get_default_verify_paths()
    file, folder = Path(paths.openssl_cafile), Path(paths.openssl_capath)
    cafile = file if file.is_file() else None
    capath = folder if folder.is_dir() and any(folder.iterdir()) else None
    if cafile is None and capath is None:
        import certifi

        cafile = Path(certifi.where())
    context.load_verify_locations(cafile, capath)
    return context


def connect(
    addresses: list[Address], url: Url, tls: Callable[[], ssl.SSLContext], watch: Watch
) -> PinnedStream:
    """A connection to the first of these addresses that answers, with TLS if the URL asks for it.

    Args:
        addresses: all checked, and nothing else is connected to.
        url: names the port, and the name that the certificate must be for.
        tls: makes or returns the TLS settings; called only where TLS is used.
        watch: how long, and whether still.

    Raises:
        CapError: `unavailable`, `insecure`, `timeout`, `closed`.
        CallInterrupted, DeadlineExceeded: the call must end.
    """
    for left in range(len(addresses), 0, -1):
        address = addresses[-left]
        # Each gets its share of the time, so that a dead first does not use up all of it.
        share = watch.narrowed(_share(watch, left))
        try:
            sock = _dial(address, url.port, share)
        except Refusal:
            watch.check()
            if left == 1:
                raise
            continue
        try:
            if url.scheme == "https":
                sock = _secure(sock, tls(), str(url.host), watch)
        except BaseException:
            sock.close()
            raise
        return PinnedStream(sock, address, watch)
    raise refusal("unavailable", "no-address")


def _share(watch: Watch, left: int) -> float:
    now = time.monotonic()
    return now + max(0.0, watch.until - now) / left


def _dial(address: Address, port: int, watch: Watch) -> socket.socket:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:  # no descriptor, or none of that family
        raise refusal("unavailable", "unreachable", type(exc).__name__) from None
    try:
        if is_reserved(sock.fileno()):
            raise refusal("unavailable", "busy", "the process has no descriptor to spare")
        sock.setblocking(False)  # noqa: FBT003  the library's own signature
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex((str(address), port))
        if code in _PENDING:
            watch.wait_socket(sock.fileno(), writing=True)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise refusal("unavailable", "unreachable", errno.errorcode.get(code, str(code)))
        # Check the check: what follows goes to the address that was allowed, or nowhere.
        if sock.getpeername()[0] != str(address):
            raise InternalError("connected to another address than the one checked")
    except BaseException as exc:
        sock.close()
        if isinstance(exc, OSError):
            raise refusal("unavailable", "unreachable", type(exc).__name__) from None
        raise
    return sock


def _secure(sock: socket.socket, context: ssl.SSLContext, name: str, watch: Watch) -> ssl.SSLSocket:
    try:
        # A connection that ends without a goodbye was cut: what only ends with it is not whole.
        secured = context.wrap_socket(
            sock, server_hostname=name, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
    except (OSError, ValueError) as exc:
        raise refusal("unavailable", "unreachable", type(exc).__name__) from None
    try:
        _ready(secured, secured.do_handshake, watch, writing=True)
    except BaseException as exc:
        secured.close()
        if isinstance(exc, ssl.SSLCertVerificationError):
            raise refusal("insecure", "tls", exc.verify_message) from None
        if isinstance(exc, ssl.SSLEOFError) or not isinstance(exc, ssl.SSLError):
            if isinstance(exc, OSError):
                raise refusal("unavailable", "unreachable", type(exc).__name__) from None
            raise
        raise refusal("insecure", "tls", exc.reason or "handshake") from None
    return secured


def _ready(sock: socket.socket, operation: Callable[[], T], watch: Watch, *, writing: bool) -> T:
    """Do a non-blocking operation once the socket lets it."""
    while True:
        watch.check()
        try:
            return operation()
        except ssl.SSLWantReadError:
            for_write = False
        except ssl.SSLWantWriteError:
            for_write = True
        except BlockingIOError:
            for_write = writing
        watch.wait_socket(sock.fileno(), writing=for_write)


class PinnedStream(httpcore.NetworkStream):
    """One connection.  Every byte is charged to the call of the operation that moves it.

    Attributes:
        address: where it leads.
        watch: that of the operation under way; set before each.
        sent, received: bytes so far, TLS aside.
    """

    def __init__(self, sock: socket.socket, address: Address, watch: Watch) -> None:
        """Take over `sock`, which does not block."""
        self._sock = sock
        self.address = address
        self.watch = watch
        self.sent = 0
        self.received = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """Up to `max_bytes`, at least one; none at the end."""
        size = min(max_bytes, self.watch.room())
        try:
            data = _ready(self._sock, lambda: self._sock.recv(size), self.watch, writing=False)
        except OSError as exc:
            if isinstance(exc, ssl.SSLZeroReturnError):
                return b""
            raise refusal("unavailable", "unreachable", type(exc).__name__) from None
        self.received += len(data)
        self.watch.call.charge_net(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """All of `buffer`."""
        view = memoryview(buffer)
        while view:
            piece = view[:_CHUNK]

            def send(piece: memoryview = piece) -> int:
                return self._sock.send(piece)

            # Charged before it leaves, so that the budget is never overdrawn.
            self.watch.call.charge_net(len(piece))
            try:
                count = _ready(self._sock, send, self.watch, writing=True)
            except OSError as exc:
                # The origin may have answered before it had read all: the answer is looked for.
                raise httpcore.WriteError(type(exc).__name__) from None
            self.watch.call.net_bytes -= len(piece) - count
            self.sent += count
            view = view[count:]

    def close(self) -> None:
        """Close it, at once."""
        self._sock.close()

    def get_extra_info(self, info: str) -> Any:
        """Whether there is something to read: all that is asked of an idle connection."""
        if info != "is_readable":
            return None
        poller = select.poll()
        try:
            poller.register(self._sock.fileno(), select.POLLIN)
        except ValueError:  # closed
            return True
        return bool(poller.poll(0))


Dial = Callable[[list[Address], Url, Callable[[], ssl.SSLContext], Watch], PinnedStream]
"""Makes a connection to one of some addresses: `connect`."""
