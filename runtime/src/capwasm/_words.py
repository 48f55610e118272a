"""How the files spell the names of ours."""

from __future__ import annotations

__all__ = ["kebab"]


def kebab(name: str) -> str:
    """`wall_ms` as the files spell it: `wall-ms`."""
    return name.replace("_", "-")
