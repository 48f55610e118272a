"""`wasi:keyvalue`, on the kv capability: one bucket a plugin, with its quota and its leases.

Both drafts that components are built for are served.  They differ in the type of a cursor and of a
sum; the second can swap a value that has not changed.  "Not changed" is judged by the value itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from capwasm.capability import HostFunc, Interface
from capwasm.errors import CapError
from capwasm.handles import Handle, Lease
from capwasm.values import Err, Variant

from ._refuse import Ledger

__all__ = ["DRAFTS", "interfaces"]

DRAFTS: Final = ("0.2.0-draft", "0.2.0-draft2")
MAX_BATCH: Final = 1_000
"""Most keys of one batch: it is one host call, which nothing may stretch."""

_NAMES: Final = frozenset({"", "default"})
_REFUSED: Final = frozenset({"denied", "closed"})

T = TypeVar("T")
StoreError: TypeAlias = Err[Variant]


class _Kv(Protocol):
    """The part of the kv capability's state that is used here; it checks, charges and records."""

    def get(self, key: str, /) -> bytes | None: ...

    def set(self, key: str, value: bytes, /) -> None: ...

    def compare_and_set(self, key: str, expected: bytes | None, value: bytes, /) -> bool: ...

    def increment(self, key: str, delta: int, /) -> int: ...

    def delete(self, key: str, /) -> bool: ...

    def keys(self, prefix: str, after: str | None, /) -> list[str]: ...


def _told(exc: CapError) -> Variant:
    return Variant("access-denied") if exc.word in _REFUSED else Variant("other", exc.word)


def _other(word: str) -> StoreError:
    return Err(Variant("other", word))


class Bucket(Handle):
    """The plugin's one store."""

    __slots__ = ("_kv", "_pages")

    def __init__(self, kv: _Kv) -> None:
        """Open it."""
        super().__init__(Lease())
        self._kv = kv
        self._pages: list[str] = []  # the last key of each page, for cursors that are numbers

    def do(self, work: Callable[[_Kv], T]) -> T | StoreError:
        """Work with the store; what it refuses is the guest's to handle."""
        try:
            return work(self._kv)
        except CapError as exc:
            return Err(_told(exc))

    def get(self, key: str) -> bytes | StoreError | None:
        """The value of a key, or None."""
        return self.do(lambda kv: kv.get(key))

    def set(self, key: str, value: bytes) -> StoreError | None:
        """Keep a value."""
        return self.do(lambda kv: kv.set(key, value))

    def delete(self, key: str) -> StoreError | None:
        """Remove a key, if it is there."""
        done = self.do(lambda kv: kv.delete(key))
        return done if isinstance(done, Err) else None

    def exists(self, key: str) -> bool | StoreError:
        """Whether a key is there."""
        return self.do(lambda kv: kv.get(key) is not None)

    def after(self, last: str | None) -> dict[str, Any] | StoreError:
        """A page of keys; its cursor is its last key, so the page after the last one is empty."""
        page = self.do(lambda kv: kv.keys("", last))
        return (
            page if isinstance(page, Err) else {"keys": page, "cursor": page[-1] if page else None}
        )

    def page(self, cursor: int | None) -> dict[str, Any] | StoreError:
        """The same where a cursor is a number: that of a page that was read before."""
        number = cursor or 0
        if number > len(self._pages):
            return _other("invalid")
        found = self.after(self._pages[number - 1] if number else None)
        if isinstance(found, Err):
            return found
        if found["cursor"] is not None:
            self._pages[number:] = [found["cursor"]]
            found["cursor"] = number + 1
        return found


class Cas(Handle):
    """A value as it was when it was looked at; to be replaced if it is still that."""

    __slots__ = ("bucket", "key", "seen")

    def __init__(self, bucket: Bucket, key: str, seen: bytes | None) -> None:
        """Remember it."""
        super().__init__(Lease())
        self.bucket, self.key, self.seen = bucket, key, seen


def _look(bucket: Bucket, key: str) -> tuple[Cas, bytes | None] | StoreError:
    value = bucket.get(key)
    return value if isinstance(value, Err) else (Cas(bucket, key, value), value)


def _new(bucket: Bucket, key: str) -> Cas | StoreError:
    found = _look(bucket, key)
    return found if isinstance(found, Err) else found[0]


def _swap(cas: Cas, value: bytes) -> Err[Variant] | None:
    done = cas.bucket.do(lambda kv: kv.compare_and_set(cas.key, cas.seen, value))
    if done is True:
        return None
    found = done if isinstance(done, Err) else _look(cas.bucket, cas.key)
    if isinstance(found, Err):
        return Err(Variant("store-error", found.error))
    return Err(Variant("cas-failed", found))


def _increment(bucket: Bucket, key: str, delta: int, least: int) -> int | StoreError:
    if delta >= 2**63:
        return _other("invalid")
    total = bucket.do(lambda kv: kv.increment(key, delta))
    return _other("invalid") if isinstance(total, int) and total < least else total


