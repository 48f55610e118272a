"""The same attempts where the core is an ordinary user's: other walls, the same refusals."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USER = 54321  # nobody's
SUITE = ("tests/escape/test_native.py", "-k", "test_refuses", "-q", "-p", "no:cacheprovider")
IMPORTS = "import capwasm, capwasm_shim, msgpack, pyseccomp, pytest, wasmtime"


def _run(python: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-B", *arguments],
        user=USER,
        group=USER,
        extra_groups=[],
        cwd=ROOT,
        env={
            "HOME": str(home),
            "TMPDIR": str(home),
            "PATH": os.defpath,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        },
        text=True,
        capture_output=True,
        timeout=250,
        check=False,
    )


def _python(home: Path) -> str | None:
    """An interpreter that others can execute, with all the packages; a test's own may be private."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        try:
            if _run(python, home, "-c", IMPORTS).returncode == 0:
                return python
        except OSError:
            continue
    return None


@pytest.mark.case("NAT-02", "NAT-08", "NAT-12", "NAT-14", "NAT-24")
def test_refuses_the_same_as_an_ordinary_user() -> None:
    if os.geteuid():
        pytest.skip("this is an ordinary user's already")
    home = Path("/tmp") / f"capwasm-user-{os.getpid()}"
    home.mkdir(mode=0o700)
    try:
        os.chown(home, USER, USER)
        python = _python(home)
        if python is None:
            pytest.skip("no Python with the packages that another user may execute")
        done = _run(python, home, "-m", "pytest", *SUITE)
        if "shim.layer" in done.stdout:
            pytest.skip("no user namespaces here, so nothing is loaded at all")
        assert done.returncode == 0, done.stdout[-4000:]
        passed = re.search(r"(\d+) passed", done.stdout)
        assert passed
        assert int(passed[1]) > 150
    finally:
        subprocess.run(["rm", "-rf", str(home)], check=True)
