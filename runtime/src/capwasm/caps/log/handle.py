"""The log of one instance, and its standard output and error as lines of the same log.

Nothing here tells the guest anything: no error, no sign of what was dropped, masked or cut
(LOG-05).  What is dropped is counted and recorded, the first at once and the rest once a second.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from capwasm.call import current_call
from capwasm.capability import Grant, OpenContext
from capwasm.events import DENIED, FAILED
from capwasm.record.redact import Redactor, printable

from .model import DEFAULT_RATE, DEFAULT_RECORD_BYTES, LEVELS, MAX_RECORD_BYTES, LogClause

__all__ = ["Buckets", "Channel", "LogState", "PluginRecord"]

MAX_FIELDS: Final = 32
MAX_KEY: Final = 64
LINE_BYTES: Final = 8 * 1024
MAX_BEFORE: Final = 4 * 1024
MAX_PLUGINS: Final = 1_024
SUMMARY_SECONDS: Final = 1.0
CHANNELS: Final = {"stdout": "info", "stderr": "warn"}

_ODD: Final = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """One record as it was kept: redacted, on one line, cut to size.

    Attributes:
        plugin: `id@version`.   instance: its number.   level: a word of the interface.
        channel: `log`, `stdout` or `stderr`.
        left_off: characters that were cut.
    """

    plugin: str
    instance: int
    level: str
    message: str
    fields: Mapping[str, str] = field(default_factory=dict)
    channel: str = "log"
    left_off: int = 0


class Bucket:
    """A token bucket: `rate` a second, and as many at once."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        """Full."""
        self._rate, self._clock = rate, clock
        self._tokens, self._at = rate, clock()
        self._lock = threading.Lock()

    def take(self, rate: float) -> bool:
        """Take one, if there is one; `rate` may have changed since."""
        with self._lock:
            now = self._clock()
            self._rate = rate
            self._tokens = min(rate, self._tokens + max(0.0, now - self._at) * rate)
            self._at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    @property
    def full(self) -> bool:
        """Whether forgetting it would change nothing."""
        return self._clock() - self._at >= 1


class Buckets:
    """One bucket a plugin, so that many instances, or ever new ones, log no faster than one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """None yet; `clock` gives seconds."""
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}
        self._lock = threading.Lock()

    def of(self, plugin_id: str, rate: float) -> Bucket:
        """The bucket of that plugin."""
        with self._lock:
            found = self._buckets.get(plugin_id)
            if found is None:
                if len(self._buckets) >= MAX_PLUGINS:
                    self._buckets = {p: b for p, b in self._buckets.items() if not b.full}
                found = self._buckets[plugin_id] = Bucket(rate, self._clock)
            return found


