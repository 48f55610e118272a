"""`wasi:http` 0.2: requests that are sent, on the egress engine, and requests that are answered.

What may be sent where, to which address, with which secrets, and how that is recorded is decided in
`caps.net.egress`, for this door and `capwasm:fetch` alike; here its steps are put into the words of WASI.
Each request is one hop: redirects are returned, and what a library follows comes back as a request.
"""

from __future__ import annotations

from collections.abc import Callable

from capwasm.capability import HostFunc, Interface
from capwasm.caps.net.credential import Credential
from capwasm.handles import Handle
from capwasm.wasi._refuse import named

from .download import FutureResponse, FutureTrailers, IncomingBody, IncomingResponse
from .errors import stream_code
from .fields import Fields
from .incoming import IncomingRequest, OutgoingResponse, ResponseOutparam
from .request import OutgoingRequest, RequestOptions, Way, handle
from .upload import OutgoingBody

__all__ = ["interfaces"]

_TYPES, _HANDLER = named("http/types"), named("http/outgoing-handler")


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
    words = {name: name.replace("-", "_") for name in names.split()}
    return {f"[method]{resource}.{n}": _late(kind, word) for n, word in words.items()}


def _late(kind: type[Handle], name: str) -> HostFunc:
    """The method of the handle that it is called on: both directions have bodies of their own."""
    getattr(kind, name)  # there has to be one
    return lambda handle, *args: getattr(handle, name)(*args)


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
    "[static]incoming-body.finish": lambda body: type(body).finish(body),
    **_methods("future-trailers", FutureTrailers, "subscribe get"),
    **_methods("outgoing-body", OutgoingBody, "write"),
    "[static]outgoing-body.finish": lambda body, trailers: type(body).finish(body, trailers),
    **_methods("future-incoming-response", FutureResponse, "subscribe get"),
    **_methods(
        "incoming-request",
        IncomingRequest,
        "method path-with-query scheme authority headers consume",
    ),
    "[constructor]outgoing-response": OutgoingResponse,
    **_methods("outgoing-response", OutgoingResponse, "status-code set-status-code headers body"),
    "[static]response-outparam.set": ResponseOutparam.set,
}


def interfaces(
    net: Callable[[], Way] | None, secrets: Callable[[str], Credential]
) -> list[Interface]:
    """`wasi:http/types`, which holds no power, and `outgoing-handler`, where `net` is given.

    Args:
        net: the net capability's state; opened by the first request.
        secrets: the secret of that name.
    """
    types = Interface(_TYPES, _FUNCTIONS, _RESOURCES)
    if net is None:
        return [types]

    def send(request: OutgoingRequest, options: RequestOptions | None) -> object:
        return handle(net(), secrets, request, options)

    return [types, Interface(_HANDLER, {"handle": send})]
