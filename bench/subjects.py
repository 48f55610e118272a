"""The subjects by name."""

from __future__ import annotations

from .kept import Workshop
from .subject import Subject

__all__ = ["NAMES", "open_subject"]

NAMES = ("capwasm", "wasmtime-py", "Extism", "Rust", "Rust Val", "Rust plain")


def open_subject(name: str, workshop: Workshop) -> Subject:
    """Set that subject up.

    Raises:
        Unavailable: it isn't installed, or isn't built and can't or may not be.
    """
    match name:
        case "capwasm":
            from .subject_capwasm import Capwasm

            return Capwasm(workshop)
        case "wasmtime-py":
            from .subject_wheel import Wheel

            return Wheel(workshop)
        case "Extism":
            from .subject_extism import Extism

            return Extism(workshop)
        case _:
            from .subject_rust import Rust

            return Rust(name, workshop)
