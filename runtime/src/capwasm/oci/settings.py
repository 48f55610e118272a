"""registries.toml: how registries are asked; and their credentials, which stand in files of their own.

A registry needs no entry: then it is asked over https, without credentials.  Credentials come from a
file in the form of docker's `config.json`, or from whoever is asked for them; never from an
argument or a variable, which others can read.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, NoReturn

from pydantic import ConfigDict, Field

from capwasm._files import read_file
from capwasm._model import MAX_TEXT_BYTES, Model, hidden, parse_json, parse_toml, validate
from capwasm.errors import Fault, RepositoryError
from capwasm.web import checked_url

from .reference import Reference, parse_authority

__all__ = ["Credentials", "RegistrySettings", "credentials_of", "load", "settings_of"]

MAX_REGISTRIES: Final = 64
MAX_CREDENTIAL: Final = 8192


class RegistrySettings(Model):
    """One `[[registry]]`.

    Attributes:
        host: `host` or `host:port`, as references name it.
        realm: where its tokens come from, if that is another host: it is sent the credentials.
        credentials: file with them; beside registries.toml, unless absolute.
        plain_http: whether it is asked over `http://`, on another machine too.
        ca_file: PEM file of the only authorities to trust for its TLS.
    """

    host: Annotated[str, Field(min_length=1, max_length=300)]
    realm: Annotated[str, Field(max_length=2048)] | None = None
    credentials: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    plain_http: bool = False
    ca_file: Annotated[str, Field(min_length=1, max_length=1024)] | None = None


class _Document(Model):
    schema_: Annotated[int, Field(alias="schema", ge=1, le=1)]
    registry: Annotated[tuple[RegistrySettings, ...], Field(max_length=MAX_REGISTRIES)] = ()


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and password, for one registry; printed without either."""

    user: str = field(repr=False)
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what no header can hold.

        Raises:
            RepositoryError: `oci.credentials`.
        """
        both = self.user + self.password
        if not self.user or ":" in self.user or hidden(both) or len(both) > MAX_CREDENTIAL:
            _refuse("a user's name is missing, or it or the password has a character it can't have")

    @property
    def basic(self) -> str:
        """As the header has it (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class _Login(Model):
    model_config = ConfigDict(extra="ignore", alias_generator=None)

    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _Logins(Model):
    model_config = ConfigDict(extra="ignore", alias_generator=None)

    auths: Annotated[dict[str, _Login], Field(default_factory=dict)]


def load(path: Path) -> tuple[RegistrySettings, ...]:
    """The registries of a file; none if there is no file.

    Raises:
        RepositoryError: `oci.config`, with all faults.
    """
    if not path.exists():
        return ()
    data = read_file(
        path,
        MAX_TEXT_BYTES,
        RepositoryError,
        code="oci.config",
        refuse_mode=0o022,
        refuse_owner=True,
    )
    doc = parse_toml(data, RepositoryError, code="oci.config", context=str(path))
    found = validate(_Document, doc, RepositoryError, code="oci.config", context=str(path)).registry
    faults, hosts = [], set[str]()
    for index, settings in enumerate(found):
        where = f"registry[{index}]"
        if settings.host in hosts:
            faults.append(Fault(f"{where}.host", f"{settings.host} stands twice"))
        hosts.add(settings.host)
        try:
            if _spelled(settings.host) != settings.host:
                faults.append(Fault(f"{where}.host", "is spelled", fix=_spelled(settings.host)))
            if settings.realm is not None:
                checked_url(settings.realm)
        except RepositoryError as exc:
            faults.append(Fault(where, exc.message))
    if faults:
        raise RepositoryError(
            f"{len(faults)} fault(s)", code="oci.config", context=str(path), faults=faults
        )
    return found


def settings_of(registries: tuple[RegistrySettings, ...], reference: Reference) -> RegistrySettings:
    """How the registry of a reference is asked."""
    default = RegistrySettings(host=reference.authority)
    return next((s for s in registries if s.host == reference.authority), default)


def credentials_of(path: Path, authority: str) -> Credentials | None:
    """What a file in the form of docker's config.json has for just this registry.

    Raises:
        RepositoryError: `oci.credentials`: others may read it; it is malformed; what it has for the
            registry can't be used.
    """
    data = read_file(
        path,
        MAX_TEXT_BYTES,
        RepositoryError,
        code="oci.credentials",
        refuse_mode=0o077,
        refuse_owner=True,
    )
    doc = parse_json(data, RepositoryError, code="oci.credentials", context=str(path))
    logins = validate(_Logins, doc, RepositoryError, code="oci.credentials", context=str(path))
    login = logins.auths.get(authority)
    if login is None:
        return None
    if login.identitytoken:
        _refuse("an identity token is not taken; write a user's name and password", str(path))
    user, password = login.username, login.password
    if login.auth:
        try:
            pair = base64.b64decode(login.auth, validate=True).decode()
        except (binascii.Error, ValueError):
            _refuse("auth is no base64 of user:password", str(path))
        user, _, password = pair.partition(":")
    return Credentials(user, password)


def _spelled(text: str) -> str:
    host, port = parse_authority(text)
    return Reference(host, port, "").authority


def _refuse(message: str, context: str = "") -> NoReturn:
    raise RepositoryError(message, code="oci.credentials", context=context)
