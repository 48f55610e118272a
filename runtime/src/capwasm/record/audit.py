"""The audit log: what happened, in a chain that shows any change, on the disk before it counts.

A denial, a grant, a load, a consent, a revocation and a kill is on the disk before `record`
returns.  What was allowed follows within `flush_ms`, in the same chain and the same order; that
window is what a power cut or a kill of the process may cost, and nothing else.  When the log can't
be written `record` raises, and what was to be recorded does not happen.

Calls that went well are told of with each flush: those who count them (`tally`) are asked first.  From
the moment that a write has failed, `gate` is shut, and no call begins until `ready` passes.  It is
shut during each flush as well, for a disk can hang: if one takes too long, nothing new begins.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Final, NoReturn, Self

from capwasm.errors import AuditError
from capwasm.events import DENIED, Event

from . import _signed
from ._audit_check import Problem, Report, verify_log
from ._chain import Head, Sealed, Stamp, seal
from ._plain import Fields, fit
from .options import Options
from .redact import Redactor
from .retention import Keeping, Pruning
from .search import tail
from .sinks import FileSink, Mark, MemorySink, Sink, Written, is_foreign
from .tally import Gate

if TYPE_CHECKING:  # cryptography is slow to import, and only a log with a key needs it
    from capwasm.capsule.keys import PrivateKey

__all__ = [
    "DURABLE",
    "AuditLog",
    "Head",
    "Keeping",
    "MemorySink",
    "Options",
    "Problem",
    "Pruning",
    "Report",
    "tail",
    "verify_log",
]

DURABLE: Final = frozenset(
    "runtime.start load consent install revocation grant crash revoke kill gap".split()  # noqa: SIM905  one line
)
"""Kinds that are on the disk before `record` returns, whatever the verdict; so is each denial."""

PATIENCE_SECONDS: Final = 5.0
"""How long a flush may take, with the disk's time and the hook's, before calls are refused."""


class AuditLog:
    """A `Recorder` that seals each event into the chain of a sink.  For any thread."""

    def __init__(
        self,
        sink: Sink,
        redactor: Redactor,
        *,
        key: PrivateKey | None = None,
        **options: int,
    ) -> None:
        """Go on where the sink's chain ends.

        Args:
            sink: where the bytes go; closed with the log.
            redactor: every text passes it before it is sealed.
            key: signs the anchors.
            options: as for `Options`.

        Raises:
            AuditError: the first record can't be written.
        """
        self._sink, self._redactor, self._key = sink, redactor, key
        self._how = how = Options(**options)
        self._keep = Keeping(how.keep_days, how.keep_bytes)
        self._segment_began = sink.resume.began or (time.time(), 1)
        self._unpruned = False
        self._run, self._stamp, self._pid = secrets.token_hex(8), Stamp(), os.getpid()
        resume = sink.resume
        self._log = resume.log or secrets.token_hex(16)
        # Order: `_io`, then `_chain`.  Both are re-entrant, for a signal handler may record.
        self._io, self._chain = threading.RLock(), threading.RLock()
        self._done = Written(resume.head, sink.current(), resume.size)
        self._pending: list[Sealed] = []
        self._synced = self._anchored = resume.head.seq
        self._sealing = self._closed = False
        self.gate = Gate()
        self._followers: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._failure: str | None = None  # the last write failed; the next record tries again
        self._dead: str | None = None  # no write will do any more
        self._refused = 0
        self._flushing = False
        self._round: float | None = None  # since when the flusher is at work
        # Queues, not events: an interrupt within `Event.set` can leave its lock taken for good.
        self._dirty = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stop: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._flusher = threading.Thread(
            target=self._flush_often, name="capwasm-audit", daemon=True
        )
        try:
            new = resume.size == 0
            self._anchor("segment" if new else "open", sink.current().number if new else None)
            if resume.torn or resume.unmarked:
                reason = "torn" if resume.torn else "no-mark"
                self._gap(reason, cut_bytes=resume.torn)
            self._flush(sync=True)
            self._prune_by_itself()
            self._flush(sync=True)
        except BaseException:
            sink.close()
            raise
        self._flusher.start()
        atexit.register(self._at_exit)

    @classmethod
    def open(
        cls,
        directory: str | PathLike[str],
        redactor: Redactor,
        *,
        key: PrivateKey | None = None,
        **options: int,
    ) -> Self:
        """The log in that directory, which is made if need be; `options` as for the class.

        Raises:
            AuditError: as `FileSink`, and when the first record can't be written.
        """
        return cls(FileSink(directory), redactor, key=key, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def head(self) -> Head:
        """The newest record's place and hash.  Kept elsewhere, it shows a truncation."""
        with self._chain:
            return self._pending[-1].head if self._pending else self._done.head

    # -- recording ---------------------------------------------------------------------------------

    def record(self, event: Event) -> None:
        """Seal `event`; on return it is as safe as its kind demands.

        Raises:
            AuditError: it could not be kept; the operation must not happen.
            ValueError: its kind or verdict is not one of `events`.
        """
        fields = fit(event, self._redactor)
        self.ready()
        seq, waiting = self._take(fields)
        if event.verdict == DENIED or event.kind in DURABLE:
            self._flush(sync=True, upto=seq)
            return
        self.wake()
        if waiting >= self._how.flush_records:
            self._write_some(waiting)

    def record_all(self, events: Sequence[Event]) -> None:
        """Seal these one after the other; on return all are on the disk, waited for once.

        Raises:
            AuditError: not all could be kept; none of the operations may happen.
            ValueError: a kind or verdict is not one of `events`; nothing was recorded.
        """
        all_fields = [fit(event, self._redactor) for event in events]
        self.ready()
        for fields in all_fields:
            self._take(fields)
        self._flush(sync=True)

    def note(self, event: Event) -> None:
        """Seal `event`, to be on the disk with the next flush.

        Raises:
            AuditError: it was not sealed.
            ValueError: as `record`.
        """
        self._take(fit(event, self._redactor))
        self.wake()

    def wake(self) -> None:
        """Have what waits on the disk within `flush_ms`."""
        if not self._dirty:
            # In this order: set last, it could outlive the flush that it was for.
            self._dirty = True
            self._wake.put(None)

    def on_flush(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        """Call `before` at the beginning of each flush that is no record's own, `after` at its end.

        Args:
            before: may `note`, and may raise `AuditError`.
            after: must not raise.
        """
        self._followers.append((before, after))

    def flush(self) -> None:
        """Bring all that was recorded or counted to the disk.

        Raises:
            AuditError: it can't be.
        """
        self.ready()
        self._flush_all()

    def _flush_all(self) -> None:
        try:
            for before, _ in self._followers:
                before()
            self._flush(sync=True)
        finally:
            for _, after in self._followers:
                after()

    def anchor(self) -> Head:
        """Seal an anchor now, signed if there is a key, and bring it to the disk.

        Raises:
            AuditError: it can't be.
        """
        self.flush()
        with self._chain:
            self._anchor("asked")
            head = self.head
        self._flush(sync=True)
        return head

    def close(self) -> None:
        """Seal a last anchor, flush, and let go of the sink.  Later calls do nothing.

        Raises:
            AuditError: the last records could not be written.
        """
        if os.getpid() != self._pid:
            # Not one lock: a thread that the fork left behind may have held it.
            if not self._closed:
                self._closed = self.gate.shut = True
                self._sink.close()
            return
        if not self._closed:
            with contextlib.suppress(AuditError):  # raised below, if it still can't be written
                self.flush()
        with self._io:
            if self._closed:
                return
            self._stop.put(None)
            self._wake.put(None)
            atexit.unregister(self._at_exit)
            try:
                with self._chain:
                    self._anchor("close")
                    self._closed = self.gate.shut = True  # nothing is sealed from here on
                self._flush(sync=True)
            finally:
                self._closed = self.gate.shut = True
                self._dead = "it is closed"
                self._sink.close()
        if threading.current_thread() is not self._flusher:  # else a hook closes it
            self._flusher.join(timeout=5)

    # -- sealing -----------------------------------------------------------------------------------

    def _take(self, fields: Fields) -> tuple[int, int]:
        """Add to the chain, with an anchor if one is due: its number, and how many records wait."""
        with self._chain:
            seq = self._seal(fields)
            waiting = len(self._pending)
            if seq - self._anchored >= self._how.anchor_records:
                self._anchor("periodic")
        return seq, waiting

    def _seal(self, event: Fields, stamp: str | None = None) -> int:
        """Add to the chain, which is held.  The one change of state is the append: no half of it."""
        if self._closed:
            raise AuditError("the audit log is closed")
        if self._sealing:
            raise AuditError("a signal handler recorded in the midst of another record")
        self._sealing = True
        try:
            pending = self._pending
            head = pending[-1] if pending else self._done.head
            sealed = seal(head, stamp or self._stamp(), self._run, *event)
            pending.append(sealed)
        finally:
            self._sealing = False
        return sealed.seq

    def _gap(self, reason: str, **details: int) -> None:
        with self._chain:
            self._seal(_signed.gap(reason, **details))

    def _anchor(self, action: str, segment: int | None = None) -> None:
        with self._chain:
            head, stamp = self.head, self._stamp()
            fields = _signed.anchor(action, self._log, head, stamp, self._key, segment)
            self._anchored = self._seal(fields, stamp)

    # -- writing -----------------------------------------------------------------------------------

    def ready(self) -> None:
        """Pass if the log can be written, as far as is known; what failed is tried again.

        Raises:
            AuditError: it can't; what was to be recorded must not happen.
        """
        if self._closed:
            raise AuditError("the audit log is closed")
        if os.getpid() != self._pid:
            raise AuditError("the audit log belongs to the process that this one was forked from")
        began = self._round  # once: the flusher changes it
        if began is not None and time.monotonic() - began > PATIENCE_SECONDS:
            with self._chain:
                self._refused += 1
            raise AuditError(f"the audit log can't be written: no end for {PATIENCE_SECONDS:g} s")
        if self._failure is None and not self._refused:
            return
        # It failed before.  Nothing new is sealed until what waits is on the disk.
        try:
            self._flush(sync=True)
        except AuditError:
            with self._chain:
                self._refused += 1
            raise
        with self._chain:
            if self._refused:
                self._gap("sink", refused=self._refused)
                self._refused = 0
            self._set_gate()
        # What was counted before the failure still waits.
        self.wake()

    def _flush(self, *, sync: bool, upto: int | None = None) -> None:
        """Write what waits.  Whoever waits for the lock often finds it done: one sync for all."""
        with self._io:
            if upto is not None and self._synced >= upto:
                return
            if self._dead is not None:
                self._fail(self._dead)
            self._flushing = True
            try:
                self._write()
                if sync and self._synced < self._done.head.seq:
                    self._sync()
                if self._is_full() and not self._closed:
                    self._rotate()
                    self._prune_by_itself()
            except (OSError, ValueError) as exc:  # ValueError: its file is closed
                if is_foreign(exc):
                    raise
                self._fail(getattr(exc, "strerror", None) or str(exc), exc)
            finally:
                self._flushing = False
            self._failure = None
            self._set_gate()

    def _set_gate(self) -> None:
        why = self._failure is not None or self._refused > 0 or self._round is not None
        self.gate.shut = self._closed or why

    def _write(self) -> None:
        done = self._done
        with self._chain:
            batch = [s for s in self._pending if s.seq > done.head.seq]
        if batch:
            data = b"".join([s.line for s in batch])
            done.segment.write(data, done.size)
            if batch[-1].seq > self._done.head.seq:  # else a signal handler's flush went further
                self._done = Written(batch[-1].head, done.segment, done.size + len(data))
        with self._chain:
            if self._pending:
                del self._pending[: max(0, self._done.head.seq - self._pending[0].seq + 1)]

    def _sync(self) -> None:
        done = self._done
        try:
            done.segment.sync()
        except OSError as exc:
            if is_foreign(exc):
                raise
            # The kernel may drop what it could not write and report that only once.
            self._dead = "the disk refused a sync; open the log again"
            raise
        self._sink.mark(Mark(self._log, done.segment.number, done.size, done.head))
        self._synced = max(self._synced, done.head.seq)

    def _is_full(self) -> bool:
        began, seq = self._segment_began
        return self._done.size >= self._how.segment_bytes or (
            time.time() - began >= self._how.segment_seconds and self._done.head.seq > seq
        )

    def _rotate(self) -> None:
        with self._chain:  # nobody seals until the new segment has its first record
            self._write()
            self._sync()
            number = self._done.segment.number + 1
            # Sealed before the switch: interrupted in between, it ends the old segment instead.
            self._anchor("segment", number)
            self._done = Written(self._done.head, self._sink.rotate(number), 0)
            self._segment_began = (time.time(), self._done.head.seq + 1)
            self._write()
            self._sync()

    def prune(self, keep: Keeping | None = None) -> Pruning | None:
        """Remove the oldest segments that need no longer be kept, and say so in the log first.

        Args:
            keep: how long and how much; what the log was opened with if None.

        Raises:
            AuditError: the log can't be written; `audit.retention` where what would have to go is
                damaged, or can't be removed.
        """
        self.flush()
        with self._io:
            return self._prune(keep or self._keep)

    def _prune(self, keep: Keeping) -> Pruning | None:
        try:
            found = self._sink.outlived(keep)
            if found is not None:
                with self._chain:
                    head, stamp = self.head, self._stamp()
                    self._seal(_signed.retention(found, self._log, head, stamp, self._key), stamp)
                # On the disk before anything is removed: else what is left would not verify.
                self._write()
                self._sync()
                self._sink.remove(found)
        except (OSError, ValueError) as exc:
            raise AuditError(f"nothing is pruned: {exc}", code="audit.retention") from exc
        return found

    def _prune_by_itself(self) -> None:
        """What stands in the way is recorded, once, and refuses nothing."""
        try:
            self._prune(self._keep)
        except AuditError:
            if not self._unpruned:
                self._unpruned = True
                self._gap("prune")

    def _fail(self, why: str, cause: Exception | None = None) -> NoReturn:
        self._failure, self.gate.shut = why, True
        raise AuditError(f"the audit log can't be written: {why}") from cause

    def _write_some(self, waiting: int) -> None:
        # Not when another thread is at it, which may take a disk's time; but memory has a bound.
        if not self._flushing or waiting > 16 * self._how.flush_records:
            self._flush(sync=False)

    # -- the flusher -------------------------------------------------------------------------------

    def _flush_often(self) -> None:
        while True:
            self._wake.get()
            with contextlib.suppress(queue.Empty):
                self._stop.get(timeout=self._how.flush_ms / 1000)
                return
            self._dirty = False
            self._round, self.gate.shut = time.monotonic(), True
            # A failure is kept: the next `record` tries again and raises it, and no call begins.
            try:
                if self._failure is not None:
                    self._flush(sync=True)
                self._flush_all()
            except AuditError:
                if self._dead is None:
                    self.wake()
            except BaseException as exc:  # noqa: BLE001  this thread outlives whatever a sink or hook does
                self._failure = type(exc).__name__
            finally:
                self._round = None
                self._set_gate()

    def _at_exit(self) -> None:
        with contextlib.suppress(AuditError):
            self.close()
