"""All scanners: those of capwasm, and those of others that the policy names.

Others give a `Scanner` as an entry point of the group `capwasm.scanners`.  Such code runs with all
the power of whoever scans, so it is off until the policy names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Final

from .model import Scanner

__all__ = ["GROUP", "standard_scanners"]

GROUP: Final = "capwasm.scanners"

# The modules of this room that have scanners, in the order in which they run: the quick ones first.
# Each has `SCANNERS`, a tuple of `Scanner`.  What needs an extra is imported when it scans.
MODULES: Final[tuple[str, ...]] = ()


def standard_scanners() -> tuple[Scanner, ...]:
    """The scanners that come with capwasm."""
    return tuple(s for name in MODULES for s in _of(import_module(f"capwasm.scan.{name}")))


def _of(module: object) -> Sequence[Scanner]:
    found: Sequence[Scanner] = module.SCANNERS  # type: ignore[attr-defined]
    return found
