"""An issuer of revocation feeds, and what tests of them stand on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.trust import TrustedKey, TrustStore
from capwasm.events import NullRecorder, Recorder
from capwasm.grants.tables import RevocationRule
from capwasm.registry.model import utc_text
from capwasm.revocation.feed import add_signature, make
from capwasm.revocation.guard import Guard
from capwasm.revocation.index import Subject
from capwasm.revocation.keep import Keeper

NOW = datetime(2027, 1, 31, 12, tzinfo=UTC)
ANN, BEN, EVE = PrivateKey.generate(), PrivateKey.generate(), PrivateKey.generate()
PUBLISHER = PrivateKey.generate()


def trust(threshold: int = 1, **changes: Any) -> TrustStore:
    """Ann and Ben revoke; the publisher does not, and nobody knows Eve."""
    keys = [TrustedKey(n, k.public, frozenset({"revoker"}), ("*",), **changes)
            for n, k in (("ann", ANN), ("ben", BEN))]  # fmt: skip
    keys.append(TrustedKey("acme", PUBLISHER.public, frozenset({"publisher"}), ("*",)))
    return TrustStore(tuple(keys), {"revoker": threshold})


def feed(
    sequence: int = 1,
    *,
    keys: Sequence[PrivateKey] = (ANN,),
    issued: datetime = NOW,
    good: timedelta = timedelta(days=7),
    **lists: Any,
) -> bytes:
    """A signed feed."""
    times = {"issued": utc_text(issued), "expires": utc_text(issued + good)}
    data = make({"schema": 1, "sequence": sequence, **times, **lists})
    for key in keys:
        data = add_signature(data, key)
    return data


def fresh(sequence: int = 1, **words: Any) -> bytes:
    """A feed of this very moment, for a runtime whose clock is the machine's."""
    return feed(sequence, issued=datetime.now(UTC).replace(microsecond=0), **words)


def guard(
    directory: Path,
    recorder: Recorder | None = None,
    *,
    now: Callable[[], datetime] = lambda: NOW,
    by: TrustStore | None = None,
    capabilities: Sequence[Any] = (),
    **rule: Any,
) -> Guard:
    """A guard of its own, as another process would have."""
    return Guard(
        Keeper(directory),
        trust=by or trust(),
        rule=RevocationRule.model_validate({k.replace("_", "-"): v for k, v in rule.items()}),
        capabilities=capabilities,
        recorder=recorder or NullRecorder(),
        now=now,
    )


def subject(
    plugin_id: str = "acme.weather",
    version: str = "1.2.0",
    *,
    digests: Sequence[str] = ("a" * 64,),
    signers: Sequence[str] = ("b" * 64,),
) -> Subject:
    return Subject(plugin_id, version, frozenset(digests), frozenset(signers))


def wait_for(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until something is so; the test fails if it never is."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)
    return found
