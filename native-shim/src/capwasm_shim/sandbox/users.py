"""Layers that take the server's power away: another user, and no capabilities."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capwasm_shim.layers import Layer

from .kernel import Lacks, call, prctl, syscall

if TYPE_CHECKING:
    from .place import Place

__all__ = ["Way", "choose_way", "no_capabilities", "own_user", "user_namespace"]

CLONE_NEWUSER: Final = 0x10000000
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_SECUREBITS: Final = 28
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP, _CAP_SYS_ADMIN = 6, 7, 8, 21
# No root, no capabilities kept or raised, all of it locked: capabilities(7).
_SECUREBITS: Final = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40 | 0x80
_CAPABILITY_VERSION: Final = 0x20080522

# Far above the users, containers and dynamic users of every distribution; as many as pids can be.
_FIRST_USER: Final = 0x70000000
_USERS: Final = 2**22
_INSIDE: Final = 65534  # the name of the user within its own namespace: nobody


@dataclass(frozen=True, slots=True)
class Way:
    """How a process gets another user than the server's.

    Attributes:
        users: the range to take one from, for a server that may.
        namespaces: whether the server made a user namespace, in which each process makes its own.
        why_no_user, why_no_namespace: for the operator.
    """

    users: range | None
    namespaces: bool
    why_no_user: str = ""
    why_no_namespace: str = ""


def choose_way() -> Way:
    """The best that this process can do; it may be in a new user namespace afterwards.

    Root gives each process a user of its own.  Everybody else, and root where it has no power over
    namespaces (most containers), tries a user namespace, which has that power for what is in it.
    """
    users, why_no_user = None, "only root has users to give away"
    if _has(_CAP_SETUID) and _has(_CAP_SETGID):
        users = _spare_users(Path("/proc/self/uid_map").read_text())
        why_no_user = "" if users else "this container has no user ids to spare"
    if users and _has(_CAP_SYS_ADMIN):
        return Way(users, namespaces=False, why_no_namespace="root gives a user of its own instead")
    try:
        _enter_namespace(os.geteuid(), os.getegid())
    except OSError as exc:
        why_not = f"no user namespaces here: {exc.strerror or exc}"
        return Way(users, namespaces=False, why_no_user=why_no_user, why_no_namespace=why_not)
    return Way(None, namespaces=True, why_no_user=why_no_user or "a user namespace takes its place")


def own_user(place: Place) -> None:
    """A user and group that own nothing on this machine, another for each process.

    Its number follows from the process id, so that no two at a time have the same.
    Stops: the files, processes and keyrings of the server's user (NAT-02), and processes that use
    up each other's RLIMIT_NPROC (NAT-15).  Needs: root with CAP_SETUID and user ids to spare.
    """
    users = place.way.users
    if users is None:
        raise Lacks(place.way.why_no_user)
    number = users[place.pid % len(users)]
    # `no_capabilities` comes next, and needs one of them to lock the way back.
    prctl(_PR_SET_KEEPCAPS, int(Layer.NO_CAPABILITIES in place.spec.layers))
    os.setgroups([])
    os.setresgid(number, number, number)
    os.setresuid(number, number, number)


def user_namespace(place: Place) -> None:
    """A user namespace of its own, with one user in it that is nobody.

    Stops: what another process of the same user could do to it and it to them (NAT-02, NAT-15), as
    the server's own namespace is not this one.  Needs: user namespaces for ordinary users.
    """
    if not place.way.namespaces:
        raise Lacks(place.way.why_no_namespace)
    _enter_namespace(_INSIDE, _INSIDE)


def no_capabilities(_: Place) -> None:
    """No capability, and no way to one: not by exec, not by user id 0, not by ambient ones.

    Stops: everything that wants CAP_SYS_ADMIN and its like (NAT-09, NAT-24), also where a setuid
    file is in reach.  An ordinary user without a namespace can't empty the bounding set; he has
    nothing to begin with, and no_new_privs holds that.
    """
    if _permitted() & 1 << _CAP_SETPCAP:
        _set_capabilities(effective=1 << _CAP_SETPCAP, permitted=1 << _CAP_SETPCAP)
        prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        for capability in range(64):
            try:
                prctl(_PR_CAPBSET_DROP, capability)
            except OSError:
                if capability <= _CAP_SYS_ADMIN:
                    raise
                break  # the kernel knows no more of them
        prctl(_PR_SET_SECUREBITS, _SECUREBITS)
    _set_capabilities(effective=0, permitted=0)


def _spare_users(uid_map: str) -> range | None:
    # user_namespaces(7): lines of first inside, first outside, length.
    spans = [(int(a), int(n)) for a, _, n in (line.split() for line in uid_map.splitlines())]
    if any(a <= _FIRST_USER and a + n >= _FIRST_USER + _USERS for a, n in spans):
        return range(_FIRST_USER, _FIRST_USER + _USERS)
    # A container: the upper half of what it has, but the last two, which are nobody's.
    first, length = max(spans, key=sum, default=(0, 0))
    return range(first + length // 2, first + length - 2) if length >= 2**15 else None


def _enter_namespace(uid: int, gid: int) -> None:
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    call("unshare", CLONE_NEWUSER)
    # Without "deny" nobody may write a group map (CVE-2014-8989).
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123  one write, no buffering games
            file.write(text)


def _permitted() -> int:
    header, data = _capability_header(), (ctypes.c_uint32 * 6)()
    syscall("capget", header, data)
    return data[1] | data[4] << 32


def _has(capability: int) -> bool:
    return bool(_permitted() & 1 << capability)


def _set_capabilities(*, effective: int, permitted: int) -> None:
    low, high = 2**32 - 1, 32
    data = (ctypes.c_uint32 * 6)(
        effective & low, permitted & low, 0, effective >> high, permitted >> high, 0
    )
    syscall("capset", _capability_header(), data)


def _capability_header() -> ctypes.Array[ctypes.c_uint32]:
    return (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
