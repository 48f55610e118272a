"""What python-tuf downloads with: our own requests, and where asked, the cache as the server.

Nothing is larger than declared or than the bounds here, also where a key that signs says so.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from capwasm._files import read_file
from capwasm.capsule.artifact import MAX_CAPSULE_BYTES
from capwasm.errors import RepositoryError
from capwasm.web import Web

__all__ = ["MAX_METADATA", "Fetcher"]

MAX_METADATA: Final = 32 * 1024 * 1024  # a file of metadata; some 80,000 targets


class Fetcher(FetcherInterface):
    """Downloads into memory.

    With `cached`, it answers as the server did the last time: with the timestamp of the cache, and
    with no newer root.  So what is in the cache goes through the very checks of a refresh, expiry
    and today's keys among them.
    """

    def __init__(self, web: Web, cached: Path | None = None, *, offline: bool = False) -> None:
        """Take what it asks.

        Args:
            web: sends the requests.
            cached: directory of metadata that answers for the server.
            offline: whether nothing else is asked either.
        """
        self._web = web
        self._cached = cached
        self._offline = offline

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self._within(url, MAX_CAPSULE_BYTES)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """A file of metadata.

        Raises:
            DownloadHTTPError: the answer is none of 200.
            RepositoryError: as `Web.request`.
        """
        name = url.rpartition("/")[2]
        if self._cached is not None:
            if name.endswith(".root.json"):
                raise DownloadHTTPError("not asked for", 404)
            if name == "timestamp.json":
                return read_file(
                    self._cached / name,
                    max_length,
                    RepositoryError,
                    code="repository.unreachable",
                )
        return b"".join(self._within(url, min(max_length, MAX_METADATA)))

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """A target.

        Raises:
            As `download_bytes`.
        """
        yield io.BytesIO(b"".join(self._within(url, min(max_length, MAX_CAPSULE_BYTES))))

    def _within(self, url: str, limit: int) -> Iterator[bytes]:
        if self._offline:
            raise RepositoryError(
                "not in the cache, and nothing is asked for offline",
                code="repository.unreachable",
                context=url,
            )
        with self._web.request(url, limit=limit) as answer:
            if answer.status != 200:
                raise DownloadHTTPError(f"{url} answered {answer.status}", answer.status)
            yield from answer.chunks()
