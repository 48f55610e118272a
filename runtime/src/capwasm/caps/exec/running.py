"""One run of one command, from its start to its end: pipes, time, and whoever wants it to stop.

The thread that called waits here and moves bytes; it never blocks on one pipe, so neither side can
hold up the other.  Where the output is full its pipe is closed, as `head` does, and not emptied: a
command that floods costs itself and not the host (RES-21).
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from capwasm_shim.layers import Spec

__all__ = ["Ended", "NotRun", "OutOfTime", "Outcome", "Process", "Spawner", "run", "try_out"]

# A waiting run looks this often whether it is still wanted.
SLICE: Final = 0.02
PIECE: Final = 64 * 1024
TRIAL_SECONDS: Final = 10.0
LAST_SECONDS: Final = 2.0
"""For word of how a process ended that has."""


class Ended(Protocol):
    """How a process ended.  `how` is `exited`, with its status as number; or a signal's."""

    @property
    def how(self) -> str:
        """`exited`, `signalled`, or `lost`: nobody knows."""

    @property
    def number(self) -> int:
        """The exit status, or the signal."""

    @property
    def cpu_ms(self) -> int:
        """Processor time of all its threads."""


class Process(Protocol):
    """A process in its sandbox."""

    @property
    def pidfd(self) -> int:
        """Ready to be read once it has ended."""

    def ended(self, seconds: float = 0.0) -> Ended | None:
        """How it ended, or None if that is not known within so many seconds."""

    def close(self) -> None:
        """Kill it, and all that it has started."""


class Spawner(Protocol):
    """Starts processes in sandboxes; given to the capability by the runtime."""

    def start(
        self, spec: Spec, fds: Sequence[tuple[str, int]], seconds: float, *, trial: bool = False
    ) -> Process:
        """Start the program of `spec.argv`.

        Args:
            spec: of an `exec`; which layers are required is the spawner's to say.
            fds: `stdin`, `stdout`, `stderr`; `status`, see `capwasm_shim.execute`; and `program`,
                the file that was judged.  They stay the caller's.
            seconds: for the start.
            trial: build the sandbox, look at the program, and end.

        Raises:
            ShimError: it can't be started here, with why.
        """


class NotRun(Exception):
    """The program was never executed; the text is for the operator."""


class OutOfTime(Exception):
    """It ran longer than it may, and was killed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left.

    Attributes:
        code: the exit status, or None if a signal ended it.   signal: that, or 0.
        stdout, stderr: as far as they were to be kept.
        stdout_truncated, stderr_truncated: whether there was more.
        cpu_ms: its processor time.
    """

    code: int | None
    signal: int
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool
    stderr_truncated: bool
    cpu_ms: int


class _Reader:
    """What comes out of one pipe, up to a bound."""

    def __init__(self, fd: int, most: int, done: Callable[[int], None]) -> None:
        self.fd = fd
        self.data = bytearray()
        self.full = False
        self._most = most
        self._done = done

    def pull(self) -> bool:
        """Take what is there; False when there is nothing now, or never will be again."""
        if self.fd < 0:
            return False
        try:
            # One byte more than wanted tells whether there was more.
            piece = os.read(self.fd, min(PIECE, self._most + 1 - len(self.data)))
        except BlockingIOError:
            return False
        self.data += piece
        self.full = len(self.data) > self._most
        if not piece or self.full:
            del self.data[self._most :]
            fd, self.fd = self.fd, -1
            self._done(fd)
        return bool(piece)


