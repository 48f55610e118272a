"""The home directory of a runtime: what is where, and what its absence means.

::

    policy.toml    what the operator allows      absent: nothing is allowed
    trust.toml     whose signatures count        absent: nothing can be verified  (or trust/*.toml)
    consents/      who agreed to what            made at need
    vault          secrets, encrypted            absent: no secret can be granted
    vault.key      what opens it, 0600
    audit/         the audit log                 made at need
    audit.key      signs its anchors, 0600       made at need
    cache/         compiled code, authenticated  made at need
    data/          plugins' own stores           made at need
    registry.db    what is installed             absent: nothing is; with registry.key, which seals
                                                 it, and registry.head, which tells its age
    health.db      how new versions did          made at need
    strikes.db     how often plugins misbehaved  made at need; with strikes.key, which seals it
    store/         installed capsules            made at need
    repositories.toml  where plugins come from   absent: from files that are named
    registries.toml  how OCI registries are asked    absent: over https, without credentials
    roots/         the first root of each repository: all trust in it begins there
    tuf/           their metadata, as last verified  made at need
    revocations/   feeds of what was revoked: *.json, dropped by the operator
    revocations/kept/  the newest accepted feed, sealed; made at need
    audit-commands/  the audit of operators' commands, for `audit/` is its runtime's alone
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .capability import Capability
from .capsule.trust import TrustStore
from .errors import AuditError, CapabilityError, Fault, PolicyError
from .events import Event, Recorder
from .grants.audit import AuditRule
from .grants.policy import Policy
from .record.metrics import Metrics
from .record.recorders import Recorders
from .record.redact import Redactor

if TYPE_CHECKING:
    from .caps.secrets import Vault
    from .capsule.keys import PrivateKey, PublicKey
    from .oci.registries import Registries
    from .record.audit import AuditLog
    from .registry.registry import Registry
    from .repository.sources import Sources
    from .revocation.guard import Guard

__all__ = ["Home", "make_private"]

COMMAND_SECONDS: Final = 10.0
ALL_KEPT: Final = AuditRule()


def make_private(path: Path) -> None:
    """A directory that only its owner can enter: this user, or root.

    Raises:
        CapabilityError: it can't be made, or others own it or may write in it: what stands in it
            would be theirs to say.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
        if info.st_uid == os.geteuid():
            path.chmod(0o700)
            return
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise CapabilityError(
            f"the runtime's directory can't be used: {why}", context=ascii(str(path))[1:-1]
        ) from None
    if info.st_uid != 0 or stat.S_IMODE(info.st_mode) & 0o022:
        raise CapabilityError(
            f"the runtime's directory belongs to another user, uid {info.st_uid}",
            context=ascii(str(path))[1:-1],
        )


