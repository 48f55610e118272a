"""A request as a guest puts it together, and how it is handed to the egress engine."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final, Protocol

from capwasm.call import CallRecord, current_call
from capwasm.capability import Grant
from capwasm.caps.net.credential import Credential
from capwasm.caps.net.hop import Hop
from capwasm.caps.net.model import NetClause
from capwasm.caps.net.refusal import refusal
from capwasm.caps.net.request import RequestSpec, is_well_formed
from capwasm.errors import CapError
from capwasm.handles import Handle, Lease
from capwasm.values import Err, Variant

from .download import Download, FutureResponse
from .errors import failed
from .fields import Fields
from .upload import OutgoingBody, Upload

__all__ = ["SECRET_FIELD", "OutgoingRequest", "RequestOptions", "Way", "handle"]

SECRET_FIELD: Final = "capwasm-secret"  # noqa: S105  the name of a header
"""The field by which a guest names a secret that the host is to put in; it is never sent."""

MAX_TEXT: Final = 16 * 1024  # characters of a path or an authority that are kept
_SECOND: Final = 1_000_000_000
_METHODS: Final = frozenset(
    {"get", "head", "post", "put", "delete", "connect", "options", "trace", "patch"}
)
_DELIMITERS: Final = re.compile(r"[/?#]")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")


class _Engine(Protocol):
    """The part of the egress engine that is used here."""

    def open(
        self,
        grant: Grant[NetClause],
        spec: RequestSpec,
        call: CallRecord,
        *,
        size: int,
        connecting: float | None = None,
    ) -> Hop:
        """Connect for a request whose parts come later."""


class Way(Protocol):
    """The part of the net capability's state that is used here."""

    @property
    def grant(self) -> Grant[NetClause]:
        """What the plugin may do."""

    @property
    def engine(self) -> _Engine:
        """The one way out."""


class OutgoingRequest(Handle):
    """A request that is being put together.

    Attributes:
        fields: its headers.   upload: its body.
    """

    __slots__ = ("_authority", "_method", "_path", "_scheme", "fields", "upload")

    def __init__(self, headers: Fields) -> None:
        """A GET of nothing yet, with these headers."""
        super().__init__(Lease())
        self.fields = headers
        self.upload = Upload()
        self._method = Variant("get")
        self._path: str | None = None
        self._scheme: Variant | None = None
        self._authority: str | None = None

    def body(self) -> OutgoingBody | Err[None]:
        """Its body, once."""
        if self.upload.taken:
            return Err(None)
        self.upload.taken = True
        return OutgoingBody(self.upload)

    def headers(self) -> Fields:
        """Its headers, which can't be changed any more."""
        return self.fields.copy(fixed=True)

    def method(self) -> Variant:
        """Its method."""
        return self._method

    def set_method(self, method: Variant) -> Err[None] | None:
        """Set it, unless it is no token."""
        if method.case == "other" and not is_well_formed(method.value):
            return Err(None)
        self._method = method
        return None

    def path_with_query(self) -> str | None:
        """Its path and query."""
        return self._path

    def set_path_with_query(self, path: str | None) -> Err[None] | None:
        """Set them, unless they can't be any."""
        if path is not None and not _is_text(path):
            return Err(None)
        self._path = path
        return None

    def scheme(self) -> Variant | None:
        """Its scheme."""
        return self._scheme

    def set_scheme(self, scheme: Variant | None) -> Err[None] | None:
        """Set it, unless it can't be one."""
        if scheme is not None and scheme.case == "other" and not is_well_formed(scheme.value):
            return Err(None)
        self._scheme = scheme
        return None

    def authority(self) -> str | None:
        """Its host and port."""
        return self._authority

    def set_authority(self, authority: str | None) -> Err[None] | None:
        """Set them, unless they can't be any."""
        if authority is not None and (not _is_text(authority) or _DELIMITERS.search(authority)):
            return Err(None)
        self._authority = authority
        return None

    # -- for the handler -----------------------------------------------------------------------

    def spec(self, secrets: Callable[[str], Credential]) -> RequestSpec:
        """The request for the engine, which checks all of it.

        Args:
            secrets: the secret of that name.

        Raises:
            CapError: `denied`, `closed`, `unavailable`: a secret can't be had.
        """
        names = [v.decode("latin-1") for v in self.fields.get(SECRET_FIELD)]
        own = {SECRET_FIELD, "content-length"}
        return RequestSpec(
            method=self._word(),
            url=self._url(),
            headers=[
                (n, v.decode("latin-1")) for n, v in self.fields.pairs if n.lower() not in own
            ],
            redirects="manual",
            credentials=[secrets(name) for name in names],
        )

    def length(self) -> int | None:
        """The length of the body that its headers state, if they do.

        Raises:
            CapError: `denied`: no number, or two.
        """
        stated = self.fields.get("content-length")
        if not stated:
            return None
        text = stated[0].decode("latin-1")
        if len(stated) > 1 or not _LENGTH.fullmatch(text):
            raise refusal("denied", "forbidden-header", "Content-Length: not one plain number")
        return int(text)

    def _word(self) -> str:
        method = self._method
        return method.case.upper() if method.case in _METHODS else str(method.value)

    def _url(self) -> str:
        scheme = self._scheme or Variant("HTTPS")
        word = scheme.value if scheme.case == "other" else scheme.case.lower()
        path = self._path or "/"
        return f"{word}://{self._authority or ''}{'' if path[0] == '/' else '/'}{path}"


def _is_text(text: str) -> bool:
    return len(text) <= MAX_TEXT and text.isprintable() and " " not in text


class RequestOptions(Handle):
    """How long each part of a request may take, in nanoseconds."""

    __slots__ = ("between", "connect", "first")

    def __init__(self) -> None:
        """As long as the call's limits allow."""
        super().__init__(Lease())
        self.connect: int | None = None
        self.first: int | None = None
        self.between: int | None = None

    def set_connect(self, duration: int | None) -> None:
        """For the name, the connection and TLS."""
        self.connect = duration

    def set_first(self, duration: int | None) -> None:
        """From then until the head of the answer."""
        self.first = duration

    def set_between(self, duration: int | None) -> None:
        """From one piece of the answer's body to the next."""
        self.between = duration


def _seconds(duration: int | None) -> float | None:
    return None if duration is None else duration / _SECOND


def handle(
    way: Way,
    secrets: Callable[[str], Credential],
    request: OutgoingRequest,
    options: RequestOptions | None,
) -> FutureResponse | Err[Variant]:
    """`outgoing-handler.handle`: check, connect, and begin to send.

    Returns once there is a connection, as `Hop` needs one; all after that is done while the guest
    writes, reads and polls.

    Raises:
        CapwasmError: the call must end.
    """
    times = options or RequestOptions()
    upload = request.upload
    try:
        size = upload.declared(request.length())
        hop = way.engine.open(
            way.grant,
            request.spec(secrets),
            current_call(),
            size=size,
            connecting=_seconds(times.connect),
        )
        first = _seconds(times.first)
        hop.deadline = None if first is None else time.monotonic() + first
        upload.start(hop)
    except CapError as exc:
        return failed(exc)
    return FutureResponse(Download(hop, upload, _seconds(times.between)))
