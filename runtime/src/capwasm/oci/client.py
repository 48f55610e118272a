"""The distribution protocol (OCI 1.1), towards one repository of one registry.

Nothing that comes is used before its digest is what it should be, nor is more of it read than was
declared.  Credentials go to the registry alone: a blob may be taken from another host, over https
and without them; an upload may not go to one.  What can be asked again without harm is, a few times.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote

from capwasm._model import hidden
from capwasm.caps.net.url import Url, UrlError, join_url
from capwasm.errors import RepositoryError
from capwasm.web import Answer, Headers, Patience, Web, checked_url

from .auth import Authority
from .layout import (
    INDEX_TYPE,
    MANIFEST_TYPE,
    MAX_MANIFEST,
    Blob,
    Descriptor,
    digest_of,
    encode,
    read_index,
)
from .reference import Reference, is_digest
from .settings import Credentials, RegistrySettings

__all__ = ["Client", "Progress", "referrers_tag"]

Progress = Callable[[str, int, int], None]
"""Told what is moved, how many of its bytes have been, and how many it has."""

_MAX_ERROR: Final = 64 * 1024
_MAX_REDIRECTS: Final = 4
_TRIES: Final = 3
_PAUSE: Final = 0.3  # seconds before the second try; twice as long before the third
_AGAIN: Final = frozenset({429, 502, 503, 504})
_AGAIN_CODES: Final = frozenset({"repository.unreachable", "repository.protocol"})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_UPLOAD_QUERY: Final = re.compile(r"(?:^|&)digest=")


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    @property
    def media_type(self) -> str:
        return self.header("content-type").partition(";")[0].strip().lower()


class Client:
    """One repository of a registry.  Not for two threads at once."""

    def __init__(
        self,
        reference: Reference,
        settings: RegistrySettings,
        *,
        actions: str,
        credentials: Credentials | None = None,
        base: Path = Path(),
        patience: Patience | None = None,
        progress: Progress = lambda *_: None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """Make one; nothing is asked yet.

        Args:
            reference: names the registry and the repository.
            settings: of the registry.
            actions: what a token is to allow: `pull`, or `pull,push`.
            credentials: for the registry.
            base: directory from which the settings' files are named.
            patience: for each request.
            progress: told how far large blobs are.
            pause: waits before another try.

        Raises:
            RepositoryError: `repository.url`, `repository.insecure`.
        """
        self._where = reference
        ca_file = None if settings.ca_file is None else base / settings.ca_file
        clear = settings.plain_http or (reference.is_local and ca_file is None)
        scheme = "http" if clear else "https"
        plain = settings.plain_http
        self._origin = checked_url(f"{scheme}://{reference.authority}/", plain_http=plain)
        patience = patience or Patience()
        self._web = Web(ca_file=ca_file, plain_http=plain, patience=patience)
        # Credentials and tokens never go to another machine in the clear, whatever is allowed.
        self._safe_web = Web(ca_file=ca_file, patience=patience) if plain else self._web
        self._authority = Authority(
            self._origin,
            scope=f"repository:{reference.name}:{actions}",
            web=self._safe_web,
            credentials=credentials,
            realm=settings.realm,
        )
        self._authorization: str | None = None
        self._progress = progress
        self._pause = pause

    # -- manifests -----------------------------------------------------------------------------

    def manifest(self, target: str, media_type: str = MANIFEST_TYPE) -> bytes:
        """A manifest, by tag or digest.

        Raises:
            RepositoryError: `oci.not-found`, `oci.denied`, `oci.status`; `oci.media-type`: it is of
                another type; `oci.digest`: it is not what was asked for, or not what the registry
                says; as `Authority.answer` and `Web.request`.
        """
        found = self.find_manifest(target, media_type)
        if found is None:
            self._refuse("oci.not-found", f"there is no {target}")
        return found

    def find_manifest(self, target: str, media_type: str = MANIFEST_TYPE) -> bytes | None:
        """As `manifest`, or None if there is none."""
        reply = self._ask(
            "GET", f"manifests/{target}", limit=MAX_MANIFEST, headers=[("Accept", media_type)]
        )
        if reply.status == 404:
            return None
        self._expect(reply, 200)
        if reply.media_type != media_type:
            self._refuse("oci.media-type", f"a manifest of type {reply.media_type[:200]!a}")
        self._check_digest(reply, digest_of(reply.body))
        if is_digest(target) and digest_of(reply.body) != target:
            self._refuse("oci.digest", f"the manifest is not {target}")
        return reply.body

    def put_manifest(self, target: str, manifest: Blob) -> bool:
        """Write a manifest under a tag or its digest; whether its subject was taken note of.

        Raises:
            RepositoryError: as `manifest`.
        """
        kind = manifest.descriptor.media_type
        reply = self._ask(
            "PUT",
            f"manifests/{target}",
            headers=[("Content-Type", kind)],
            body=bytes(manifest.data),
        )
        self._expect(reply, 201)
        self._check_digest(reply, manifest.descriptor.digest)
        return bool(reply.header("oci-subject"))

    # -- referrers -----------------------------------------------------------------------------

    def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """What refers to a manifest, by the registry's API or else by the tag that stands for it.

        Raises:
            RepositoryError: as `manifest`; `oci.manifest`: the list is malformed.
        """
        reply = self._ask(
            "GET", f"referrers/{digest}", limit=MAX_MANIFEST, headers=[("Accept", INDEX_TYPE)]
        )
        if reply.status == 200 and reply.media_type == INDEX_TYPE:
            return read_index(reply.body)[1]
        if reply.status != 404:
            self._expect(reply, 200)
        found = self.find_manifest(referrers_tag(digest), INDEX_TYPE)
        return () if found is None else read_index(found)[1]

    def add_referrers(self, digest: str, added: tuple[Descriptor, ...]) -> None:
        """Note referrers under the tag that stands for the API, beside those that are there.

        Raises:
            RepositoryError: as `referrers`.
        """
        found = self.find_manifest(referrers_tag(digest), INDEX_TYPE)
        doc: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}
        known: tuple[Descriptor, ...] = ()
        if found is not None:
            doc, known = read_index(found)
        new = [d for d in added if d.digest not in {k.digest for k in known}]
        if new:
            doc["manifests"] = [*doc["manifests"], *(d.plain() for d in new)]
            self.put_manifest(referrers_tag(digest), Blob.of(INDEX_TYPE, encode(doc)))

    # -- blobs ---------------------------------------------------------------------------------

    def blob(self, descriptor: Descriptor) -> bytes:
        """A blob, of just the size and digest that are declared.

        Raises:
            RepositoryError: as `manifest`; `oci.size`; `oci.redirect`: it is to be taken from where
                it must not.
        """
        reply = self._ask(
            "GET",
            f"blobs/{descriptor.digest}",
            limit=descriptor.size,
            redirects=_MAX_REDIRECTS,
            told="pulling",
        )
        self._expect(reply, 200)
        if len(reply.body) != descriptor.size:
            self._refuse(
                "oci.size", f"a blob of {len(reply.body)} bytes; {descriptor.size} were declared"
            )
        if digest_of(reply.body) != descriptor.digest:
            self._refuse("oci.digest", f"the blob is not {descriptor.digest}")
        return reply.body

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether a blob is there already.

        Raises:
            RepositoryError: as `manifest`.
        """
        reply = self._ask("HEAD", f"blobs/{descriptor.digest}")
        if reply.status in _REDIRECTS:  # it is, and to be had elsewhere
            return True
        if reply.status != 404:
            self._expect(reply, 200)
        return reply.status == 200

    def put_blob(self, blob: Blob) -> bool:
        """Upload a blob, unless it is there; whether it was sent.

        Raises:
            RepositoryError: as `manifest`; `oci.redirect`: it is to be sent elsewhere.
        """
        if self.has_blob(blob.descriptor):
            return False
        size = blob.descriptor.size
        self._progress("pushing", 0, size)
        reply = self._ask("POST", "blobs/uploads/")
        self._expect(reply, 202)
        place = self._upload_place(reply.header("location"), blob.descriptor.digest)
        reply = self._ask(
            "PUT",
            place,
            headers=[("Content-Type", "application/octet-stream")],
            body=bytes(blob.data),
        )
        self._expect(reply, 201)
        self._check_digest(reply, blob.descriptor.digest)
        self._progress("pushing", size, size)
        return True

    def _upload_place(self, location: str, digest: str) -> Url:
        place = self._joined(self._url("blobs/uploads/"), location)
        if place.origin != self._origin.origin:
            self._refuse("oci.redirect", f"the upload is to go to another host, {place.origin}")
        if place.query is not None and _UPLOAD_QUERY.search(place.query):
            self._refuse("oci.redirect", "the place of the upload names a digest already")
        more = f"digest={quote(digest, safe='')}"
        query = more if place.query is None else f"{place.query}&{more}"
        return Url(place.scheme, place.host, place.port, place.path, query)

    # -- requests ------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        path: str | Url,
        *,
        limit: int = 0,
        headers: Headers = (),
        body: bytes = b"",
        redirects: int = 0,
        told: str = "",
    ) -> _Reply:
        """Ask, again where that does no harm, and with authorization once it is asked for."""
        url = self._url(path) if isinstance(path, str) else path
        # An upload that broke off has no place any more: the whole push is what can be done again.
        tries = _TRIES if isinstance(path, str) and method != "POST" else 1
        asked = False
        while True:
            tries -= 1
            try:
                reply = self._once(method, url, limit, headers, body, redirects, told)
            except RepositoryError as exc:
                if tries <= 0 or exc.code not in _AGAIN_CODES:
                    raise
                self._pause(_PAUSE * (_TRIES - tries))
                continue
            if reply.status == 401 and not asked:
                asked, tries = True, tries + 1
                found = [value for name, value in reply.headers if name == "www-authenticate"]
                self._authorization = self._authority.answer(found)
            elif reply.status in _AGAIN and tries > 0:
                self._pause(_PAUSE * (_TRIES - tries))
            else:
                return reply

    def _once(
        self,
        method: str,
        url: Url,
        limit: int,
        headers: Headers,
        body: bytes,
        redirects: int,
        told: str,
    ) -> _Reply:
        while True:
            at_home = url.origin == self._origin.origin
            web, sent = self._web, list(headers)
            if self._authorization is not None and at_home:
                web = self._safe_web
                sent.append(("Authorization", self._authorization))
            # An answer that is none of 200 may be larger than what was asked for.
            most = max(limit, _MAX_ERROR)
            with (
                self._sized(),
                web.request(str(url), limit=most, method=method, headers=sent, body=body) as got,
            ):
                if got.status in _REDIRECTS and method == "GET":
                    if redirects == 0:
                        self._refuse("oci.redirect", "redirected, or too often")
                    redirects -= 1
                    url = self._redirected(url, got)
                    continue
                if got.status == 401 and not at_home:
                    self._refuse("oci.redirect", "another host asks for credentials")
                return _Reply(got.status, got.headers, self._read(got, limit, told))

    @contextlib.contextmanager
    def _sized(self) -> Iterator[None]:
        try:
            yield
        except RepositoryError as exc:
            if exc.code != "repository.too-large":
                raise
            raise RepositoryError(exc.message, code="oci.size", context=str(self._where)) from None

    def _read(self, answer: Answer, limit: int, told: str) -> bytes:
        if answer.status != 200:
            return answer.read()
        parts, size = [], 0
        for piece in answer.chunks():
            size += len(piece)
            if size > limit:
                self._refuse("oci.size", f"the answer has more than {limit} bytes")
            parts.append(piece)
            if told:
                self._progress(told, size, limit)
        return b"".join(parts)

    def _redirected(self, url: Url, answer: Answer) -> Url:
        target = self._joined(url, answer.header("location") or "")
        if target.origin != self._origin.origin and target.scheme != "https":
            self._refuse("oci.redirect", f"redirected to plain http, {target.origin}")
        return target

    def _joined(self, url: Url, location: str) -> Url:
        if not location:
            self._refuse("oci.redirect", "redirected to nowhere")
        try:
            return join_url(url, location)
        except UrlError as exc:
            self._refuse("oci.redirect", f"redirected to no place that can be asked: {exc}")

    def _url(self, path: str) -> Url:
        return checked_url(
            f"{self._origin}v2/{self._where.name}/{path}", plain_http=self._origin.scheme == "http"
        )

    # -- refusals ------------------------------------------------------------------------------

    def _expect(self, reply: _Reply, status: int) -> None:
        if reply.status == status:
            return
        if reply.status in (401, 403):
            self._refuse("oci.denied", f"the registry denies it{_said(reply)}")
        if reply.status == 404:
            self._refuse("oci.not-found", f"not there{_said(reply)}")
        self._refuse("oci.status", f"answered {reply.status}, not {status}{_said(reply)}")

    def _check_digest(self, reply: _Reply, digest: str) -> None:
        said = reply.header("docker-content-digest")
        if said and said != digest:
            self._refuse("oci.digest", f"the registry calls {digest} {said[:80]!a}")

    def _refuse(self, code: str, message: str) -> NoReturn:
        raise RepositoryError(message, code=code, context=str(self._where))


def referrers_tag(digest: str) -> str:
    """The tag that stands for the referrers' API (distribution specification 1.1)."""
    return digest.replace(":", "-")


def _said(reply: _Reply) -> str:
    """The registry's own words, if they are short and plain."""
    text = reply.body[:300].decode("utf-8", "replace").strip()
    return f": {text!a}" if text and hidden(text) is None else ""
