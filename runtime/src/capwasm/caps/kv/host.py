"""The key-value capability: `capwasm:kv/store`."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import ClassVar, Final, TypeVar

from capwasm.call import current_call
from capwasm.capability import Grant, Interface, OpenContext, Risk
from capwasm.caps._tables import ByTables
from capwasm.errors import CapabilityError, CapError
from capwasm.events import DENIED, FAILED

from .handle import MIN_SQLITE, KvStore
from .model import KvClause, KvTable

__all__ = ["Kv", "KvState"]

INTERFACE = "capwasm:kv/store@0.1.0"
FILE: Final = "kv.sqlite3"
MAX_KEY: Final = 512
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")

T = TypeVar("T")


class KvState:
    """The store as one instance may use it: the functions of the interface."""

    __slots__ = ("_ctx", "_grant", "store")

    def __init__(self, grant: Grant[KvClause], ctx: OpenContext, store: KvStore) -> None:
        """Use `store` as far as `grant` allows."""
        self._grant = grant
        self._ctx = ctx
        self.store = store

    def get(self, key: str) -> bytes | None:
        """The value of `key`, or None."""
        with_key = _key(key)
        value = self._do("get", lambda: self.store.get(with_key, self._admit))
        current_call().charge_host_work(len(value or b""))
        return value

    def set(self, key: str, value: bytes, ttl_ms: int | None = None) -> None:
        """Store `value`, for `ttl_ms` milliseconds if given."""
        with_key, data = _key(key), bytes(value)
        self._do(
            "set",
            lambda: self.store.put(with_key, data, ttl_ms, self._fits(data), self._admit),
            data,
        )

    def compare_and_set(self, key: str, expected: bytes | None, value: bytes) -> bool:
        """Store `value` if the key's value is `expected`; say whether it did."""
        with_key, data = _key(key), bytes(value)
        old = None if expected is None else bytes(expected)
        return self._do(
            "compare-and-set",
            lambda: self.store.compare_and_set(with_key, old, data, self._fits(data), self._admit),
            data,
        )

    def increment(self, key: str, delta: int) -> int:
        """Add to the whole number at `key`; return the sum."""
        with_key = _key(key)
        return self._do(
            "increment",
            lambda: self.store.increment(with_key, delta, self._fits(b""), self._admit),
        )

    def delete(self, key: str) -> bool:
        """Remove `key`; say whether it was there."""
        with_key = _key(key)
        return self._do("delete", lambda: self.store.delete(with_key, self._admit))

    def keys(self, prefix: str, after: str | None = None) -> list[str]:
        """Keys that begin with `prefix`, sorted, after `after`, a page at a time."""
        start, last = _key(prefix, empty=True), _key(after or "", empty=True)
        found = self._do("keys", lambda: self.store.keys(start, last, self._admit))
        # A page never holds more than one value may; the guest goes on after its last key.
        room = self._ctx.limits.value_bytes
        page: list[str] = []
        for key in found:
            room -= len(key.encode())
            if room < 0 and page:
                break
            page.append(key)
        current_call().charge_host_work(sum(map(len, page)))
        return page

    def _admit(self) -> None:
        """Pass if the grant is in force.

        Raises:
            CapError: `closed` when it was revoked, `denied` when it never allowed anything.
        """
        if self._grant.find(lambda _: True) is None:
            revoked = any(not g.lease.alive for g in self._grant.allow)
            raise CapError("closed" if revoked else "denied", "revoked" if revoked else "no grant")

    def _fits(self, value: bytes) -> Callable[[int, int], bool]:
        def fits(size: int, keys: int) -> bool:
            return (
                self._grant.find(lambda c: c.takes(len(value)) and c.holds(size, keys)) is not None
            )

        return fits

    def _do(self, action: str, operation: Callable[[], T], value: bytes = b"") -> T:
        """Check, charge and do; what is refused or fails is recorded, without key or value."""
        try:
            self._admit()
            if self._grant.find(lambda c: c.takes(len(value))) is None:
                raise CapError("too-large", f"{len(value)} bytes, more than value-bytes")
            current_call().charge_host_work(len(value))
            return operation()
        except CapError as exc:
            if exc.word != "invalid":  # that is the guest's own slip, and nothing was refused
                verdict = FAILED if exc.word == "unavailable" else DENIED
                self._ctx.record(
                    "kv", verdict, action=action, reason=exc.word, details={"detail": exc.detail}
                )
            raise


def _key(key: str, *, empty: bool = False) -> str:
    """The key itself.

    Raises:
        CapError: `invalid`, when it is empty (unless that is said to be fine), too long, or holds
            a control character.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:  # a lone surrogate: no text of a guest, but perhaps of a native one
        raise CapError("invalid", "not a key") from None
    if size > MAX_KEY or not (key or empty) or _CONTROL.search(key):
        raise CapError("invalid", "not a key")
    return key


class Kv(ByTables[KvClause, KvState]):
    """A store for each plugin, which all versions of it share."""

    name: ClassVar = "kv"
    title: ClassVar = "Key-value store"
    repeated: ClassVar = False
    interfaces: ClassVar = (INTERFACE,)
    clause: ClassVar = KvClause
    asked: ClassVar = KvTable
    given: ClassVar = KvTable

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """Let entries expire by `now`, in seconds since 1970."""
        self._now = now

    def risk(self, clause: KvClause) -> tuple[Risk, str]:  # noqa: ARG002  all alike
        """Low."""
        return Risk.LOW, "Only it reads and writes its store, up to the quota."

    def open(self, grant: Grant[KvClause], ctx: OpenContext) -> KvState:
        """The plugin's store; the file is opened when it is first used.

        Raises:
            CapabilityError: `capability.kv`: no directory to keep it in, or SQLite is too old.
        """
        if sqlite3.sqlite_version_info < MIN_SQLITE:
            raise CapabilityError(
                f"needs SQLite {MIN_SQLITE[0]}.{MIN_SQLITE[1]}, found {sqlite3.sqlite_version}",
                code="capability.kv",
                context=ctx.plugin_id,
            )
        if not ctx.data_dir.is_dir():
            raise CapabilityError(
                "the plugin's data directory is gone", code="capability.kv", context=ctx.plugin_id
            )
        return KvState(grant, ctx, KvStore(ctx.data_dir / FILE, ctx.plugin_id, self._now))

    def serve(self, state: KvState) -> Sequence[Interface]:
        """The one interface."""
        return [
            Interface(
                INTERFACE,
                {
                    "get": state.get,
                    "set": state.set,
                    "compare-and-set": state.compare_and_set,
                    "increment": state.increment,
                    "delete": state.delete,
                    "keys": state.keys,
                },
            )
        ]

    def close(self, state: KvState) -> None:
        """Close the file."""
        state.store.close()
