"""The log capability: `capwasm:log/log`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from capwasm.capability import Grant, Interface, OpenContext, Risk
from capwasm.caps._tables import ByTables
from capwasm.record.logs import LEVELS, get_logger
from capwasm.record.redact import Redactor

from .handle import Buckets, LogState, PluginRecord
from .model import LogClause, LogTable

__all__ = ["Log"]

INTERFACE = "capwasm:log/log@0.1.0"
LOGGER = "capwasm.plugin"


class Log(ByTables[LogClause, LogState]):
    """Records of plugins: to the logger `capwasm.plugin`, and to the embedder if it asks."""

    name: ClassVar = "log"
    title: ClassVar = "Log"
    repeated: ClassVar = False
    interfaces: ClassVar = (INTERFACE,)
    clause: ClassVar = LogClause
    asked: ClassVar = LogTable
    given: ClassVar = LogTable

    def __init__(
        self,
        redactor: Redactor | None = None,
        on_record: Callable[[PluginRecord], None] | None = None,
    ) -> None:
        """Redact with `redactor`, which the runtime shares with the vault.

        Args:
            redactor: takes secrets out of every record.
            on_record: gets each record, on the thread of the plugin's call; it should be quick.
        """
        self._redactor = redactor or Redactor()
        self._on_record = on_record
        self._buckets = Buckets()

    def risk(self, clause: LogClause) -> tuple[Risk, str]:  # noqa: ARG002  all alike
        """Low."""
        return Risk.LOW, "It can write to its own log, within a rate and a size."

    def open(self, grant: Grant[LogClause], ctx: OpenContext) -> LogState:
        """A log for that instance."""
        logger: Any = None
        listens, on_record = logging.getLogger(LOGGER).isEnabledFor, self._on_record

        def sink(record: PluginRecord) -> None:
            nonlocal logger
            if listens(LEVELS[record.level]):
                if logger is None:  # not before somebody listens: structlog takes long to import
                    logger = get_logger(
                        self._redactor, LOGGER, plugin=ctx.plugin, instance=ctx.instance
                    )
                _write(logger, record)
            if on_record is not None:
                on_record(record)

        return LogState(grant, ctx, self._redactor, self._buckets, sink)

    def serve(self, state: LogState) -> Sequence[Interface]:
        """The one interface."""
        return [Interface(INTERFACE, {"write": state.write})]

    def close(self, state: LogState) -> None:
        """Write what is left."""
        state.close()


def _write(logger: Any, record: PluginRecord) -> None:
    fields: dict[str, Any] = {} if record.channel == "log" else {"channel": record.channel}
    if record.fields:
        fields["fields"] = dict(record.fields)  # in a table of their own: no name clashes
    if record.left_off:
        fields["left_off"] = record.left_off
    write = getattr(logger, "warning" if record.level == "warn" else record.level)
    write(record.message, **fields)
