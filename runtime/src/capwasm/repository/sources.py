"""All repositories of the operator as one source: for each plugin, the first that may speak of it.

Asking every repository for every plugin is how a name of one's own is taken over by a stranger who
offers a higher version elsewhere.  So a plugin has one repository: the first in the file whose `ids`
name it.  If that one can't be asked, nobody else is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from capwasm.errors import Fault, RepositoryError
from capwasm.events import Recorder
from capwasm.registry.model import Release
from capwasm.web import Patience, Web

from . import config
from .client import Repository, Standing

__all__ = ["Sources"]


class Sources:
    """A `Source` that routes to the repositories.

    Attributes:
        repositories: in the operator's order.
    """

    def __init__(self, repositories: Sequence[Repository]) -> None:
        """Take them, the first first."""
        self.repositories = tuple(repositories)

    @classmethod
    def load(
        cls,
        file: Path,
        cache: Path,
        *,
        recorder: Recorder | None = None,
        offline: bool = False,
        patience: Patience | None = None,
    ) -> Sources:
        """The repositories of a repositories.toml.

        Args:
            file: which; none there means no repository.
            cache: directory below which each has its own.
            recorder: takes the events.
            offline: whether only the cache is asked.
            patience: for each request.

        Raises:
            RepositoryError: `repository.config`, `repository.root`.
        """
        made = []
        for s in config.load(file):
            web = Web(
                ca_file=None if s.ca_file is None else file.parent / s.ca_file,
                plain_http=s.plain_http,
                patience=patience or Patience(),
            )
            made.append(
                Repository(
                    s.name,
                    s.url,
                    root=config.read_root(file.parent / s.root),
                    cache=cache / s.name,
                    web=web,
                    ids=s.ids,
                    recorder=recorder,
                    offline=offline,
                )
            )
        return cls(made)

    def of(self, plugin_id: str) -> Repository:
        """The one repository of a plugin.

        Raises:
            RepositoryError: `repository.unknown`: none may speak for it.
        """
        for repository in self.repositories:
            if repository.speaks_for(plugin_id):
                return repository
        raise RepositoryError(
            f"no repository may speak for {plugin_id}",
            code="repository.unknown",
            faults=[
                Fault(
                    "",
                    "a repository speaks for the plugins that its ids name",
                    fix=f"capwasm repo trust NAME URL --root FILE --ids {plugin_id}",
                )
            ],
        )

    def refresh(self) -> dict[str, Standing | RepositoryError]:
        """Ask each what is new; one that fails does not keep the others."""
        found: dict[str, Standing | RepositoryError] = {}
        for repository in self.repositories:
            try:
                found[repository.name] = repository.refresh()
            except RepositoryError as exc:
                found[repository.name] = exc
        return found

    def releases(self, plugin_id: str) -> Sequence[Release]:
        """What the plugin's repository offers of it, newest last.

        Raises:
            RepositoryError: as `of`, and as `Repository.releases`.
        """
        return self.of(plugin_id).releases(plugin_id)

    def offers(self, plugin_ids: Iterable[str]) -> dict[str, Sequence[Release] | RepositoryError]:
        """What is offered of each of these plugins, each repository asked once.

        A repository that fails, or a plugin without one, does not keep the others.
        """
        offers: dict[str, Sequence[Release] | RepositoryError] = {}
        asked: dict[Repository, list[str]] = {}
        for plugin_id in plugin_ids:
            try:
                asked.setdefault(self.of(plugin_id), []).append(plugin_id)
            except RepositoryError as exc:
                offers[plugin_id] = exc
        for repository, mine in asked.items():
            try:
                offers.update(repository.offers(mine))
            except RepositoryError as exc:
                offers.update(dict.fromkeys(mine, exc))
        return offers

    def fetch(self, release: Release) -> bytes:
        """The capsule, from the repository that offered it.

        Raises:
            RepositoryError: as `of` and `Repository.fetch`; `repository.changed`: it was another
                repository's.
        """
        repository = self.of(release.id)
        if release.source != repository.source:
            raise RepositoryError(
                f"{release.id} is now {repository.source}'s to offer, not {release.source}'s",
                code="repository.changed",
            )
        return repository.fetch(release)
