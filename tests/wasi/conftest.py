"""An origin that may be reached."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.caps.net.servers import Place


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    with place.origin, place.bench:
        yield place
