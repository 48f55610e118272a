"""The form of a file of cases: given this manifest and that consent, expect this of the policy.

::

    schema = 1

    [[case]]
    name = "weather reads its service, and nothing else there"
    plugin = "acme.weather"
    asks = '''
    [[net]]
    allow = "https://api.acme.com/v1/*"
    '''
    consent = "all"
    allows = [{ net = "GET https://api.acme.com/v1/today" }]
    denies = [{ net = "POST https://api.acme.com/v1/today" }]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from capwasm._files import read_file
from capwasm._model import MAX_TEXT_BYTES, Model, parse_toml, validate
from capwasm.capsule.identity import Kind, PluginId, Version, check_version
from capwasm.errors import Fault, PolicyError
from capwasm.grants._document import join, plain_faults, told, toml_table
from capwasm.limits import CEILING, Limits

from .operations import question

__all__ = ["Case", "Cases", "Operation", "load_cases"]

MAX_CASES: Final = 1_000
MAX_OPERATIONS: Final = 200

Name = Annotated[str, Field(min_length=1, max_length=200)]
Path_ = Annotated[str, Field(min_length=1, max_length=200)]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: the capability, and what of it, in words."""

    capability: str
    text: str

    def __str__(self) -> str:
        return f"{self.capability}: {self.text}"


def _operation(row: dict[str, str]) -> dict[str, str]:
    if len(row) != 1:
        raise ValueError('one operation is one pair, such as { net = "GET https://…" }')
    for capability, text in row.items():
        question(capability, text)
    return row


def _core(text: str) -> str:
    return check_version(text)


Row = Annotated[dict[str, Annotated[str, Field(max_length=9000)]], AfterValidator(_operation)]
Rows = Annotated[tuple[Row, ...], Field(max_length=MAX_OPERATIONS)]


class Case(Model):
    """One `[[case]]`: what is given, and what is expected.  What is not named is not looked at."""

    name: Annotated[Name, Field(description="What the case shows; each has another name.")]
    manifest: Annotated[
        str | None, Field(description="A plugin.toml: its file, seen from the file of cases.")
    ] = None
    asks: Annotated[
        str | None, Field(description="Or just its tables, in TOML; with `plugin`.")
    ] = None
    plugin: Annotated[
        PluginId | None, Field(description="The id of a plugin whose tables `asks` are.")
    ] = None
    version: Annotated[Version, Field(description="Its version.")] = "1.0.0"
    kind: Annotated[Kind, Field(description="Whether it is a component or native code.")] = (
        "component"
    )
    consent: Annotated[
        Literal["none", "all"],
        Field(description="What a person agreed to: nothing, or all that is asked."),
    ] = "none"
    without: Annotated[
        tuple[Path_, ...],
        Field(description="Tables that the person did not agree to, such as net[1]."),
    ] = ()
    core: Annotated[
        Annotated[str, AfterValidator(_core)] | None,
        Field(description="The core's version; requires-core is not looked at without."),
    ] = None
    expect: Annotated[
        Literal["granted", "denied"] | None, Field(description="What a load would come to.")
    ] = None
    code: Annotated[
        str | None, Field(max_length=64, description="The code of the denial: grant.denied.")
    ] = None
    missing: Annotated[
        tuple[Path_, ...] | None,
        Field(description='All that is missing, each with whose word it is: "net[0]: policy".'),
    ] = None
    granted: Annotated[
        tuple[Path_, ...] | None, Field(description="The tables of which something is in force.")
    ] = None
    narrowed: Annotated[
        tuple[Path_, ...] | None, Field(description="The tables that get less than they ask for.")
    ] = None
    limits: Annotated[
        dict[str, int], Field(default_factory=dict, description="Limits as they come out.")
    ]
    isolation: Annotated[
        Literal["in-process", "process"] | None, Field(description="Where its code runs.")
    ] = None
    allows: Annotated[Rows, Field(description="Operations that are allowed.")] = ()
    denies: Annotated[Rows, Field(description="Operations that are refused.")] = ()

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.manifest is None) == (self.asks is None):
            raise ValueError("must say what is asked: write either manifest or asks")
        if (self.asks is None) != (self.plugin is None):
            raise ValueError("asks and plugin go together")
        if self.without and self.consent == "none":
            raise ValueError('without leaves out of consent = "all"')
        if self.expect == "granted" and (self.code or self.missing):
            raise ValueError("what is granted has no code, and nothing is missing")
        Limits.from_table(self.limits, CEILING)
        if not self.expects_something:
            raise ValueError("expects nothing, so it could not fail: write expect, allows, denies…")
        return self

    @property
    def expects_something(self) -> bool:
        """Whether it could fail."""
        asked = (self.expect, self.code, self.missing, self.granted, self.narrowed, self.isolation)
        return bool(any(a is not None for a in asked) or self.limits or self.allows or self.denies)

    def manifest_bytes(self, beside: Path) -> bytes:
        """The plugin.toml that is meant.

        Args:
            beside: the directory in which the file of cases lies.

        Raises:
            PolicyError: `policy.cases`: its file can't be read.
        """
        if self.manifest is not None:
            return _read(beside / self.manifest)
        head = toml_table(
            "[plugin]",
            {
                "id": self.plugin,
                "name": self.plugin,
                "version": self.version,
                "requires-core": ">=0",
                "kind": self.kind,
            },
        )
        return f"schema = 1\n{head}\n{self.asks}\n".encode()

    @property
    def operations(self) -> list[tuple[Operation, bool]]:
        """Each operation, and whether it is to be allowed."""
        sides = ((self.allows, True), (self.denies, False))
        return [
            (Operation(*pair), want) for rows, want in sides for row in rows for pair in row.items()
        ]