class Home:
    """Paths below one directory, and the objects that live there."""

    def __init__(self, root: Path) -> None:
        """Name the directory; nothing is read or made yet."""
        self.root = root.absolute()
        self.policy_file = self.root / "policy.toml"
        self.trust_file = self.root / "trust.toml"
        self.trust_dir = self.root / "trust"
        self.consents = self.root / "consents"
        self.vault_file = self.root / "vault"
        self.vault_key = self.root / "vault.key"
        self.audit = self.root / "audit"
        self.audit_key = self.root / "audit.key"
        self.cache = self.root / "cache"
        self.audit_commands = self.root / "audit-commands"
        self.revocations = self.root / "revocations"
        self.repositories_file = self.root / "repositories.toml"
        self.registries_file = self.root / "registries.toml"
        self.repository_roots = self.root / "roots"
        self.repository_cache = self.root / "tuf"

    def protected(self) -> list[Path]:
        """What no grant of files may overlap: the directory, and what links in it lead to (FS-21).

        Links are looked for in it and in the directories right below it.

        Raises:
            CapabilityError: it can't be read.
        """
        try:
            below = list(self.root.iterdir()) if self.root.is_dir() else []
            for folder in [p for p in below if p.is_dir() and not p.is_symlink()]:
                below += folder.iterdir()
        except OSError as exc:
            raise CapabilityError(
                f"the runtime's directory can't be read: {exc.strerror}", context=str(self.root)
            ) from None
        return [self.root, *(p for p in below if p.is_symlink())]

    def policy(self, capabilities: Sequence[Capability[Any, Any]]) -> Policy:
        """The operator's policy, or the one that allows nothing.

        Raises:
            PolicyError: it is malformed, with all faults.
        """
        if not self.policy_file.exists():
            return Policy.nothing()
        return Policy.load(self.policy_file, capabilities)

    def trust(self) -> TrustStore:
        """The trusted keys, or a store that trusts nobody.

        Raises:
            PolicyError: a file of it is malformed, with all faults; `trust.invalid` where there
                are both `trust.toml` and `trust/`: one of them would not count, nor would its
                revocations.
        """
        if self.trust_dir.is_dir() and self.trust_file.exists():
            raise PolicyError(
                "there are both trust.toml and trust/; only one may say who is trusted",
                code="trust.invalid",
                context=str(self.root),
                faults=[
                    Fault("", "two trust stores", fix=f"mv {self.trust_file} {self.trust_dir}/")
                ],
            )
        if self.trust_dir.is_dir():
            return TrustStore.load(self.trust_dir)
        return TrustStore.load(self.trust_file) if self.trust_file.exists() else TrustStore.empty()

    def vault(self) -> Vault | None:
        """The vault, opened with the key file beside it, or None if there is none.

        Raises:
            CapabilityError: it can't be opened.
        """
        if not self.vault_file.exists():
            return None
        from .caps.secrets import Vault, VaultKey

        return Vault.open(self.vault_file, VaultKey.load(self.vault_key))

    @contextlib.contextmanager
    def recorder(
        self,
        redactor: Redactor,
        metrics: Metrics | None = None,
        hook: Callable[[Event], None] | None = None,
        rule: AuditRule = ALL_KEPT,
    ) -> Iterator[Recorders]:
        """The audit log with what stands around it, as policy wants it; closed at the end.

        Raises:
            AuditError: the log can't be written, does not verify, or another process writes it.
        """
        with self.open_audit(self.audit, redactor, rule) as log:
            yield Recorders(log, redactor, metrics=metrics, hook=hook)

    def open_audit(
        self, directory: Path, redactor: Redactor | None = None, rule: AuditRule = ALL_KEPT
    ) -> AuditLog:
        """An audit log, to write it, with anchors that this home's key signs.

        Raises:
            AuditError: `audit.busy`; it can't be written, or does not verify.
        """
        from .record.audit import AuditLog

        options = rule.options()
        return AuditLog.open(directory, redactor or Redactor(), key=self._anchor_key(), **options)

    def registry(
        self,
        recorder: Recorder,
        *,
        trust: TrustStore,
        policy: Policy,
        capabilities: Sequence[Capability[Any, Any]],
        guard: Guard | None = None,
    ) -> Registry:
        """What is installed; nothing is read or made before it is used.

        Args:
            recorder: takes an event of each change.
            trust: whose signatures count.
            policy: the operator's.
            capabilities: those that a manifest may ask for.
            guard: knows what was revoked; one of its own if None.
        """
        from .grants.consent_store import ConsentStore
        from .registry.registry import Registry
        from .revocation.guard import subject_of

        asked = guard or self.guard(recorder, trust=trust, policy=policy, capabilities=capabilities)
        return Registry(
            self.root,
            trust=trust,
            policy=policy,
            capabilities=capabilities,
            recorder=recorder,
            check=lambda artifact: asked.admit(subject_of(artifact)),
            consents=ConsentStore(self.consents, recorder=recorder),
            own_key=self._anchor_key,
            own=self._own_public,
            today=_Today(self, asked),
        )

    def _own_public(self) -> PublicKey | None:
        return self._anchor_key().public if self.audit_key.exists() else None

    def guard(
        self,
        recorder: Recorder,
        *,
        trust: TrustStore,
        policy: Policy,
        capabilities: Sequence[Capability[Any, Any]],
    ) -> Guard:
        """What was revoked; nothing is read or made before it is used."""
        from .revocation.guard import Guard
        from .revocation.keep import Keeper

        return Guard(
            Keeper(self.revocations / "kept"),
            trust=trust,
            rule=policy.revocation,
            capabilities=capabilities,
            recorder=recorder,
        )

    def sources(self, recorder: Recorder, *, offline: bool = False) -> Sources:
        """The repositories of the operator, as one source of capsules; nothing is asked yet.

        Args:
            recorder: takes the events.
            offline: whether only what is cached is asked.

        Raises:
            RepositoryError: repositories.toml, or the root of one, is malformed.
        """
        from .repository.sources import Sources

        return Sources.load(
            self.repositories_file, self.repository_cache, recorder=recorder, offline=offline
        )

    def registries(self, recorder: Recorder, **how: Any) -> Registries:
        """The OCI registries, asked as the operator says; nothing is read or asked yet.

        Args:
            recorder: takes the events.
            how: as for `Registries`.
        """
        from .oci.registries import Registries

        return Registries(self.registries_file, recorder=recorder, **how)

    @contextlib.contextmanager
    def commands_recorder(
        self, wait: float = COMMAND_SECONDS, rule: AuditRule = ALL_KEPT
    ) -> Iterator[Recorder]:
        """The audit log of operators' commands; closed at the end.

        It is another than the runtime's, which may run for months and writes its own log alone.

        Args:
            wait: seconds to wait for another command.
            rule: how it is written and kept.

        Raises:
            AuditError: `audit.busy`; it can't be written, or does not verify.
        """
        make_private(self.root)
        until = time.monotonic() + wait
        while True:
            try:
                log = self.open_audit(self.audit_commands, rule=rule)
                break
            except AuditError as exc:
                if exc.code != "audit.busy" or time.monotonic() > until:
                    raise
                time.sleep(0.05)
        with log:
            yield log

    def _anchor_key(self) -> PrivateKey:
        from .capsule.keys import PrivateKey

        if not self.audit_key.exists():
            with contextlib.suppress(PolicyError):  # another process was first: its key is the key
                PrivateKey.generate().save(self.audit_key)
        return PrivateKey.load(self.audit_key)


