"""Known security advisories of what this runtime stands on, and why each is out of a guest's reach.

The wheel can lag behind the engine's own security releases.  So every advisory that a newer release
fixes stands here with the feature that it needs, and every such feature with the reason why guests
can't get at it.  The reasons that are settings are read from the settings, and the others are held
by tests/engine/test_advisories.py; when one stops being true, `findings` says `reachable`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "PYTHON",
    "REVIEWED",
    "WASMTIME",
    "Advisory",
    "Finding",
    "Shield",
    "findings",
    "python_findings",
    "reachable_line",
    "unlisted",
    "wasmtime_version",
]

REVIEWED: Final = "2026-11-24"
"""The day on which somebody last held these tables against what was published."""

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shield:
    """Why guests can't get at a feature; `holds` asks whether that is still so."""

    why: str
    holds: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Advisory:
    """One advisory.

    Attributes:
        name: its public identifier, or a few words where it has none.
        what: what goes wrong.
        needs: words of `SHIELDS`; who can get at none of these features can't be hurt by it.
        fixed: the first fixed release of each line, such as 3.11 and 3.12; what is newer than all
            of them is fixed too.  Empty if no release is known that is.
    """

    name: str
    what: str
    needs: tuple[str, ...]
    fixed: tuple[Version, ...] = ()

    def affects(self, version: Version) -> bool:
        """Whether that version is not known to be fixed."""
        lines = {fix[:2]: fix for fix in self.fixed}
        fix = lines.get(version[:2], max(self.fixed, default=None))
        return fix is None or version < fix


@dataclass(frozen=True, slots=True)
class Finding:
    """An advisory that the installed version has; `because` is the shield, or what is missing."""

    advisory: Advisory
    reachable: bool
    because: str


def _off(*names: str) -> Callable[[], bool]:
    def holds() -> bool:
        from .config import switched_off

        return switched_off().issuperset(names)

    return holds


def _by_construction() -> bool:
    """What the code never does; a test looks for it in the code."""
    return True


SHIELDS: Final = {
    "gc": Shield("garbage-collected types are off", _off("wasm_gc", "gc_support")),
    "async": Shield(
        "the component model's streams, futures and concurrency are off",
        _off("wasm_component_model_async", "concurrency_support"),
    ),
    "caller": Shield(
        "host functions are component functions, which have no `Caller`", _by_construction
    ),
    "engine-wasi": Shield(
        "the engine's own WASI is never linked: guests get this runtime's", _by_construction
    ),
    "engine-http": Shield(
        "the engine's own wasi:http is never linked: guests get this runtime's egress",
        _by_construction,
    ),
    "zipfile": Shield(
        "capsules are read by a reader of our own, for one canonical uncompressed form; the operator's own"
        " OSV mirror alone is unpacked, within bounds and by no path",
        _by_construction,
    ),
    "ipaddress": Shield("addresses are judged by a table of our own", _by_construction),
    "urlsplit": Shield("URLs are parsed by a strict parser of our own", _by_construction),
    "tomllib": Shield(
        "size, depth and dots of a file are bounded before it is parsed", _by_construction
    ),
}

_502, _503 = ((50, 0, 2),), ((50, 0, 3),)

WASMTIME: Final = (
    Advisory("GHSA-5m8g-xhq4-4h93", "empty writes to a stream grow the host's memory", ("async", "engine-wasi"), _502),
    Advisory("GHSA-43j2-gcp4-m22g", "the garbage collector aborts the process", ("gc",), _502),
    Advisory("GHSA-wvgq-g5hf-6gm6", "the garbage collector aborts the process", ("gc",), _502),
    Advisory("GHSA-xrvr-8678-5wp8", "cancelling a stream or future panics", ("async",), _502),
    Advisory("GHSA-hj27-mpw9-ff4c", "looking up an export through `Caller` panics", ("caller",), _502),
    Advisory("GHSA-f8mm-ggr3-89wh", "empty HTTP/2 bodies grow the host's memory", ("engine-http",), _502),
    Advisory("GHSA-f2pq-268w-886c", "files outside a preopen can be opened on Windows", ("engine-wasi",), _503),
    Advisory("deferred host scope", "a host call that borrows two handles traps", ("async",)),
)  # fmt: skip

# Release -> how many of its advisories are not described above.
_UNLISTED: Final = {(50, 0, 2): 2}

PYTHON: Final = (
    Advisory("CVE-2024-0450", "zipfile takes entries that overlap: a bomb", ("zipfile",), ((3, 11, 8), (3, 12, 2))),
    Advisory("CVE-2024-8088", "zipfile.Path can loop without end", ("zipfile",), ((3, 11, 10), (3, 12, 6))),
    Advisory("CVE-2025-8291", "zipfile does not hold the zip64 locator against the archive", ("zipfile",), ((3, 11, 14), (3, 12, 12), (3, 13, 8))),
    Advisory("CVE-2024-4032", "ipaddress takes private addresses for global ones", ("ipaddress",), ((3, 11, 10), (3, 12, 4))),
    Advisory("CVE-2025-0938", "urlsplit takes brackets in a host name", ("urlsplit",), ((3, 11, 12), (3, 12, 9), (3, 13, 2))),
    Advisory("gh-149231", "tomllib takes quadratic time and memory for a key of many parts", ("tomllib",)),
)  # fmt: skip


def wasmtime_version() -> Version:
    """The installed wheel's version."""
    from .config import wheel_version

    parts = wheel_version().split(".")
    return tuple(int(part) for part in parts if part.isdecimal())


def findings(version: Version | None = None) -> list[Finding]:
    """What is known of the installed engine (or of that version), the reachable first."""
    return _judge(WASMTIME, wasmtime_version() if version is None else version)


def python_findings(version: Version | None = None) -> list[Finding]:
    """What is known of this Python's standard library, as far as it lies on a guest's way."""
    return _judge(PYTHON, sys.version_info[:3] if version is None else version)


def unlisted(version: Version | None = None) -> int:
    """How many advisories newer releases of the engine fix that these tables do not describe."""
    found = wasmtime_version() if version is None else version
    return sum(count for release, count in _UNLISTED.items() if found < release)


def reachable_line() -> str | None:
    """The one line that a runtime logs when it starts on an engine with a reachable advisory."""
    names = [f.advisory.name for f in findings() if f.reachable]
    if not names:
        return None
    version = ".".join(map(str, wasmtime_version()))
    return f"wasmtime {version} has advisories that guests can reach: {', '.join(names)}"


def _judge(table: Sequence[Advisory], version: Version) -> list[Finding]:
    found = []
    for advisory in table:
        if advisory.affects(version):
            open_ = [SHIELDS[need] for need in advisory.needs if not SHIELDS[need].holds()]
            shields = open_ or [SHIELDS[need] for need in advisory.needs]
            because = "; ".join(shield.why for shield in shields)
            found.append(
                Finding(advisory, bool(open_), f"no longer so: {because}" if open_ else because)
            )
    return sorted(found, key=lambda f: not f.reachable)
