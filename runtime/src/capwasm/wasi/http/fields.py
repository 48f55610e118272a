"""`fields`: headers and trailers, with what may stand in them decided as for `capwasm:fetch`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from capwasm.caps.net.request import is_forbidden, is_well_formed
from capwasm.errors import CapError, ValueLimitExceeded
from capwasm.handles import Handle, Lease

__all__ = ["Fields"]

# Beyond what any request may have; these bound what a guest makes the host keep.
MAX_FIELDS: Final = 1_000
MAX_BYTES: Final = 128 * 1024

Pair = tuple[str, bytes]


class Fields(Handle):
    """Names and values in order; names are compared without regard to case, and kept as given.

    Attributes:
        pairs: what it holds.
    """

    __slots__ = ("_fixed", "_size", "pairs")

    def __init__(self, pairs: Iterable[Pair] = (), *, fixed: bool = False) -> None:
        """Hold pairs that the host has checked, or that an origin has sent.

        Args:
            pairs: names and values.
            fixed: whether the guest may change nothing.
        """
        super().__init__(Lease())
        self.pairs = list(pairs)
        self._fixed = fixed
        self._size = sum(len(n) + len(v) for n, v in self.pairs)

    @classmethod
    def from_list(cls, entries: Iterable[Pair]) -> Fields:
        """Fields of these.

        Raises:
            CapError: `invalid-syntax`, `forbidden`.
        """
        fields = cls()
        for name, value in entries:
            fields.append(name, value)
        return fields

    def copy(self, *, fixed: bool = False) -> Fields:
        """Others with the same pairs."""
        return Fields(self.pairs, fixed=fixed)

    def clone(self) -> Fields:
        """Others with the same pairs, which may be changed."""
        return self.copy()

    def get(self, name: str) -> list[bytes]:
        """The values of that name."""
        low = name.lower()
        return [v for n, v in self.pairs if n.lower() == low]

    def has(self, name: str) -> bool:
        """Whether there is one of that name."""
        return bool(self.get(name))

    def entries(self) -> list[Pair]:
        """All, in order."""
        return list(self.pairs)

    def set(self, name: str, values: Iterable[bytes]) -> None:
        """Put these values in the place of those that the name has.

        Raises:
            CapError: `invalid-syntax`, `forbidden`, `immutable`.
        """
        values = list(values)
        for value in values:
            self._check(name, value)
        self.delete(name)
        for value in values:
            self._add(name, value)

    def delete(self, name: str) -> None:
        """Take out all of that name.

        Raises:
            CapError: `invalid-syntax`, `immutable`.
        """
        self._change(name)
        low = name.lower()
        self.pairs = [pair for pair in self.pairs if pair[0].lower() != low]
        self._size = sum(len(n) + len(v) for n, v in self.pairs)

    def append(self, name: str, value: bytes) -> None:
        """Add one.

        Raises:
            CapError: `invalid-syntax`, `forbidden`, `immutable`.
            ValueLimitExceeded: more than any request may have.
        """
        self._check(name, value)
        self._add(name, value)

    def _add(self, name: str, value: bytes) -> None:
        self._size += len(name) + len(value)
        if len(self.pairs) >= MAX_FIELDS or self._size > MAX_BYTES:
            raise ValueLimitExceeded(
                f"fields of more than {MAX_FIELDS} entries or {MAX_BYTES} bytes can't be held"
            )
        self.pairs.append((name, value))

    def _change(self, name: str) -> None:
        if self._fixed:
            raise CapError("immutable")
        if not is_well_formed(name):
            raise CapError("invalid-syntax")

    def _check(self, name: str, value: bytes) -> None:
        self._change(name)
        # A length is what programs state themselves; it is held against what they send.
        if is_forbidden(name) and name.lower() != "content-length":
            raise CapError("forbidden", f"{name.lower()} is the host's own")
        if not is_well_formed(name, value.decode("latin-1")):
            raise CapError("invalid-syntax")