class _Writer:
    """What goes into a pipe, as fast as it is taken."""

    def __init__(self, fd: int, data: bytes, done: Callable[[int], None]) -> None:
        self.fd = fd
        self._left = memoryview(data)
        self._done = done
        if not data:
            self._end()

    def push(self) -> None:
        """Give what is taken now."""
        try:
            self._left = self._left[os.write(self.fd, self._left[:PIECE]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it reads no more, as it may
            self._left = self._left[:0]
        if not self._left:
            self._end()

    def _end(self) -> None:
        fd, self.fd = self.fd, -1
        self._done(fd)


def run(
    spawner: Spawner,
    spec: Spec,
    program: int,
    data: bytes,
    most: tuple[int, int],
    until: float,
    tick: Callable[[], None],
    *,
    trial: bool = False,
) -> Outcome:
    """Run a program to its end.  Whatever way this is left, its process is gone.

    Args:
        spawner: starts it.
        spec: of its sandbox.
        program: a descriptor of the file that was judged.
        data: its standard input.
        most: bytes of its standard output and error that are kept.
        until: on the monotonic clock, when it is killed.
        tick: called often; what it raises ends the run.
        trial: as of `spawner`.

    Raises:
        NotRun: it could not be executed.
        OutOfTime: it was killed.
        ShimError: as of `spawner`.
        OSError: this process has no descriptors left.
    """
    with contextlib.ExitStack() as stack:
        pipes = stack.enter_context(_pipes())
        theirs = [*pipes.theirs.items(), ("program", program)]
        process = spawner.start(spec, theirs, until - time.monotonic(), trial=trial)
        stack.callback(process.close)
        pipes.let_go()
        poll = select.poll()

        def done(fd: int) -> None:
            poll.unregister(fd)
            pipes.close(fd)

        for name in ("stdout", "stderr", "status"):
            poll.register(pipes.ours[name], select.POLLIN)
        poll.register(pipes.ours["stdin"], select.POLLOUT)
        poll.register(process.pidfd, select.POLLIN)
        out = _Reader(pipes.ours["stdout"], most[0], done)
        err = _Reader(pipes.ours["stderr"], most[1], done)
        status = _Reader(pipes.ours["status"], 1024, done)
        writer = _Writer(pipes.ours["stdin"], data, done)
        readers = {reader.fd: reader for reader in (out, err, status)}
        alive = True
        while alive:
            left = until - time.monotonic()
            if left <= 0:
                raise OutOfTime
            ready = poll.poll(min(left, SLICE) * 1000 + 1)
            tick()
            for fd, _ in ready:
                if fd == process.pidfd:
                    alive = False
                elif fd == writer.fd:
                    writer.push()
                else:
                    readers[fd].pull()
        # All who wrote are dead: what is in the pipes is all there is.
        for reader in (out, err, status):
            while reader.pull():
                pass
        said = bytes(status.data)
        if said != b"go":
            raise NotRun(
                said.removeprefix(b"go").decode("utf-8", "replace") or "it was not started"
            )
        ended = process.ended(LAST_SECONDS)
        if ended is None or ended.how == "lost":
            raise NotRun("it was killed, because the fork server has ended")
        exited = ended.how == "exited"
        return Outcome(
            code=ended.number if exited else None,
            signal=0 if exited else ended.number,
            stdout=bytes(out.data),
            stderr=bytes(err.data),
            stdout_truncated=out.full,
            stderr_truncated=err.full,
            cpu_ms=ended.cpu_ms,
        )


def try_out(spawner: Spawner, spec: Spec, program: int) -> None:
    """Build the sandbox of a run and look at the program from inside, without executing it.

    Raises:
        NotRun: it is not to be found there, or does not answer.
        ShimError, OSError: as of `run`.
    """
    until = time.monotonic() + TRIAL_SECONDS
    try:
        run(spawner, spec, program, b"", (0, 0), until, lambda: None, trial=True)
    except OutOfTime:
        raise NotRun("its sandbox is not ready in time") from None


class _Pipes:
    """Our ends, which never block, and the command's."""

    def __init__(self) -> None:
        self.ours: dict[str, int] = {}
        self.theirs: dict[str, int] = {}
        self._open: set[int] = set()

    def add(self, name: str, *, writing: bool = False) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._open |= {reader, writer}
        self.ours[name], self.theirs[name] = (writer, reader) if writing else (reader, writer)
        os.set_blocking(self.ours[name], False)

    def let_go(self) -> None:
        """The command has its ends now."""
        for fd in self.theirs.values():
            self.close(fd)

    def close(self, fd: int) -> None:
        self._open.discard(fd)
        os.close(fd)

    def close_all(self) -> None:
        for fd in list(self._open):
            self.close(fd)


@contextlib.contextmanager
def _pipes() -> Iterator[_Pipes]:
    pipes = _Pipes()
    try:
        pipes.add("stdin", writing=True)
        for name in ("stdout", "stderr", "status"):
            pipes.add(name)
        yield pipes
    finally:
        pipes.close_all()
