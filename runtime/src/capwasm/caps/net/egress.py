"""THE egress engine: the one way out of this process for whatever a plugin wants to send.

Each hop of a request goes through the same steps, and nothing is carried over from the hop before:

1. the URL is parsed, strictly, into its one form             `url`
2. a clause in force must allow it, and none deny it          `model`
3. its name is resolved, once                                 `resolve`
4. every address must be one that the clause may reach        `address`
5. secrets are put in, as far as they are for this origin     `credential`
6. it is recorded, before anything leaves
7. a connection is made to just such an address, TLS by name  `wire`, `pool`
8. the answer is bounded, undone and masked                   `exchange`, `hop`, `body`
9. a redirect is a new request that begins at 1
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol

from capwasm.call import CallRecord
from capwasm.capability import Grant, GrantedClause
from capwasm.errors import AuditError, CapError, CapwasmError
from capwasm.events import ALLOWED, DENIED, FAILED
from capwasm.record.redact import Redactor

from .address import PUBLIC, classify
from .credential import injected
from .exchange import Exchange
from .handle import ResponseHandle
from .hop import Hop, verdict_of
from .message import complete
from .model import NetClause, NetOperation, is_denied
from .pool import Connection, Pool
from .refusal import Refusal, refusal
from .request import Prepared, RequestSpec, prepare
from .resolve import Lookups, is_own_address
from .url import Address, Url, UrlError, join_url
from .watch import Watch
from .wire import Dial, connect

__all__ = ["MAX_REDIRECTS", "EgressEngine", "Record"]

MAX_REDIRECTS: Final = 10
MAX_TARGET: Final = 512  # characters of an audit target


class Record(Protocol):
    """Records an event of one plugin: `OpenContext.record`."""

    def __call__(self, kind: str, verdict: str, **fields: Any) -> None:
        """Record it, or raise `AuditError`."""
        ...


class EgressEngine:
    """Sends the requests of one instance.  No two instances share a connection or a cookie."""

    def __init__(
        self,
        owner: str,
        record: Record,
        lookups: Lookups,
        tls: Callable[[], ssl.SSLContext],
        *,
        is_own: Callable[[Address], bool] = is_own_address,
        dial: Dial = connect,
    ) -> None:
        """Make one for an instance; it takes no power until it is used.

        Args:
            owner: the plugin's id: lookups are bounded for each.
            record: where each hop is recorded.
            lookups: the resolver; shared by all.
            tls: returns the TLS settings; shared by all, and asked for only when TLS is used.
            is_own: whether an address is this machine's own.
            dial: connects, once all has been decided.
        """
        self._owner = owner
        self._record = record
        self._lookups = lookups
        self._tls = tls
        self._is_own = is_own
        self._dial = dial
        self._pool = Pool()
        self._mask = Redactor()
        self._open: set[Hop] = set()
        self._lock = threading.Lock()

    def request(
        self, grant: Grant[NetClause], spec: RequestSpec, call: CallRecord
    ) -> ResponseHandle:
        """Send a request, follow its redirects, and return once the last answer's head is here.

        Args:
            grant: what the plugin may do, asked anew at each hop.
            spec: the request.
            call: pays for the bytes, and bounds the time.

        Raises:
            CapError: a word of `capwasm:fetch/client.error`.
            CapwasmError: the call must end.
        """
        until = time.monotonic() + call.remaining()
        request = self._prepared(spec)
        deadline = None
        if request.timeout is not None:
            deadline = time.monotonic() + request.timeout
            until = min(until, deadline)
        for number in range(MAX_REDIRECTS + 1):
            watch = Watch(call, (), until)
            hop = self._hop(grant, request, watch, number, deadline, len(request.body or b""))
            answer = hop.send(until)
            if answer.location is None:
                return ResponseHandle(hop, answer)
            hop.end(ALLOWED, "redirected")
            request = self._follow(request, answer.status, answer.location, number)
        raise AssertionError  # the last hop either returned or was refused

    def open(
        self,
        grant: Grant[NetClause],
        spec: RequestSpec,
        call: CallRecord,
        *,
        size: int,
        connecting: float | None = None,
    ) -> Hop:
        """Connect for a request whose parts come later, and whose redirects are returned.

        Args:
            grant: what the plugin may do.
            spec: the request without its body.
            call: pays for the bytes, and bounds the time.
            size: of its body in bytes, as far as it is known.
            connecting: seconds that the connection may take, besides.

        Raises:
            As `request`.
        """
        until = call.remaining() if connecting is None else min(connecting, call.remaining())
        watch = Watch(call, (), time.monotonic() + until)
        return self._hop(grant, self._prepared(spec), watch, 0, None, size)

    def close(self) -> None:
        """Close every connection, idle or not."""
        with self._lock:
            doomed = list(self._open)
        for hop in doomed:
            hop.drop()
        self._pool.close()

    def _prepared(self, spec: RequestSpec) -> Prepared:
        try:
            return prepare(spec)
        except Refusal as exc:
            self._event(DENIED, "", "", exc.reason, detail=exc.detail)
            raise

    # -- one hop -------------------------------------------------------------------------------

    def _hop(
        self,
        grant: Grant[NetClause],
        request: Prepared,
        watch: Watch,
        number: int,
        deadline: float | None,
        size: int,
    ) -> Hop:
        """Connect for one request, and record what stands in its way."""
        failure: BaseException
        watch = Watch(watch.call, [c.lease for c in request.credentials], watch.until, "lookup")
        try:
            granted, addresses = self._authorise(grant, request, watch)
            # The grant's own lease first: the answer lives under it.
            watch = Watch(watch.call, (granted.lease, *watch.leases), watch.until, "connect")
            return self._connected(granted, addresses, request, watch, number, deadline, size)
        except AuditError:
            raise
        except CapError as exc:
            reason = exc.reason if isinstance(exc, Refusal) else exc.word
            self._hop_event(verdict_of(exc), request, reason, number, detail=exc.detail)
            failure = exc
        except CapwasmError as exc:
            self._hop_event(FAILED, request, exc.code, number)
            failure = exc
        # Raised afresh: the frames below hold the request's headers, secrets among them (SEC-10).
        failure.__cause__ = failure.__context__ = None
        raise failure.with_traceback(None)

    def _authorise(
        self, grant: Grant[NetClause], request: Prepared, watch: Watch
    ) -> tuple[GrantedClause[NetClause], list[Address]]:
        """The clause that allows the request, and the addresses it may go to: all that there are.

        Raises:
            CapError: `denied`, `closed` when only a revocation stands in the way, `unavailable`.
        """
        url = request.url
        op = NetOperation(url.scheme, url.host, url.port, url.path, request.method)
        if is_denied(grant.deny, op) or grant.find(lambda c: c.allows(op)) is None:
            raise _not_granted(grant, op)
        watch.check()
        addresses: list[Address] = (
            self._lookups.addresses(self._owner, url.host, url.port, watch)
            if isinstance(url.host, str)
            else [url.host]
        )
        # NET-08: one address that may not be reached is enough to refuse.
        if any(is_denied(grant.deny, replace(op, host=address)) for address in addresses):
            raise refusal("denied", "not-granted", "the name leads to a denied network")
        own = [a for a in addresses if self._is_own(a)]
        granted = grant.find(
            lambda c: c.allows(op) and all(_reaches(c, a, own=a in own) for a in addresses)
        )
        if granted is None:
            if grant.find(lambda c: c.allows(op)) is None:
                raise _not_granted(grant, op)
            kinds = [f"{a} is {'own, ' * (a in own)}{classify(a)}" for a in addresses[:4]]
            raise refusal("denied", "private-address", "; ".join(kinds))
        return granted, addresses

    def _connected(
        self,
        granted: GrantedClause[NetClause],
        addresses: list[Address],
        request: Prepared,
        watch: Watch,
        number: int,
        deadline: float | None,
        size: int,
    ) -> Hop:
        if size > watch.call.limits.net_bytes - watch.call.net_bytes:
            raise refusal("too-large", "too-large", "the request is larger than the budget left")
        secret_headers = injected(
            request.credentials, request.url.origin, self._mask, first=number == 0
        )
        headers = complete(request, secret_headers)
        watch.check()
        # 6. Recorded before anything leaves; if it can't be, nothing does.
        self._hop_event(ALLOWED, request, "sent", number, address=str(addresses[0]))
        connection = self._pool.take(granted.lease, request.url.origin, addresses)
        if connection is None:
            stream = self._dial(addresses, request.url, self._tls, watch)
            connection = Connection(stream, granted.lease, request.url.origin)
        stream = connection.stream
        sent, received = stream.sent, stream.received

        def ended(hop: Hop, verdict: str, reason: str, detail: str) -> None:
            with self._lock:
                self._open.discard(hop)
            self._pool.give(connection)
            self._hop_event(
                verdict,
                request,
                reason,
                number,
                detail=detail,
                address=str(stream.address),
                status=hop.answer.status if hop.answer else None,
                sent=stream.sent - sent,
                received=stream.received - received,
            )

        hop = Hop(Exchange(connection), request, headers, watch.leases, self._mask, deadline, ended)
        with self._lock:
            self._open.add(hop)
        return hop

    # -- redirects -----------------------------------------------------------------------------

    def _follow(self, request: Prepared, status: int, location: str, hop: int) -> Prepared:
        """The request that a redirect asks for; it still has to pass every step.

        Raises:
            CapError: `denied`.
        """
        url: Url | None = None
        try:
            if request.redirects == "refuse":
                raise refusal("denied", "redirect-denied", "redirects were refused")
            if hop == MAX_REDIRECTS:
                raise refusal("denied", "too-many-redirects", f"more than {MAX_REDIRECTS}")
            try:
                url = join_url(request.url, location)
            except UrlError as exc:
                raise refusal("denied", "redirect-denied", str(exc)) from None
            if self._mask.text(location) != location:
                url = None  # nor does the audit need it
                raise refusal("denied", "redirect-leak", "its URL carries an injected secret")
            if request.url.scheme == "https" and url.scheme == "http":
                raise refusal("denied", "redirect-downgrade", "from https to http")
        except Refusal as exc:
            target = "" if url is None else _target(url)
            self._event(DENIED, request.method, target, exc.reason, detail=exc.detail, hop=hop + 1)
            raise
        return request.redirected(status, url)

    # -- audit ---------------------------------------------------------------------------------

    def _hop_event(
        self, verdict: str, request: Prepared, reason: str, hop: int, **details: Any
    ) -> None:
        self._event(verdict, request.method, _target(request.url), reason, hop=hop, **details)

    def _event(self, verdict: str, action: str, target: str, reason: str, **details: Any) -> None:
        kept = {k: v for k, v in details.items() if v not in ("", None)}
        self._record("net", verdict, action=action, target=target, reason=reason, details=kept)


# -- decisions -----------------------------------------------------------------------------------


def _not_granted(grant: Grant[NetClause], op: NetOperation) -> Refusal:
    if not is_denied(grant.deny, op):
        revoked = next((g for g in grant.allow if g.clause.allows(op)), None)
        if revoked is not None:
            return refusal("closed", "revoked", revoked.lease.reason or "")
    return refusal("denied", "not-granted")


def _reaches(clause: NetClause, address: Address, *, own: bool) -> bool:
    """Whether the clause may reach the address: a public one of others, or one that it names."""
    if not clause.allows_address(address):
        return False
    return clause.names_address(address) or (classify(address) == PUBLIC and not own)


def _target(url: Url) -> str:
    return f"{url.origin}{url.path}"[:MAX_TARGET]
