"""What the package carries for plugin authors: the WIT packages, the guest SDKs and their templates.

In a wheel they lie beside this module; in a checkout, where they are written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .errors import InternalError

__all__ = ["guest_sdk", "templates", "wit_packages"]

_HERE: Final = Path(__file__).resolve().parent
_CHECKOUT: Final = _HERE.parents[2]


def wit_packages() -> dict[str, dict[str, str]]:
    """The texts of the WIT packages: package's folder → file → text."""
    root = _find("wit", "plugin/plugin.wit")
    return {
        folder.name: {f.name: f.read_text(encoding="utf-8") for f in sorted(folder.glob("*.wit"))}
        for folder in sorted(root.iterdir())
        if folder.is_dir() and any(folder.glob("*.wit"))
    }


def guest_sdk(language: str = "python") -> Path:
    """Where the SDK of this very version lies.

    For Python it is the directory to import `capwasm_guest` from; for any other language the
    directory of the SDK's package, with `src` and what else it is made of.
    """
    if language == "python":
        return _find("guest-sdk/python/src", "capwasm_guest/__init__.py")
    return _find(f"guest-sdk/{language}", "src")


def templates(language: str) -> list[Path]:
    """What `capwasm new` copies, the later over the earlier; empty if the language has no template."""
    common = _find("guest-sdk/template", "plugin.toml")
    try:
        own = _find(f"guest-sdk/{language}/template", ".")
    except InternalError:
        return []
    return [common, own] if any(p.is_file() for p in own.rglob("*")) else []


def _find(place: str, known: str) -> Path:
    for root in (_HERE / "_data" / place, _CHECKOUT / place):
        if (root / known).exists():
            return root
    raise InternalError(f"this installation of capwasm lacks {place}; install it again")
