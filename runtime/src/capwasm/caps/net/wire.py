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
from typing import Final

from capwasm.call import CallRecord
from capwasm.caps._descriptors import is_reserved
from capwasm.errors import InternalError

from .refusal import Refusal, refusal
from .url import Address, Url
from .watch import Watch

__all__ = ["Dial", "PinnedStream", "connect", "tls_context"]

_PENDING: Final = frozenset({0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR})
_KINDS: Final = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "unroutable",
    errno.ENETUNREACH: "unroutable",
}
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
        return PinnedStream(sock, address)
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
            watch.wait_socket(sock.fileno(), select.POLLOUT)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            name = errno.errorcode.get(code, str(code))
            raise refusal("unavailable", "unreachable", name, _KINDS.get(code, ""))
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
        _handshake(secured, watch)
    except BaseException as exc:
        secured.close()
        if isinstance(exc, ssl.SSLCertVerificationError):
            raise refusal("insecure", "tls", exc.verify_message, "certificate") from None
        if isinstance(exc, ssl.SSLEOFError) or not isinstance(exc, ssl.SSLError):
            if isinstance(exc, OSError):
                raise refusal("unavailable", "unreachable", type(exc).__name__) from None
            raise
        raise refusal("insecure", "tls", exc.reason or "handshake") from None
    return secured


def _handshake(sock: ssl.SSLSocket, watch: Watch) -> None:
    while True:
        watch.check()
        try:
            return sock.do_handshake()
        except ssl.SSLWantReadError:
            events = select.POLLIN
        except ssl.SSLWantWriteError:
            events = select.POLLOUT
        watch.wait_socket(sock.fileno(), events)


class PinnedStream:
    """One connection, which never waits.  Every byte is charged to the call that moves it.

    Attributes:
        address: where it leads.
        sent, received: bytes so far, TLS aside.   closed: whether it was closed on this side.
        reading, writing: the event of `select.poll` after which that is worth another try.
    """

    def __init__(self, sock: socket.socket, address: Address) -> None:
        """Take over `sock`, which does not block."""
        self._sock = sock
        self.address = address
        self.sent = self.received = 0
        self.closed = False
        self.reading, self.writing = select.POLLIN, select.POLLOUT

    def fileno(self) -> int:
        """The socket's, to be polled and nothing else."""
        return self._sock.fileno()

    def read(self, call: CallRecord) -> bytes | None:
        """What is there, up to 64 KiB; empty at the end, None if nothing is there yet.

        Raises:
            CapError: `unavailable`: it broke off.
            NetBudgetExceeded: the call must end.
        """
        # One more than the budget has left, so that it shows.
        room = max(1, call.limits.net_bytes - call.net_bytes + 1)
        try:
            data = self._sock.recv(min(_CHUNK, room))
        except ssl.SSLWantWriteError:
            self.reading = select.POLLOUT
            return None
        except (BlockingIOError, ssl.SSLWantReadError):
            self.reading = select.POLLIN
            return None
        except ssl.SSLZeroReturnError:
            return b""
        except OSError as exc:
            raise refusal("unavailable", "unreachable", type(exc).__name__) from None
        self.received += len(data)
        call.charge_net(len(data))
        return data

    def write(self, data: memoryview, call: CallRecord) -> int:
        """How many of these bytes were taken; 0 if none can be yet.

        Raises:
            OSError: the other end takes no more.  It may have answered before it had read all.
            NetBudgetExceeded: the call must end.
        """
        piece = data[:_CHUNK]
        # Charged before it leaves, so that the budget is never overdrawn.
        call.charge_net(len(piece))
        count = 0
        try:
            count = self._sock.send(piece)
        except ssl.SSLWantReadError:
            self.writing = select.POLLIN
        except (BlockingIOError, ssl.SSLWantWriteError):
            self.writing = select.POLLOUT
        finally:
            call.net_bytes -= len(piece) - count
        self.sent += count
        return count

    def close(self) -> None:
        """Close it, at once."""
        self.closed = True
        self._sock.close()

    def has_news(self) -> bool:
        """Whether something can be read, if only its end: of an idle connection, a bad sign."""
        poller = select.poll()
        try:
            poller.register(self._sock.fileno(), select.POLLIN)
        except ValueError:  # closed
            return True
        return bool(poller.poll(0))


Dial = Callable[[list[Address], Url, Callable[[], ssl.SSLContext], Watch], PinnedStream]
"""Makes a connection to one of some addresses: `connect`."""
