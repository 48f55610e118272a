"""The one door for what goes wrong while metadata are checked: each attack has its code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tuf.api import exceptions as tuf

from capwasm.errors import CapwasmError, Fault, RepositoryError

__all__ = ["told"]

# First match wins: python-tuf's classes -> our code, and how to go on.
_CODES: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (
        tuf.ExpiredMetadataError,
        "repository.expired",
        "ask the repository's owner to run `capwasm repo refresh`, or set this machine's clock",
    ),
    (tuf.BadVersionNumberError, "repository.rollback", ""),
    (tuf.LengthOrHashMismatchError, "repository.mismatch", ""),
    (tuf.UnsignedMetadataError, "repository.signature", ""),
    (tuf.DownloadHTTPError, "repository.status", "check the repository's url"),
    (tuf.DownloadLengthMismatchError, "repository.too-large", ""),
    (tuf.RepositoryError, "repository.metadata", ""),
)
_MEANS: Final = {
    "repository.expired": "what it says is out of date",
    "repository.rollback": "a version is not the one that it should be: older than one seen, or of"
    " another state",
    "repository.mismatch": "a file is not the one that was signed for",
    "repository.signature": "not enough of the keys that count today have signed",
    "repository.status": "the server does not give what it should",
    "repository.too-large": "a file is larger than declared",
    "repository.metadata": "its metadata can't be used",
}


@contextmanager
def told(name: str) -> Iterator[None]:
    """Turn what python-tuf raises into a `RepositoryError` that names the repository.

    Raises:
        RepositoryError: for all that python-tuf promises to raise; an `OSError` is the caller's.
    """
    try:
        yield
    except CapwasmError as exc:
        exc.context = exc.context or f"repository {name}"
        raise
    except (tuf.RepositoryError, tuf.DownloadError, ValueError) as exc:
        code, fix = next(
            ((code, fix) for kind, code, fix in _CODES if isinstance(exc, kind)),
            ("repository.metadata", ""),
        )
        # What the server wrote may be quoted in it: short, and in plain characters.
        detail = ascii(str(exc) or type(exc).__name__)[1:-1][:300]
        raise RepositoryError(
            _MEANS[code], code=code, context=f"repository {name}", faults=[Fault("", detail, fix)]
        ) from exc
