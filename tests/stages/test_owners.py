"""What decides for this user must be this user's or root's: another's file is another's word."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from capwasm.caps import standard_capabilities
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.trust import TrustStore
from capwasm.errors import CapwasmError
from capwasm.grants.consent import ConsentRecord, Subject
from capwasm.grants.consent_store import ConsentStore
from capwasm.grants.policy import Policy
from capwasm.limits import DEFAULTS

STRANGER = 54_321
SUBJECT = Subject("acme.x", "1.0.0", "a" * 64, "b" * 64)

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "policy.toml": ("policy.permissions", lambda p: Policy.load(p, standard_capabilities())),
    "trust.toml": ("trust.permissions", TrustStore.load),
    "trust": ("trust.permissions", TrustStore.load),
    "trust/a.toml": ("trust.permissions", lambda p: TrustStore.load(p.parent)),
    "key.pem": ("trust.permissions", PrivateKey.load),
    "consents": ("consent.store", lambda p: ConsentStore(p).entries()),
    "consents/acme.x@000001.json": ("consent.store", lambda p: ConsentStore(p.parent).entries()),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "trust").mkdir(mode=0o755)
    for name in ("policy.toml", "trust.toml", "trust/a.toml"):
        (tmp_path / name).write_text("schema = 1\n")
    PrivateKey.generate().save(tmp_path / "key.pem")
    when = datetime(2027, 1, 31, tzinfo=UTC)
    record = ConsentRecord.of(SUBJECT, {}, DEFAULTS, who="ann", when=when)
    ConsentStore(tmp_path / "consents").give(record)
    return tmp_path


@pytest.mark.case("SIG-25")
@pytest.mark.parametrize("name", READERS)
def test_refuses_the_word_of_another_user(
    home: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, read = READERS[name]
    owner = os.geteuid()
    if owner == 0:
        os.chown(home / name, STRANGER, -1)
    else:  # only root may give files away, so somebody else reads them here
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    with pytest.raises(CapwasmError) as caught:
        read(home / name)
    assert caught.value.code == code
    assert "another user" in str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_allows_ones_own(home: Path, name: str) -> None:
    READERS[name][1](home / name)
