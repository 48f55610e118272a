"""One repository, as who installs from it sees it.

Each look at it walks the whole way from the root that the operator gave (TUF specification, 5):
newer roots, timestamp, snapshot, targets, with the versions last seen as the floor.  python-tuf does
the walk.  What is ours: how it downloads (`fetch`), what it remembers (`cache`), which keys count
(`layout.check_keys`), a clock that goes back, and that a capsule is the one its target names.

A server that can't be reached is no reason to stop: what the cache holds goes the same way, and
serves until it expires.  Anything else that goes wrong is refused, and never answered from the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

from tuf.api.exceptions import ExpiredMetadataError
from tuf.api.metadata import Metadata, Root, Signed, TargetFile, Targets
from tuf.ngclient import Updater, UpdaterConfig

from capwasm._files import read_file, write_file
from capwasm.capsule.artifact import MAX_CAPSULE_BYTES
from capwasm.capsule.attest import Statement
from capwasm.capsule.container import split
from capwasm.capsule.envelope import Envelope
from capwasm.capsule.identity import id_matches
from capwasm.errors import RepositoryError, VerificationError
from capwasm.events import ALLOWED, DENIED, FAILED, Event, NullRecorder, Recorder
from capwasm.grants.semver import SemVer
from capwasm.registry.model import Release, utc_text
from capwasm.web import Web

from ._told import told
from .cache import Cache
from .fetch import MAX_METADATA, Fetcher
from .layout import (
    ROLES,
    TIME_FORM,
    check_keys,
    identity_of_path,
    offer_of,
    probe_path,
    target_path,
)

__all__ = ["Repository", "Standing"]

_FRESH: Final = 60.0  # seconds for which one refresh answers for the next look
_SKEW: Final = timedelta(minutes=10)
_STAMP: Final = "refreshed"
_CONFIG: Final = UpdaterConfig(
    root_max_length=512 * 1024,
    timestamp_max_length=16 * 1024,
    snapshot_max_length=4 * 1024 * 1024,
    targets_max_length=MAX_METADATA,
)
_AWAY: Final = "repository.unreachable"
# What says nothing against the repository.
_FAILURES: Final = frozenset({_AWAY, "repository.timeout", "repository.busy", "repository.cache"})


@dataclass(frozen=True, slots=True)
class Standing:
    """How a repository stands.

    Attributes:
        refreshed: when the server was last heard.   offline: whether it was not, this time.
        expires: when the first of the metadata expires.   versions: of each role.
    """

    refreshed: datetime
    offline: bool
    expires: datetime
    versions: dict[str, int]


@dataclass(frozen=True, slots=True)
class _View:
    """What one walk came to: good until the cache is left."""

    updater: Updater
    stage: Path
    offline: bool


class Repository:
    """A plugin repository; a `Source` of capsules.

    Attributes:
        name: as the operator calls it.   source: the same, as records name it.
        ids: patterns of the plugins for which it may speak.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        root: bytes,
        cache: Path,
        web: Web,
        ids: Sequence[str] = ("*",),
        recorder: Recorder | None = None,
        offline: bool = False,
    ) -> None:
        """Make one; nothing is read or asked yet.

        Args:
            name: for messages and records.
            url: above its `metadata/` and `targets/`.
            root: root metadata to begin from, out of band: what all trust comes from.
            cache: its own directory.
            web: sends the requests.
            ids: patterns of the plugins for which it may speak.
            recorder: takes the events.
            offline: whether only the cache is asked.
        """
        self.name = name
        self.url = url.rstrip("/")
        self.source = f"repository {name}"
        self.ids = tuple(ids)
        self._root = root
        self._cache = Cache(cache)
        self._web = web
        self._recorder = recorder or NullRecorder()
        self._offline = offline
        self._fresh_until = 0.0

    def speaks_for(self, plugin_id: str) -> bool:
        """Whether the operator lets it speak for a plugin."""
        return any(id_matches(pattern, plugin_id) for pattern in self.ids)

    def refresh(self) -> Standing:
        """Ask the server what is new; from the cache if it can't be reached.

        Raises:
            RepositoryError: `repository.expired`, `.rollback`, `.signature`, `.mismatch`,
                `.metadata`, `.key`, `.clock`, `.status`, `.cache`, `.busy`, and as `Web.request`.
        """
        with self._view(fresh=True) as view:
            files = {role: _signed(view.stage, role) for role in ROLES}
            return Standing(
                _stamp(view.stage) or datetime.now(UTC),
                view.offline,
                min(signed.expires for signed in files.values()),
                {role: signed.version for role, signed in files.items()},
            )

    def releases(self, plugin_id: str) -> tuple[Release, ...]:
        """What it offers of a plugin, newest last; nothing, if it may not speak for it.

        Raises:
            RepositoryError: as `refresh`.
        """
        return self.offers([plugin_id])[plugin_id]

    def offers(self, plugin_ids: Iterable[str]) -> dict[str, tuple[Release, ...]]:
        """What it offers of each of these plugins, as `releases`, in one look.

        Raises:
            RepositoryError: as `refresh`.
        """
        offers: dict[str, tuple[Release, ...]] = dict.fromkeys(plugin_ids, ())
        mine = [plugin_id for plugin_id in offers if self.speaks_for(plugin_id)]
        if not mine:
            return offers
        with self._view() as view:
            # 1. Have all roles loaded that may speak of the plugins.  2. Their files say which names
            # there are.  3. For each name, the walk decides what it is.
            for plugin_id in mine:
                view.updater.get_targetinfo(probe_path(plugin_id))
            for plugin_id, paths in _paths(view.stage, mine).items():
                infos = [view.updater.get_targetinfo(path) for path in paths]
                found = [self._release(info) for info in infos if info is not None]
                found.sort(key=lambda r: (SemVer.parse(r.version).precedence, r.version))
                offers[plugin_id] = tuple(found)
        return offers

    def fetch(self, release: Release) -> bytes:
        """The capsule of a release, which is what its target says.

        Its own signatures are not looked at: whoever uses it MUST verify them.

        Raises:
            RepositoryError: as `refresh`; `repository.unknown` if it is offered no more, or not by
                this one; `repository.changed` if it is another file now; `repository.identity` if
                the target holds another plugin, or another version.
        """
        path = target_path(release.id, release.version)
        if not self.speaks_for(release.id):
            raise RepositoryError(
                f"it may not speak for {release.id}",
                code="repository.unknown",
                context=self.source,
            )
        with self._view() as view:
            info = view.updater.get_targetinfo(path)
            prefixed = _root(view.stage).consistent_snapshot
        with self._recorded("fetch", path), told(self.name):
            if info is None:
                raise RepositoryError(
                    f"{release.id}@{release.version} is not offered", code="repository.unknown"
                )
            offered = self._release(info)
            if (offered.digest, offered.size) != (release.digest, release.size):
                raise RepositoryError(
                    f"{release.id}@{release.version} is another file now",
                    code="repository.changed",
                )
            where = info.get_prefixed_paths()[0] if prefixed else info.path
            fetcher = Fetcher(self._web, offline=self._offline)
            with fetcher.download_file(f"{self.url}/targets/{where}", info.length) as file:
                data = file.read()
            info.verify_length_and_hashes(data)
            if hashlib.sha256(data).hexdigest() != release.digest:
                raise RepositoryError(
                    "not the file that was signed for", code="repository.mismatch"
                )
            _check_identity(data, release)
        return data

    # -- the walk ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _view(self, *, fresh: bool = False) -> Iterator[_View]:
        """Walk; afterwards keep whatever was verified on the way, also if the walk ended early.

        A root that revokes a key must be remembered although the next file was refused.
        """
        asks = not self._offline and (fresh or time.monotonic() >= self._fresh_until)
        with (
            self._recorded("refresh", self.url, quiet=not asks) as details,
            told(self.name),
            self._cache.work() as stage,
        ):
            self._check_clock(stage)
            try:
                view = self._asked(stage) if asks else self._from_cache(stage)
                if asks and not view.offline:
                    _write_stamp(stage)
                    self._fresh_until = time.monotonic() + _FRESH
                details["offline"] = view.offline
                yield view
            finally:
                self._keep(stage)

    def _check_clock(self, stage: Path) -> None:
        before = _stamp(stage)
        if before is not None and datetime.now(UTC) < before - _SKEW:
            raise RepositoryError(
                f"this machine's clock went back: it was {utc_text(before)} when the repository was"
                " last heard; set the clock, or nothing would ever expire",
                code="repository.clock",
            )

    def _asked(self, stage: Path) -> _View:
        try:
            return self._walk(stage, asks=True)
        except RepositoryError as exc:
            if exc.code != _AWAY:
                raise
            return self._from_cache(stage, exc)

    def _from_cache(self, stage: Path, away: RepositoryError | None = None) -> _View:
        try:
            return self._walk(stage, asks=False)
        except RepositoryError as exc:
            if exc.code != _AWAY:
                raise
            late = [role for role in ROLES if _is_expired(stage, role)]
            if late:
                raise ExpiredMetadataError(f"{late[0]} in the cache is expired") from exc
            raise away or exc from None

    def _walk(self, stage: Path, *, asks: bool) -> _View:
        cached = None if asks else stage
        updater = Updater(
            metadata_dir=str(stage),
            metadata_base_url=f"{self.url}/metadata/",
            fetcher=Fetcher(self._web, cached, offline=self._offline),
            config=_CONFIG,
            bootstrap=self._root,
        )
        updater.refresh()
        view = _View(updater, stage, offline=not asks)
        check_keys(_root(stage))
        return view

    def _keep(self, stage: Path) -> None:
        """Keep what was verified; but a root whose keys are weak is not even remembered."""
        try:
            check_keys(_root(stage))
        except RepositoryError:
            return
        self._cache.keep(stage)

    @contextlib.contextmanager
    def _recorded(
        self, action: str, target: str, *, quiet: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Record how it ended; what is `quiet` only if it failed."""
        details: dict[str, Any] = {}

        def record(verdict: str, reason: str = "") -> None:
            self._recorder.record(
                Event(
                    "repository",
                    verdict,
                    action=action,
                    target=f"{self.name}: {target}",
                    reason=reason,
                    details=details,
                )
            )

        try:
            yield details
        except RepositoryError as exc:
            record(FAILED if exc.code in _FAILURES else DENIED, exc.code)
            raise
        if not quiet:
            record(ALLOWED)

    def _release(self, info: TargetFile) -> Release:
        identity = identity_of_path(info.path)
        digest = info.hashes.get("sha256", "")
        if identity is None or len(digest) != 64 or info.length > MAX_CAPSULE_BYTES:
            raise RepositoryError(
                f"the target {ascii(info.path)[1:-1][:200]} has no sha256, or is too large",
                code="repository.metadata",
            )
        offer = offer_of(info.custom, *identity)
        return Release(
            *identity,
            digest=digest,
            size=info.length,
            published=None if offer is None else offer.since,
            source=self.source,
        )


# -- files of the cache, verified by the walk that has just ended ----------------------------------


def _signed(stage: Path, role: str) -> Signed:
    # A walk leaves the link `root.json` to the newest root that is trusted.
    path = stage / f"{quote(role, '')}.json"
    data = read_file(path, MAX_METADATA, RepositoryError, code="repository.cache")
    return cast("Signed", Metadata[Any].from_bytes(data).signed)


def _root(stage: Path) -> Root:
    return cast("Root", _signed(stage, Root.type))


def _is_expired(stage: Path, role: str) -> bool:
    return (stage / f"{role}.json").exists() and _signed(stage, role).is_expired()


def _paths(stage: Path, plugin_ids: Iterable[str]) -> dict[str, dict[str, None]]:
    """By plugin, the paths at which roles that may speak of it say that there are capsules of it."""
    found: dict[str, dict[str, None]] = {plugin_id: {} for plugin_id in plugin_ids}
    todo, seen = [Targets.type], set[str]()
    while todo:
        role = todo.pop()
        if role in seen or not (stage / f"{quote(role, '')}.json").exists():
            continue
        seen.add(role)
        targets = cast("Targets", _signed(stage, role))
        for path in targets.targets:
            identity = identity_of_path(path)
            if identity is not None and identity[0] in found:
                found[identity[0]][path] = None
        if targets.delegations is not None:
            for plugin_id in found:
                below = targets.delegations.get_roles_for_target(probe_path(plugin_id))
                todo.extend(name for name, _ in below)
    return found


def _stamp(stage: Path) -> datetime | None:
    """When the server was last heard, by the cache; None if never.

    Raises:
        RepositoryError: `repository.cache`: it can't be read.
    """
    path = stage / _STAMP
    if not path.exists():
        return None
    text = read_file(path, 64, RepositoryError, code="repository.cache").decode("ascii", "replace")
    try:
        return datetime.strptime(text, TIME_FORM).replace(tzinfo=UTC)
    except ValueError:
        raise RepositoryError("holds no time", code="repository.cache", context=str(path)) from None


def _write_stamp(stage: Path) -> None:
    now = utc_text(datetime.now(UTC)).encode()
    write_file(stage / _STAMP, now, RepositoryError, code="repository.cache")


def _check_identity(data: bytes, release: Release) -> None:
    """Pass if the capsule says of itself what its target's name says."""
    try:
        envelope = Envelope.parse(bytes(split(data).envelope))
        identity = Statement.parse(envelope.payload).identity
    except VerificationError as exc:
        raise RepositoryError(
            f"the target of {release.id}@{release.version} is no capsule: {exc.message}",
            code="repository.identity",
        ) from exc
    if (identity.id, identity.version) != (release.id, release.version):
        raise RepositoryError(
            f"the target of {release.id}@{release.version} holds {identity.id}@{identity.version}",
            code="repository.identity",
        )
