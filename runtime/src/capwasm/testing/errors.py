"""What a bench has to say to the test, past the plugin."""

from __future__ import annotations

__all__ = ["BenchError", "ReplayMismatchError", "UnansweredError"]


class BenchError(AssertionError):
    """The test can't go on; whatever the plugin would have made of it."""


class UnansweredError(BenchError):
    """The plugin fetched what the test gave no answer for."""


class ReplayMismatchError(BenchError):
    """The plugin made another host call than the one that was recorded."""
