"""Clauses and operations of every capability, over small alphabets so that they often meet.

A `Kind` says how to make clauses of one capability, how to make operations, and when a clause
allows one.  There a quantity that is open allows any amount: which default takes its place in the
end is the capability's own business.  A new capability enters here; a test in
tests/property/test_grant_laws.py fails until it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from capwasm.caps import standard_capabilities
from capwasm.caps.clock.model import ClockClause
from capwasm.caps.config.model import ConfigClause
from capwasm.caps.exec.model import ExecClause
from capwasm.caps.fs.model import Access, FsClause
from capwasm.caps.kv.model import KvClause
from capwasm.caps.log.model import LEVELS, LogClause
from capwasm.caps.random.model import RandomClause
from capwasm.caps.secrets.model import SecretClause
from capwasm.limits import Limits
from tests.caps.net.strategies import ADDRESSES, net_clauses, net_operations
from tests.toycaps import TOYS, BellClause, DoorClause

__all__ = ["CAPABILITIES", "KINDS", "Kind", "limits"]

CAPABILITIES = {c.name: c for c in (*standard_capabilities(), *TOYS)}


@dataclass(frozen=True)
class Kind:
    """How the laws are tried on one capability."""

    clauses: st.SearchStrategy[Any]
    operations: st.SearchStrategy[Any]
    allows: Callable[[Any, Any], bool]


def _maybe(values: Any) -> st.SearchStrategy[Any]:
    return st.none() | st.sampled_from(values)


def _up_to(bound: int | None, amount: int) -> bool:
    return bound is None or amount <= bound


def _fs(clause: FsClause, operation: tuple[str, str, str, Access]) -> bool:
    mount, bind, path, access = operation
    return (
        clause.mount in (None, mount)
        and clause.bind in (None, bind)
        and clause.path in (None, path)
        and access.within(clause.access)
    )


def _secret(clause: SecretClause, operation: tuple[str, str, str, str]) -> bool:
    use, name, origin, header = operation
    if use == "reveal":
        return clause.reveals(name)
    return clause.injects(name, origin) and clause.header in (None, header)


def _exec(clause: ExecClause, operation: tuple[str, str, tuple[str, ...], str, int]) -> bool:
    command, program, arguments, path, amount = operation
    bounds = (
        clause.timeout_ms,
        clause.memory,
        clause.processes,
        clause.threads,
        clause.input_bytes,
        clause.output_bytes,
        clause.runs,
    )
    return (
        clause.command in (None, command)
        and clause.program in (None, program)
        and clause.arguments in (None, arguments)
        and (clause.reads is None or path == "" or path in clause.reads)
        and all(_up_to(bound, amount) for bound in bounds)
    )


def _kv(clause: KvClause, operation: tuple[int, int, int]) -> bool:
    size, keys, value = operation
    bounds = ((clause.quota, size), (clause.keys, keys), (clause.value_bytes, value))
    return all(_up_to(bound, amount) for bound, amount in bounds)


MOUNTS, BINDS, PATHS = (
    ("/data", "/data/sub", "/x"),
    ("app", "other"),
    ("/srv/a", "/srv/a/b", "/srv"),
)
ORIGINS = ("https://a.com", "https://b.com:8443")
HEADERS = ("Authorization: Bearer {}", "X-Token: {}")
PROGRAMS = ("/usr/bin/a", "/usr/bin/b")
FORMS = (((),), (("-x", "{size:[0-9]{1,3}}"),), (("a b",), ("{n:a|b}", "")))
AMOUNTS = (1, 64, 1000, 4096, 65536)

_secrets = st.one_of(
    st.builds(
        SecretClause,
        st.sampled_from(("a", "b")),
        st.just("inject"),
        st.frozensets(st.sampled_from(ORIGINS), min_size=1),
        _maybe(HEADERS),
        _maybe((1, 1000)),
    ),
    st.builds(
        SecretClause,
        st.sampled_from(("a", "b")),
        st.just("reveal"),
        st.none(),
        st.none(),
        _maybe((1, 1000)),
    ),
)

_named = st.builds(ExecClause, st.sampled_from(("thumbnail", "check")))  # as a manifest does
_commands = st.one_of(
    _named,
    _named,
    st.builds(
        ExecClause,
        _maybe(("thumbnail", "check")),
        _maybe(PROGRAMS),
        _maybe(FORMS),
        st.none() | st.frozensets(st.sampled_from(("/srv/a", "/srv/b"))),
        _maybe((1, 5000)),
        _maybe((2**24, 2**28)),
        _maybe((1, 16)),
        _maybe((1, 16)),
        _maybe((0, 1000)),
        _maybe((0, 4096)),
        _maybe((1, 1000)),
    ).filter(lambda c: (c.command, c.program) != (None, None)),
)

KINDS: Mapping[str, Kind] = {
    "clock": Kind(
        st.builds(ClockClause, st.sampled_from((1, 10, 1000)), st.booleans(), st.booleans()),
        st.sampled_from(("monotonic", "wall", "sleep")),
        lambda c, op: c.allows(op),
    ),
    "random": Kind(
        st.builds(RandomClause, st.sampled_from((8, 1000, 4096, 65536))),
        st.sampled_from((8, 9, 1000, 4097, 65536)),
        lambda c, op: op <= c.bytes_per_call,
    ),
    "config": Kind(
        st.builds(ConfigClause, st.sampled_from(("units", "city")), _maybe(("x", "y", ""))),
        st.tuples(st.sampled_from(("units", "city")), st.sampled_from(("x", "y", ""))),
        lambda c, op: c.key == op[0] and c.value in (None, op[1]),
    ),
    "log": Kind(
        st.builds(LogClause, _maybe(LEVELS), _maybe((1, 100, 10_000)), _maybe((64, 4096, 65536))),
        st.tuples(
            st.integers(0, 3), st.sampled_from((1, 100, 101)), st.sampled_from((1, 64, 65536))
        ),
        lambda c, op: c.admits(op[0]) and _up_to(c.rate, op[1]) and _up_to(c.record_bytes, op[2]),
    ),
    "kv": Kind(
        st.builds(KvClause, _maybe(AMOUNTS), _maybe(AMOUNTS), _maybe(AMOUNTS)),
        st.tuples(st.sampled_from(AMOUNTS), st.sampled_from(AMOUNTS), st.sampled_from(AMOUNTS)),
        _kv,
    ),
    "fs": Kind(
        st.builds(
            FsClause,
            _maybe(MOUNTS),
            _maybe(BINDS),
            _maybe(PATHS),
            st.sampled_from(Access),
            _maybe((0, 4096)),
            _maybe((0, 10)),
        ).filter(lambda c: (c.mount, c.bind, c.path) != (None, None, None)),
        st.tuples(
            st.sampled_from(MOUNTS),
            st.sampled_from(BINDS),
            st.sampled_from(PATHS),
            st.sampled_from(Access),
        ),
        _fs,
    ),
    "secret": Kind(
        _secrets,
        st.tuples(
            st.sampled_from(("inject", "reveal")),
            st.sampled_from(("a", "b")),
            st.sampled_from(ORIGINS),
            st.sampled_from(HEADERS),
        ),
        _secret,
    ),
    "net": Kind(
        net_clauses(),
        st.tuples(net_operations(), st.sampled_from(ADDRESSES)),
        lambda c, op: c.allows(op[0]) and c.allows_address(op[1]),
    ),
    "exec": Kind(
        _commands,
        st.tuples(
            st.sampled_from(("thumbnail", "check")),
            st.sampled_from(PROGRAMS),
            st.sampled_from(FORMS),
            st.sampled_from(("", "/srv/a", "/srv/b")),
            st.sampled_from((0, 1, 16, 1000, 2**26)),
        ),
        _exec,
    ),
    "door": Kind(
        st.builds(
            DoorClause,
            _maybe(("front", "back")),
            st.none() | st.frozensets(st.sampled_from(("look", "enter", "paint")), min_size=1),
            _maybe((1, 5)),
        ),
        st.tuples(st.sampled_from(("front", "back")), st.sampled_from(("look", "enter", "paint"))),
        lambda c, op: c.allows(op),
    ),
    "bell": Kind(
        st.builds(BellClause, st.sampled_from(("a", "b"))),
        st.sampled_from(("a", "b")),
        lambda c, op: c.allows(op),
    ),
}


def limits() -> st.SearchStrategy[Limits]:
    """Limits near each other and near the edges."""
    ceiling = Limits.ceiling().to_table()
    table = st.fixed_dictionaries(
        {word: st.sampled_from((1, 2, most // 2 or 1, most)) for word, most in ceiling.items()}
    )
    return table.map(lambda values: Limits.from_table(values, Limits.ceiling()))
