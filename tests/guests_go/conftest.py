from __future__ import annotations

import pytest

from capwasm.authoring.builders.go import BUILDER


def pytest_runtest_setup(item: pytest.Item) -> None:
    lacking = [tool for tool in BUILDER.tools() if tool.found is None]
    if lacking and item.get_closest_marker("toolchain"):
        pytest.skip("; ".join(f"{tool.name}: {tool.install}" for tool in lacking))
