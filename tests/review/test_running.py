"""Reviews and cores that run: no load round them, and what lapses is stopped where it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from capwasm.caps import standard_capabilities
from capwasm.capsule.keys import PrivateKey
from capwasm.errors import CallInterrupted, InstanceClosedError, PolicyError, RegistryError
from capwasm.events import NullRecorder
from capwasm.home import Home
from capwasm.lifecycle import Lifecycle, LifecycleKind
from capwasm.registry.desk import Desk
from capwasm.registry.registry import Registry
from capwasm.revocation import watch
from capwasm.runtime import Runtime
from tests.kit import World, guest
from tests.review.hall import code_of, finding, report_of
from tests.revocation.desk import ANN as REVOKER
from tests.revocation.desk import fresh, wait_for
from tests.revocation.test_running import spinning
from tests.stages.test_stopping import ENDLESS

ID = "test.guest"
NET = '[[net]]\nallow = "https://a.example/"\n'
POLICY = '[[plugins."*".net]]\nallow = "https://a.example/"\n[review]\nrequired = true\n'
PEOPLE = {"ann": "reviewer", "bob": "reviewer", "sue": "security", "eve": "engineering"}


class Office(World):
    """A world in which plugins are reviewed."""

    def trust(self) -> None:
        self.keys = {name: PrivateKey.generate() for name in PEOPLE}
        self.entrust()

    def entrust(self, **more: str) -> None:
        """Write the trust store; `more` is what is added to a person's entry."""
        super().trust()
        text = (self.home / "trust.toml").read_text()
        for name, role in PEOPLE.items():
            text += (
                f'[[key]]\nname = "{name}"\npublic = "{self.keys[name].public.base64()}"\n'
                f'roles = ["{role}"]\nids = ["*"]\n{more.get(name, "")}'
            )
        text += (
            f'[[key]]\nname = "revoker"\npublic = "{REVOKER.public.base64()}"\n'
            'roles = ["revoker"]\nids = ["*"]\n'
        )
        new = self.home / "trust.new"
        new.write_text(text)
        new.replace(self.home / "trust.toml")

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        """A desk such as another process would have."""
        home, known = Home(self.home), standard_capabilities()
        with home.registry(
            NullRecorder(), trust=home.trust(), policy=home.policy(known), capabilities=known
        ) as registry:
            yield Desk(registry)

    def reviewed(self, manifest: str = NET, *findings: Any, activate: bool = True) -> bytes:
        """A version that was approved, and serves."""
        data = self.capsule(guest("hostile"), ENDLESS + manifest)
        self.consent(data)
        with self.desk() as desk:
            desk.submit(data, who="tester")
            registry = desk._registry
            desk.scanned(ID, "1.0.0", report_of(registry, findings=findings, name=ID))
            desk.approve(ID, None, key=self.keys["ann"], why="fine")
            if activate:
                registry.activate(ID, who="tester")
        return data


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    office.policy(POLICY)
    yield office
    office.close()


# -- loads ----------------------------------------------------------------------------------------------


def test_every_way_to_load_asks_for_the_review(office: Office, tmp_path: Path) -> None:
    data = office.capsule(guest("hostile"), ENDLESS + NET)
    path = tmp_path / "guest.capsule"
    path.write_bytes(data)
    office.consent(data)
    runtime = office.runtime
    assert code_of(runtime.load, data) == code_of(runtime.load, path) == "review.missing"
    assert isinstance(runtime.registry, Registry)
    runtime.registry.install(data, who="tester")
    assert code_of(runtime.load_installed, ID) == "registry.pending"
    assert code_of(runtime.load, data) == code_of(runtime.load, path) == "review.missing"
    office.reviewed()
    runtime.load(data).close()
    runtime.load(path).close()
    runtime.load_installed(ID).close()
    refused = [e for e in office.events("load") if e["verdict"] == "denied"]
    assert {e["reason"] for e in refused} == {"review.missing", "registry.pending"}


def test_a_runtime_without_a_registry_loads_nothing_that_needs_a_review(office: Office) -> None:
    data = office.reviewed()
    home, known = Home(office.home), standard_capabilities()
    words: dict[str, Any] = {
        "trust": home.trust(), "recorder": NullRecorder(), "home": office.home,
        "core_version": "1.0.0", "capabilities": known, "consents": office.runtime.consents,
    }  # fmt: skip
    office.close()
    with Runtime(policy=home.policy(known), **words) as runtime:
        assert code_of(runtime.load, data) == "review.missing"
    (office.home / "policy.toml").write_text(
        (office.home / "policy.toml").read_text().replace("required = true", "required = false")
    )
    with Runtime(policy=home.policy(known), **words) as runtime:
        runtime.load(data).close()


def test_the_error_names_the_command_that_helps(office: Office) -> None:
    data = office.capsule(guest("hostile"), NET)
    office.consent(data)
    with pytest.raises(RegistryError, match="does not let it serve") as caught:
        office.runtime.load(data)
    fixes = [f.fix for f in caught.value.faults]
    assert fixes == [
        f"capwasm scan {ID}@1.0.0",
        f"capwasm approve {ID}@1.0.0 --key KEY --reason TEXT",
    ]


# -- what runs ------------------------------------------------------------------------------------------


