"""What the package carries for plugin authors: the WIT packages and the Python guest SDK.

In a wheel they lie beside this module; in a checkout, where they are written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .errors import InternalError

__all__ = ["guest_sdk", "wit_packages"]

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


def guest_sdk() -> Path:
    """The directory to import `capwasm_guest` from: the SDK of this very version."""
    return _find("guest-sdk/python/src", "capwasm_guest/__init__.py")


def _find(place: str, known: str) -> Path:
    for root in (_HERE / "_data" / place, _CHECKOUT / place):
        if (root / known).is_file():
            return root
    raise InternalError(f"this installation of capwasm lacks {place}; install it again")
