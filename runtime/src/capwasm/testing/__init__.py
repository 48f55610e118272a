"""What authors of plugins test with: a bench that runs a plugin for pytest.

::

    def test_greets(bench):
        assert bench.call("greet", "Ada").unwrap().text == "Hello, Ada!"
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bench import Bench
    from .errors import BenchError, ReplayMismatchError, UnansweredError
    from .fetch import Answer, Request

# Loaded when first used: every run of pytest imports this package, for its plugin.
_HOME = {
    "Answer": "fetch",
    "Bench": "bench",
    "BenchError": "errors",
    "ReplayMismatchError": "errors",
    "Request": "fetch",
    "UnansweredError": "errors",
}

__all__ = ["Answer", "Bench", "BenchError", "ReplayMismatchError", "Request", "UnansweredError"]


def __getattr__(name: str) -> Any:
    """Load a public name."""
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{module}", __name__), name)
