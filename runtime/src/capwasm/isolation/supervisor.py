"""The processes of one plugin: started when one is needed, shared where they may be, mourned once.

A native plugin's process serves one instance and ends with it.  A component's serves as many at a time
as it has lanes, each instance alone on its own; when it dies, all of them do, and each call that was
under way says so.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from capwasm.call import CallRecord
from capwasm.errors import Fault, GuestCrashed, InstanceClosedError, LimitExceeded, ShimError
from capwasm.events import Recorder
from capwasm_shim.frames import PeerClosed, ProtocolFault
from capwasm_shim.layers import Layer
from capwasm_shim.protocol import Kind

from .backoff import Backoff
from .exchange import Hung
from .process import Line, Recipe, ShimProcess
from .server import ShimServer

__all__ = ["MOST_LANES", "Supervisor"]

MOST_LANES: Final = 32
"""Of one process; a plugin that needs more instances at a time gets another process."""


class Supervisor:
    """One plugin's processes.  Safe from threads."""

    def __init__(
        self,
        server: ShimServer,
        recipe: Recipe,
        without: Callable[[Layer], str],
        recorder: Recorder,
    ) -> None:
        """None yet.

        Args:
            server: starts them.
            recipe: what they are made from; let go of when none can be started any more.
            without: the line of the policy that would do without a layer.
            recorder: takes an event where a process must wait.
        """
        self.backoff = Backoff(recipe.plugin, recorder)
        self.starts = 0
        self._peak = 0
        self._server = server
        self._recipe = recipe
        self._without = without
        self._processes: list[ShimProcess] = []
        self._closed = False
        # Both re-entrant, for a signal's handler may make a call.
        self._lock = threading.RLock()
        self._starting = threading.RLock()

    @property
    def processes(self) -> tuple[ShimProcess, ...]:
        """Those that there are now."""
        with self._lock:
            return tuple(self._processes)

    def peak_bytes(self) -> int:
        """The most memory that one of its processes had at once, as far as was seen."""
        for process in self.processes:
            self._peak = max(self._peak, process.peak_bytes())
        return self._peak

    # -- lines ----------------------------------------------------------------------------------

    def take(self, holder: object, record: CallRecord, check: Callable[[], None]) -> Line:
        """A line for one instance, to a process that has loaded its code.

        Args:
            holder: whose it is, until `give_back`; also where this is interrupted.
            record: of the start.
            check: raises what must end it.

        Raises:
            ShimError: a process can't be started, or not confined as it must be.
            GuestError: `guest.backoff`; or it died, hung or spoke out of turn, which is on `record`.
            LinkError: its code can't be loaded.
        """
        line = self._free(holder)
        if line is None:
            if not self._recipe.shared:
                return self._start(holder, record, check)
            with self._starting:
                line = self._free(holder) or self._start(holder, record, check)
        return line

    def _free(self, holder: object) -> Line | None:
        with self._lock:
            for process in self._processes if self._recipe.shared else ():
                if process.alive:
                    for line in process.lines:
                        if line.holder is None:
                            line.holder = holder
                            return line
        return None

    def _start(self, holder: object, record: CallRecord, check: Callable[[], None]) -> Line:
        self.backoff.check()
        # Held until it has started: a number of a descriptor that was closed meanwhile may be that of
        # anything else by then.
        recipe = self._recipe
        if self._closed:
            raise InstanceClosedError("the plugin is closed", context=recipe.plugin)
        try:
            process = ShimProcess.start(self._server, recipe)
        except ShimError as exc:
            raise self._with_fix(exc) from exc.__cause__
        # Until here nothing of the guest's was there to take time.
        record.restart()
        try:
            try:
                process.greet(check)
            except (ProtocolFault, PeerClosed) as exc:
                raise self.ended(process, record, exc) from None
            line = process.lines[0]
            with self._lock:
                self.starts += 1
                line.holder = holder
                self._processes.append(process)
            return line
        except BaseException:
            with self._lock, contextlib.suppress(ValueError):
                self._processes.remove(process)
            process.close()
            raise

    def _with_fix(self, error: ShimError) -> ShimError:
        """The same, with the policy's own line."""
        faults = [
            Fault(f.path, f.message, self._without(Layer(f.path))) if f.path in set(Layer) else f
            for f in error.faults
        ]
        return ShimError(error.message, code=error.code, context=self._recipe.plugin, faults=faults)

    def give_back(self, holder: object) -> None:
        """The instance has ended that holds so.  Called again, does what an interrupt left undone."""
        for process in self.processes:
            for line in [each for each in process.lines if each.holder is holder]:
                self._give_back(line, process)

    def _give_back(self, line: Line, process: ShimProcess) -> None:
        line.owner = None
        if process.alive:
            self._clear(line, process)
        with self._lock:
            over = not (process.alive and self._recipe.shared and not self._closed)
            over = over and not any(e.holder is not None for e in process.lines if e is not line)
            if over:
                self._processes.remove(process)
            line.holder = None  # the last: from here on it is another's
        if over:
            self._peak = max(self._peak, process.peak_bytes())
            process.close()

    def _clear(self, line: Line, process: ShimProcess) -> None:
        """Make the line fit for another instance, or end what can't be made so."""
        if not self._recipe.shared:
            process.kill("its instance has ended")
        elif line.exchange.busy:
            # What it would say next is anybody's guess.
            process.kill("a call into it did not end as it should")
        else:
            try:
                line.lane.begin()
                line.lane.send((Kind.CLOSE,))
                line.trim()
            except (PeerClosed, ProtocolFault, OSError):
                process.kill("it does not listen")

    # -- ends -----------------------------------------------------------------------------------

    def ended(self, process: ShimProcess, record: CallRecord, why: BaseException) -> BaseException:
        """What ends the call in which a process came to its end; on the record from now on.

        Args:
            process: which.
            record: of the call.
            why: what was raised where it was spoken to.
        """
        plugin, error = self._recipe.plugin, record.failure
        match why:
            case Hung():
                process.kill("another call did not end when it was told to")
                if isinstance(error, LimitExceeded):
                    self._mourn(process)
            case ProtocolFault():
                process.kill("it broke the protocol")
                self._mourn(process)
                error = error or GuestCrashed(
                    f"its process broke the protocol and was killed: {why}",
                    code="guest.protocol",
                    context=plugin,
                )
            case _:
                error = error or _told_to_end(record)
                if error is None:
                    self._mourn(process)
                    error = GuestCrashed(
                        f"its process has ended: {process.obituary()}", context=plugin
                    )
                process.kill()
        error = error or why
        record.fail(error)
        return error

    def _mourn(self, process: ShimProcess) -> None:
        """Count its end, however many calls meet it."""
        with self._lock:
            first, process.mourned = not process.mourned, True
        if first:
            self.backoff.crashed()

    def close(self) -> None:
        """Start no more, and end those that serve nobody; the others end with their instances."""
        with self._lock:
            self._closed = True
            self._recipe = replace(self._recipe, fds=(), holds=None)
            idle = [p for p in self._processes if all(line.holder is None for line in p.lines)]
            self._processes = [p for p in self._processes if p not in idle]
        for process in idle:
            process.close()


def _told_to_end(record: CallRecord) -> BaseException | None:
    """Why the host wants the call to end, if it does."""
    try:
        record.check()
    except Exception as exc:  # noqa: BLE001 - that is the question
        return exc
    return None