def told(office: Office) -> list[Lifecycle]:
    found: list[Lifecycle] = []
    office.runtime.subscribe(found.append)
    return found


def stopped(office: Office, found: list[Lifecycle], refused: str = "review.lapsed") -> None:
    """That it was stopped, said so, and is refused from now on."""
    wait_for(lambda: [e for e in found if e.code])
    (event,) = [e for e in found if e.code]
    assert (event.kind, event.plugin, event.running) == (LifecycleKind.SUSPENDED, ID, True)
    assert event.code == "review.lapsed"
    assert event.reason.startswith("review.lapsed: ")
    assert office.runtime.plugins == ()
    assert code_of(office.runtime.load_installed, ID) == refused
    evicted = [e for e in office.events("kill") if e["action"] == "evict"]
    assert [e["reason"] for e in evicted] == [event.reason]


def test_a_key_that_is_revoked_ends_a_call_under_way(office: Office) -> None:
    office.reviewed()
    found = told(office)
    plugin = office.runtime.load_installed(ID)
    thread, caught = spinning(plugin)
    office.entrust(bob="revoked = true\n")
    office.entrust(ann="revoked = true\n")
    thread.join(20)
    assert not thread.is_alive()
    assert isinstance(caught[0], CallInterrupted)
    stopped(office, found)
    with pytest.raises(InstanceClosedError):
        plugin.call("divide", 4, 2)


def test_a_key_that_others_lost_ends_nothing(office: Office) -> None:
    office.reviewed()
    plugin = office.runtime.load_installed(ID)
    office.entrust(bob="revoked = true\n")
    with office.desk() as desk:
        desk.scanned(ID, "1.0.0", report_of(desk._registry, name=ID))
    wait_for(lambda: office.runtime._overseer.lapses._seen is not None)
    for _ in range(3):
        office.runtime._overseer._look()
    assert plugin.call("divide", 4, 2) == 2


@pytest.mark.case("SIG-18")
def test_a_feed_that_denies_a_reviewers_key_ends_what_rested_on_it(office: Office) -> None:
    office.reviewed()
    found = told(office)
    office.runtime.load_installed(ID)
    key = office.keys["ann"].public.key_id
    inbox = office.home / "revocations"
    inbox.mkdir(exist_ok=True)
    (inbox / ".new").write_bytes(fresh(1, deny={"signers": {key: "stolen"}}))
    (inbox / ".new").rename(inbox / "feed.json")
    stopped(office, found)


def test_a_rejection_and_a_graver_scan_end_what_runs(office: Office) -> None:
    office.reviewed()
    found = told(office)
    office.runtime.load_installed(ID)
    with office.desk() as desk:
        desk.scanned(ID, "1.0.0", report_of(desk._registry, findings=[finding()], name=ID))
    stopped(office, found, "review.blocked")
    with office.desk() as desk:
        desk.scanned(ID, "1.0.0", report_of(desk._registry, name=ID))
    found.clear()
    office.runtime.load_installed(ID)
    with office.desk() as desk:
        desk.reject(ID, "1.0.0", key=office.keys["bob"], why="it spins")
    wait_for(lambda: [e for e in found if e.code])
    assert code_of(office.runtime.load_installed, ID) == "review.rejected"


def test_an_exception_that_lapses_ends_what_runs(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.reviewed(activate=False)
    ends = datetime.now(UTC) + timedelta(days=2)
    bad = finding()
    with office.desk() as desk:
        desk.scanned(ID, "1.0.0", report_of(desk._registry, findings=[bad], name=ID))
        for name in ("sue", "eve"):
            desk.except_(
                ID, None, key=office.keys[name], what=bad.rule, expires=ends, why="a test key"
            )
        desk._registry.activate(ID, who="tester")
    found = told(office)
    plugin = office.runtime.load_installed(ID)
    office.runtime._overseer._look()
    assert plugin.call("divide", 4, 2) == 2
    # The clock goes on; nothing else changes.
    lapses = office.runtime._overseer.lapses
    monkeypatch.setattr(lapses, "_reviews", dataclasses.replace(lapses._reviews, now=lambda: ends))
    stopped(office, found)


def test_a_trust_store_that_can_not_be_read_refuses_loads_and_stops_nothing(
    office: Office,
) -> None:
    office.reviewed()
    plugin = office.runtime.load_installed(ID)
    whole = (office.home / "trust.toml").read_text()
    (office.home / "trust.toml").write_text(whole + "[[key]]\n")
    with pytest.raises(PolicyError):
        office.runtime.load_installed(ID)
    assert plugin.call("divide", 4, 2) == 2
    office.entrust()
    office.runtime.load_installed(ID).close()


def test_who_loads_while_a_key_is_revoked_is_seen(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Revoked between the first look at the review and the first instruction.
    office.reviewed()
    runtime = office.runtime
    real = type(runtime._overseer).enter

    def enter(self: Any, *args: Any) -> None:
        office.entrust(ann="revoked = true\n")
        real(self, *args)

    monkeypatch.setattr(watch, "LOOK_SECONDS", 60)
    monkeypatch.setattr(type(runtime._overseer), "enter", enter)
    assert code_of(runtime.load_installed, ID) == "review.lapsed"
    assert runtime.plugins == ()
