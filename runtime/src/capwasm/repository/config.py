"""repositories.toml: where plugins come from, and for which of them each place may speak."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from capwasm._files import read_file, write_file
from capwasm._model import MAX_TEXT_BYTES, Model, parse_toml, validate
from capwasm.capsule.identity import IdPattern
from capwasm.errors import Fault, RepositoryError
from capwasm.web import checked_url

__all__ = [
    "MAX_ROOT",
    "RepositorySettings",
    "append",
    "check_addition",
    "check_root",
    "load",
    "read_root",
]

MAX_ROOT: Final = 512 * 1024
MAX_REPOSITORIES: Final = 32


class RepositorySettings(Model):
    """One `[[repository]]`.

    Attributes:
        name: what people call it.   url: above its `metadata/` and `targets/`.
        root: file of its first trusted root; beside repositories.toml, unless absolute.
        ids: patterns of the plugins for which it may speak.
        plain_http: whether `http://` may lead to another machine.
        ca_file: PEM file of the only authorities to trust for its TLS.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    url: Annotated[str, Field(max_length=2048)]
    root: Annotated[str, Field(min_length=1, max_length=1024)]
    ids: Annotated[tuple[IdPattern, ...], Field(min_length=1, max_length=64)]
    plain_http: bool = False
    ca_file: Annotated[str, Field(min_length=1, max_length=1024)] | None = None


class _Document(Model):
    schema_: Annotated[int, Field(alias="schema", ge=1, le=1)]
    repository: Annotated[tuple[RepositorySettings, ...], Field(max_length=MAX_REPOSITORIES)] = ()


def load(path: Path) -> tuple[RepositorySettings, ...]:
    """The repositories of a file, in its order; none if there is no file.

    Raises:
        RepositoryError: `repository.config`, with all faults.
    """
    if not path.exists():
        return ()
    return _parsed(_file(path), str(path))


def append(path: Path, settings: RepositorySettings) -> None:
    """Write one more repository at the end of a file, which is made if there is none.

    Raises:
        RepositoryError: `repository.config`: the file has faults, or would have.
    """
    data = check_addition(path, settings)
    write_file(path, data, RepositoryError, code="repository.config", mode=0o600)


def check_addition(path: Path, settings: RepositorySettings) -> bytes:
    """The file with one more repository.

    Raises:
        RepositoryError: as `append`.
    """
    old = _file(path) if path.exists() else b"schema = 1\n"
    _parsed(old, str(path))
    lines = ["", "[[repository]]"]
    for word, value in settings.model_dump(by_alias=True, exclude_defaults=True).items():
        lines.append(f"{word} = {json.dumps(value)}")
    new = old.rstrip(b"\n") + b"\n" + "\n".join([*lines, ""]).encode()
    _parsed(new, str(path))
    return new


def read_root(path: Path) -> bytes:
    """The root metadata of a file which only its owner can have written.

    Raises:
        RepositoryError: `repository.root`.
    """
    return read_file(
        path,
        MAX_ROOT,
        RepositoryError,
        code="repository.root",
        refuse_mode=0o022,
        refuse_owner=True,
    )


def check_root(data: bytes) -> tuple[int, list[str]]:
    """Version and root key ids of root metadata, if they can be trusted from.

    Raises:
        RepositoryError: `repository.root` if they are malformed or not signed by their own keys;
            `repository.key`.
    """
    from tuf.api.exceptions import RepositoryError as TufError
    from tuf.api.metadata import Metadata, Root

    from .layout import check_keys

    try:
        metadata = Metadata[Root].from_bytes(data)
        root = metadata.signed
        if not isinstance(root, Root):
            raise TufError("not root metadata")
        root.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
    except (TufError, ValueError) as exc:
        raise RepositoryError(
            f"no root that can be trusted from: {str(exc)[:200]}", code="repository.root"
        ) from exc
    check_keys(root)
    return root.version, sorted(root.roles["root"].keyids)


def _file(path: Path) -> bytes:
    return read_file(
        path,
        MAX_TEXT_BYTES,
        RepositoryError,
        code="repository.config",
        refuse_mode=0o022,
        refuse_owner=True,
    )


def _parsed(data: bytes, context: str) -> tuple[RepositorySettings, ...]:
    doc = parse_toml(data, RepositoryError, code="repository.config", context=context)
    document = validate(_Document, doc, RepositoryError, code="repository.config", context=context)
    found = document.repository
    faults, names = [], set[str]()
    for index, settings in enumerate(found):
        where = f"repository[{index}]"
        if settings.name in names:
            faults.append(Fault(f"{where}.name", f"two repositories are called {settings.name}"))
        names.add(settings.name)
        try:
            checked_url(settings.url, plain_http=settings.plain_http)
        except RepositoryError as exc:
            faults.append(Fault(f"{where}.url", exc.message))
    if faults:
        raise RepositoryError(
            f"{len(faults)} fault(s)", code="repository.config", context=context, faults=faults
        )
    return found
