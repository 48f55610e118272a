"""The release side: from verified capsules to static files that clients accept, at each moment.

::

    signers.toml     where the private keys are       keys/    those that `init` made
    root.json        the first root: what consumers are given
    staged/          what the next `publish` adds or takes away
    public/          what a web server serves: metadata/ and targets/

Each verb holds the directory's lock, reads the state that is served and verifies it, signs what is
new, and writes it in the order targets, snapshot, timestamp.  Roots come last, after all has been
signed by the old keys and by the new ones, so that clients that know either go on.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from capwasm._files import read_file, why, write_file
from capwasm._lock import held
from capwasm.capsule.artifact import MAX_CAPSULE_BYTES, read_artifact
from capwasm.capsule.identity import check_id, check_version
from capwasm.capsule.pack import identity_of
from capwasm.capsule.trust import TrustStore, utc_now
from capwasm.capsule.verify import verify
from capwasm.errors import RepositoryError
from capwasm.registry.model import utc_text

from .config import MAX_ROOT, check_root
from .layout import ROLES, public_key_of, target_path, tuf_key
from .signers import Days, KeyPlace, KeyRing, Passphrase
from .tree import State, Tree

__all__ = ["KeyStatus", "Publisher", "RoleStatus", "Summary"]

_ADDED, _WITHDRAWN = ".capsule", ".withdrawn"
_RENEWABLE: Final = ("targets", "snapshot")


@dataclass(slots=True)
class Summary:
    """What a verb changed.

    Attributes:
        added, withdrawn: `id@version`.   versions: of each role, now.
        expires: of each role.
    """

    versions: dict[str, int]
    expires: dict[str, datetime]
    added: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key of a role; `place` is where its private half is, or None if not on this machine."""

    key_id: str
    algorithm: str
    place: str | None


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """How a role stands."""

    role: str
    version: int
    expires: datetime
    threshold: int
    keys: tuple[KeyStatus, ...]


