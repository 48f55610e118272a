"""What a module is made of: a component, or a capsule with one.  Nothing of it is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capwasm._files import read_file
from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.container import MAGIC, read_archive, split
from capwasm.capsule.members import COMPONENT, MANIFEST
from capwasm.capsule.pack import identity_of
from capwasm.engine.compile import types_of
from capwasm.engine.lane.binary import OddBinary
from capwasm.engine.types import ComponentTypes
from capwasm.engine.witdoc import MAX_WIT_BYTES, wit_files
from capwasm.errors import ArtifactError, BuildError

__all__ = ["Source", "read_source"]

_MAX_WIT_FILES: Final = 64


@dataclass(frozen=True, slots=True)
class Source:
    """What a module is made of.

    Attributes:
        types: what the component imports and exports.
        wit: the texts of its WIT files; none, if there are none.
        title: what to call it: `acme.weather`.
    """

    types: ComponentTypes
    wit: Sequence[str]
    title: str


def read_source(path: Path, wit: Path | None = None) -> Source:
    """Read a component or a capsule.  Who signed it is not asked: its module is only text.

    Args:
        path: the file.
        wit: a directory with WIT files, whose docs are taken; a capsule's own, if not given.

    Raises:
        ArtifactError: it can't be read, or is no component.
        VerificationError: it is a malformed capsule.
        BuildError: `build.project`: it has no component, or one that this can't be done with.
    """
    data = read_artifact(path).data
    title, texts = path.stem, []
    if data[: len(MAGIC)] == MAGIC:
        members = read_archive(split(data).archive)
        if MANIFEST not in members or COMPONENT not in members:
            raise BuildError(
                "the capsule holds no component: native code does not tell its types",
                code="build.project",
                context=str(path),
            )
        title = identity_of(bytes(members[MANIFEST])).id
        data, texts = bytes(members[COMPONENT]), wit_files(members)
    if wit is not None:
        texts = [
            read_file(f, MAX_WIT_BYTES, ArtifactError, code="artifact.unreadable").decode(
                "utf-8", "replace"
            )
            for f in sorted(wit.glob("*.wit"))[:_MAX_WIT_FILES]
        ]
    try:
        types = types_of(bytes(data))
    except OddBinary as exc:
        raise ArtifactError(
            f"it is not framed as a component is: {exc}", code="artifact.not-a-component"
        ) from None
    if types is None:
        raise BuildError("it has types that capwasm does not know", code="build.project")
    return Source(types, texts, title)
