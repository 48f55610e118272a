"""The door of this room: push and pull as the operator's registries.toml says, and recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from capwasm.errors import CapwasmError
from capwasm.events import ALLOWED, DENIED, FAILED, Event, NullRecorder, Recorder
from capwasm.web import Patience

from . import settings
from .client import Client, Progress
from .pull import Pulled, pull
from .push import Sent, push
from .reference import Reference
from .settings import Credentials, RegistrySettings

__all__ = ["Registries"]

# What says nothing against a registry.
_FAILURES = frozenset(
    {"repository.unreachable", "repository.timeout", "oci.not-found", "oci.status"}
)


class Registries:
    """OCI registries, each asked as the operator says."""

    def __init__(
        self,
        file: Path,
        *,
        recorder: Recorder | None = None,
        credentials_file: Path | None = None,
        credentials: Credentials | None = None,
        patience: Patience | None = None,
        progress: Progress = lambda *_: None,
    ) -> None:
        """Name what says how; nothing is read or asked yet.

        Args:
            file: registries.toml; none there means no registry has settings.
            recorder: takes the events.
            credentials_file: in place of the settings', for every registry that it names.
            credentials: in place of any file's, for the registry that is asked.
            patience: for each request.
            progress: told how far large blobs are.
        """
        self._file = file
        self._recorder = recorder or NullRecorder()
        self._credentials_file = credentials_file
        self._credentials = credentials
        self._patience = patience
        self._progress = progress

    def pull(self, reference: Reference) -> Pulled:
        """A capsule, still to be verified.

        Raises:
            RepositoryError: `oci.config`, `oci.credentials`; as `pull.pull`.
        """
        with self._recorded("pull", reference):
            found = pull(reference, self._client(reference, "pull"))
        self._record(ALLOWED, "pull", found.reference)
        return found

    def push(self, capsule: bytes, reference: Reference, *, move: bool = False) -> Sent:
        """Push a capsule under a tag.

        Raises:
            RepositoryError: `oci.config`, `oci.credentials`; as `push.push`.
            VerificationError: as `push.push`.
        """
        self._record(ALLOWED, "push", reference)
        with self._recorded("push", reference):
            return push(capsule, reference, self._client(reference, "pull,push"), move=move)

    def _client(self, reference: Reference, actions: str) -> Client:
        how = settings.settings_of(settings.load(self._file), reference)
        return Client(
            reference,
            how,
            actions=actions,
            credentials=self._credentials or self._found(reference, how),
            base=self._file.parent,
            patience=self._patience,
            progress=self._progress,
        )

    def _found(self, reference: Reference, how: RegistrySettings) -> Credentials | None:
        file = self._credentials_file
        if file is None and how.credentials is not None:
            file = self._file.parent / how.credentials
        return None if file is None else settings.credentials_of(file, reference.authority)

    @contextlib.contextmanager
    def _recorded(self, action: str, reference: Reference) -> Iterator[None]:
        try:
            yield
        except CapwasmError as exc:
            verdict = FAILED if exc.code in _FAILURES else DENIED
            self._record(verdict, action, reference, exc.code)
            raise

    def _record(self, verdict: str, action: str, target: Reference, reason: str = "") -> None:
        event = Event("repository", verdict, action=action, target=str(target), reason=reason)
        self._recorder.record(event)
