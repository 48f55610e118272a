"""A home for one plugin that its author tries out: never the author's own.

It trusts one key, which it makes, and its policy allows what the manifest asks and nothing else.  A
directory that the manifest names is an empty one of this home; one that the manifest names by a path
of this machine is not given, and a command is not: what they stand for only a person can say.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from capwasm._files import write_file
from capwasm.caps import standard_capabilities
from capwasm.caps.secrets import Vault, VaultKey
from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.container import read_archive, split
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.members import MANIFEST
from capwasm.capsule.pack import identity_of, sign_capsule
from capwasm.capsule.verify import VerifiedArtifact, verify
from capwasm.errors import BuildError, Fault, PolicyError
from capwasm.grants.consent import ConsentRecord, Subject
from capwasm.grants.consent_store import ConsentStore
from capwasm.grants.manifest import Manifest, parse_manifest
from capwasm.grants.remedy import policy_lines
from capwasm.home import Home, make_private

from .project import build_cache

__all__ = ["DevHome", "Ready", "Wishes", "kept_home", "throwaway_home"]

_MARK: Final = "# Made by capwasm run. Without this line it stays as you write it.\n"
_WHO: Final = "capwasm run"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the author gives.

    Attributes:
        binds: name of a directory → the directory that it is.
        config: setting → value.
        secrets: name → value.
    """

    binds: Mapping[str, Path] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ready:
    """A capsule that this home loads.

    Attributes:
        capsule: signed by the home's key.   manifest: its.
        code_digest: what a consent speaks of.
        given: by the path of a permission (`fs[0]`), what it stands for here; None if it is not given.
        missing: secrets that are still to be had.
    """

    capsule: bytes
    manifest: Manifest
    code_digest: str
    given: Mapping[str, str | None]
    missing: tuple[str, ...]


