"""The fixtures.  Nothing but pytest is imported before a test asks for one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .bench import Bench

__all__ = ["bench", "bench_factory"]


@pytest.fixture
def bench_factory() -> Iterator[Callable[..., Bench]]:
    """Makes benches, as `capwasm.testing.Bench` does; they are closed after the test."""
    from .bench import Bench

    with ExitStack() as stack:

        def make(source: str | os.PathLike[str], **options: Any) -> Bench:
            return stack.enter_context(Bench(source, **options))

        yield make


@pytest.fixture
def bench(request: pytest.FixtureRequest, bench_factory: Callable[..., Bench]) -> Bench:
    """A bench for the project that the test stands in, or that `CAPWASM_PROJECT` names.

    `@pytest.mark.bench(secrets={...}, config={...})` gives it what `Bench` takes.
    """
    mark = request.node.get_closest_marker("bench")
    options = {"module": os.environ.get("CAPWASM_MODULE", "plugin")} | (mark.kwargs if mark else {})
    return bench_factory(_project(request.path), **options)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "bench(**options): what the bench is made with; see capwasm.testing.Bench"
    )


def _project(test: Path) -> Path:
    named = os.environ.get("CAPWASM_PROJECT")
    if named:
        return Path(named)
    for place in test.parents:
        if (place / "plugin.toml").is_file():
            return place
    raise pytest.UsageError(
        f"there is no plugin.toml in any directory above {test}; set CAPWASM_PROJECT"
    )
