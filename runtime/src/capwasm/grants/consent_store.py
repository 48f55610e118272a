"""Where consents are kept: a directory of the operator's, one JSON file a record.

A record is written whole, to the disk, and only then takes its name, so a process that is killed
leaves it there or not there (PER-01, PER-07).  Withdrawing marks a record; nothing is ever erased.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from os import PathLike
from pathlib import Path
from typing import Final

from capwasm._files import read_file, write_file
from capwasm._model import parse_json
from capwasm.capsule.identity import check_id
from capwasm.errors import ConsentError
from capwasm.events import ALLOWED, Event, NullRecorder, Recorder

from .consent import Consent, ConsentEntry, ConsentRecord, Subject, Withdrawal, consent_for

__all__ = ["ConsentStore"]

MAX_RECORD_BYTES: Final = 512 * 1024
# Left free in each record that is given, so that it can always be withdrawn.
WITHDRAWAL_BYTES: Final = 16 * 1024
MAX_RECORDS: Final = 10_000
_NAME: Final = re.compile(r"([a-z0-9.-]{1,128})@([0-9]{6})\.json")
_STALE_SECONDS: Final = 3600


class ConsentStore:
    """Consents in a directory that only its owner can write.  Safe to use from several processes."""

    def __init__(self, directory: str | PathLike[str], *, recorder: Recorder | None = None) -> None:
        """Keep consents in `directory`, which is made when the first is given.

        Args:
            directory: of the operator's own; never one that a plugin can write.
            recorder: is told of each consent and withdrawal before it has an effect.
        """
        self.directory = Path(directory)
        self._recorder: Recorder = recorder or NullRecorder()

    def entries(self, plugin_id: str | None = None) -> list[ConsentEntry]:
        """All records, or those of one plugin, oldest first.

        Raises:
            ConsentError: `consent.invalid` for a malformed record, `consent.store` for a directory
                or file that can't be read or that others may write.
        """
        found = [
            (number, plugin, path)
            for path, plugin, number in self._files()
            if plugin_id in (None, plugin)
        ]
        return [
            ConsentEntry(number, self._read(path, plugin))
            for number, plugin, path in sorted(found, key=lambda f: (f[1], f[0]))
        ]

    def find(self, subject: Subject) -> Consent:
        """What consent there is for exactly these bytes.

        Raises:
            ConsentError: as `entries`.
        """
        return consent_for(subject, self.entries(check_id(subject.plugin)))

    def give(self, record: ConsentRecord) -> ConsentEntry:
        """Keep a new consent; it is on the disk when this returns.

        Raises:
            ConsentError: `consent.store`, or `consent.invalid` for one too large to be kept.
            AuditError: it could not be recorded, and was not kept.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise self._broken(f"can't be made: {exc.strerror}") from exc
        size, most = len(_encode(record)), MAX_RECORD_BYTES - WITHDRAWAL_BYTES
        if size > most:  # it would be refused when read, and all other records with it
            raise ConsentError(
                f"the record would have {size} bytes; at most {most}", context=record.plugin
            )
        taken = {number for _, plugin, number in self._files() if plugin == record.plugin}
        self._record("give", record, record.who, record.reason)
        number = max(taken, default=0) + 1
        while True:
            path = self._path(record.plugin, number)
            try:
                self._write(path, record, overwrite=False)
            except ConsentError:
                # Another process may have taken the number between the look and the write.
                if not path.exists() or number >= MAX_RECORDS:
                    raise
                number += 1
            else:
                return ConsentEntry(number, record)

    def withdraw(
        self, plugin_id: str, withdrawal: Withdrawal, *, version: str | None = None
    ) -> list[ConsentEntry]:
        """Take back every consent in force for a plugin, or for one version of it.

        Raises:
            ConsentError: `consent.missing` if there is none; as `entries`.
            AuditError: it could not be recorded; that record is still in force.
        """
        doomed = [
            entry
            for entry in self.entries(plugin_id)
            if entry.record.withdrawn is None and version in (None, entry.record.version)
        ]
        if not doomed:
            raise ConsentError("no consent in force", code="consent.missing", context=plugin_id)
        done = []
        for entry in doomed:
            self._record("withdraw", entry.record, withdrawal.who, withdrawal.reason)
            marked = entry.record.model_copy(update={"withdrawn": withdrawal})
            self._write(self._path(plugin_id, entry.number), marked, overwrite=True)
            done.append(ConsentEntry(entry.number, marked))
        return done

    def _path(self, plugin_id: str, number: int) -> Path:
        return self.directory / f"{check_id(plugin_id)}@{number:06d}.json"

    def _files(self) -> list[tuple[Path, str, int]]:
        try:
            info = self.directory.stat()
            if not stat.S_ISDIR(info.st_mode):
                raise self._broken("not a directory")
            if info.st_uid not in {0, os.geteuid()}:
                raise self._broken(f"it belongs to another user, uid {info.st_uid}")
            if info.st_mode & 0o022:
                raise self._broken("others may write it; run: chmod go-w on it")
            paths = list(self.directory.iterdir())
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise self._broken(f"can't be read: {exc.strerror}") from exc
        self._sweep(paths)
        found = []
        for path in paths:
            if path.suffix != ".json" or path.name.startswith("."):
                continue
            match = _NAME.fullmatch(path.name)
            if match is None:
                raise self._broken(f"{path.name[:64]!a} is no name of a record")
            found.append((path, match[1], int(match[2])))
        if len(found) > MAX_RECORDS:
            raise self._broken(f"more than {MAX_RECORDS} records")
        return found

    @staticmethod
    def _sweep(paths: list[Path]) -> None:
        """Remove what a killed writer left, once no writer can be at it."""
        for path in paths:
            if path.name.startswith(".") and path.suffix == ".tmp":
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                        path.unlink()

    def _read(self, path: Path, plugin_id: str) -> ConsentRecord:
        data = read_file(
            path,
            MAX_RECORD_BYTES,
            ConsentError,
            code="consent.store",
            too_large="consent.invalid",
            follow=False,
            refuse_mode=0o022,
            refuse_owner=True,
        )
        doc = parse_json(
            data, ConsentError, code="consent.invalid", context=path.name, limit=MAX_RECORD_BYTES
        )
        record = ConsentRecord.parse(doc, path.name)
        if record.plugin != plugin_id:
            raise ConsentError(f"it is about {record.plugin}", context=path.name)
        return record

    def _write(self, path: Path, record: ConsentRecord, *, overwrite: bool) -> None:
        write_file(
            path,
            _encode(record),
            ConsentError,
            code="consent.store",
            mode=0o600,
            overwrite=overwrite,
        )

    def _record(self, action: str, record: ConsentRecord, who: str, reason: str) -> None:
        self._recorder.record(
            Event(
                kind="consent",
                verdict=ALLOWED,
                plugin=f"{record.plugin}@{record.version}",
                action=action,
                target=record.manifest_digest,
                reason=reason,
                details={"who": who, "code": record.code_digest},
            )
        )

    def _broken(self, message: str) -> ConsentError:
        return ConsentError(message, code="consent.store", context=ascii(str(self.directory))[1:-1])


def _encode(record: ConsentRecord) -> bytes:
    doc = record.model_dump(by_alias=True, exclude_none=True, mode="json")
    return (json.dumps(doc, indent=2, ensure_ascii=True) + "\n").encode()
