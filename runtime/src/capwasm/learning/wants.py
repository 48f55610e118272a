"""From attempts to tables: for each capability, the least that would have let them pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from capwasm.grants.manifest import Manifest

from .attempt import Attempt, Table

__all__ = ["learned", "unused"]

MAX_RANDOM: Final = 65536  # that one call ever returns
MAX_PATHS: Final = 4  # of one origin, beyond which the directory that they share stands for them
_NOT_GRANTED: Final = frozenset({"not-granted", "not granted", "denied", "revoked"})

Learned = tuple[list[Table], list[str]]


def learned(
    name: str,
    by_kind: Mapping[str, Sequence[Attempt]],
    imported: bool,
    manifest: Manifest | None,
) -> Learned:
    """The tables of one capability, and what none of them can say."""
    tried = by_kind.get(name, [])
    wanted = [a for a in tried if a.reason in _NOT_GRANTED or _is_want(a)]
    notes = [f"{name}: {a}" for a in tried if a not in wanted]
    if not wanted and not imported:
        return [], notes
    rule = _RULES.get(name)
    # Where what was tried says nothing more, the table alone is what is missing.
    rows = [Table(name, {})] if rule is None else list(rule(wanted, by_kind, manifest))
    return rows, notes


def unused(name: str) -> list[Table]:
    """The table of a capability that is imported, and of which nothing was tried."""
    rule = _RULES.get(name)
    rows = [Table(name, {})] if rule is None else list(rule((), {}, None))
    note = "it imports this, and did not use it"
    return [Table(name, {**row.words, "optional": True}, (note, *row.notes)) for row in rows]


def _is_want(attempt: Attempt) -> bool:
    """Whether a refusal for another reason still says what is missing."""
    return (attempt.kind, attempt.reason) in {
        ("fs", "read-only"),
        ("random", "not granted, or revoked"),
        ("random", "more than bytes-per-call"),
    }


Rule = Callable[
    [Sequence[Attempt], Mapping[str, Sequence[Attempt]], Manifest | None], Iterator[Table]
]


_WRITES: Final = frozenset({"make-directory", "remove", "rename", "set-times", "create"})
_WRITE_MODES: Final = frozenset({"write", "append", "update", "create"})


def _fs(tried: Sequence[Attempt], _all: object, manifest: Manifest | None) -> Iterator[Table]:
    """One mount a directory, none within another; what may be written is said of each."""
    granted = {t["mount"]: t.get("bind", "") for t in _asked("fs", manifest) if t.get("mount")}
    found: dict[str, tuple[bool, list[Attempt]]] = {}
    for attempt in tried:
        writes = (
            attempt.action in _WRITES
            or attempt.detail in _WRITE_MODES
            or attempt.reason == "read-only"
        )
        mount = _mount_of(attempt, granted)
        if mount:
            before = found.get(mount, (False, []))
            found[mount] = (before[0] or writes, [*before[1], attempt])
    for mount in sorted(found):
        if any(other != mount and _below(mount, other) for other in found):
            continue
        inside = [found[m] for m in found if m == mount or _below(m, mount)]
        writes = any(w for w, _ in inside)
        seen = [str(a) for _, attempts in inside for a in attempts]
        yield Table(
            "fs",
            {
                "mount": mount,
                "bind": granted.get(mount) or _bind(mount),
                "access": "read-write" if writes else "read",
            },
            (*_shortened(seen), "decide: which directory of the host is it? policy.toml says"),
        )
    if not found:
        yield Table(
            "fs",
            {"mount": "/data", "bind": "data", "access": "read"},
            ("it imports files, and tried none: decide where it may look",),
        )


def _asked(name: str, manifest: Manifest | None) -> list[dict[str, Any]]:
    """The tables of one capability that are asked for already."""
    request = manifest.requests.get(name) if manifest else None
    return [c.to_toml() for a in request.asked for c in a.clauses] if request else []


def _mount_of(attempt: Attempt, granted: Mapping[str, str]) -> str:
    path = attempt.target.rstrip("/")
    standing = [m for m in granted if path == m or _below(path, m)]
    if standing:
        return max(standing, key=len)
    if attempt.reason == "read-only":  # beneath a mount that everybody has
        return "/".join(path.split("/")[:2])
    if attempt.action == "list":
        return path
    # What is opened is mostly a file: the directory that it stands in, if that is not all there is.
    return path.rpartition("/")[0] or path


def _below(path: str, mount: str) -> bool:
    return path.startswith(f"{mount}/")


def _bind(mount: str) -> str:
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in mount.lower())
    name = "-".join(part for part in kept.split("-") if part)
    return (name if name[:1].isalpha() else f"dir-{name}")[:64]


def _net(tried: Sequence[Attempt], _all: object, _manifest: object) -> Iterator[Table]:
    """One table an origin and path, with the methods that were tried there."""
    origins: dict[str, dict[str, set[str]]] = {}
    for attempt in tried:
        scheme, mark, rest = attempt.target.partition("://")
        host, slash, path = rest.partition("/")
        if mark and host:
            paths = origins.setdefault(f"{scheme}://{host}", {})
            paths.setdefault(f"{slash}{path}" or "/", set()).add(attempt.action)
    for origin in sorted(origins):
        paths = origins[origin]
        notes = ["decide: whose is it, and what may it be told?"]
        if origin.startswith("http://"):
            notes.append("without TLS: anyone on the way reads and changes it")
        if len(paths) > MAX_PATHS:
            methods = set().union(*paths.values())
            paths = {f"{_shared(list(paths))}*": methods}
            notes.append(f"it tried {len(origins[origin])} paths below this one")
        for path in sorted(paths):
            words = {"allow": _origin(origin) + path, "methods": sorted(paths[path])}
            yield Table("net", words, tuple(notes))
    if not origins:
        yield Table(
            "net",
            {"allow": "https://api.example.com/*"},
            ("it imports the network, and tried no origin: decide where it may go",),
        )


def _origin(origin: str) -> str:
    """An origin as a rule spells it: an address is a network of one."""
    scheme, _, rest = origin.partition("://")
    if rest.startswith("["):
        address, _, port = rest[1:].partition("]")
        return f"{scheme}://[{address}]/128{port}"
    host, colon, port = rest.partition(":")
    if host.replace(".", "").isdigit():
        return f"{scheme}://{host}/32{colon}{port}"
    return origin


def _shared(paths: Sequence[str]) -> str:
    """The deepest directory that all paths lie in, with its slash."""
    first, last = min(paths), max(paths)
    size = next((i for i, c in enumerate(first) if last[i : i + 1] != c), len(first))
    return first[:size].rpartition("/")[0] + "/"


def _secret(
    tried: Sequence[Attempt], all_: Mapping[str, Sequence[Attempt]], _manifest: object
) -> Iterator[Table]:
    origins = sorted({"/".join(a.target.split("/")[:3]) for a in all_.get("net", ()) if a.target})
    guessed = () if origins else ("decide: to which origins may it be sent?",)
    names = dict.fromkeys(a.target for a in tried if a.target) or {"token": None}
    for name in names:
        yield Table(
            "secret",
            {
                "name": name,
                "use": "inject",
                "for": origins or ["https://api.example.com"],
                "header": "Authorization: Bearer {}",
            },
            (*guessed, 'decide: in which header? use = "reveal" would let the plugin see it'),
        )


def _clock(tried: Sequence[Attempt], _all: object, manifest: Manifest | None) -> Iterator[Table]:
    actions = " ".join(a.action for a in tried)
    before = _asked("clock", manifest)
    signs = {"wall": ("wall",), "sleep": ("sleep", "subscribe")}
    yield Table(
        "clock",
        {
            word: any(s in actions for s in some) or any(t.get(word, True) for t in before)
            for word, some in signs.items()
        },
    )


def _random(tried: Sequence[Attempt], _all: object, manifest: Manifest | None) -> Iterator[Table]:
    lengths = [int(a.detail) for a in tried if a.detail.isdecimal()]
    lengths += [t["bytes-per-call"] for t in _asked("random", manifest)]
    longest = max(lengths, default=0)
    yield Table("random", {"bytes-per-call": min(longest, MAX_RANDOM)} if longest else {})


def _config(tried: Sequence[Attempt], _all: object, _manifest: object) -> Iterator[Table]:
    keys = sorted({a.target for a in tried if a.target})
    notes = () if keys else ("it imports settings, and asked for none by name",)
    yield Table("config", {"keys": keys or ["setting"]}, notes)


def _exec(tried: Sequence[Attempt], _all: object, _manifest: object) -> Iterator[Table]:
    for name in sorted({a.target for a in tried if a.target} or {"command"}):
        yield Table("exec", {"command": name}, ("decide: which program is it? policy.toml says",))


_RULES: Final[Mapping[str, Rule]] = {
    "fs": _fs,
    "net": _net,
    "secret": _secret,
    "clock": _clock,
    "random": _random,
    "config": _config,
    "exec": _exec,
}


def _shortened(lines: Sequence[str]) -> list[str]:
    unique = list(dict.fromkeys(lines))
    return unique[:3] + ([f"and {len(unique) - 3} more"] if len(unique) > 3 else [])
