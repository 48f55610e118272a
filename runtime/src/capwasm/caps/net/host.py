"""The network capability: `capwasm:fetch/client`."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from capwasm.call import current_call
from capwasm.capability import Capability, Grant, Interface, OpenContext, Parsed, Risk, Side
from capwasm.errors import CapabilityError

from .model import NetClause
from .parse import NetTable, parse_net
from .pattern import Subdomains
from .request import RequestSpec
from .resolve import Lookups, Resolve, system_resolve

if TYPE_CHECKING:
    from .egress import EgressEngine
    from .handle import ResponseHandle

__all__ = ["Net", "NetState"]

INTERFACE: Final = "capwasm:fetch/client@0.1.0"


@dataclass(frozen=True, slots=True)
class NetState:
    """The engine of one instance, and what the instance may do with it."""

    grant: Grant[NetClause]
    engine: EgressEngine

    def send(self, request: Any, credentials: Sequence[Any]) -> ResponseHandle:
        """Send a request of the interface's record type."""
        spec = RequestSpec(
            method=request.method,
            url=request.url,
            headers=[(h.name, h.value) for h in request.headers],
            body=request.body,
            timeout_ms=request.timeout_ms,
            redirects=str(request.redirects),  # type: ignore[arg-type]  # checked by the engine
            credentials=tuple(credentials),
        )
        return self.engine.request(self.grant, spec, current_call())


class Net(Capability[NetClause, NetState]):
    """HTTP to the origins that were granted, and nothing else."""

    name: ClassVar = "net"
    title: ClassVar = "Network"
    repeated: ClassVar = True
    interfaces: ClassVar = (INTERFACE,)
    uses: ClassVar = ("capwasm:secrets/store@0.1.0",)
    clause: ClassVar = NetClause

    def __init__(self, resolver: Resolve = system_resolve, tls_ca_file: Path | None = None) -> None:
        """Resolve by `resolver`, and trust the system's authorities or those of one file.

        Args:
            resolver: name and port to addresses; may block.
            tls_ca_file: PEM file of the only authorities to trust.  The environment never names
                one.
        """
        self._lookups = Lookups(resolver)
        self._ca_file = tls_ca_file
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def schema(self, side: Side) -> dict[str, Any]:  # noqa: ARG002  the same words on each side
        """JSON Schema of a `[[net]]` table."""
        return NetTable.model_json_schema()

    def parse(self, tables: Sequence[Mapping[str, Any]], side: Side) -> Parsed[NetClause]:
        """The clauses of the tables."""
        return parse_net(tables, side)

    def risk(self, clause: NetClause) -> tuple[Risk, str]:
        """High: what leaves can't be called back."""
        why = "It can send what it knows to this origin."
        if isinstance(clause.host, Subdomains):
            why = "It can send what it knows to any name below, whoever runs it."
        if clause.scheme == "http":
            why += "  Without TLS, anyone on the way reads and changes it."
        return Risk.HIGH, why

    def open(self, grant: Grant[NetClause], ctx: OpenContext) -> NetState:
        """An engine of the instance's own.  Nothing is connected or resolved yet."""
        from .egress import EgressEngine

        engine = EgressEngine(ctx.plugin_id, ctx.record, self._lookups, self._context)
        return NetState(grant, engine)

    def serve(self, state: NetState) -> Sequence[Interface]:
        """The one interface."""
        from .handle import ResponseHandle

        return [
            Interface(
                INTERFACE,
                {
                    "send": state.send,
                    "[method]response.status": lambda response: response.status,
                    "[method]response.headers": lambda response: [
                        {"name": name, "value": value} for name, value in response.headers
                    ],
                    "[method]response.url": lambda response: response.url,
                    "[method]response.read": ResponseHandle.read,
                    "[method]response.read-all": ResponseHandle.read_all,
                },
                {"response": ResponseHandle},
            )
        ]

    def close(self, state: NetState) -> None:
        """Close every connection."""
        state.engine.close()

    def _context(self) -> ssl.SSLContext:
        """The TLS settings, made when they are first used.  They hold no session of anyone.

        Raises:
            CapabilityError: `capability.bind`: the file of authorities can't be used.
        """
        from .wire import tls_context

        with self._lock:
            if self._tls is None:
                try:
                    self._tls = tls_context(self._ca_file)
                except OSError as exc:
                    raise CapabilityError(
                        f"the file of TLS authorities can't be used: {exc}", context="net"
                    ) from None
            return self._tls
