"""Reviews under attack by those who know them: who reviews his own work, and which scan counts."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.pack import sign_capsule
from capwasm.capsule.trust import TrustedKey, TrustStore
from capwasm.errors import CapwasmError
from capwasm.review.finding import Finding, ScannerRun
from tests.review.hall import ID, PAINTS, Hall, capsule, code_of, finding, report_of, trust_of
from tests.review.test_running import ID as OFFICE_ID
from tests.review.test_running import Office, office
from tests.revocation.desk import wait_for

__all__ = ["office"]  # a fixture

PAST = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "words",
    [{"not_after": PAST}, {"revoked": True}, {"ids": ("other.*",)}],
    ids=["expired", "revoked", "out of scope"],
)
def test_refuses_the_review_of_who_signed_it_with_a_key_that_counts_no_more(
    hall: Hall, words: dict[str, Any]
) -> None:
    anns = PrivateKey.generate()
    told: dict[str, Any] = {"ids": ("acme.*",), **words}
    hall.trust = TrustStore(
        (*trust_of().keys, TrustedKey("ann/work", anns.public, frozenset({"publisher"}), **told))
    )
    hall.registry = hall.open(hall.trust)
    hall.desk.submit(sign_capsule(read_artifact(capsule(asks=PAINTS)), anns), who="tester")
    hall.scan()

    assert code_of(hall.approve, "ann") == "review.key"
    assert hall.desk.case(ID).standing.code == "review.missing"
    hall.approve("bob")
    hall.activate()
    assert hall.loads() == ""


def test_refuses_a_scan_that_looks_at_less_than_the_one_before(hall: Hall) -> None:
    """Else whoever scans once more, without the dry run, forgets what that found."""
    hall.submit()

    def scanned(skipped: str, *found: Finding) -> str:
        looked = ScannerRun("dry-run", skipped), ScannerRun("elf", "it looks at native plugins")
        report = dataclasses.replace(report_of(hall.registry, findings=found), scanners=looked)
        return code_of(hall.desk.scanned, ID, "1.0.0", report)

    assert scanned("nobody wants a dry run") == ""
    assert scanned("", finding()) == ""
    assert scanned("nobody wants a dry run") == "review.weaker"
    assert code_of(hall.activate) == "review.blocked"
    assert scanned("") == ""
    hall.activate()


def broken_store(office: Office) -> None:
    (office.home / "trust.toml").write_text("[[key]]\n")


def broken_registry(office: Office) -> None:
    with contextlib.closing(sqlite3.connect(office.home / "registry.db")) as db:
        db.execute("UPDATE reviews SET why = 'another'")
        db.commit()


@pytest.mark.parametrize("breaks", [broken_store, broken_registry])
def test_an_exception_ends_in_time_also_where_nothing_can_be_read_any_more(
    office: Office, monkeypatch: pytest.MonkeyPatch, breaks: Callable[[Office], None]
) -> None:
    office.reviewed(activate=False)
    ends, bad = datetime.now(UTC) + timedelta(days=2), finding()
    with office.desk() as desk:
        desk.scanned(OFFICE_ID, "1.0.0", report_of(desk._registry, findings=[bad], name=OFFICE_ID))
        for name in ("sue", "eve"):
            key = office.keys[name]
            desk.except_(OFFICE_ID, None, key=key, what=bad.rule, expires=ends, why="a test key")
        desk._registry.activate(OFFICE_ID, who="tester")
    plugin = office.runtime.load_installed(OFFICE_ID)
    lapses = office.runtime._overseer.lapses
    wait_for(lambda: lapses._until)
    breaks(office)
    with contextlib.suppress(CapwasmError):
        assert lapses.look() == []
    assert plugin.call("divide", 4, 2) == 2  # what can't be told stops nothing before that

    monkeypatch.setattr(lapses, "_reviews", dataclasses.replace(lapses._reviews, now=lambda: ends))
    wait_for(lambda: not plugin.alive)