def _each(keys: Sequence[T], work: Callable[[T], Any]) -> list[Any] | StoreError:
    """One after the other, up to the first that fails."""
    if len(keys) > MAX_BATCH:
        return _other("too-large")
    found = []
    for key in keys:
        one = work(key)
        if isinstance(one, Err):
            return one
        found.append(one)
    return found


def _get_many(bucket: Bucket, keys: Sequence[str]) -> list[tuple[str, bytes] | None] | StoreError:
    values = _each(keys, bucket.get)
    if isinstance(values, Err):
        return values
    return [None if v is None else (k, v) for k, v in zip(keys, values, strict=True)]


def _set_many(bucket: Bucket, pairs: Sequence[tuple[str, bytes]]) -> StoreError | None:
    done = _each(pairs, lambda pair: bucket.set(*pair))
    return done if isinstance(done, Err) else None


def _delete_many(bucket: Bucket, keys: Sequence[str]) -> StoreError | None:
    done = _each(keys, bucket.delete)
    return done if isinstance(done, Err) else None


_ERROR: Final = "variant{no-such-store(_), access-denied(_), other(string)}"
_BUCKET: Final = "wasi:keyvalue/store.bucket"
_CAS: Final = "wasi:keyvalue/atomics.cas"


def _signatures(cursor: str, number: str) -> dict[str, str]:
    """As the WIT texts have them; a draft is in no table of ours."""
    me, b = f"self: borrow<{_BUCKET}>", f"bucket: borrow<{_BUCKET}>"
    pair, value = "tuple<string, list<u8>>", "option<list<u8>>"
    failed = f"variant{{store-error({_ERROR}), cas-failed(tuple<own<{_CAS}>, {value}>)}}"
    results = {
        "open": ("identifier: string", f"own<{_BUCKET}>", _ERROR),
        "[method]bucket.get": (f"{me}, key: string", value, _ERROR),
        "[method]bucket.set": (f"{me}, key: string, value: list<u8>", "_", _ERROR),
        "[method]bucket.delete": (f"{me}, key: string", "_", _ERROR),
        "[method]bucket.exists": (f"{me}, key: string", "bool", _ERROR),
        "[method]bucket.list-keys": (
            f"{me}, cursor: option<{cursor}>",
            f"record{{keys: list<string>, cursor: option<{cursor}>}}",
            _ERROR,
        ),
        "increment": (f"{b}, key: string, delta: {number}", number, _ERROR),
        "[static]cas.new": (f"{b}, key: string", f"own<{_CAS}>", _ERROR),
        "[static]cas.new-with-read": (
            f"{b}, key: string",
            f"tuple<own<{_CAS}>, {value}>",
            _ERROR,
        ),
        "swap": (f"cas: own<{_CAS}>, value: list<u8>", "_", failed),
        "get-many": (f"{b}, keys: list<string>", f"list<option<{pair}>>", _ERROR),
        "set-many": (f"{b}, key-values: list<{pair}>", "_", _ERROR),
        "delete-many": (f"{b}, keys: list<string>", "_", _ERROR),
    }
    return {n: f"func({params}) -> result<{ok}, {err}>" for n, (params, ok, err) in results.items()}


def interfaces(kv: _Kv | None, ledger: Ledger) -> list[Interface]:
    """`wasi:keyvalue/{store,atomics,batch}` in both drafts; `kv` is None where not granted."""

    def open_(identifier: str) -> Bucket | StoreError:
        if kv is None:
            ledger.note("wasi:keyvalue/store.open", "not-granted", table="kv")
            return Err(Variant("access-denied"))
        return Bucket(kv) if identifier in _NAMES else Err(Variant("no-such-store"))

    made = []
    for draft, cursor, number in zip(DRAFTS, ("u64", "string"), ("u64", "s64"), strict=True):
        second = draft == DRAFTS[1]
        least = -(2**63) if second else 0
        swaps: dict[str, HostFunc] = {
            "[static]cas.new": _new,
            "[static]cas.new-with-read": _look,
            "swap": _swap,
        }
        parts: list[tuple[str, dict[str, HostFunc], dict[str, type[Handle]]]] = [
            (
                "store",
                {
                    "open": open_,
                    "[method]bucket.get": Bucket.get,
                    "[method]bucket.set": Bucket.set,
                    "[method]bucket.delete": Bucket.delete,
                    "[method]bucket.exists": Bucket.exists,
                    "[method]bucket.list-keys": Bucket.after if second else Bucket.page,
                },
                {"bucket": Bucket},
            ),
            (
                "atomics",
                {
                    "increment": lambda b, key, delta, least=least: _increment(
                        b, key, delta, least
                    ),
                    **(swaps if second else {}),
                },
                {"cas": Cas} if second else {},
            ),
            (
                "batch",
                {"get-many": _get_many, "set-many": _set_many, "delete-many": _delete_many},
                {},
            ),
        ]
        texts = _signatures(cursor, number)
        made += [
            Interface(
                f"wasi:keyvalue/{name}@{draft}",
                functions,
                resources,
                {f: texts[f] for f in functions},
            )
            for name, functions, resources in parts
        ]
    return made