class _Today:
    """The trust store as it is now, less the keys that a revocation feed denies.

    The same object as long as neither has changed, so whoever holds one sees by `is` that nothing
    did.  For any thread.
    """

    def __init__(self, home: Home, guard: Guard) -> None:
        self._home, self._guard = home, guard
        self._known: tuple[object, TrustStore] | None = None

    def __call__(self) -> TrustStore:
        """The store.

        Raises:
            PolicyError: it can't be read, or is malformed, with all faults.
        """
        self._guard.refresh()
        stamp = self._stamp(), self._guard.generation  # before it is read: never behind it
        known = self._known
        if known is not None and known[0] == stamp:
            return known[1]
        store, index = self._home.trust(), self._guard.index
        denied = frozenset() if index is None else index.signers
        keys = tuple(
            dataclasses.replace(key, revoked=key.revoked or key.key_id in denied)
            for key in store.keys
        )
        made = dataclasses.replace(store, keys=keys)
        self._known = stamp, made
        return made

    def _stamp(self) -> object:
        try:
            folder = self._home.trust_dir
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            return tuple(
                (path.name, info.st_ino, info.st_mtime_ns, info.st_ctime_ns, info.st_size)
                for path in (self._home.trust_file, *files)
                if path.exists()
                for info in (path.stat(),)
            )
        except OSError as exc:
            raise PolicyError(
                f"the trust store can't be read: {exc.strerror}",
                code="trust.unreadable",
                context=ascii(str(self._home.root))[1:-1],
            ) from exc
