"""`wasi:http` 0.2, outgoing: on the egress engine of the net capability, and nothing else.

What may be sent where, to which address, with which secrets, and how that is recorded is decided in
`caps.net.egress`, for this door and `capwasm:fetch` alike; here its steps are put into the words of WASI.
Each request is one hop: redirects are returned, and what a library follows comes back as a request.
"""

from __future__ import annotations

from collections.abc import Callable

from capwasm.capability import HostFunc, Interface
from capwasm.caps.net.credential import Credential
from capwasm.handles import Handle
from capwasm.wasi._refuse import Ledger, Refused, named

from .download import FutureResponse, FutureTrailers, IncomingBody, IncomingResponse
from .errors import stream_code
from .fields import Fields
from .request import OutgoingRequest, RequestOptions, Way, handle
from .upload import OutgoingBody

__all__ = ["interfaces"]

_TYPES, _HANDLER = named("http/types"), named("http/outgoing-handler")


class IncomingRequest(Handle):
    """Never made; the type is needed to link."""

    __slots__ = ()


class OutgoingResponse(Handle):
    """Never made; the type is needed to link."""

    __slots__ = ()


class ResponseOutparam(Handle):
    """Never made; the type is needed to link."""

    __slots__ = ()


_RESOURCES: dict[str, type[Handle]] = {
    "fields": Fields,
    # Other names for the same.
    "headers": Fields,
    "trailers": Fields,
    "incoming-request": IncomingRequest,
    "outgoing-request": OutgoingRequest,
    "request-options": RequestOptions,
    "response-outparam": ResponseOutparam,
    "incoming-response": IncomingResponse,
    "incoming-body": IncomingBody,
    "future-trailers": FutureTrailers,
    "outgoing-response": OutgoingResponse,
    "outgoing-body": OutgoingBody,
    "future-incoming-response": FutureResponse,
}


def _methods(resource: str, kind: type[Handle], names: str) -> dict[str, HostFunc]:
    return {
        f"[method]{resource}.{name}": getattr(kind, name.replace("-", "_"))
        for name in names.split()
    }


_FUNCTIONS: dict[str, HostFunc] = {
    "http-error-code": stream_code,
    "[constructor]fields": Fields,
    "[static]fields.from-list": Fields.from_list,
    **_methods("fields", Fields, "get has set delete append entries clone"),
    "[constructor]outgoing-request": OutgoingRequest,
    **_methods(
        "outgoing-request",
        OutgoingRequest,
        "body headers method set-method path-with-query set-path-with-query scheme set-scheme"
        " authority set-authority",
    ),
    "[constructor]request-options": RequestOptions,
    "[method]request-options.connect-timeout": lambda options: options.connect,
    "[method]request-options.set-connect-timeout": RequestOptions.set_connect,
    "[method]request-options.first-byte-timeout": lambda options: options.first,
    "[method]request-options.set-first-byte-timeout": RequestOptions.set_first,
    "[method]request-options.between-bytes-timeout": lambda options: options.between,
    "[method]request-options.set-between-bytes-timeout": RequestOptions.set_between,
    **_methods("incoming-response", IncomingResponse, "status headers consume"),
    **_methods("incoming-body", IncomingBody, "stream"),
    "[static]incoming-body.finish": IncomingBody.finish,
    **_methods("future-trailers", FutureTrailers, "subscribe get"),
    **_methods("outgoing-body", OutgoingBody, "write"),
    "[static]outgoing-body.finish": OutgoingBody.finish,
    **_methods("future-incoming-response", FutureResponse, "subscribe get"),
}

# For those who answer requests, which no plugin does; nothing gives out what they take.
_INCOMING = (
    *(
        f"[method]incoming-request.{n}"
        for n in ("method", "path-with-query", "scheme", "authority", "headers", "consume")
    ),
    "[constructor]outgoing-response",
    *(
        f"[method]outgoing-response.{n}"
        for n in ("status-code", "set-status-code", "headers", "body")
    ),
    "[static]response-outparam.set",
)


def interfaces(
    net: Callable[[], Way], secrets: Callable[[str], Credential], ledger: Ledger
) -> list[Interface]:
    """`wasi:http/{types,outgoing-handler}`.

    Args:
        net: the net capability's state; opened by the first request.
        secrets: the secret of that name.
        ledger: records what can't be had at all.
    """

    def send(request: OutgoingRequest, options: RequestOptions | None) -> object:
        return handle(net(), secrets, request, options)

    incoming = {f: Refused(ledger, f"wasi:http/types.{f}") for f in _INCOMING}
    return [
        Interface(_TYPES, _FUNCTIONS | incoming, _RESOURCES),
        Interface(_HANDLER, {"handle": send}),
    ]
