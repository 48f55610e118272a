"""Who a plugin is: its id, its version and its kind, as one value that is valid or isn't made.

The signed statement, the manifest, the registry and the names of files all say who a plugin is;
they say it in these words only, so that two of them can be compared by `==`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal, cast, get_args

from pydantic import AfterValidator

__all__ = [
    "ID_PATTERN",
    "IdPattern",
    "Identity",
    "Kind",
    "PluginId",
    "Version",
    "check_id",
    "check_version",
    "id_matches",
]

Kind = Literal["component", "native"]

_LABEL: Final = r"[a-z](?:[a-z0-9]|-(?=[a-z0-9]))*"
_ID: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
# What a trust store or a policy may write to speak of several plugins (see `id_matches`).
_PATTERN: Final = re.compile(rf"\*|{_LABEL}(?:\.{_LABEL})*\.\*|{_LABEL}(?:\.{_LABEL})+")
ID_PATTERN: Final = "`acme.weather`, `acme.*` (all ids below acme) or `*` (all)"
_NUMBER: Final = r"(?:0|[1-9][0-9]{0,8})"  # nine digits: no fast-forward to 2**63
_PRE: Final = r"(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION: Final = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_PRE}(?:\.{_PRE})*)?(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?"
)
LEGACY: Final = "legacy.sha256-"
"""How the id begins of a file without a manifest; its digest follows, and nobody signs such an id."""
MAX_ID: Final = 128
MAX_LABEL: Final = 63
MAX_VERSION: Final = 64
# Names that some file systems give to devices; an id is part of a file's name.
DEVICES: Final = frozenset(
    ["con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))]
)


def check_id(text: str) -> str:
    """The plugin id itself, or `ValueError` that says what an id looks like (MAN-09)."""
    labels = text.split(".")
    if (
        len(text) > MAX_ID
        or not _ID.fullmatch(text)
        or any(len(label) > MAX_LABEL or label in DEVICES for label in labels)
    ):
        raise ValueError(
            "not a plugin id: two or more labels of a-z, 0-9 and - joined by dots, each beginning"
            f" with a letter, such as acme.weather; at most {MAX_ID} characters"
        )
    return text


def check_version(text: str) -> str:
    """The version itself, or `ValueError`: it must be SemVer 2.0.0."""
    if len(text) > MAX_VERSION or not _VERSION.fullmatch(text):
        raise ValueError(
            "not a version: SemVer 2.0.0, such as 1.2.0 or 1.2.0-beta.1; at most"
            f" {MAX_VERSION} characters"
        )
    return text


def check_id_pattern(text: str) -> str:
    """The pattern itself, or `ValueError` that lists the forms there are."""
    if len(text) > MAX_ID or not _PATTERN.fullmatch(text):
        raise ValueError(f"not an id pattern: write {ID_PATTERN}")
    return text


def id_matches(pattern: str, plugin_id: str) -> bool:
    """Whether a pattern speaks of an id.  Labels are whole: `acme.*` is not `acmeevil.x`."""
    if pattern == "*":
        return True
    if pattern.endswith(".*"):
        return plugin_id.startswith(pattern[:-1])
    return plugin_id == pattern


PluginId = Annotated[str, AfterValidator(check_id)]
Version = Annotated[str, AfterValidator(check_version)]
IdPattern = Annotated[str, AfterValidator(check_id_pattern)]


@dataclass(frozen=True, slots=True, order=False)
class Identity:
    """A plugin's id, version and kind.

    Raises:
        ValueError: when one of them is malformed.
    """

    id: str
    version: str
    kind: Kind

    def __post_init__(self) -> None:
        """Refuse what isn't canonical."""
        check_id(self.id)
        check_version(self.version)
        if self.kind not in get_args(Kind):
            raise ValueError(f"not a kind: {' or '.join(get_args(Kind))}")

    @classmethod
    def parse(cls, plugin_id: object, version: object, kind: object) -> Identity:
        """The same from values of any type, as a file gives them.

        Raises:
            ValueError: one line a fault.
        """
        faults = []
        checks = ((check_id, plugin_id), (check_version, version))
        for check, value in checks:
            try:
                check(value if isinstance(value, str) else "")
            except ValueError as exc:
                faults.append(str(exc))
        if kind not in get_args(Kind):
            faults.append(f"not a kind: {' or '.join(get_args(Kind))}")
        if faults:
            raise ValueError("\n".join(faults))
        return cls(cast("str", plugin_id), cast("str", version), cast("Kind", kind))

    def __str__(self) -> str:
        """`acme.weather 1.2.0 (component)`."""
        return f"{self.id} {self.version} ({self.kind})"

    @property
    def file_name(self) -> str:
        """`acme.weather-1.2.0.capsule`."""
        return f"{self.id}-{self.version}.capsule"
