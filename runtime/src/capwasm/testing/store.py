"""A plugin's key-value store, from the test's side."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from capwasm.call import CallRecord, entered
from capwasm.caps.kv.handle import KvStore
from capwasm.caps.kv.host import FILE
from capwasm.home import make_private
from capwasm.limits import DEFAULTS

from .times import SteppedTime

__all__ = ["Store"]


class Store(MutableMapping[str, bytes]):
    """Key → value, as the plugin has it.  No quota holds here."""

    def __init__(self, directory: Path, owner: str, clock: SteppedTime) -> None:
        """The store of the plugin `owner`, in its directory."""
        make_private(directory.parent)
        make_private(directory)
        self._path, self._owner = directory / FILE, owner
        self._now = lambda: clock.wall_ns() / 1e9

    def __getitem__(self, key: str) -> bytes:
        with self._opened() as store:
            value = store.get(key, _always)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: bytes | str) -> None:
        data = value.encode() if isinstance(value, str) else value
        with self._opened() as store:
            store.put(key, data, None, lambda _size, _keys: True, _always)

    def __delitem__(self, key: str) -> None:
        with self._opened() as store:
            if not store.delete(key, _always):
                raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        after = ""
        while True:
            with self._opened() as store:
                page = store.keys("", after, _always)
            if not page:
                return
            yield from page
            after = page[-1]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Store({dict(self)})"

    @contextmanager
    def _opened(self) -> Iterator[KvStore]:
        store = KvStore(self._path, self._owner, self._now)
        try:
            with entered(CallRecord(self._owner, "(test)", DEFAULTS)):
                yield store
        finally:
            store.close()


def _always() -> None:
    """A test needs no grant."""
