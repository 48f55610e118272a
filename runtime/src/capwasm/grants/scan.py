"""The `[scan]` table of a policy: what scanners look with, and whose scanners."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from capwasm._model import Model

from ._document import shown_text

__all__ = ["ScanRule"]


FileName = Annotated[str, Field(max_length=1024), AfterValidator(shown_text)]


class ScanRule(Model):
    """The `[scan]` table: what a scan looks with.  Paths are taken from the home's directory."""

    scanners: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=64), AfterValidator(shown_text)], ...],
        Field(
            max_length=32,
            description="Scanners of others that run too, by the names of their entry points.",
        ),
    ] = ()
    known_bad: Annotated[
        FileName,
        Field(description="File of digests that are known to be bad, a line each; none if empty."),
    ] = ""
    ids: Annotated[
        tuple[Annotated[str, Field(max_length=128), AfterValidator(shown_text)], ...],
        Field(
            max_length=1024,
            description="Plugin ids that no other plugin's may be taken for, besides installed ones.",
        ),
    ] = ()
    osv: Annotated[
        FileName,
        Field(
            description="The mirror of the OSV database: a zip, a directory of them, or an index that"
            " `capwasm osv import` made; none if empty."
        ),
    ] = ""
    osv_days: Annotated[
        int,
        Field(
            ge=1, le=3650, description="Days since its newest record; an older mirror is told of."
        ),
    ] = 30
    licences: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=64), AfterValidator(shown_text)], ...],
        Field(
            max_length=256,
            description="SPDX identifiers of licences that plugins and their parts may have; any if empty.",
        ),
    ] = ()
    dry_run: Annotated[
        bool,
        Field(
            description="Whether a scan runs the plugin, in a sandbox and with nothing granted, to see"
            " what it tries."
        ),
    ] = False

    def wants(self, scanner: str) -> bool:
        """Whether a word of this table asks for what that scanner looks at."""
        own = {"osv": self.osv, "licences": self.licences, "dry-run": self.dry_run}
        return bool(own.get(scanner, scanner in self.scanners))
