"""What the layers of one process know of each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from capwasm_shim.layers import Layer, Spec

from .seccomp import Filters
from .users import Way

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """One process on its way into the sandbox.

    Attributes:
        spec: what it is given.
        files: memfds for `spec.files`.   keep: descriptors that stay open.
        way: how it gets another user than the server's.
        mapped: bytes of address space and of data that it has already.
        pid: as the server knows it.
        server: a pidfd of the server.   null: a descriptor of /dev/null.
        filters: the system calls of each kind.
        spawned: the layers that the server tried for it, with why each can't be had, or None.
    """

    spec: Spec
    files: tuple[int, ...]
    keep: frozenset[int]
    way: Way
    mapped: tuple[int, int]
    pid: int
    server: int
    null: int
    filters: Filters
    spawned: Mapping[Layer, Exception | None]
