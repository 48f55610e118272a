"""Names to addresses: asked once a hop, in a bounded number of threads, never past the deadline."""

from __future__ import annotations

import errno
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from .address import parse_address
from .refusal import refusal
from .url import Address
from .watch import Watch

__all__ = ["Lookups", "Resolve", "is_own_address", "system_resolve"]

Resolve = Callable[[str, int], Sequence[str]]
"""Name and port to addresses as text.  May block; raises `OSError` when there are none."""

MAX_LOOKUPS: Final = 32
MAX_LOOKUPS_EACH: Final = 4  # so that one plugin's slow names don't keep others waiting
MAX_ANSWERS: Final = 64


def system_resolve(name: str, port: int) -> list[str]:
    """Ask the system's resolver."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(sockaddr[0]) for *_, sockaddr in found]


class Lookups:
    """Runs a blocking resolver beside the caller, who may leave before it returns.

    A lookup that was left behind keeps its place until the resolver returns, so the number of
    threads is bounded whatever a name server does.
    """

    def __init__(self, resolve: Resolve = system_resolve) -> None:
        """Use `resolve`."""
        self._resolve = resolve
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    def addresses(self, owner: str, name: str, port: int, watch: Watch) -> list[Address]:
        """Every address of `name`, each once, in the resolver's order.

        Args:
            owner: the plugin for which it is.
            name: canonical.
            port: for resolvers that want it.
            watch: how long, and whether still.

        Raises:
            CapError: `unavailable` when there is none or too many lookups are under way;
                `denied` when an answer is no address; what `watch` raises.
        """
        self._enter(owner)
        done = threading.Event()
        answers: list[str] = []
        failure: list[Exception] = []

        def run() -> None:
            try:
                answers.extend(self._resolve(name, port))
            except Exception as exc:  # noqa: BLE001  whatever a resolver raises, it found nothing
                failure.append(exc)
            finally:
                self._leave(owner)
                done.set()

        try:
            threading.Thread(target=run, name="capwasm-lookup", daemon=True).start()
        except RuntimeError:  # no more threads
            self._leave(owner)
            raise refusal("unavailable", "busy", "no thread for a lookup") from None
        watch.wait_event(done)
        if failure or not answers:
            why = type(failure[0]).__name__ if failure else "no answer"
            raise refusal("unavailable", "no-address", why)
        if len(answers) > MAX_ANSWERS:
            raise refusal("denied", "private-address", f"more than {MAX_ANSWERS} addresses")
        try:
            return list(dict.fromkeys(parse_address(text) for text in answers))
        except ValueError:
            raise refusal("denied", "private-address", "an answer is not an address") from None

    def _enter(self, owner: str) -> None:
        with self._lock:
            if self._running[owner] >= MAX_LOOKUPS_EACH or self._running.total() >= MAX_LOOKUPS:
                raise refusal("unavailable", "busy", "too many lookups are under way")
            self._running[owner] += 1

    def _leave(self, owner: str) -> None:
        with self._lock:
            self._running[owner] -= 1
            if not self._running[owner]:
                del self._running[owner]


def is_own_address(address: Address) -> bool:
    """Whether the address is one of this machine's own (NET-06).

    The kernel is asked: it lets a socket be bound to its own addresses alone.  Where it was told
    to bind to any, the source that it would send from tells, which is the address itself.

    Raises:
        CapError: `unavailable`: the kernel can't be asked.
    """
    try:
        return _is_own(address)
    except OSError as exc:
        if exc.errno == errno.EAFNOSUPPORT:
            return False  # no address of that family is anything here
        raise refusal("unavailable", "unreachable", type(exc).__name__) from None


def _is_own(address: Address) -> bool:
    if not _can_bind(address):
        return False
    nowhere = "2001:db8::1" if address.version == 6 else "192.0.2.213"
    if not _can_bind(parse_address(nowhere)):
        return True
    with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))  # no packet: this only chooses a route
        except OSError:
            return False
        return str(probe.getsockname()[0]) == str(address)


def _can_bind(address: Address) -> bool:
    with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
        return True


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET
