"""Layers that hide the machine: one namespace each, namespaces(7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .kernel import call

if TYPE_CHECKING:
    from .place import Place

__all__ = ["cgroup_namespace", "ipc_namespace", "net_namespace", "uts_namespace"]

CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
_HOSTNAME: Final = b"plugin"


def net_namespace(_: Place) -> None:
    """A network without any interface that is up, not even its own loopback.

    Stops: every kind of socket to anywhere (NAT-12: UDP, MPTCP, netlink, vsock, packet too), and
    abstract unix sockets of the host (NAT-04).
    """
    call("unshare", CLONE_NEWNET)


def ipc_namespace(_: Place) -> None:
    """System V objects and message queues of its own.

    Stops: shared memory, semaphores and queues of the host (NAT-16), as they know users alone.
    """
    call("unshare", CLONE_NEWIPC)


def uts_namespace(_: Place) -> None:
    """A host name that says nothing.

    Stops: reading the machine's name, and setting it.
    """
    call("unshare", CLONE_NEWUTS)
    call("sethostname", _HOSTNAME, len(_HOSTNAME))
    call("setdomainname", _HOSTNAME, len(_HOSTNAME))


def cgroup_namespace(_: Place) -> None:
    """Its own cgroup is the root of what it sees; comes after it was put there.

    Stops: reading from /proc/self/cgroup which service or container it is in, and climbing out of
    its cgroup (NAT-17).
    """
    call("unshare", CLONE_NEWCGROUP)
