"""What a plugin prints when it breaks, in its author's terms: cause, file and line.

Python prints a traceback, Rust and Go the place of a panic; what the toolchain's own frames add says
nothing to the author, and is left out.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["Said"]

_TRACEBACK: Final = "Traceback (most recent call last):"
_FRAME: Final = re.compile(r'  File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<name>.+))?')
# componentize-py mounts the author's sources as /0, and the glue and the SDK as /1.
_AUTHORS: Final = re.compile(r"/0/")
_PANIC: Final = re.compile(r"thread '.*' (?:\(\d+\) )?panicked at (?P<place>[^:]+:\d+)(?::\d+)?:")
_PYTHONS_PANIC: Final = "runtime/src/lib.rs:"
_NOISE: Final = ("note: run with `RUST_BACKTRACE=1`",)
_MOST_FRAMES: Final = 20


class Said:
    """Reads what goes to stderr, a line at a time.

    Attributes:
        cause: the last line of a traceback, or what a panic says; empty if there is none.
        places: where in the author's sources, the innermost first: `plugin.py:16 in breaks`.
        python: whether it was a traceback.
    """

    def __init__(self) -> None:
        """Nothing was said yet."""
        self.cause = ""
        self.places: list[str] = []
        self.python = False
        self._inside = self._ours = self._panic = self._pythons = False

    def line(self, text: str) -> str | None:
        """One line as the author should see it; None if it says nothing to him."""
        if text == _TRACEBACK:
            self.cause, self.places = "", []
            self.python = self._inside = True
            self._ours = False
            return text
        if self._inside:
            return self._in_traceback(text)
        if self._pythons:  # componentize-py says in Rust what the traceback has said
            self._pythons = not text.startswith(_NOISE)
            return None
        if (panic := _PANIC.match(text)) is not None:
            if self.python and panic["place"].startswith(_PYTHONS_PANIC):
                self._pythons = True
                return None
            self.places, self._panic = [panic["place"]], True
            return text
        if self._panic:
            self.cause, self._panic = text, False
            return text
        return None if text.startswith(_NOISE) or (self.python and not text.strip()) else text

    def _in_traceback(self, text: str) -> str | None:
        frame = _FRAME.match(text)
        if frame is not None:
            file = frame["file"]
            self._ours = _AUTHORS.match(file) is not None
            if not self._ours:
                return None
            bare = _AUTHORS.sub("", file, count=1)
            name = f" in {frame['name']}" if frame["name"] else ""
            self.places = [f"{bare}:{frame['line']}{name}", *self.places][:_MOST_FRAMES]
            return text.replace(file, bare, 1)
        if text.startswith(" "):  # a line of the source, or how often the frame stands there
            return text if self._ours else None
        self.cause, self._inside = text, False
        return text
