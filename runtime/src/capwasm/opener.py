"""What an instance of one plugin is made of: the engine, the code and where it runs, the terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .engine.engine import PluginEngine
from .engine.exports import ExportTable
from .engine.link import Linked
from .grants.resolve import Grants
from .instance import Instance, Served
from .keeping import Books
from .serving import Terms
from .wasi import WasiConfig

if TYPE_CHECKING:
    from .isolation.apart import Apart

__all__ = ["Opener"]


@dataclass(frozen=True)
class Opener:
    """Makes instances of one plugin.

    Attributes:
        code: what runs: here, or in processes of its own.
        serve: makes the served side of an instance.
        trace: is given each instance before it runs, or None.
    """

    engine: PluginEngine
    code: Linked | Apart
    terms: Terms
    grants: Grants
    serve: Callable[[Terms], Served]
    trace: Callable[[Instance], None] | None = None

    @property
    def exports(self) -> ExportTable:
        """The plugin's functions."""
        return self.code.exports

    def prepare(self, books: Books, program: WasiConfig | None = None) -> Instance:
        """An instance to start, which lets go of what it is served with when it closes.

        Args:
            books: what becomes of it is kept there.
            program: what it is given as a program, if it is one.

        Raises:
            InstancesExceeded: the runtime holds as many instances as it may.
        """
        code = self.code
        terms = self.terms if program is None else replace(self.terms, wasi=program)
        instance: Instance
        if isinstance(code, Linked):
            served = self.serve(terms)
            instance = Instance(self.engine, code, terms.name, terms.limits, served, books)
        else:
            instance = code.prepare(self.engine, terms, books)
        if self.trace is not None:
            self.trace(instance)
        return instance

    def close(self) -> None:
        """No instance is wanted any more; what runs is not stopped by this."""
        if not isinstance(self.code, Linked):
            self.code.close()
