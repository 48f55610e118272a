"""OpenTelemetry: a call into a plugin is a span, and what it asks of capabilities are its children.

A span says who was called, how it ended and what it used; a capability's says which function, and by
the words of the audit log what it was applied to: an origin, a path as the policy names it, a name.
No argument, result, query, body or message is ever in one, and the redactor sees every text.

Nothing of this is on the way of a call where it is off: the door and the host functions of an
instance are replaced, or not, when it is made.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import attach, detach
from opentelemetry.trace import (
    INVALID_SPAN,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)

from capwasm.capability import HostFunc
from capwasm.errors import CapError, CapwasmError
from capwasm.events import ALLOWED, ASKED, Event
from capwasm.record.redact import Redactor
from capwasm.record.tally import Tally
from capwasm.threads import LOCAL, Here

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from capwasm.call import CallRecord
    from capwasm.instance import Instance, Served

__all__ = ["MOST_CHILDREN", "Traces"]

LOGGER: Final = logging.getLogger("capwasm.traces")
MOST_CHILDREN: Final = 128
"""The host calls of one call that become spans; the number of all is on the call's own."""

_START: Final = "(start)"
# What a plugin asks for without reaching anything: a span of each would say nothing, and be many.
_DULL: Final = (
    "capwasm:clock/",
    "capwasm:random/",
    "capwasm:log/",
    "wasi:io/",
    "wasi:clocks/",
    "wasi:random/",
    "wasi:cli/",
    "wasi:filesystem/preopens",
)
_SHOWN: Final = ASKED | {"limit", "crash", "kill", "revoke"}
_TEXT_CHARS: Final = 256


class _Here(threading.local):
    span: Span | None = None
    """Of the capability call that this thread is in."""


class Traces:
    """Makes the spans of one runtime.  For any thread."""

    def __init__(self, provider: TracerProvider, redactor: Redactor) -> None:
        """Take a tracer of the embedder's provider."""
        self._tracer: Tracer = provider.get_tracer("capwasm")
        self._redactor = redactor
        self._here = _Here()

    def attach(self, instance: Instance) -> None:
        """Have spans of all that an instance does from now on; before its code runs."""
        instance.enter = self._entering(instance.enter, instance.plugin)
        instance._served = _Told(instance._served, self)  # noqa: SLF001  as the door: once, here

    # -- calls ----------------------------------------------------------------------------------

    def _entering(self, enter: Any, name: str) -> Any:
        plugin, _, version = name.partition("@")
        tracer = self._tracer

        def entered(
            here: Here,
            record: CallRecord,
            run: Callable[[Any], Any],
            args: Any,
            tally: Tally | None,
        ) -> Any:
            if record.function == _START and not get_current_span().is_recording():
                return enter(here, record, run, args, tally)  # made ahead, for nobody yet
            with _current(
                tracer,
                f"{plugin} {record.function}",
                SpanKind.INTERNAL,
                {
                    "capwasm.plugin": plugin,
                    "capwasm.plugin.version": version,
                    "capwasm.function": record.function,
                },
            ) as span:
                try:
                    return enter(here, record, run, args, tally)
                except BaseException as exc:
                    _failed(span, exc)
                    raise
                finally:
                    span.set_attributes(
                        {
                            "capwasm.fuel": record.fuel,
                            "capwasm.host_calls": record.host_calls,
                            "capwasm.net_bytes": record.net_bytes,
                            "capwasm.output_bytes": record.output_bytes,
                        }
                    )

        return entered

    # -- capabilities -----------------------------------------------------------------------------

    def asked(self, interface: str, name: str, function: HostFunc) -> HostFunc:
        """A host function that is told of."""
        tracer, mine = self._tracer, self._here
        title = f"{interface.partition('@')[0]} {name}"

        def traced(*args: Any) -> Any:
            call = LOCAL.here.call
            if call is None or call.host_calls > MOST_CHILDREN:
                return function(*args)
            if not get_current_span().is_recording():
                return function(*args)
            about = {"capwasm.interface": interface}
            with _current(tracer, title, SpanKind.CLIENT, about) as span:
                outer, mine.span = mine.span, span
                try:
                    return function(*args)
                except BaseException as exc:
                    _failed(span, exc)
                    raise
                finally:
                    mine.span = outer

        return traced

    def observe(self, event: Event) -> None:
        """Add to the span that is open on this thread what was recorded; never raises."""
        if event.kind not in _SHOWN:
            return
        span = get_current_span()
        if not span.is_recording():
            return
        # Together: a secret may lie across them.
        clean = self._redactor.texts([str(event.action), str(event.target), str(event.reason)])
        action, target, reason = (text[:_TEXT_CHARS] for text in clean)
        if event.kind == "net":
            target = _origin(target)
        if event.kind == "crash":
            target = ""  # what the plugin's own trap says
        told = {"capwasm.action": action, "capwasm.target": target, "capwasm.reason": reason}
        words = {word: text for word, text in told.items() if text}
        if span is self._here.span:
            span.set_attributes({w: t for w, t in words.items() if w != "capwasm.reason"})
            if event.verdict == ALLOWED:
                return
        span.add_event(f"{event.kind} {event.verdict}", words)


class _Told:
    """What an instance is served, with a span of each call that reaches something."""

    def __init__(self, served: Served, traces: Traces) -> None:
        self._served, self._traces = served, traces

    def function(self, interface: str, name: str) -> HostFunc:
        """See `Served`."""
        function = self._served.function(interface, name)
        if interface.startswith(_DULL) or name.startswith("[resource-drop]"):
            return function
        return self._traces.asked(interface, name, function)

    def close(self) -> None:
        """See `Served`."""
        self._served.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._served, name)


@contextlib.contextmanager
def _current(
    tracer: Tracer, title: str, kind: SpanKind, about: Mapping[str, str]
) -> Iterator[Span]:
    """A span that is current within.  What the embedder's provider raises is nobody's failed call."""
    try:
        span = tracer.start_span(title, kind=kind, attributes=about)
    except Exception as exc:  # noqa: BLE001  a sampler's or a processor's
        LOGGER.warning("a span could not be begun: %s", type(exc).__name__)
        yield INVALID_SPAN
        return
    token = attach(set_span_in_context(span))
    try:
        yield span
    finally:
        detach(token)
        try:
            span.end()
        except Exception as exc:  # noqa: BLE001  a processor's
            LOGGER.warning("a span could not be ended: %s", type(exc).__name__)


def _failed(span: Span, error: BaseException) -> None:
    """Say how it ended, by a stable word and no text: a message may hold anything."""
    match error:
        case CapwasmError():
            word = error.code
        case CapError():
            word = error.word
        case _:
            word = type(error).__name__
    span.set_attribute("error.type", word)
    span.set_status(Status(StatusCode.ERROR, word))


def _origin(target: str) -> str:
    """An address without what comes after the host: no path, query or user."""
    scheme, found, rest = target.partition("://")
    host = rest.partition("/")[0].partition("?")[0].partition("#")[0].rpartition("@")[2]
    return f"{scheme}://{host}" if found else target.partition("?")[0]
