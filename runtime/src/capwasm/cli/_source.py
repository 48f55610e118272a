"""Where a command takes a capsule from: a named file, a plugin's repository, an OCI registry."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from capwasm.capsule.identity import check_id, check_version
from capwasm.errors import RepositoryError

if TYPE_CHECKING:
    from capwasm.events import Event
    from capwasm.home import Home
    from capwasm.registry.model import Release

__all__ = ["BriefRecorder", "Bundle", "bundle_of", "is_id", "newest"]


OCI: Final = "oci://"


class Bundle(NamedTuple):
    """A capsule that is still to be verified, and what is said of where it came from."""

    capsule: Path | bytes
    source: str = ""
    published: datetime | None = None


class BriefRecorder:
    """Records into the log of operators' commands, and holds it no longer than that takes.

    For commands that wait for a server: others go on meanwhile.
    """

    def __init__(self, home: Home) -> None:
        """Record in this home."""
        self._home = home

    def record(self, event: Event) -> None:
        """Record an event.

        Raises:
            AuditError: it can't be.
        """
        with self._home.commands_recorder() as recorder:
            recorder.record(event)


def bundle_of(text: str, home: Home) -> Bundle:
    """The capsule that an operator names.

    Args:
        text: `ID` or `ID@VERSION`, to be had from the plugin's repository; `oci://…`, from that
            registry; anything else is the path of a file.  So is `./acme.weather`.
        home: names the repositories.

    Raises:
        RepositoryError: as `Sources` and `Registries.pull`; `repository.unknown` if there is no
            such release.
    """
    if text.startswith(OCI):
        return _pulled(text, home)
    plugin_id, at, version = text.partition("@")
    if not is_id(plugin_id) or (at and not _is_version(version)):
        return Bundle(Path(text))
    sources = home.sources(BriefRecorder(home))
    offered = sources.releases(plugin_id)
    release = next((r for r in offered if r.version == version), None) if at else newest(offered)
    if release is None:
        known = ", ".join(r.version for r in offered[-5:]) or "nothing"
        raise RepositoryError(
            f"{text} is not offered; of {plugin_id} there is: {known}",
            code="repository.unknown",
            context=sources.of(plugin_id).source,
        )
    return Bundle(sources.fetch(release), release.source, release.published)


def _pulled(text: str, home: Home) -> Bundle:
    from capwasm.oci.reference import Reference

    from ._progress import BytesLine

    registries = home.registries(BriefRecorder(home), progress=BytesLine())
    found = registries.pull(Reference.parse(text))
    # A tag can be moved; what is remembered is the digest that it was.
    return Bundle(found.capsule, str(found.reference))


def is_id(text: str) -> bool:
    """Whether a plugin is named, and not the path of a file."""
    try:
        return not check_id(text).endswith(".capsule")
    except ValueError:
        return False


def _is_version(text: str) -> bool:
    try:
        return bool(check_version(text))
    except ValueError:
        return False


def newest(offered: Sequence[Release]) -> Release | None:
    """The newest that is no pre-release; a pre-release only if there is nothing else."""
    proper = [r for r in offered if "-" not in r.version.partition("+")[0]]
    return next(reversed(proper or offered), None)
