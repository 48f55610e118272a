"""Who is shown the credentials of a registry.

The registry itself, and where the operator says that its tokens come from.  A registry that wants
them sent elsewhere is refused.

Follows RFC 7235 and 7617, and the token protocol of the distribution project.  The scope that is
asked for is ours, never one that the registry names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NoReturn
from urllib.parse import quote

from capwasm._model import parse_json
from capwasm.caps.net.url import Url, UrlError, parse_url
from capwasm.errors import Fault, RepositoryError
from capwasm.web import Web, checked_url

from .settings import Credentials

__all__ = ["Authority"]

MAX_TOKEN: Final = 16 * 1024
MAX_ANSWER: Final = 64 * 1024
MAX_CHALLENGE: Final = 4096
_CHALLENGE: Final = re.compile(r"(Basic|Bearer) +(.*)", re.IGNORECASE)
_PARAMETER: Final = re.compile(r'\s*([A-Za-z_-]+)\s*=\s*(?:"([^"\\]*)"|([^\s",]+))\s*(?:,|$)')
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


class Authority:
    """Answers the challenges of one registry, for one repository in it."""

    def __init__(
        self,
        origin: Url,
        *,
        scope: str,
        web: Web,
        credentials: Credentials | None = None,
        realm: str | None = None,
    ) -> None:
        """Take what is needed; nothing is asked yet.

        Args:
            origin: the registry.
            scope: what a token is to allow.
            web: asks for tokens; it MUST NOT send plain http to another machine.
            credentials: for this registry.
            realm: where else they may be sent, by the operator.
        """
        self._origin = origin
        self._scope = scope
        self._web = web
        self._credentials = credentials
        self._realm = None if realm is None else checked_url(realm)

    def answer(self, challenges: Iterable[str]) -> str:
        """The `Authorization` with which the registry is to be asked again.

        Args:
            challenges: the values of `WWW-Authenticate`.

        Raises:
            RepositoryError: `oci.challenge`: none that is known; `oci.realm`: the credentials, or
                the request for a token, would go where they must not; `oci.credentials`: some are
                needed, or were not taken; `oci.token`; and as `Web.request`.
        """
        found = dict(_parsed(text) for text in challenges if _CHALLENGE.match(text))
        if "bearer" in found:
            return "Bearer " + self._token(found["bearer"])
        if "basic" not in found:
            _refuse("oci.challenge", "the registry asks for a way to log in that is not known")
        if self._credentials is None:
            _refuse(
                "oci.credentials",
                "the registry wants a user's name and password",
                fix="in registries.toml: credentials = FILE, or use --credentials FILE",
            )
        return self._credentials.basic

    def _token(self, words: dict[str, str]) -> str:
        realm = self._checked(words.get("realm", ""))
        query = f"service={quote(words.get('service', ''), safe='')}&scope={self._scope}"
        url = replace(realm, query=query if realm.query is None else f"{realm.query}&{query}")
        headers = [("Accept", "application/json")]
        if self._credentials is not None:
            headers.append(("Authorization", self._credentials.basic))
        with self._web.request(str(url), limit=MAX_ANSWER, headers=headers) as answer:
            status, data = answer.status, answer.read()
        if status in (401, 403):
            _refuse("oci.credentials", "no token is given", str(realm))
        if status != 200:
            _refuse("oci.token", f"instead of a token: status {status}", str(realm))
        doc = parse_json(data, RepositoryError, code="oci.token", context=str(realm))
        token = (doc.get("token") or doc.get("access_token")) if isinstance(doc, dict) else None
        if not isinstance(token, str) or len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token):
            _refuse("oci.token", "no token that a header can hold", str(realm))
        return token

    def _checked(self, text: str) -> Url:
        """Where a token may be asked for."""
        try:
            realm = parse_url(text)
        except UrlError as exc:
            _refuse("oci.realm", f"no place to ask for a token: {exc}")
        at_home = realm.origin == self._origin.origin
        if not at_home and realm.scheme != "https":
            _refuse("oci.realm", "a token would be asked for in plain http", str(realm))
        if self._credentials is not None and not at_home and not self._is_named(realm):
            _refuse(
                "oci.realm",
                "the registry wants its credentials sent to another host",
                str(realm),
                fix=f'in registries.toml, if its owner says so: realm = "{realm.origin}{realm.path}"',
            )
        return realm

    def _is_named(self, realm: Url) -> bool:
        named = self._realm
        return named is not None and (named.origin, named.path) == (realm.origin, realm.path)


def _parsed(challenge: str) -> tuple[str, dict[str, str]]:
    found = _CHALLENGE.fullmatch(challenge)
    if found is None or len(challenge) > MAX_CHALLENGE:
        _refuse("oci.challenge", "how to log in is malformed")
    words: dict[str, str] = {}
    at, text = 0, found[2]
    while at < len(text):
        pair = _PARAMETER.match(text, at)
        if pair is None or pair[1].lower() in words:
            _refuse("oci.challenge", "how to log in is malformed")
        words[pair[1].lower()] = pair[2] if pair[2] is not None else pair[3]
        at = pair.end()
    return found[1].lower(), words


def _refuse(code: str, message: str, context: str = "", fix: str | None = None) -> NoReturn:
    faults = [] if fix is None else [Fault("", "what it needs", fix=fix)]
    raise RepositoryError(message, code=code, context=context, faults=faults)
