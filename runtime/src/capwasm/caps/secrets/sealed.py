"""A secret's bytes in a wrapper that does not show them (SEC-10)."""

from __future__ import annotations

import hmac
from typing import NoReturn, Self, final

__all__ = ["SecretBytes"]


@final
class SecretBytes:
    """Bytes that no `repr`, format, pickle or copy gives away.

    Only `expose` and `fill` do, and both can be found by searching for their names.  The bytes are
    overwritten when the object is wiped or goes away.  That is the best Python can do, and not a
    promise: what `expose` and `fill` returned, and what the cipher library made on the way, are
    ordinary objects that stay in memory until it is used again.
    """

    __slots__ = ("__bytes",)

    def __init__(self, value: bytes | bytearray) -> None:
        """Take a copy of `value`."""
        self.__bytes = bytearray(value)

    def expose(self) -> bytes:
        """The bytes themselves."""
        return bytes(self.__bytes)

    def fits_header(self) -> bool:
        """Whether it may stand in a header: visible ASCII, with spaces inside at most.

        Anything else could end the header and begin another.
        """
        value = self.__bytes
        return (
            len(value) > 0
            and all(0x20 <= byte <= 0x7E for byte in value)
            and value[0] != 0x20
            and value[-1] != 0x20
        )

    def fill(self, template: str) -> str:
        """`template` with the secret, which must fit a header, in place of its `{}`."""
        return template.replace("{}", self.__bytes.decode("ascii", "replace"), 1)

    def digest(self, key: bytes) -> bytes:
        """A keyed digest, by which two values are compared without keeping either."""
        return hmac.digest(key, self.__bytes, "sha256")

    def wipe(self) -> None:
        """Overwrite the bytes; the object is empty afterwards."""
        self.__bytes[:] = bytes(len(self.__bytes))
        self.__bytes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.wipe()

    def __del__(self) -> None:
        self.wipe()

    def __eq__(self, other: object) -> bool:
        """In constant time for equal lengths."""
        if not isinstance(other, SecretBytes):
            return NotImplemented
        return hmac.compare_digest(self.__bytes, other.__bytes)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "SecretBytes(***)"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse: `pickle` and `copy` would make an unguarded second."""
        raise TypeError("a secret can't be pickled or copied")

    def __getstate__(self) -> NoReturn:
        """Refuse, as `__reduce_ex__`."""
        raise TypeError("a secret can't be pickled or copied")