class DevHome:
    """A directory with a home, the directories that plugins are given, and a key."""

    def __init__(self, place: Path) -> None:
        """Make what is not there.

        Raises:
            CapabilityError, PolicyError: it can't be made, or is another user's.
        """
        make_private(place)
        self.place, self.home = place.absolute(), Home(place / "home")
        make_private(self.home.root)
        self.files = self.place / "files"
        key_file = self.place / "dev.key"
        if not key_file.exists():
            PrivateKey.generate().save(key_file)
        self._key = PrivateKey.load(key_file)
        self._compiled = build_cache() / "compiled"

    def close(self) -> None:
        """Give what was compiled to whoever builds or runs next."""
        self._share(self.home.cache, self._compiled)

    def prepare(self, capsule: bytes, wishes: Wishes) -> Ready:
        """Sign a capsule, trust the key for its id, and write the policy.  Nothing is consented to.

        Raises:
            VerificationError, ManifestError: the capsule is malformed.
            BuildError: `build.project`: the author gives what the manifest does not ask.
        """
        self._share(self._compiled, self.home.cache)
        capabilities = standard_capabilities()
        signed = sign_capsule(read_artifact(capsule), self._key)
        artifact = self._proven(signed)
        manifest = parse_manifest(artifact.manifest_bytes, capabilities)
        _check_wishes(manifest, wishes)
        missing, there = self._secrets(manifest, wishes.secrets)
        given, lines = self._allowed(manifest, capabilities, wishes, missing | there)
        self._write_policy("\n\n".join([f'{_MARK}schema = 1\nowner = "{_WHO}"', *lines]) + "\n")
        digest = artifact.code_digest if artifact.kind == "component" else artifact.digest
        return Ready(signed, manifest, digest, given, tuple(sorted(missing)))

    def keep_secret(self, name: str, value: bytes) -> None:
        """Put a secret into the vault of this home."""
        self._vault().set(name, value)

    def consent(self, ready: Ready) -> None:
        """Record that the author agreed to all that it asks."""
        shutil.rmtree(self.home.consents, ignore_errors=True)
        manifest = ready.manifest
        ConsentStore(self.home.consents).give(
            ConsentRecord.of(
                Subject.of(manifest, ready.code_digest),
                {name: request.clauses for name, request in manifest.requests.items()},
                manifest.limits,
                who=_WHO,
                when=datetime.now(UTC),
                reason="its author tries it out",
            )
        )

    def _proven(self, signed: bytes) -> VerifiedArtifact:
        who = identity_of(bytes(read_archive(split(signed).archive)[MANIFEST]))
        text = (
            f'schema = 1\n\n[[key]]\nname = "dev"\npublic = "{self._key.public.base64()}"\n'
            f'roles = ["publisher"]\nids = ["{who.id}"]\n'
        )
        write_file(
            self.home.trust_file, text.encode(), PolicyError, code="trust.unreadable", mode=0o600
        )
        return verify(read_artifact(signed), self.home.trust())

    def _secrets(
        self, manifest: Manifest, values: Mapping[str, bytes]
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Keep the secrets that the author gives; which are still to be had, and which are there.

        One that is optional is never asked for.
        """
        if "secret" not in manifest.requests:
            return frozenset(), frozenset()
        vault = self._vault()
        for name, value in values.items():
            vault.set(name, value)
        there = frozenset(vault.names())
        asked = manifest.requests["secret"].asked
        wanted: list[Any] = [c for a in asked if not a.optional for c in a.clauses]
        needed = {clause.name for clause in wanted}
        return frozenset(needed - there), there

    def _allowed(
        self,
        manifest: Manifest,
        capabilities: tuple[Any, ...],
        wishes: Wishes,
        secrets: frozenset[str],
    ) -> tuple[dict[str, str | None], list[str]]:
        """What each permission stands for, and the policy's tables."""
        given: dict[str, str | None] = {}
        lines: list[str] = []
        for capability in capabilities:
            request = manifest.requests.get(capability.name)
            allowed = []
            for asked in request.asked if request else ():
                for clause in asked.clauses:
                    allows, told = self._one(capability.name, clause, wishes, secrets)
                    if told is not None or allows is None:
                        given[asked.path] = told
                    if allows is not None:
                        allowed.append(allows)
            if allowed:
                lines.append(policy_lines(capability, manifest.id, allowed))
        return given, lines

    def _one(
        self, name: str, clause: Any, wishes: Wishes, secrets: frozenset[str]
    ) -> tuple[Any, str | None]:
        """What the policy allows of a clause, and what that is here; None: it is not given."""
        if name == "fs" and clause.bind is not None:
            place = wishes.binds.get(clause.bind) or self.files / clause.bind
            place = place.resolve()
            if clause.bind not in wishes.binds:
                place.mkdir(parents=True, exist_ok=True)
            return replace(clause, path=str(place)), str(place)
        if (name == "fs" and clause.path is not None) or (name == "exec" and not clause.program):
            return None, None
        if name == "secret" and clause.name not in secrets:
            return None, None
        if name == "config" and clause.key in wishes.config:
            value = wishes.config[clause.key]
            return replace(clause, value=value), f"{clause.key} = {value}"
        return clause, None

    def _write_policy(self, text: str) -> None:
        """Unless the author wrote one."""
        path = self.home.policy_file
        if path.exists() and not path.read_text(encoding="utf-8").startswith(_MARK):
            return
        write_file(path, text.encode(), PolicyError, code="policy.unreadable", mode=0o600)

    def _vault(self) -> Vault:
        if not self.home.vault_file.exists():
            return Vault.create(self.home.vault_file, VaultKey.generate(self.home.vault_key))
        return Vault.open(self.home.vault_file, VaultKey.load(self.home.vault_key))

    @staticmethod
    def _share(source: Path, target: Path) -> None:
        """Have compiled code in both, so that it is compiled once; that it can't be costs time only."""
        with contextlib.suppress(OSError):
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            for entry in source.iterdir():
                if entry.name == "lock" or (target / entry.name).exists():
                    continue
                try:
                    os.link(entry, target / entry.name)
                except OSError:  # another file system
                    shutil.copy2(entry, target / entry.name)


@contextlib.contextmanager
def kept_home(place: Path) -> Iterator[DevHome]:
    """A home that stays: its policy can be edited, and its secrets are asked for once."""
    dev = DevHome(place)
    (place / ".gitignore").write_text("*\n", encoding="utf-8")
    try:
        yield dev
    finally:
        dev.close()


@contextlib.contextmanager
def throwaway_home() -> Iterator[DevHome]:
    """A home that is removed in the end; also those are that a killed process left."""
    base = build_cache().parent / "dev"
    make_private(base)
    for old in base.iterdir():
        with contextlib.suppress(OSError), _held(old):
            shutil.rmtree(old, ignore_errors=True)
    while True:
        place = Path(tempfile.mkdtemp(prefix="run-", dir=base))
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                stack.enter_context(_held(place))
            if not place.exists():  # another process took it for one that was left
                continue
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            dev = DevHome(place)
            stack.callback(dev.close)
            yield dev
            return


@contextlib.contextmanager
def _held(place: Path) -> Iterator[None]:
    """Hold a home's directory as long as this process lives.

    Raises:
        OSError: another process holds it.
    """
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def _clauses(manifest: Manifest, name: str) -> list[Any]:
    request = manifest.requests.get(name)
    return [clause for asked in request.asked for clause in asked.clauses] if request else []


def _check_wishes(manifest: Manifest, wishes: Wishes) -> None:
    """Refuse what the manifest does not ask: whoever gives it has mistyped a name.

    Raises:
        BuildError: with each, and the names that there are.
    """
    known = {
        "--bind": [c.bind for c in _clauses(manifest, "fs") if c.bind is not None],
        "--config": [c.key for c in _clauses(manifest, "config")],
        "--secret": [c.name for c in _clauses(manifest, "secret")],
    }
    wanted = {"--bind": wishes.binds, "--config": wishes.config, "--secret": wishes.secrets}
    faults = [
        Fault(option, f"plugin.toml asks for no {name}; it asks for {', '.join(names) or 'none'}")
        for option, names in known.items()
        for name in wanted[option]
        if name not in names
    ]
    faults += [
        Fault("--bind", f"{path} is no directory")
        for path in wishes.binds.values()
        if not path.is_dir()
    ]
    if faults:
        raise BuildError(
            "it is given what it does not ask",
            code="build.project",
            context=manifest.id,
            faults=faults,
        )
