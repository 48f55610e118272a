from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.plugin import Plugin
from tests.builds import missing
from tests.guests_python.bench import REPOSITORY, Author, Origin

LAB = REPOSITORY / "tests/guests/js/lab"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("toolchain") and (why := missing(LAB)):
        pytest.skip(why)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin().serving() as served:
        yield served


@pytest.fixture
def lab(tmp_path: Path, origin: Origin) -> Iterator[Author]:
    """The guest that runs the JavaScript it is sent; its service is on loopback."""
    author = Author(tmp_path, LAB, "test.lab")
    author.manifest = author.manifest.replace("https://api.acme.com", origin.url)
    yield author
    author.close()


@pytest.fixture
def full(lab: Author, origin: Origin) -> Plugin:
    """The lab with everything granted."""
    from tests.guests_python.test_sdk import ALL

    lab.directory("data")
    (lab.directory("fixed") / "a.md").write_text("# A\n")
    lab.allow(ALL.format(root=lab.root, origin=origin.url))
    lab.world.vault(acme_token="tok-123456789", pin="pin-987654321")
    return lab.load()


@pytest.fixture
def bare(lab: Author) -> Plugin:
    """The lab with nothing granted but a clock."""
    lab.allow("[clock]\n")
    return lab.load()