class Publisher:
    """The release side's directory."""

    def __init__(self, directory: Path, passphrase: Passphrase) -> None:
        """Name it; `passphrase` opens encrypted keys, and is asked only where one is met."""
        self.directory = directory
        self.staged = directory / "staged"
        self.public = directory / "public"
        self._signers_file = directory / "signers.toml"
        self._first_root = directory / "root.json"
        self._tree = Tree(self.public)
        self._passphrase = passphrase

    # -- verbs ---------------------------------------------------------------------------------

    def init(
        self,
        keys: Mapping[str, Sequence[KeyPlace]],
        thresholds: Mapping[str, int] | None = None,
        days: Days | None = None,
    ) -> Summary:
        """Begin a repository.

        Args:
            keys: role -> who may sign it, one or more for each of `ROLES`.
            thresholds: role -> how many must; 1 if it is not named.
            days: for how long each role's metadata are good.

        Raises:
            RepositoryError: `repository.release` if there is one already, or it can't be written;
                `repository.signer`; `repository.key`.
        """
        with self._errors():
            for folder in (self.staged, self._tree.metadata, self._tree.targets):
                folder.mkdir(parents=True, exist_ok=True)
            with held(self.directory, RepositoryError, code="repository.busy"):
                self.check_new()
                ring = KeyRing(
                    self._signers_file,
                    [place for role in ROLES for place in keys[role]],
                    days or Days(),
                    self._passphrase,
                )
                root = Root(consistent_snapshot=True)
                for role in ROLES:
                    for place in keys[role]:
                        root.add_key(tuf_key(place.public), role)
                    root.roles[role].threshold = (thresholds or {}).get(role, 1)
                _check_thresholds(root)
                state = State(
                    Metadata(root),
                    Metadata(Timestamp()),
                    Metadata(Snapshot()),
                    Metadata(Targets()),
                )
                ring.save()
                for stale in self._tree.metadata.glob("*.json"):  # of an `init` that was killed
                    stale.unlink()
                _renew(state.root, "root", 1, ring.days, _signers(ring, [root], "root"))
                data = state.root.to_bytes()
                check_root(data)
                self._tree.write("root", state.root)
                self._publish(ring, state, ["targets", "snapshot", "timestamp"], first=True)
                write_file(self._first_root, data, RepositoryError, code="repository.release")
                return _summary(state)

    def check_new(self) -> None:
        """Pass if there is no repository yet.

        Raises:
            RepositoryError: `repository.release`.
        """
        if self._first_root.exists():
            raise self._error("there is a repository already")

    def add(self, capsule: Path, trust: TrustStore) -> str:
        """Stage a capsule, once it is proven that trusted keys signed it; returns `id@version`.

        Raises:
            ArtifactError, VerificationError, ManifestError: the capsule is refused.
            RepositoryError: `repository.changed`: another file is published by that name.
        """
        artifact = read_artifact(capsule)
        name = self._proven(artifact.data, trust)
        with self._work() as (_, state):
            plugin_id, version = name
            self._check_content(state, target_path(plugin_id, version), artifact.sha256)
            self._stage(plugin_id, version, _ADDED, artifact.data)
        return f"{plugin_id}@{version}"

    def withdraw(self, plugin_id: str, version: str) -> None:
        """Stage that a version is offered no more.  It is no revocation: who has it, keeps it.

        Raises:
            RepositoryError: `repository.unknown`: it is not published.
        """
        with self._work() as (_, state):
            if target_path(plugin_id, version) not in state.targets.signed.targets:
                raise RepositoryError(
                    f"{plugin_id}@{version} is not published", code="repository.unknown"
                )
            self._stage(plugin_id, version, _WITHDRAWN, b"")

    def publish(self, trust: TrustStore) -> Summary:
        """Publish all that is staged; each capsule is verified once more.

        Raises:
            RepositoryError: `repository.release`, `.signer`, or as `Tree.load`.
            VerificationError: a staged capsule is trusted no more.
        """
        with self._work() as (ring, state):
            added, withdrawn, done = [], [], []
            targets = deepcopy(state.targets.signed.targets)
            for path, plugin_id, version in self._what_is_staged():
                where = target_path(plugin_id, version)
                if path.suffix == _WITHDRAWN:
                    if targets.pop(where, None) is not None:
                        withdrawn.append(f"{plugin_id}@{version}")
                else:
                    data = read_file(
                        path, MAX_CAPSULE_BYTES, RepositoryError, code="repository.release"
                    )
                    if self._proven(data, trust) != (plugin_id, version):
                        raise self._error(f"{path.name} is not what it is called")
                    target = _target(where, data, plugin_id, version)
                    self._check_content(state, where, target.hashes["sha256"])
                    if where not in targets:
                        self._tree.write_target(where, target.hashes["sha256"], data)
                        targets[where] = target
                        added.append(f"{plugin_id}@{version}")
                done.append(path)
            if added or withdrawn:
                state.targets.signed.targets = targets
                self._publish(ring, state, ["targets", "snapshot", "timestamp"])
            for path in done:
                path.unlink(missing_ok=True)
            self._tree.prune(state)
            return _summary(state, added, withdrawn)

    def refresh(self) -> Summary:
        """Sign a new timestamp, and whatever is past half of its time and can be signed here.

        Raises:
            RepositoryError: as `publish`.
        """
        with self._work() as (ring, state):
            stale = [
                role
                for role in _RENEWABLE
                if _is_half_over(getattr(state, role).signed, role, ring.days)
                and _can_sign(ring, state.root.signed, role)
            ]
            if "targets" in stale and "snapshot" not in stale:
                stale.append("snapshot")
            self._publish(ring, state, [*stale, "timestamp"])
            self._tree.prune(state)
            return _summary(state)

    def rotate(
        self,
        role: str,
        *,
        add: Sequence[KeyPlace] = (),
        remove: Sequence[str] = (),
        threshold: int | None = None,
    ) -> Summary:
        """Change who signs a role, by a new root that the old and the new root keys sign.

        With no change at all, this renews the root before it expires.

        Args:
            role: a word of `ROLES`.
            add: new keys.
            remove: ids of old ones, or beginnings of such.
            threshold: how many must sign from now on; as before if None.

        Raises:
            RepositoryError: as `publish`; `repository.unknown` for a key that is not there;
                `repository.key` if too few would be left.
        """
        with self._work() as (ring, state):
            old = deepcopy(state.root.signed)
            root = state.root.signed
            for place in add:
                root.add_key(tuf_key(place.public), role)
            for start in remove:
                matches = [i for i in root.roles[role].keyids if i.startswith(start)]
                if len(matches) != 1:
                    raise RepositoryError(
                        f"{len(matches)} keys of {role} begin with {start!a}",
                        code="repository.unknown",
                    )
                root.revoke_key(matches[0], role)
            if threshold is not None:
                root.roles[role].threshold = threshold
            _check_thresholds(root)
            ring.add(add)
            ring.save()
            signers = _signers(ring, [old, root], "root")
            _renew(state.root, "root", old.version + 1, ring.days, signers)
            check_root(state.root.to_bytes())
            both = [old, root] if _can_sign(ring, old, role) else [root]
            below = {"root": [], "timestamp": ["timestamp"], "snapshot": ["snapshot", "timestamp"]}
            again = below.get(role, ["targets", "snapshot", "timestamp"])
            if len(both) == 1:  # the old keys are lost: who knows the old root waits for the new
                self._tree.write("root", state.root)
            self._publish(ring, state, again, roots=both)
            if len(both) == 2:
                self._tree.write("root", state.root)
            return _summary(state)

    def status(self) -> list[RoleStatus]:
        """How each role stands.

        Raises:
            RepositoryError: as `Tree.load`.
        """
        with self._work() as (ring, state):
            root = state.root.signed
            return [
                RoleStatus(
                    role,
                    getattr(state, role).signed.version,
                    getattr(state, role).signed.expires,
                    root.roles[role].threshold,
                    tuple(
                        KeyStatus(
                            i, public_key_of(root.keys[i]).algorithm, ring.place_of(root.keys[i])
                        )
                        for i in root.roles[role].keyids
                    ),
                )
                for role in ROLES
            ]

    # -- steps ---------------------------------------------------------------------------------

    def _publish(
        self,
        ring: KeyRing,
        state: State,
        roles: Sequence[str],
        roots: Sequence[Root] = (),
        *,
        first: bool = False,
    ) -> None:
        """New versions of these roles, each bound to the one before, the timestamp last."""
        judges = roots or [state.root.signed]
        signers = {role: _signers(ring, judges, role) for role in roles}  # all, before any writing
        for role in roles:
            metadata = getattr(state, role)
            current = 0 if first else metadata.signed.version
            version = current + 1 if role == "timestamp" else self._tree.next_version(role, current)
            _renew(metadata, role, version, ring.days, signers[role])
            data = self._tree.write(role, metadata)
            bound = MetaFile.from_data(version, data, ["sha256"])
            if role == "targets":
                state.snapshot.signed.meta["targets.json"] = bound
            elif role == "snapshot":
                state.timestamp.signed.snapshot_meta = bound

    def _proven(self, data: bytes, trust: TrustStore) -> tuple[str, str]:
        """Id and version of a capsule, by its signed statement and by its manifest."""
        verified = verify(read_artifact(data), trust)
        said = identity_of(verified.manifest_bytes)
        verified.check_identity(said.id, said.version, said.kind)
        return verified.id, verified.version

    def _check_content(self, state: State, path: str, digest: str) -> None:
        """Pass if nothing else was ever published by that name, not even what was withdrawn since."""
        published = state.targets.signed.targets.get(path)
        if (
            published is not None and published.hashes.get("sha256") != digest
        ) or self._tree.has_other(path, digest):
            raise RepositoryError(
                "was published with other content; a version is for good: take a new one",
                code="repository.changed",
                context=path,
            )

    def _stage(self, plugin_id: str, version: str, ending: str, data: bytes) -> None:
        for other in (_ADDED, _WITHDRAWN):
            if other != ending:
                (self.staged / f"{plugin_id}@{version}{other}").unlink(missing_ok=True)
        write_file(
            self.staged / f"{plugin_id}@{version}{ending}",
            data,
            RepositoryError,
            code="repository.release",
            mode=0o600,
        )

    def _what_is_staged(self) -> list[tuple[Path, str, str]]:
        found = []
        for path in sorted(self.staged.iterdir()):
            plugin_id, _, version = path.name.removesuffix(path.suffix).partition("@")
            if path.name.startswith(".") or path.suffix not in {_ADDED, _WITHDRAWN}:
                continue  # of a writer that was killed
            try:
                check_id(plugin_id), check_version(version)
            except ValueError:
                raise self._error(f"{path.name!a} in staged/ is no capsule's name") from None
            found.append((path, plugin_id, version))
        return found

    @contextlib.contextmanager
    def _work(self) -> Iterator[tuple[KeyRing, State]]:
        """Hold the directory; its keys, and the state that is served, verified."""
        with self._errors(), held(self.directory, RepositoryError, code="repository.busy"):
            info = self.directory.stat()
            if info.st_uid not in {0, os.geteuid()} or stat.S_IMODE(info.st_mode) & 0o022:
                raise self._error(
                    "others own the directory or may write in it; run: chmod go-w on it"
                )
            if not self._first_root.exists():
                raise self._error("no repository: run `capwasm repo init` first")
            first = read_file(
                self._first_root, MAX_ROOT, RepositoryError, code="repository.release"
            )
            ring = KeyRing.load(self._signers_file, self._passphrase)
            yield ring, self._tree.load(first)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise self._error(f"can't be used: {why(exc)}") from exc

    def _error(self, message: str) -> RepositoryError:
        return RepositoryError(message, code="repository.release", context=str(self.directory))


