"""One operation in words (`GET https://api.acme.com/v1`), asked of a real grant.  Pure.

The answer is that of the capability itself: each question here is the one that its handle asks
before it acts.  What only the machine can know is left out: where a name leads (unless that is said
with `at`), what stands on the disk, whether the vault holds the secret.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, cast, get_args

from capwasm.capability import Grant
from capwasm.caps._tables import read_size
from capwasm.caps.clock.model import ClockClause
from capwasm.caps.clock.model import Operation as ClockOperation
from capwasm.caps.config.model import ConfigClause
from capwasm.caps.exec.model import ExecClause
from capwasm.caps.fs.faults import FsError
from capwasm.caps.fs.model import Access, FsClause
from capwasm.caps.fs.paths import absolute
from capwasm.caps.kv.model import KvClause
from capwasm.caps.log.model import LEVELS, LogClause
from capwasm.caps.net.address import parse_address
from capwasm.caps.net.model import ALL_METHODS, NetClause, NetOperation, is_denied
from capwasm.caps.net.url import parse_url
from capwasm.caps.random.model import RandomClause
from capwasm.caps.secrets.model import SecretClause
from capwasm.caps.secrets.origin import canonical_origin

__all__ = ["FORMS", "Asks", "question"]

Asks = Callable[[Grant[Any]], bool]

FORMS: Final = {
    "clock": "monotonic, wall or sleep",
    "random": "how many bytes: 64KiB",
    "config": "the setting's name: units",
    "log": "a level: debug, info, warn or error",
    "kv": "the size of a value: 64KiB",
    "fs": "read /data/in.csv or write /data/out.csv: the path that the plugin uses",
    "secret": "inject NAME https://api.example.com or reveal NAME",
    "net": "GET https://api.example.com/v1/x, and also at 10.1.2.3 for the address it leads to",
    "exec": "the command and the values for its holes: thumbnail 100x100",
}
"""By capability, how an operation is written."""


def question(capability: str, text: str) -> Asks:
    """What to ask a grant of that capability.

    Raises:
        ValueError: the capability has no operations in words, or `text` is none of them; with the
            form that it should have.
    """
    ask = _QUESTIONS.get(capability)
    if ask is None:
        raise ValueError(f"no operations in words; those that have: {', '.join(FORMS)}")
    try:
        return ask(text)
    except (ValueError, FsError) as exc:
        raise ValueError(f"{exc}; write {FORMS[capability]}") from None


def _clock(text: str) -> Asks:
    if text not in get_args(ClockOperation):
        raise ValueError("no such use of a clock")
    op = cast("ClockOperation", text)

    def ask(grant: Grant[ClockClause]) -> bool:
        return grant.deny.any(lambda c: c.denies(op)) is None and any(
            g.clause.allows(op) for g in grant.allow
        )

    return ask


def _random(text: str) -> Asks:
    size = _size(text)

    def ask(grant: Grant[RandomClause]) -> bool:
        return grant.find(lambda _: True) is not None and any(
            size <= g.clause.bytes_per_call for g in grant.allow
        )

    return ask


def _config(text: str) -> Asks:
    def ask(grant: Grant[ConfigClause]) -> bool:
        return grant.find(lambda c: c.key == text) is not None

    return ask


def _log(text: str) -> Asks:
    rank = [str(level) for level in LEVELS].index(text)

    def ask(grant: Grant[LogClause]) -> bool:
        return grant.find(lambda c: c.admits(rank)) is not None

    return ask


def _kv(text: str) -> Asks:
    size = _size(text)

    def ask(grant: Grant[KvClause]) -> bool:
        return (
            grant.find(lambda _: True) is not None
            and grant.find(lambda c: c.takes(size) and c.holds(size, 1)) is not None
        )

    return ask


def _fs(text: str) -> Asks:
    verb, _, path = text.partition(" ")
    if verb not in ("read", "write"):
        raise ValueError("begins with neither read nor write")
    names, access = absolute(path), Access.READ if verb == "read" else Access.READ_WRITE

    def ask(grant: Grant[FsClause]) -> bool:
        # A guest path belongs to the longest mount that holds it, and to no other.
        held = [
            (len(mount), g.clause)
            for g in grant.allow
            if g.clause.mount
            and g.clause.path
            and names[: len(mount := absolute(g.clause.mount))] == mount
        ]
        longest = max((length for length, _ in held), default=0)
        return any(length == longest and access.within(c.access) for length, c in held)

    return ask


def _secret(text: str) -> Asks:
    use, name, *to = text.split(" ")[:4] if text.count(" ") in (1, 2) else ("", "")
    if (use, len(to)) == ("reveal", 0):
        return lambda grant: grant.find(lambda c: c.reveals(name)) is not None
    if (use, len(to)) != ("inject", 1):
        raise ValueError("not a use of a secret")
    origin = canonical_origin(to[0])

    def ask(grant: Grant[SecretClause]) -> bool:
        return grant.find(lambda c: c.injects(name, origin)) is not None

    return ask


def _net(text: str) -> Asks:
    method, _, rest = text.partition(" ")
    if method not in ALL_METHODS:
        raise ValueError(f"begins with none of {', '.join(sorted(ALL_METHODS))}")
    where, at, address_text = rest.partition(" at ")
    url = parse_url(where)
    address = parse_address(address_text) if at else None
    if address is None and not isinstance(url.host, str):
        address = url.host
    op = NetOperation(url.scheme, url.host, url.port, url.path, method)

    def ask(grant: Grant[NetClause]) -> bool:
        if is_denied(grant.deny, op):
            return False
        if address is not None and is_denied(grant.deny, replace(op, host=address)):
            return False

        def allows(clause: NetClause) -> bool:
            return clause.allows(op) and (address is None or clause.allows_address(address))

        return grant.find(allows) is not None

    return ask


def _exec(text: str) -> Asks:
    command, *values = shlex.split(text) or [""]

    def ask(grant: Grant[ExecClause]) -> bool:
        found = grant.find(lambda c: c.command == command)
        return found is not None and found.clause.fill(values) is not None

    return ask


def _size(text: str) -> int:
    return cast("int", read_size(text))  # of a text it is a number, or an error


_QUESTIONS: Final[dict[str, Callable[[str], Asks]]] = {
    "clock": _clock,
    "random": _random,
    "config": _config,
    "log": _log,
    "kv": _kv,
    "fs": _fs,
    "secret": _secret,
    "net": _net,
    "exec": _exec,
}
