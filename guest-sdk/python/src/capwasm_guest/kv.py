"""The plugin's own store: `[kv]` in plugin.toml.  Keys are text, values are bytes.

kv.set("greeting", b"hello", ttl=60)
kv.get("greeting")              # b"hello", or None
kv.store["greeting"]            # the same as a mapping: KeyError if it isn't there
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import cast

from ._bindings import KvImport, guard, load
from .errors import from_wit

__all__ = ["Store", "compare_and_set", "delete", "get", "increment", "keys", "set", "store"]

_store = cast("KvImport", load("capwasm_kv", "capwasm_guest.kv"))


def get(key: str, default: bytes | None = None) -> bytes | None:
    """The value of `key`, or `default`.

    Raises:
        CapabilityError: see `errors`; so does every function here.
    """
    guard("kv")
    with from_wit(f"kv.get {key}"):
        value = _store.get(key)
    return default if value is None else value


def set(key: str, value: bytes | str, *, ttl: float | None = None) -> None:  # noqa: A001
    """Store `value` (text as UTF-8), for `ttl` seconds if given."""
    guard("kv")
    data = value.encode() if isinstance(value, str) else bytes(value)
    with from_wit(f"kv.set {key}"):
        _store.set(key, data, None if ttl is None else max(1, int(ttl * 1000)))


def compare_and_set(key: str, expected: bytes | None, value: bytes) -> bool:
    """Store `value` if the key's value is `expected` (None: it has none); whether it did."""
    guard("kv")
    with from_wit(f"kv.compare_and_set {key}"):
        return _store.compare_and_set(key, expected, value)


def increment(key: str, by: int = 1) -> int:
    """Add to the whole number at `key`, which begins at 0; the sum.  Nobody comes in between."""
    guard("kv")
    with from_wit(f"kv.increment {key}"):
        return _store.increment(key, by)


def delete(key: str) -> bool:
    """Remove `key`; whether it was there."""
    guard("kv")
    with from_wit(f"kv.delete {key}"):
        return _store.delete(key)


def keys(prefix: str = "") -> Iterator[str]:
    """All keys that begin with `prefix`, sorted."""
    guard("kv")
    after: str | None = None
    while True:
        with from_wit("kv.keys"):
            page = _store.keys(prefix, after)
        if not page:
            return
        yield from page
        after = page[-1]


class Store(MutableMapping[str, bytes]):
    """The store as a mapping."""

    def __getitem__(self, key: str) -> bytes:
        value = get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: bytes | str) -> None:
        set(key, value)

    def __delitem__(self, key: str) -> None:
        if not delete(key):
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return keys()

    def __len__(self) -> int:
        return sum(1 for _ in keys())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and get(key) is not None


store = Store()