def _signers(ring: KeyRing, judges: Iterable[Root], role: str) -> list[Signer]:
    """Who signs a role so that each of these roots accepts it; each key once."""
    found: dict[str, Signer] = {}
    for root in judges:
        keys = [root.keys[key_id] for key_id in root.roles[role].keyids]
        for signer in ring.signers(keys, root.roles[role].threshold, role):
            found[signer.public_key.keyid] = signer
    return list(found.values())


def _check_thresholds(root: Root) -> None:
    for name, role in root.roles.items():
        if not 1 <= role.threshold <= len(role.keyids):
            raise RepositoryError(
                f"{name} would need {role.threshold} signature(s), and have {len(role.keyids)} key(s)",
                code="repository.key",
            )


def _can_sign(ring: KeyRing, root: Root, role: str) -> bool:
    here = [i for i in root.roles[role].keyids if ring.place_of(root.keys[i]) is not None]
    return len(here) >= root.roles[role].threshold


def _renew(
    metadata: Metadata[Any], role: str, version: int, days: Days, signers: Iterable[Signer]
) -> None:
    metadata.signed.version = version
    metadata.signed.expires = utc_now() + timedelta(days=getattr(days, role))
    metadata.signatures.clear()
    for signer in signers:
        try:
            metadata.sign(signer, append=True)
        except UnsignedMetadataError as exc:
            if isinstance(exc.__cause__, RepositoryError):
                raise exc.__cause__ from None
            raise RepositoryError(f"{role} can't be signed", code="repository.signer") from exc


def _is_half_over(signed: Signed, role: str, days: Days) -> bool:
    return signed.expires - utc_now() < timedelta(days=getattr(days, role)) / 2


def _target(path: str, data: bytes, plugin_id: str, version: str) -> TargetFile:
    offer = {"id": plugin_id, "version": version, "published": utc_text(utc_now())}
    made = TargetFile.from_data(path, data, ["sha256"])
    made.unrecognized_fields["custom"] = {"capwasm": offer}
    return made


def _summary(state: State, added: Sequence[str] = (), withdrawn: Sequence[str] = ()) -> Summary:
    signed = {role: getattr(state, role).signed for role in ROLES}
    return Summary(
        {role: s.version for role, s in signed.items()},
        {role: s.expires for role, s in signed.items()},
        list(added),
        list(withdrawn),
    )
