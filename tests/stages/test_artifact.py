"""Stage 1: bytes are had once, whole and capped, or not at all."""

from __future__ import annotations

import copy
import os
import pickle
from dataclasses import FrozenInstanceError, replace
from hashlib import sha256
from pathlib import Path

import pytest

from capwasm.capsule.artifact import Artifact, read_artifact
from capwasm.errors import ArtifactError


def code_of(source: object, limit: int = 100) -> str:
    with pytest.raises(ArtifactError) as caught:
        read_artifact(source, limit)
    return caught.value.code


def test_allows_a_file_and_its_bytes_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.capsule"
    path.write_bytes(b"opaque")

    assert read_artifact(path).data == read_artifact(b"opaque").data == b"opaque"
    assert read_artifact(str(path)).sha256 == sha256(b"opaque").hexdigest()
    assert read_artifact(path).name == str(path)


def test_allows_a_file_of_exactly_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)

    assert len(read_artifact(path, 100).data) == 100


@pytest.mark.case("SIG-19")
def test_refuses_one_byte_over_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 101)

    assert code_of(path) == "artifact.too-large"
    assert code_of(b"x" * 101) == "artifact.too-large"
    assert code_of(memoryview(bytearray(104)).cast("Q")) == "artifact.too-large"


@pytest.mark.case("SIG-05")
def test_allows_no_change_through_a_buffer_that_the_caller_kept() -> None:
    buffer = bytearray(b"signed")
    artifact = read_artifact(buffer)

    buffer[:] = b"forged"

    assert artifact.data == b"signed"


@pytest.mark.timeout(10)
def test_refuses_a_fifo_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    assert code_of(tmp_path / "fifo") == "artifact.unreadable"


@pytest.mark.parametrize("path", ["missing", ".", "/dev/zero", "a\0b", "/proc/self/status"])
def test_refuses_what_is_no_plain_file(path: str, tmp_path: Path) -> None:
    assert code_of(tmp_path / path if not path.startswith("/") else path) == "artifact.unreadable"


@pytest.mark.case("LOG-07")
def test_refuses_to_let_a_path_write_to_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        read_artifact(tmp_path / "\x1b[2J\u202emoc")

    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)


def test_refuses_to_be_made_changed_copied_or_unpickled() -> None:
    artifact = read_artifact(b"x")

    with pytest.raises(TypeError):
        Artifact(b"x", "")
    with pytest.raises(TypeError):
        replace(artifact, data=b"y")
    with pytest.raises(FrozenInstanceError):
        artifact.data = b"y"  # type: ignore[misc]
    with pytest.raises(TypeError):
        pickle.dumps(artifact)
    with pytest.raises(TypeError):
        copy.copy(artifact)
