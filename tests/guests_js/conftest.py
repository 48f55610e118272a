from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.plugin import Plugin
from tests.builds import missing
from tests.guests_python.bench import REPOSITORY, Author, Origin
from tests.guests_python.test_sdk import ALL

LAB = REPOSITORY / "tests/guests/js/lab"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("toolchain") and (why := missing(LAB)):
        pytest.skip(why)


# A load takes more than a second, and no test here looks at what another leaves but in the store and
# the directory, where each has names of its own.
@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin().serving() as served:
        yield served


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, origin: Origin) -> Iterator[Plugin]:
    """The guest that runs the JavaScript it is sent, with everything granted."""
    author = _lab(tmp_path_factory.mktemp("full"), origin)
    author.directory("data")
    (author.directory("fixed") / "a.md").write_text("# A\n")
    author.allow(ALL.format(root=author.root, origin=origin.url))
    author.world.vault(acme_token="tok-123456789", pin="pin-987654321")
    yield author.load()
    author.close()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, origin: Origin) -> Iterator[Plugin]:
    """The same with nothing granted but a clock."""
    author = _lab(tmp_path_factory.mktemp("bare"), origin)
    author.allow("[clock]\n")
    yield author.load()
    author.close()


def _lab(root: Path, origin: Origin) -> Author:
    author = Author(root, LAB, "test.lab")
    author.manifest = author.manifest.replace("https://api.acme.com", origin.url)
    return author
