"""The registry against a model of it: whatever is done in whatever order, the laws hold."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from capwasm.errors import CapwasmError
from capwasm.registry.model import PermitKind, PluginRecord, State, is_older
from capwasm.registry.registry import Registry
from tests.registry.shop import ACME, GLOBEX, SHM, Shop, capsule

WHO: dict[str, Any] = {"who": "ann"}
NAMES = ("acme.weather", "acme.other")
VERSIONS = ("1.0.0", "1.1.0-rc.1", "1.1.0", "2.0.0")
CAPSULES = {
    (name, version, key.public.key_id): capsule(version, id=name, keys=(key,))
    for name in NAMES
    for version in VERSIONS
    for key in (ACME, GLOBEX)
}
NAMED = st.sampled_from(NAMES)
# What an operator may be told; nothing else, and nothing foreign.
REFUSALS = {
    "verify.rollback", "verify.revoked", "registry.name-taken", "registry.version-taken",
    "registry.state", "registry.unknown", "registry.pending", "registry.pinned",
}  # fmt: skip


class Machine(RuleBasedStateMachine):
    """Verbs at random; before and after each one the record is held to the laws."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=SHM)
        self.shop = Shop(Path(self.folder.name) / "home")
        self.registry = self.shop.registry()
        self.highest: dict[str, str] = {}
        self.revoked: set[tuple[str, str]] = set()
        self.steps: dict[str, int] = {}

    def teardown(self) -> None:
        self.registry.close()
        self.folder.cleanup()

    def do(self, name: str, verb: str, *args: Any) -> PluginRecord | None:
        before = self.registry.find(name)
        try:
            getattr(self.registry, verb)(*args, **WHO)
        except CapwasmError as exc:
            assert exc.code in REFUSALS, exc  # noqa: PT017
            assert self.registry.find(name) == before
            return None
        return self.registry.find(name)

    @rule(which=st.sampled_from(sorted(CAPSULES)))
    def install(self, which: tuple[str, str, str]) -> None:
        name, version, key = which
        before = self.registry.find(name)
        after = self.do(name, "install", CAPSULES[which])
        if after is None or (before is not None and after == before):
            return
        if after.serving == version:
            # Nobody but its owner, or whom a person named, has taken it.
            assert (
                before is None
                or not before.owners
                or key in before.owners
                or before.permits_for(PermitKind.SIGNER, key)
            )

    @rule(name=NAMED, version=st.sampled_from([None, *VERSIONS]))
    def activate(self, name: str, version: str | None) -> None:
        self.do(name, "activate", name, version)

    @rule(name=NAMED, version=st.sampled_from([None, *VERSIONS]))
    def rollback(self, name: str, version: str | None) -> None:
        before = self.registry.find(name)
        after = self.do(name, "rollback", name, version)
        if after is not None and before is not None:
            assert after.serving != before.serving

    @rule(name=NAMED, verb=st.sampled_from(["suspend", "reject", "remove"]))
    def plain(self, name: str, verb: str) -> None:
        self.do(name, verb, name)

    @rule(name=NAMED, version=st.sampled_from(VERSIONS))
    def revoke(self, name: str, version: str) -> None:
        if self.do(name, "revoke", name, version) is not None:
            self.revoked.add((name, version))

    @rule(name=NAMED, version=st.sampled_from([None, *VERSIONS]))
    def pin(self, name: str, version: str | None) -> None:
        self.do(name, "pin", name, version)

    @rule(name=NAMED, version=st.sampled_from(VERSIONS))
    def permit_downgrade(self, name: str, version: str) -> None:
        self.do(name, "permit", name, PermitKind.DOWNGRADE, version)

    @rule(name=NAMED, key=st.sampled_from([ACME, GLOBEX]))
    def permit_signer(self, name: str, key: Any) -> None:
        self.do(name, "permit", name, PermitKind.SIGNER, key.public.key_id)

    @rule()
    def collect(self) -> None:
        self.registry.collect()

    @rule()
    def begin_anew(self) -> None:
        self.registry.close()
        self.registry = self.shop.registry()

    @invariant()
    def the_laws_hold(self) -> None:
        for name in NAMES:
            plugin = self.registry.find(name)
            if plugin is not None:
                self.check(self.registry, plugin)

    @invariant()
    def all_is_sound(self) -> None:
        assert self.registry.verify().problems == ()

    def check(self, registry: Registry, plugin: PluginRecord) -> None:
        active = [v for v in plugin.versions if v.state is State.ACTIVE]
        assert [v.version for v in active] in ([], [plugin.serving])
        assert plugin.state == (v.state if (v := plugin.version(plugin.serving or "")) else None)
        assert {v.version for v in plugin.versions if v.state is State.SCANNED} == (
            {plugin.waiting} if plugin.waiting else set()
        )
        # What was accepted is remembered, and only goes up.
        before = self.highest.get(plugin.id)
        assert before is None or (plugin.highest and not is_older(plugin.highest, before))
        if plugin.highest:
            self.highest[plugin.id] = plugin.highest
        # What was revoked stays so.
        for name, version in self.revoked:
            if name == plugin.id:
                record = plugin.version(version)
                assert record is not None
                assert record.state is State.REVOKED
        # The history only grows, without a gap.
        steps = registry.history(plugin.id)
        assert [s.number for s in steps] == list(range(1, len(steps) + 1))
        assert len(steps) >= self.steps.get(plugin.id, 0)
        self.steps[plugin.id] = len(steps)
        # What serves can be proven, by its owner, and not below the floor without a person's word.
        try:
            artifact, record = registry.serving(plugin.id)
        except CapwasmError as exc:
            assert exc.code in REFUSALS, exc  # noqa: PT017
            assert not active
            return
        assert (artifact.version, record.state) == (plugin.serving, State.ACTIVE)
        assert plugin.is_by_owner(artifact.signers)
        assert plugin.highest is not None
        assert not is_older(artifact.version, plugin.highest) or plugin.permits_for(
            PermitKind.DOWNGRADE, artifact.version
        )


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
