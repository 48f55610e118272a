"""Any order of words, keys that come and go, and time: what loads is what a plain model lets load.

`CAPWASM_SCHEDULES=400` makes it run for minutes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from capwasm.review.finding import Finding, Severity
from tests.registry.shop import SHM
from tests.review.hall import (
    ID,
    KEYS,
    NOW,
    PAINTS,
    REVIEWED,
    Hall,
    capsule,
    code_of,
    finding,
    trust_of,
)

BAD = finding()
ODD = finding("imports.odd", Severity.MEDIUM)
VERSIONS = {v: capsule(v, PAINTS) for v in ("1.0.0", "1.1.0")}
REVIEWERS = {"ann": "ann", "ann/laptop": "ann", "bob": "bob"}
WAIVERS = {"sue": "security", "eve": "engineering", "max/one": "security", "max/two": "engineering"}
KNOWN = {
    "", "registry.unknown", "registry.state", "review.key", "review.twice", "review.rejected",
    "review.finding", "review.expiry", "review.missing", "review.blocked", "review.lapsed",
    "review.unscanned", "verify.rollback",
}  # fmt: skip
VERSION = st.sampled_from(sorted(VERSIONS))
REVIEWER = st.sampled_from([*sorted(REVIEWERS), "acme/desk", "stranger", "sue"])
WHAT = st.sampled_from([BAD.rule, BAD.fingerprint, ODD.rule, "unreviewed"])


@dataclass
class Said:
    """What was said of one version."""

    scan: tuple[Finding, ...] | None = None
    approved: list[tuple[str, set[str]]] = field(default_factory=list)
    excepted: dict[tuple[str, str], datetime] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)

    def waived(self, what: str, revoked: set[str], now: datetime) -> bool:
        signed = [
            n for (w, n), ends in self.excepted.items()
            if w == what and n not in revoked and ends > now
        ]  # fmt: skip
        return any(
            WAIVERS[a] != WAIVERS[b] and a.split("/")[0] != b.split("/")[0]
            for a in signed
            for b in signed
        )

    def may_serve(self, revoked: set[str], now: datetime) -> bool:
        if self.rejected - revoked:
            return False
        open_ = [
            f for f in self.scan or ()
            if not self.waived(f.rule, revoked, now)
            and not self.waived(f.fingerprint, revoked, now)
        ]  # fmt: skip
        if BAD in open_:
            return False
        if self.waived("unreviewed", revoked, now):
            return True
        prints = {f.fingerprint for f in open_}
        persons = {REVIEWERS[n] for n, seen in self.approved if n not in revoked and prints <= seen}
        return self.scan is not None and len(persons) >= 2


class Office(RuleBasedStateMachine):
    """One home; each rule does a thing and notes it, if it was not refused."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=SHM))
        self.hall = Hall(self.folder / "home", policy=REVIEWED + "approvals = 2\n")
        self.said = {version: Said() for version in VERSIONS}
        self.revoked: set[str] = set()
        self.submit("1.0.0")
        self.scan("1.0.0", ())
        for name in ("ann", "bob"):
            self.approve("1.0.0", name)
        self.activate("1.0.0")
        assert self.hall.loads() == ""

    def teardown(self) -> None:
        if hasattr(self, "hall"):
            self.hall.close()
            shutil.rmtree(self.folder)

    def did(self, work: object, *args: object, **words: object) -> bool:
        code = code_of(work, *args, **words)
        assert code in KNOWN, code
        return not code

    @rule(version=VERSION)
    def submit(self, version: str) -> None:
        self.did(self.hall.desk.submit, VERSIONS[version], who="tester")

    @rule(version=VERSION)
    def install(self, version: str) -> None:
        self.did(self.hall.registry.install, VERSIONS[version], who="tester")

    @rule(version=VERSION, findings=st.sampled_from([(), (ODD,), (BAD,), (BAD, ODD)]))
    def scan(self, version: str, findings: tuple[Finding, ...]) -> None:
        if self.did(lambda: self.hall.scan(*findings, version=version)):
            self.said[version].scan = findings

    @rule(version=VERSION, name=REVIEWER)
    def approve(self, version: str, name: str) -> None:
        said = self.said[version]
        if self.did(lambda: self.hall.approve(name, version=version)):
            assert name in REVIEWERS
            said.approved.append((name, {f.fingerprint for f in said.scan or ()}))

    @rule(
        version=VERSION, name=st.sampled_from([*WAIVERS, "ann"]), what=WHAT, days=st.integers(1, 30)
    )
    def except_(self, version: str, name: str, what: str, days: int) -> None:
        ends = self.hall.now + timedelta(days=days)
        work = lambda: self.hall.except_(name, what=what, expires=ends, version=version)
        if self.did(work):
            kept = self.said[version].excepted
            kept[what, name] = max(ends, kept.get((what, name), ends))

    @rule(version=VERSION, name=st.sampled_from(["bob", "sue", "acme"]), sure=st.integers(0, 3))
    def reject(self, version: str, name: str, sure: int) -> None:
        desk = self.hall.desk
        if not sure and self.did(desk.reject, ID, version, key=KEYS[name], why="no"):
            self.said[version].rejected.add(name)

    @rule(names=st.sets(st.sampled_from(["ann", "bob", "sue", "eve", "max/one"]), max_size=1))
    def entrust(self, names: set[str]) -> None:
        self.revoked = names
        self.hall.trust = trust_of(**{name: {"revoked": True} for name in names})

    @rule(days=st.integers(1, 20))
    def wait(self, days: int) -> None:
        self.hall.now += timedelta(days=days)

    @rule(version=VERSION)
    def activate(self, version: str) -> None:
        self.did(self.hall.registry.activate, ID, version, who="tester")

    @rule()
    def rollback(self) -> None:
        self.did(self.hall.registry.rollback, ID, who="tester")

    @invariant()
    def what_loads_is_what_may(self) -> None:
        if not hasattr(self, "hall"):
            return
        plugin = self.hall.registry.find(ID)
        for version, data in VERSIONS.items():
            code = self.hall.loads(data)
            may = self.said[version].may_serve(self.revoked, self.hall.now)
            assert code in KNOWN
            assert may or code != "", f"{version} loads"
            if plugin is not None and plugin.serving == version and plugin.active is not None:
                assert may == (code == ""), f"{version}: {code}"
                assert (self.hall.loads() == "") == may


TestReviews = Office.TestCase
TestReviews.settings = settings(
    max_examples=int(os.environ.get("CAPWASM_SCHEDULES", "10")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_the_model_lets_something_by() -> None:
    said = Said((ODD,), [("ann", {ODD.fingerprint}), ("bob", {ODD.fingerprint, "x"})])
    assert said.may_serve(set(), NOW)
    assert not said.may_serve({"bob"}, NOW)
