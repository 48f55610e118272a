"""The subjects by name."""

from __future__ import annotations

from .subject import Subject

__all__ = ["NAMES", "open_subject"]

NAMES = ("capwasm", "wasmtime-py", "Extism")


def open_subject(name: str) -> Subject:
    """Set that subject up.

    Raises:
        Unavailable: it isn't installed.
    """
    if name == "capwasm":
        from .subject_capwasm import Capwasm

        return Capwasm()
    if name == "wasmtime-py":
        from .subject_wheel import Wheel

        return Wheel()
    from .subject_extism import Extism

    return Extism()