class LogState:
    """The log of one instance."""

    def __init__(
        self,
        grant: Grant[LogClause],
        ctx: OpenContext,
        redactor: Redactor,
        buckets: Buckets,
        sink: Callable[[PluginRecord], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write what `grant` lets through to `sink`."""
        self._grant, self._ctx, self._redactor, self._sink = grant, ctx, redactor, sink
        self._bucket = buckets.of(ctx.plugin_id, DEFAULT_RATE)
        self._clock = clock
        self._channels: dict[str, Channel] = {}
        self._before: dict[str, str] = {}  # the end of what a channel wrote, with its secrets
        # What was dropped since the last summary: reason to (records, bytes).
        self._dropped: dict[str, tuple[int, int]] = {}
        self._told = float("-inf")

    # -- the interface -----------------------------------------------------------------------------

    def write(self, level: str, message: str, fields: Iterable[Any] = ()) -> None:
        """The WIT function: keep a record, cut, masked and on one line, or count it as dropped.

        Raises:
            OutputLimitExceeded: the call wrote more than `limits.output-bytes`.
        """
        pairs = [(f.key, f.value) for f in fields]
        size = _size(message) + sum(_size(k) + _size(v) for k, v in pairs)
        clause = self._clause(level)
        if clause is None:
            self._drop(self._refusal(level), size)
            return
        current_call().charge_output(size)
        if not self._bucket.take(clause.rate or DEFAULT_RATE):
            self._drop("rate", size)
            return
        room = clause.record_bytes or DEFAULT_RECORD_BYTES
        message, *values = self._without_rest("log", [message, *(value for _, value in pairs)])
        pairs = [(key, value) for (key, _), value in zip(pairs, values, strict=True)]
        text, left_off = self._fit(message, room)
        room -= _size(text)
        kept: dict[str, str] = {}
        for index, (key, value) in enumerate(pairs):
            name = _ODD.sub("_", self._redactor.cut(key, MAX_KEY)[0]) or "_"
            if index >= MAX_FIELDS or len(name) >= room or name in kept:
                left_off += len(key) + len(value)
                continue
            kept[name], more = self._fit(value, room - len(name))
            room -= len(name) + _size(kept[name])
            left_off += more
        self._emit(level, text, kept, "log", left_off)

    def stream(self, channel: str) -> Channel:
        """`stdout` or `stderr` as log lines; the caller charges the bytes.

        Raises:
            ValueError: another channel.
        """
        if channel not in CHANNELS:
            raise ValueError(f"unknown channel {channel!r}; valid: {', '.join(CHANNELS)}")
        found = self._channels.get(channel)
        if found is None:
            found = self._channels[channel] = Channel(self, channel)
        return found

    def close(self) -> None:
        """Write lines that have no end yet, and tell what was dropped."""
        for channel in self._channels.values():
            channel.finish()
        self._tell()

    # -- for channels ------------------------------------------------------------------------------

    def line(self, channel: str, data: bytes, left_off: int) -> str:
        """Keep one line of a channel; if it was dropped, return why."""
        level = CHANNELS[channel]
        clause = self._clause(level)
        if clause is None:
            reason = self._refusal(level)
        elif not self._bucket.take(clause.rate or DEFAULT_RATE):
            reason = "rate"
        else:
            room = min(LINE_BYTES, clause.record_bytes or DEFAULT_RECORD_BYTES)
            if left_off:  # what a secret cut in two may have left at the end goes too
                data = self._redactor.stream().feed(data)
            (line,) = self._without_rest(channel, [data.decode("utf-8", "replace")])
            text, more = self._fit(line, room)
            self._emit(level, text, {}, channel, left_off + more)
            return ""
        self._drop(reason, len(data) + left_off)
        return reason

    def lines_lost(self, reason: str, records: int, size: int) -> None:
        """Count lines that followed a dropped one at once, and so were not looked at."""
        if records:
            self._drop(reason, size, records)

    @property
    def line_room(self) -> int:
        """Bytes of a line that are worth holding: a secret at the cut must be seen whole."""
        return LINE_BYTES + 2 * self._redactor.longest

    # -- inside ------------------------------------------------------------------------------------

    def _clause(self, level: str) -> LogClause | None:
        rank = _rank(level)
        found = self._grant.find(lambda clause: clause.admits(rank))
        return None if found is None else found.clause

    def _without_rest(self, channel: str, texts: list[str]) -> list[str]:
        """The texts of a record without pieces of a secret that lies across them.

        Nor the rest of one that began in the records before; what was in those is out.
        """
        longest = min(self._redactor.longest, MAX_BEFORE)
        if not longest:
            return texts
        before = self._before.get(channel, "")
        room = MAX_RECORD_BYTES + longest  # more of a text is cut off in any case
        heads = [text[:room] for text in texts]
        clean = self._redactor.texts([before, *heads])[1:]
        self._before[channel] = "".join([before, *heads])[-longest:]
        return [text + whole[room:] for text, whole in zip(clean, texts, strict=True)]

    def _fit(self, text: str, room: int) -> tuple[str, int]:
        """Redacted, on one line, at most `room` bytes; and the characters left off."""
        clean, left_off = self._redactor.cut(text, max(0, room))
        shown = printable(clean).encode("utf-8", "replace")
        if len(shown) <= room:
            return shown.decode(), left_off
        kept = shown[: max(0, room)].decode("utf-8", "ignore")
        return kept, left_off + len(shown.decode()) - len(kept)

    def _emit(
        self, level: str, text: str, fields: Mapping[str, str], channel: str, left_off: int
    ) -> None:
        ctx = self._ctx
        if left_off:
            self._drop("cut", left_off)
        record = PluginRecord(ctx.plugin, ctx.instance, str(level), text, fields, channel, left_off)
        try:
            self._sink(record)
        except Exception:  # noqa: BLE001  the embedder's handler; the guest has no part in it
            self._drop("sink", _size(text))

    def _refusal(self, level: str) -> str:
        rank = _rank(level)
        if self._grant.deny.any(lambda c: c.admits(rank)) is not None:
            return "denied"
        return "level" if any(g.lease.alive for g in self._grant.allow) else "revoked"

    def _drop(self, reason: str, size: int, records: int = 1) -> None:
        if reason == "level":
            return  # what the operator does not want is not missing
        before = self._dropped.get(reason, (0, 0))
        self._dropped[reason] = (before[0] + records, before[1] + size)
        if self._clock() - self._told >= SUMMARY_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._told = self._clock()
        dropped, self._dropped = self._dropped, {}
        for reason, (records, size) in dropped.items():
            verdict = DENIED if reason in ("denied", "revoked") else FAILED
            self._ctx.record(
                "log",
                verdict,
                action="cut" if reason == "cut" else "drop",
                reason=reason,
                details={"records": records, "bytes": size},
            )


class Channel:
    """Bytes to lines.  Holds no more than one line and what a secret at its end may need."""

    def __init__(self, state: LogState, name: str) -> None:
        """At the beginning of a line."""
        self._state, self._name = state, name
        self._held = bytearray()
        self._over = 0  # bytes of this line that found no room

    def write(self, data: bytes, /) -> None:
        """Take all of `data`; each line that it ends becomes a record."""
        begin = 0
        while (end := data.find(b"\n", begin)) >= 0:
            self._hold(data, begin, end)
            begin = end + 1
            if reason := self._end():
                # A million lines in one write are no more work than one (LOG-08).
                last = data.rfind(b"\n") + 1
                self._state.lines_lost(reason, data.count(b"\n", begin), last - begin)
                begin = last
        self._hold(data, begin, len(data))

    def finish(self) -> None:
        """End a line that has no end."""
        if self._held or self._over:
            self._end()

    def _hold(self, data: bytes, begin: int, end: int) -> None:
        room = max(0, self._state.line_room - len(self._held))
        self._held += data[begin : min(end, begin + room)]
        self._over += max(0, end - begin - room)

    def _end(self) -> str:
        line, over = bytes(self._held), self._over
        self._held.clear()
        self._over = 0
        return self._state.line(self._name, line.removesuffix(b"\r"), over)


def _rank(level: str) -> int:
    return LEVELS.index(level)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
