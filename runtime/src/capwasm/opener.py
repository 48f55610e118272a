"""What an instance of one plugin is made of: the engine, the linked code, the terms."""

from __future__ import annotations

from dataclasses import dataclass

from .engine.engine import PluginEngine
from .engine.link import Linked
from .grants.resolve import Grants
from .instance import Instance
from .keeping import Books
from .serving import Serving, Terms

__all__ = ["Opener"]


@dataclass(frozen=True)
class Opener:
    """Makes instances of one plugin."""

    engine: PluginEngine
    linked: Linked
    terms: Terms
    grants: Grants

    def prepare(self, books: Books) -> Instance:
        """An instance to start, which lets go of what it is served with when it closes."""
        terms = self.terms
        return Instance(self.engine, self.linked, terms.name, terms.limits, Serving(terms), books)
