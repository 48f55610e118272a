"""One authority and one certificate for all tests of TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from .servers import make_tls


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return make_tls(tmp_path_factory.mktemp("tls"))
