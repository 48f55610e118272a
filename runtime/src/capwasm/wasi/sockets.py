"""`wasi:sockets`, which nothing grants.

The functions are there because the standard libraries of most languages import them, whether the
plugin uses them or not.  None of them opens, binds, resolves or sends; the resources have no
constructor that can succeed.  The way out to the network is `capwasm:fetch`, through the one egress
engine that checks names and addresses.
"""

from __future__ import annotations

from capwasm.capability import HostFunc, Interface
from capwasm.handles import Handle, Lease

from ._refuse import Ledger, Refused, named

__all__ = ["interfaces"]

_DENIED = "access-denied"


class Network(Handle):
    """The network that a plugin asks for; no function takes it."""

    __slots__ = ()


class TcpSocket(Handle):
    """Never made; the type is needed to link."""

    __slots__ = ()


class UdpSocket(Handle):
    """Never made; the type is needed to link."""

    __slots__ = ()


class IncomingDatagramStream(Handle):
    """Never made; the type is needed to link."""

    __slots__ = ()


class OutgoingDatagramStream(Handle):
    """Never made; the type is needed to link."""

    __slots__ = ()


class ResolveAddressStream(Handle):
    """Never made; the type is needed to link."""

    __slots__ = ()


_ERROR_CODES = """
    unknown access-denied not-supported invalid-argument out-of-memory timeout concurrency-conflict
    not-in-progress would-block invalid-state new-socket-limit address-not-bindable address-in-use
    remote-unreachable connection-refused connection-reset connection-aborted datagram-too-large
    name-unresolvable temporary-resolver-failure permanent-resolver-failure
"""

# Interface -> resource (empty for free functions) -> functions that return a result with an
# `error-code`.
_FALLIBLE: dict[str, dict[str, str]] = {
    "ip-name-lookup": {"": "resolve-addresses", "resolve-address-stream": "resolve-next-address"},
    "tcp-create-socket": {"": "create-tcp-socket"},
    "udp-create-socket": {"": "create-udp-socket"},
    "tcp": {
        "tcp-socket": """
            start-bind finish-bind start-connect finish-connect start-listen finish-listen accept
            local-address remote-address set-listen-backlog-size keep-alive-enabled
            set-keep-alive-enabled keep-alive-idle-time set-keep-alive-idle-time
            keep-alive-interval set-keep-alive-interval keep-alive-count set-keep-alive-count
            hop-limit set-hop-limit receive-buffer-size set-receive-buffer-size send-buffer-size
            set-send-buffer-size shutdown
        """
    },
    "udp": {
        "udp-socket": """
            start-bind finish-bind stream local-address remote-address unicast-hop-limit
            set-unicast-hop-limit receive-buffer-size set-receive-buffer-size send-buffer-size
            set-send-buffer-size
        """,
        "incoming-datagram-stream": "receive",
        "outgoing-datagram-stream": "check-send send",
    },
}

# The same for those that return no result: reaching one would end the call.
_INFALLIBLE: dict[str, dict[str, str]] = {
    "ip-name-lookup": {"resolve-address-stream": "subscribe"},
    "tcp": {"tcp-socket": "is-listening address-family subscribe"},
    "udp": {
        "udp-socket": "address-family subscribe",
        "incoming-datagram-stream": "subscribe",
        "outgoing-datagram-stream": "subscribe",
    },
}

_RESOURCES: dict[str, dict[str, type[Handle]]] = {
    "ip-name-lookup": {"resolve-address-stream": ResolveAddressStream},
    "tcp": {"tcp-socket": TcpSocket},
    "udp": {
        "udp-socket": UdpSocket,
        "incoming-datagram-stream": IncomingDatagramStream,
        "outgoing-datagram-stream": OutgoingDatagramStream,
    },
}


def interfaces(ledger: Ledger) -> list[Interface]:
    """`wasi:sockets/*`."""
    functions: dict[str, dict[str, HostFunc]] = {}
    for table, word in ((_FALLIBLE, _DENIED), (_INFALLIBLE, None)):
        for interface, resources in table.items():
            for resource, names in resources.items():
                for name in names.split():
                    wit = f"[method]{resource}.{name}" if resource else name
                    refused = Refused(ledger, f"wasi:sockets/{interface}.{wit}", word)
                    functions.setdefault(interface, {})[wit] = refused
    return [
        Interface(
            named("sockets/network"),
            {"network-error-code": _no_network_error},
            {"network": Network},
            # Behind a feature gate in the WIT text, so not in the ABI table.
            {
                "network-error-code": (
                    "func(err: borrow<wasi:io/error.error>) -> "
                    f"option<enum{{{', '.join(_ERROR_CODES.split())}}}>"
                )
            },
        ),
        Interface(
            named("sockets/instance-network"), {"instance-network": lambda: Network(Lease())}
        ),
        *(
            Interface(named(f"sockets/{name}"), table, _RESOURCES.get(name, {}))
            for name, table in functions.items()
        ),
    ]


def _no_network_error(_error: Handle) -> None:
    """No stream here is a socket's, so no error is the network's."""
