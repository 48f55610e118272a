"""Bind mounts: they share their source's device number, so only the mount's own id tells."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def found(tmp_path: Path) -> Any:
    unshare = shutil.which("unshare")
    enter = [unshare or "unshare", "--user", "--map-root-user", "--mount"]
    if unshare is None or subprocess.run([*enter, "true"], check=False).returncode != 0:
        pytest.skip("this machine gives no user and mount namespaces")
    done = subprocess.run(
        [*enter, sys.executable, "-m", "tests.escape.bind_mounts", str(tmp_path)],
        check=False,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.case("FS-10", "FS-18", "FS-21")
def test_refuses_what_is_mounted_beneath_and_a_protected_directory_by_another_name(
    found: Any,
) -> None:
    for way in ("openat2", "walk"):
        results = found[way]
        assert results.pop("counted") == [6, 2]  # its own two names, and nothing of the directory
        assert set(results.values()) <= {"EXDEV", "EBUSY"}, results
    for name in ("alias", "part", "whole"):
        assert "which is the runtime's own" in found[name]
    assert found["apart"] == "granted"
    assert found["canary"] == "secret"
