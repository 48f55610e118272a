"""Files of the operator: whole or not at all, and never a foreign exception."""

from __future__ import annotations

from pathlib import Path

import pytest

from capwasm._files import read_file, write_file
from capwasm.errors import CapabilityError

CODE = "capability.vault"


@pytest.mark.parametrize("path", ["", "/", ".", "..", "a\0b", "missing/x", "\udcff/x", "x" * 5000])
@pytest.mark.parametrize("overwrite", [True, False])
def test_refuses_a_path_that_names_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, overwrite: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CapabilityError) as caught:
        write_file(path, b"x", CapabilityError, code=CODE, overwrite=overwrite)
    assert caught.value.code == CODE
    with pytest.raises(CapabilityError):
        read_file(path, 10, CapabilityError, code=CODE)
    assert not list(tmp_path.iterdir())


def test_allows_a_file_to_be_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_file(path, b"one", CapabilityError, code=CODE, overwrite=False)
    with pytest.raises(CapabilityError, match="exists already"):
        write_file(path, b"two", CapabilityError, code=CODE, overwrite=False)
    assert read_file(path, 3, CapabilityError, code=CODE) == b"one"
    write_file(path, b"two", CapabilityError, code=CODE)
    assert read_file(path, 3, CapabilityError, code=CODE) == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
