"""Makes `src/bindings/` from `wit/`, or says what of it is out of date.

    python guest-sdk/c/bindings.py            make it
    python guest-sdk/c/bindings.py --check    only compare

It is what `wit-bindgen c` makes of the world `capwasm:plugin/capabilities`, by capwasm's own copy of it.
Every name begins with `cw_`, so that none meets one of a plugin's own bindings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from capwasm.authoring.componentizer import bind_c, package_of
from capwasm.authoring.project import build_cache

REPOSITORY = Path(__file__).resolve().parents[2]
PLACE = Path(__file__).resolve().parent / "src/bindings"
# Interface → what its names in C begin with.
PREFIXES = {
    "fs/files": "cw_fs",
    "fetch/client": "cw_fetch",
    "secrets/store": "cw_secrets",
    "secrets/reveal": "cw_reveal",
    "kv/store": "cw_kv",
    "log/log": "cw_log",
    "clock/clock": "cw_clock",
    "random/random": "cw_random",
    "config/config": "cw_config",
    "exec/commands": "cw_exec",
}


def made() -> dict[str, bytes]:
    """The files, by name."""
    wit = REPOSITORY / "wit"
    folders = sorted(p.parent for p in wit.glob("*/*.wit"))
    packages = [package_of(p, f"wit/{p.name}") for p in folders if p.name != "plugin"]
    packages.insert(0, package_of(wit / "plugin", "wit/plugin"))
    prefixes = {f"capwasm:{name}@0.1.0": prefix for name, prefix in PREFIXES.items()}
    return bind_c(packages, "capabilities", "cw", prefixes, build_cache() / "c/tool")


def stale() -> list[str]:
    """The files that are not what `wit/` makes."""
    fresh = made()
    names = fresh.keys() | {p.name for p in PLACE.iterdir()}
    here = {n: (PLACE / n).read_bytes() for n in names if (PLACE / n).exists()}
    return sorted(n for n in names if here.get(n) != fresh.get(n))


def main() -> int:
    """Check, or make."""
    if "--check" in sys.argv[1:]:
        found = stale()
        for name in found:
            sys.stdout.write(f"src/bindings/{name} is not what wit/ makes: run {__file__}\n")
        return int(bool(found))
    PLACE.mkdir(exist_ok=True)
    for path in PLACE.iterdir():
        path.unlink()
    for name, content in made().items():
        (PLACE / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