class _Document(Model):
    schema_number: Annotated[int, Field(alias="schema", ge=1, le=1)]
    policy: Annotated[str | None, Field(min_length=1, max_length=1024)] = None
    case: Annotated[tuple[Case, ...], Field(max_length=MAX_CASES)]


@dataclass(frozen=True, slots=True)
class Cases:
    """A file of cases.

    Attributes:
        cases: in the file's order.   policy: the policy's file that it names, or None.
        beside: the directory it lies in.   source: what messages call it.
    """

    cases: tuple[Case, ...]
    policy: Path | None
    beside: Path
    source: str


def load_cases(path: Path) -> Cases:
    """Read a file of cases, once.

    Raises:
        PolicyError: `policy.cases`: it can't be read, is no TOML, or has faults, all of them at once.
    """
    source = ascii(str(path))[1:-1]
    doc = parse_toml(_read(path), PolicyError, code="policy.cases", context=source)
    faults = plain_faults(doc, allowed="\n\t")
    if faults:
        message, shown = told(faults)
        raise PolicyError(message, code="policy.cases", context=source, faults=shown)
    made = validate(_Document, doc, PolicyError, code="policy.cases", context=source)
    faults = list(_twice([case.name for case in made.case]))
    if not made.case:
        faults.append(Fault("case", "there is none, so nothing could fail: write [[case]]"))
    if faults:
        message, shown = told(faults)
        raise PolicyError(message, code="policy.cases", context=source, faults=shown)
    beside = path.parent
    return Cases(made.case, None if made.policy is None else beside / made.policy, beside, source)


def _twice(names: Sequence[str]) -> list[Fault]:
    seen: dict[str, int] = {}
    found = []
    for index, name in enumerate(names):
        if name in seen:
            found.append(
                Fault(join(f"case[{index}]", "name"), f"is the name of case[{seen[name]}]")
            )
        seen.setdefault(name, index)
    return found


def _read(path: Path) -> bytes:
    data: Any = read_file(
        path, MAX_TEXT_BYTES, PolicyError, code="policy.cases", too_large="policy.cases"
    )
    return bytes(data)
