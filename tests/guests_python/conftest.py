from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .bench import EXAMPLES, LAB, MISSING, Author, Origin


def pytest_runtest_setup(item: pytest.Item) -> None:
    marks = [m.args[0] for m in item.iter_markers("toolchain")]
    if "componentize-py" in marks and MISSING:
        pytest.skip(MISSING)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin().serving() as served:
        yield served


@pytest.fixture
def author(tmp_path: Path) -> Iterator[Callable[[Path, str], Author]]:
    made: list[Author] = []

    def make(project: Path, plugin_id: str) -> Author:
        made.append(Author(tmp_path, project, plugin_id))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def lab(author: Callable[[Path, str], Author]) -> Author:
    return author(LAB, "test.lab")


@pytest.fixture
def weather(author: Callable[[Path, str], Author], origin: Origin) -> Author:
    """The weather example, its service on loopback."""
    made = author(EXAMPLES / "weather", "acme.weather")
    made.manifest = made.manifest.replace("https://api.acme.example", origin.url)
    return made


@pytest.fixture
def notes(author: Callable[[Path, str], Author]) -> Author:
    return author(EXAMPLES / "notes-index", "acme.notes-index")
