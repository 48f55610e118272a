"""Whose a cache is, and the key that vouches for what is in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capwasm.engine.cache import CodeCache
from tests.engine.test_cache import ROOM, found, kept


@pytest.mark.case("SIG-22", "SIG-25")
@pytest.mark.parametrize("kind", ["readable", "short", "fifo"])
def test_an_unsafe_key_is_replaced_and_the_cache_is_used_at_once(tmp_path: Path, kind: str) -> None:
    kept(CodeCache(tmp_path, ROOM), "a.cwasm", b"x")
    key = tmp_path / "key"
    before = key.read_bytes()
    if kind == "readable":
        key.chmod(0o644)
    else:
        key.unlink()
        if kind == "fifo":
            os.mkfifo(key)
        else:
            key.touch(0o600)

    cache = CodeCache(tmp_path, ROOM)

    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_bytes() != before
    assert found(cache, "a.cwasm") is None, "what the old one vouched for is worthless"
    kept(cache, "b.cwasm", b"y")
    assert found(CodeCache(tmp_path, ROOM), "b.cwasm") == b"y"


@pytest.mark.case("SIG-22")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_refuses_a_directory_of_another_user_also_as_root(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    os.chown(theirs, 12345, 12345)

    with pytest.raises(OSError, match="another user"):
        CodeCache(theirs, ROOM)
    assert not list(theirs.iterdir())
    assert theirs.stat().st_mode & 0o777 == 0o755
