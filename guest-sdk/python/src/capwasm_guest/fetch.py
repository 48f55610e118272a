"""HTTP to the origins that the plugin was granted: `[[net]]` in plugin.toml.

with fetch.get("https://api.acme.com/v1/now", secret="acme-token") as answer:
    answer.raise_for_status()
    print(answer.json())
"""

from __future__ import annotations

import json as _json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from ._bindings import FetchImport, ResponseResource, guard, load
from .errors import Unavailable, from_wit

if TYPE_CHECKING:
    from . import secrets

try:
    # Now or never: nothing can be imported once the plugin runs.
    from .secrets import get as _secret
except ImportError as exc:
    _no_secrets = exc

    def _secret(name: str) -> secrets.Secret:
        raise ImportError(f"a request with the secret {name!r}: {_no_secrets}")


__all__ = ["Headers", "Response", "delete", "get", "head", "patch", "post", "put", "request"]

_client = cast("FetchImport", load("capwasm_fetch", "capwasm_guest.fetch"))

MAX_BODY = 16 * 1024 * 1024
_PIECE = 1024 * 1024

Redirects = Literal["follow", "manual", "refuse"]
HeadersIn = Mapping[str, str] | Iterable[tuple[str, str]]


class Headers(Mapping[str, str]):
    """Headers by name, in any case.  One that stands more than once is joined with `, `."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Keep the pairs in their order."""
        self.pairs = list(pairs)
        self._joined: dict[str, str] = {}
        for name, value in self.pairs:
            key = name.lower()
            self._joined[key] = f"{self._joined[key]}, {value}" if key in self._joined else value

    def __getitem__(self, name: str) -> str:
        return self._joined[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._joined)

    def __len__(self) -> int:
        return len(self._joined)

    def __repr__(self) -> str:
        return f"Headers({self.pairs!r})"


class Response:
    """An answer whose body is read when it is asked for.  A context manager that closes it."""

    def __init__(self, resource: ResponseResource) -> None:
        """Made by `request`."""
        self._resource: ResponseResource | None = resource
        self._body: bytes | None = None
        self.status = resource.status()
        self.url = resource.url()
        self.headers = Headers((h.name, h.value) for h in resource.headers())

    @property
    def ok(self) -> bool:
        """Whether the status is from 200 to 299."""
        return 200 <= self.status < 300

    def raise_for_status(self) -> Self:
        """Pass on a status from 200 to 299.

        Raises:
            Unavailable: any other.
        """
        if not self.ok:
            raise Unavailable("unavailable", f"{self.url} answered {self.status}")
        return self

    def read(self, n: int = _PIECE) -> bytes:
        """The next bytes of the body, at most `n` (and at most 1 MiB); none at its end.

        Raises:
            CapabilityError: the connection broke off, time ran out, or it is closed.
        """
        with from_wit("fetch.read"):
            return self._open().read(min(n, _PIECE))

    def bytes(self, limit: int = MAX_BODY) -> bytes:
        """The whole body, closing the response.

        Raises:
            TooLarge: it has more than `limit` bytes.
            CapabilityError: as `read`.
        """
        if self._body is None:
            with from_wit("fetch.bytes"):
                self._body = self._open().read_all(limit)
            self.close()
        return self._body

    def text(self, encoding: str = "utf-8") -> str:
        """The whole body as text.

        Raises:
            UnicodeDecodeError: it is not in that encoding.
            CapabilityError: as `bytes`.
        """
        return self.bytes().decode(encoding)

    def json(self) -> Any:
        """The whole body, read as JSON.

        Raises:
            ValueError: it is not JSON.
            CapabilityError: as `bytes`.
        """
        return _json.loads(self.bytes())

    def close(self) -> None:
        """Close the connection.  Called again, does nothing."""
        if self._resource is not None:
            self._resource.__exit__(None, None, None)
            self._resource = None

    def _open(self) -> ResponseResource:
        if self._resource is None:
            raise ValueError("the response is closed")
        return self._resource

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _v: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.url}>"


def request(
    method: str,
    url: str,
    *,
    headers: HeadersIn = (),
    body: bytes | str | None = None,
    json: Any = None,
    secret: str | secrets.Secret | Iterable[str | secrets.Secret] = (),
    timeout: float | None = None,
    redirects: Redirects = "follow",
) -> Response:
    """Send a request; returns when the headers of the answer are here.

    Args:
        method: `GET`, `POST`, …
        url: absolute.
        headers: by name, or pairs.
        body: bytes, or text to be sent as UTF-8.
        json: what to send as JSON in place of `body`.
        secret: names of granted secrets (or handles) that the host is to put in.
        timeout: seconds for the whole exchange; none: what the limits allow.
        redirects: `follow` them, return them (`manual`), or `refuse` them.

    Raises:
        Denied: the origin, the path, the method, a redirect's target or a secret is not granted.
        CapabilityError: it went wrong otherwise; see `errors`.
    """
    guard("fetch")
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    if json is not None:
        body = _json.dumps(json, ensure_ascii=False, separators=(",", ":"))
        if not any(name.lower() == "content-type" for name, _ in pairs):
            pairs.append(("Content-Type", "application/json"))
    wanted = (
        list(secret) if isinstance(secret, Iterable) and not isinstance(secret, str) else [secret]
    )
    message = _client.Request(
        method=method,
        url=url,
        headers=[_client.Header(name=name, value=value) for name, value in pairs],
        body=body.encode() if isinstance(body, str) else body,
        timeout_ms=None if timeout is None else max(1, int(timeout * 1000)),
        redirects=_client.Redirects[redirects.upper()],
    )
    with ExitStack() as held:
        handles = [held.enter_context(_secret(s)) if isinstance(s, str) else s for s in wanted]
        with from_wit(f"fetch {method} {url}"):
            return Response(_client.send(message, [h.resource for h in handles]))


def get(url: str, **options: Any) -> Response:
    """`request("GET", …)`."""
    return request("GET", url, **options)


def head(url: str, **options: Any) -> Response:
    """`request("HEAD", …)`."""
    return request("HEAD", url, **options)


def post(url: str, **options: Any) -> Response:
    """`request("POST", …)`."""
    return request("POST", url, **options)


def put(url: str, **options: Any) -> Response:
    """`request("PUT", …)`."""
    return request("PUT", url, **options)


def patch(url: str, **options: Any) -> Response:
    """`request("PATCH", …)`."""
    return request("PATCH", url, **options)


def delete(url: str, **options: Any) -> Response:
    """`request("DELETE", …)`."""
    return request("DELETE", url, **options)
