"""Who looks for new feeds while a core runs: in a directory five times a second, at a URL at times.

Two threads, so that a slow server does not keep a file waiting.  What fails in either is an event,
once until it goes well again, and the thread goes on; if it stops all the same, the guard notices
its silence and calls what is kept stale.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capwasm._files import read_file, why
from capwasm.errors import CapwasmError, RepositoryError, RevocationError
from capwasm.events import FAILED, Event, Recorder
from capwasm.record.logs import get_logger
from capwasm.record.redact import Redactor

from .feed import MAX_FEED_BYTES
from .guard import Guard

if TYPE_CHECKING:  # a core without a URL need not pay for HTTP and TLS
    from capwasm.web import Web

__all__ = ["Watch", "fetch", "read_feed"]

LOOK_SECONDS: Final = 0.2
NOTE_SECONDS: Final = 3600.0
REPORT_SECONDS: Final = 1.0
MAX_FILES: Final = 16


class Watch:
    """Looks until it is closed.

    The steps that follow from a new feed are the caller's.
    """

    def __init__(
        self,
        guard: Guard,
        inbox: Path,
        *,
        recorder: Recorder,
        on_feed: Callable[[], None],
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        """Make one; `start` starts it.

        Args:
            guard: is given what is found.
            inbox: `*.json` in it are feeds.
            recorder: takes the failures.
            on_feed: called when another feed has come into force, whoever accepted it.
            on_look: called at each look.
        """
        self._guard, self._inbox, self._recorder = guard, inbox, recorder
        self._on_feed, self._on_look = on_feed, on_look
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._enforced = 0
        self._seen: dict[str, tuple[object, int]] = {}
        self._failing: dict[str, str] = {}
        self._noted = self._reported = time.monotonic()

    def start(self) -> None:
        """Look once, on this thread, and from then on.

        Raises:
            RuntimeError: there can be no more threads.
        """
        self.look()
        self._guard.beat()
        jobs = [self._looking]
        if self._guard.rule.url:
            jobs.append(self._fetching)
        for job in jobs:
            thread = threading.Thread(target=job, name="capwasm-revocations", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop.  A fetch that is under way is not waited for; what it brings is still checked."""
        self._stop.set()
        for thread in self._threads[:1]:
            if thread is not threading.current_thread():
                thread.join()

    def look(self) -> None:
        """One look: files, what other processes accepted, how old it is."""
        self.attempt("files", self._look_at_files)
        self.attempt("feed", self._look_at_feed)
        self.attempt("look", self._on_look)
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self.attempt("report", self._guard.report)
        if now - self._noted >= NOTE_SECONDS:
            self._noted = now
            self.attempt("time", self._guard.note_time)

    def attempt(self, step: str, work: Callable[[], object]) -> None:
        """Do something; if it fails, that is told once, until it goes well again."""
        try:
            work()
        except Exception as exc:  # noqa: BLE001  the watch goes on, and tells
            self._tell(step, exc)
        else:
            self._failing.pop(step, None)

    # -- inside -----------------------------------------------------------------------------------

    def _looking(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self.look()
            self._guard.beat()

    def _fetching(self) -> None:
        from capwasm.web import Patience, Web

        rule, web = self._guard.rule, Web(patience=Patience(idle=10.0, total=60.0))
        while not self._stop.is_set():
            self.attempt("fetch", lambda: self._fetch(web, rule.url))
            self._stop.wait(rule.every_minutes * 60)

    def _fetch(self, web: Web, url: str) -> None:
        data = fetch(web, url)
        if not self._stop.is_set():
            self._guard.take(data, url)  # the looking thread sees to the rest

    def _look_at_files(self) -> None:
        try:
            names = sorted(
                p.name for p in self._inbox.iterdir() if p.suffix == ".json" and p.name[0] != "."
            )
        except FileNotFoundError:
            return
        except OSError as exc:
            raise RevocationError(
                f"can't be read: {why(exc)}",
                code="revocation.unreadable",
                context=_name(self._inbox),
            ) from None
        for gone in self._seen.keys() - set(names):
            del self._seen[gone]
        for name in names[:MAX_FILES]:
            path = self._inbox / name
            try:
                info = path.stat()
            except OSError:
                continue
            mark = (info.st_ino, info.st_mtime_ns, info.st_ctime_ns, info.st_size)
            before, tries = self._seen.get(name, (None, 0))
            tries = tries if before == mark else 0
            if tries > 1:
                continue
            self._seen[name] = (mark, tries + 1)
            self._take(path, tries)
        if len(names) > MAX_FILES:
            raise RevocationError(
                f"more than {MAX_FILES} feeds",
                code="revocation.unreadable",
                context=_name(self._inbox),
            )

    def _take(self, path: Path, tries: int) -> None:
        """A file that is no feed may be half written: it is given a second look before that is told."""
        try:
            self._guard.take(read_feed(path), _name(path), quiet=not tries)
        except CapwasmError as exc:
            if tries:
                self._tell(f"file {path.name}", exc)
        else:
            self._seen[path.name] = (self._seen[path.name][0], 2)
            self._failing.pop(f"file {path.name}", None)

    def _look_at_feed(self) -> None:
        self._guard.refresh()
        generation = self._guard.generation
        if generation != self._enforced:
            self._on_feed()
            self._enforced = generation

    def _tell(self, step: str, exc: Exception) -> None:
        code = exc.code if isinstance(exc, CapwasmError) else "internal"
        if self._failing.get(step) == code:
            return
        self._failing[step] = code
        text = str(exc) if isinstance(exc, CapwasmError) else type(exc).__name__
        try:
            self._recorder.record(
                Event(
                    "revocation",
                    FAILED,
                    action="watch",
                    target=f"{step}: {text}"[:300],
                    reason=code,
                )
            )
        except Exception:  # noqa: BLE001  where nothing can be recorded, a line in the log is left
            get_logger(Redactor()).warning(f"the watch over revocations failed: {step}: {code}")


def read_feed(path: Path) -> bytes:
    """A feed's file.

    Raises:
        RevocationError: `revocation.unreadable`, `revocation.too-large`.
    """
    return read_file(
        path,
        MAX_FEED_BYTES,
        RevocationError,
        code="revocation.unreadable",
        too_large="revocation.too-large",
    )


def fetch(web: Web, url: str) -> bytes:
    """A feed from a server; nothing of it is believed yet.

    Raises:
        RepositoryError: as `Web.request`; `repository.status`.
    """
    with web.request(url, limit=MAX_FEED_BYTES) as answer:
        if answer.status != 200:
            raise RepositoryError(
                f"the server answers {answer.status}", code="repository.status", context=url
            )
        return answer.read()


def _name(path: Path) -> str:
    return ascii(str(path))[1:-1]
