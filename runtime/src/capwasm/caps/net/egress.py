"""THE egress engine: the one way out of this process for whatever a plugin wants to send.

Each hop of a request goes through the same steps, and nothing is carried over from the hop before:

1. the URL is parsed, strictly, into its one form             `url`
2. a clause in force must allow it, and none deny it          `model`
3. its name is resolved, once                                 `resolve`
4. every address must be one that the clause may reach        `address`
5. secrets are put in, as far as they are for this origin     `credential`
6. it is recorded, before anything leaves
7. a connection is made to just such an address, TLS by name  `wire`, `pool`
8. the answer is bounded, undone and masked                   `body`, `handle`
9. a redirect is a new request that begins at 1
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol

import httpcore

from capwasm.call import CallRecord
from capwasm.capability import Grant, GrantedClause
from capwasm.errors import AuditError, CapError, CapwasmError
from capwasm.events import ALLOWED, DENIED, FAILED
from capwasm.record.redact import Redactor

from .address import PUBLIC, classify
from .body import Body, decoder_for
from .credential import injected
from .handle import ResponseHandle, verdict_of
from .message import complete, decoded, location_of, on_the_wire, shown
from .model import NetClause, NetOperation, is_denied
from .pool import Connection, Pool, protocol_errors
from .refusal import Refusal, refusal
from .request import Prepared, RequestSpec, prepare
from .resolve import Lookups, is_own_address
from .url import Address, Url, UrlError, join_url
from .watch import Watch
from .wire import Dial, connect

__all__ = ["MAX_REDIRECTS", "EgressEngine", "Record"]

MAX_REDIRECTS: Final = 10
MAX_RESPONSE_HEADERS: Final = 200
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
        self._open: set[ResponseHandle] = set()
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
        try:
            request = prepare(spec)
        except Refusal as exc:
            self._event(DENIED, "", "", exc.reason, detail=exc.detail)
            raise
        deadline = None
        if request.timeout is not None:
            deadline = time.monotonic() + request.timeout
            until = min(until, deadline)
        leases = [c.lease for c in request.credentials]
        for hop in range(MAX_REDIRECTS + 1):
            watch = Watch(call, leases, until)
            response, location = self._hop(grant, request, watch, hop, deadline)
            if location is None:
                return response
            response.discard()
            request = self._follow(request, response.status, location, hop)
        raise AssertionError  # the last hop either returned or was refused

    def close(self) -> None:
        """Close every connection, idle or not."""
        with self._lock:
            doomed = list(self._open)
        for response in doomed:
            response.close()
        self._pool.close()

    # -- one hop -------------------------------------------------------------------------------

    def _hop(
        self,
        grant: Grant[NetClause],
        request: Prepared,
        watch: Watch,
        hop: int,
        deadline: float | None,
    ) -> tuple[ResponseHandle, str | None]:
        """Send one request, and record whatever becomes of it."""
        failure: BaseException
        try:
            granted, addresses = self._authorise(grant, request, watch)
            # The grant's own lease first: the response lives under it.
            watch = Watch(watch.call, (granted.lease, *watch.leases), watch.until)
            return self._exchange(granted, addresses, request, watch, hop, deadline)
        except AuditError:
            raise
        except CapError as exc:
            reason = exc.reason if isinstance(exc, Refusal) else exc.word
            self._hop_event(verdict_of(exc), request, reason, hop, detail=exc.detail)
            failure = exc
        except CapwasmError as exc:
            self._hop_event(FAILED, request, exc.code, hop)
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

    def _exchange(
        self,
        granted: GrantedClause[NetClause],
        addresses: list[Address],
        request: Prepared,
        watch: Watch,
        hop: int,
        deadline: float | None,
    ) -> tuple[ResponseHandle, str | None]:
        size = len(request.body or b"")
        if size > watch.call.limits.net_bytes - watch.call.net_bytes:
            raise refusal("too-large", "too-large", "the request is larger than the budget left")
        secret_headers = injected(
            request.credentials, request.url.origin, self._mask, first=hop == 0
        )
        headers = complete(request, secret_headers)
        watch.check()
        # 6. Recorded before anything leaves; if it can't be, nothing does.
        self._hop_event(ALLOWED, request, "sent", hop, address=str(addresses[0]))
        connection = self._pool.take(granted.lease, request.url.origin, addresses)
        if connection is None:
            stream = self._dial(addresses, request.url, self._tls, watch)
            connection = Connection.over(stream, request.url, granted.lease)
        stream = connection.stream
        stream.watch = watch
        base = stream.sent, stream.received
        try:
            with protocol_errors():
                answer = connection.http.handle_request(on_the_wire(request, headers))
            return self._response(answer, connection, request, watch, hop, deadline, base)
        except BaseException:
            connection.http.close()
            raise

    def _response(
        self,
        answer: httpcore.Response,
        connection: Connection,
        request: Prepared,
        watch: Watch,
        hop: int,
        deadline: float | None,
        base: tuple[int, int],
    ) -> tuple[ResponseHandle, str | None]:
        if answer.status < 200:
            raise refusal("unavailable", "protocol", f"an answer of {answer.status}")
        if len(answer.headers) > MAX_RESPONSE_HEADERS:
            raise refusal("too-large", "headers", f"more than {MAX_RESPONSE_HEADERS} headers")
        headers = decoded(answer.headers)
        framing = {name.lower() for name, _ in headers}
        if framing >= {"content-length", "transfer-encoding"}:
            # RFC 9112, 6.3: what lies between may have believed the other one.
            raise refusal("unavailable", "protocol", "a length and a transfer encoding")
        location = None if request.redirects == "manual" else location_of(answer.status, headers)
        bodiless = request.method == "HEAD" or answer.status in (204, 304)
        # A redirect's body is never read, so never decoded either (NET-22).
        encodings = [v for n, v in headers if n.lower() == "content-encoding"]
        decoder = None if bodiless or location is not None else decoder_for(encodings)
        # Also where no secret was sent yet: one that is sent later may come back through this body.
        mask = self._mask.stream()
        body = Body(answer.iter_stream(), decoder, mask, watch.call.limits.net_bytes)

        def ended(response: ResponseHandle, verdict: str, reason: str, detail: str) -> None:
            with self._lock:
                self._open.discard(response)
            self._pool.give(connection)
            stream = connection.stream
            self._hop_event(
                verdict,
                request,
                reason,
                hop,
                detail=detail,
                address=str(stream.address),
                status=answer.status,
                sent=stream.sent - base[0],
                received=stream.received - base[1],
            )

        response = ResponseHandle(
            watch.leases,
            answer,
            connection,
            shown(headers, is_head=request.method == "HEAD", mask=self._mask),
            str(request.url),
            body,
            deadline,
            ended,
        )
        with self._lock:
            self._open.add(response)
        return response, location

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
