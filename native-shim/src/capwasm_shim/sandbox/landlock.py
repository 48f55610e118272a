"""Layers by Landlock, landlock(7): what no grant of the file system or network can give back.

Each is a ruleset of its own, so that a kernel with an older one still gives the others.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

from capwasm_shim.layers import NULL

from .kernel import Lacks, syscall
from .root import BY_DESCRIPTOR, path_of

if TYPE_CHECKING:
    from .place import Place

__all__ = ["abi", "landlock_files", "landlock_net", "landlock_scope"]

_GET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
# The rights that the kernel's ABI knows: as many bits, from the lowest on.
_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NET_TCP: Final = 0b11  # bind, connect
_SCOPES: Final = 0b11  # abstract unix sockets, signals


def abi() -> int:
    """The ABI that the kernel has.

    Raises:
        Lacks: none: it is not built in, or not switched on.
    """
    try:
        return syscall("landlock_create_ruleset", None, 0, _GET_VERSION)
    except OSError as exc:
        raise Lacks(f"no Landlock: {exc.strerror}") from None


def landlock_files(place: Place) -> None:
    """Files may be read that the spec names, and nothing else be done to any file.

    All rights that the kernel knows are taken, and reading alone given back, for these files alone;
    for an exec also execution of its executables, and writing to /dev/null if it is given that.
    Stops: what a way out of the private root would lead to (NAT-02, NAT-14), mounts, links and
    renames, devices. Needs: ABI 3 (Linux 6.2), as truncating is free before it (NAT-13).
    """
    version = _at_least(3, "truncating can't be refused")
    handled = (1 << _RIGHTS[min(version, max(_RIGHTS))]) - 1
    spec = place.spec
    # What has no path but its descriptor is on no mount that Landlock knows; it stays readable.
    paths = [path_of(file.name) for file in spec.files]
    rules = {path: _READ_FILE for path in paths if not path.startswith(BY_DESCRIPTOR)}
    rules |= dict.fromkeys(spec.binds, _READ_FILE | _READ_DIR)
    if NULL in spec.binds:
        rules[NULL] = _READ_FILE | _WRITE_FILE
    for path in spec.executables:
        rules[path] = rules.get(path, 0) | _READ_FILE | _EXECUTE
    _restrict(struct.pack("=Q", handled), rules)


def landlock_net(_: Place) -> None:
    """TCP is neither bound nor connected to, whatever network it is in.

    Stops: connections where the network namespace is missing (NAT-12).  UDP and the rest are the
    namespace's and seccomp's, and so is MSG_FASTOPEN, which connects past this by sending.  Needs:
    ABI 4 (Linux 6.7).
    """
    _at_least(4, "networks are not covered")
    _restrict(struct.pack("=QQ", 0, _NET_TCP), {})


def landlock_scope(_: Place) -> None:
    """No signal and no abstract unix socket reaches beyond this process and its children.

    Stops: abstract sockets of the host (NAT-04) and signals to it (NAT-17) where the namespaces are
    missing.  Needs: ABI 6 (Linux 6.12).
    """
    _at_least(6, "signals and abstract sockets are not covered")
    _restrict(struct.pack("=QQQ", 0, 0, _SCOPES), {})


def _at_least(wanted: int, why: str) -> int:
    version = abi()
    if version < wanted:
        raise Lacks(f"Landlock ABI {version}: {why} before ABI {wanted}")
    return version


def _restrict(attributes: bytes, rules: dict[str, int]) -> None:
    ruleset = syscall("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        for path, rights in rules.items():
            _allow(ruleset, path, rights)
        syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(fd):  # noqa: PTH112  a descriptor, no path
            rights &= ~_READ_DIR  # the kernel takes no rights of directories for a file
        rule = struct.pack("=Qi", rights, fd)
        syscall("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(fd)
