"""The `[isolation]` table of a policy: whose code runs in a process of its own, and behind what.

This is the one place that decides it.  A policy, a plugin and the core may each ask for a process
of its own, and no one can take it away again.  Native code always has one, and runs only where the
policy names the plugin; a file without a manifest only where it names the file's very bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from capwasm._model import Model
from capwasm.capsule.identity import IdPattern, Kind, id_matches
from capwasm.errors import Fault
from capwasm_shim.layers import DEFAULT_REQUIRED, Layer

from ._document import toml_table

__all__ = ["Isolation", "IsolationRule", "Isolations", "Place"]

Place = Literal["in-process", "process"]

MAX_ENTRIES: Final = 1024
_LAYERS: Final = tuple(layer.value for layer in Layer)


def _layer(text: str) -> str:
    if text not in _LAYERS:
        raise ValueError(f"no layer {text[:64]!r}; valid: {', '.join(_LAYERS)}")
    return text


class IsolationRule(Model):
    """The `[isolation]` table, as written."""

    process: Annotated[
        tuple[IdPattern, ...],
        Field(
            max_length=MAX_ENTRIES,
            description="Ids whose components run in a process of their own: acme.weather, acme.*.",
        ),
    ] = ()
    native: Annotated[
        tuple[IdPattern, ...],
        Field(max_length=MAX_ENTRIES, description="Ids whose native code may run at all."),
    ] = ()
    require: Annotated[
        tuple[
            Annotated[
                str, AfterValidator(_layer), Field(json_schema_extra={"enum": list(_LAYERS)})
            ],
            ...,
        ]
        | None,
        Field(description="Layers that must hold, or such a process does not start."),
    ] = None
    legacy: Annotated[
        tuple[Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")], ...],
        Field(
            max_length=MAX_ENTRIES,
            description="Digests of files without a manifest that may run, in strict mode.",
        ),
    ] = ()


@dataclass(frozen=True, slots=True)
class Isolation:
    """How one plugin's code is to run.

    Attributes:
        process: whether in a process of its own.   by: who wants that, in words.
        required: the layers of the sandbox that must hold there, or it does not start.
        fault: why the code may not run at all, with the line that would allow it; or None.
    """

    process: bool
    by: tuple[str, ...]
    required: frozenset[Layer]
    fault: Fault | None
    _policy: Isolations = field(repr=False)

    def apart(self, by: str) -> Isolation:
        """The same, and in a process of its own, as `by` wants it."""
        return replace(self, process=True, by=(*self.by, by))

    def layers(self) -> list[str]:
        """The names of the layers that must hold, in their order."""
        return [layer.value for layer in Layer if layer in self.required]

    def line_without(self, layers: Collection[Layer]) -> str:
        """The line of the policy with which these layers need not hold."""
        gone = frozenset(layers)
        return self._policy.line("require", [name for name in self.layers() if name not in gone])

    def describe(self) -> str:
        """One line for people: where it runs, and who wants that."""
        if not self.process:
            return "in the core's own process"
        return f"in a process of its own ({', '.join(self.by)})"

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        fault = self.fault
        return {
            "process": self.process,
            "by": list(self.by),
            "required": self.layers() if self.process else [],
            "refused": None
            if fault is None
            else {"path": fault.path, "message": fault.message, "fix": fault.fix},
        }


@dataclass(frozen=True, slots=True)
class Isolations:
    """What a policy says of processes of their own; the default is what one says that is silent.

    Attributes:
        rule: the table's words.
        line_number: where the table stands in the file, or None if that can't be told.
        stands: whether there is one.
    """

    rule: IsolationRule = field(default_factory=IsolationRule)
    line_number: int | None = None
    stands: bool = False

    def for_plugin(self, plugin_id: str, kind: Kind, *, asked: Place = "in-process") -> Isolation:
        """How a plugin's code is to run.

        Args:
            plugin_id: as signed.
            kind: as signed.
            asked: what its manifest wants; it can only ask for more.
        """
        by = []
        if kind == "native":
            by.append('kind = "native"')
        if asked == "process":
            by.append("plugin.isolation")
        if pattern := _first(self.rule.process, plugin_id):
            by.append(f'isolation.process "{pattern}"')
        fault = None
        if kind == "native" and not _first(self.rule.native, plugin_id):
            fault = Fault(
                "plugin.kind",
                "policy: isolation.native does not let its native code run",
                self.line("native", [*self.rule.native, plugin_id]),
            )
        return Isolation(bool(by), tuple(by), self.required, fault, self)

    def for_legacy(self, sha256: str) -> Isolation:
        """How a file without a manifest is to run.

        Args:
            sha256: of the bytes that are to run, in hex.
        """
        digest, fault = f"sha256:{sha256}", None
        if digest not in self.rule.legacy:
            fault = Fault(
                "isolation.legacy",
                "policy: a file without a manifest runs only if its digest is listed",
                self.line("legacy", [*self.rule.legacy, digest]),
            )
        return Isolation(
            process=True,
            by=("strict mode",),
            required=self.required,
            fault=fault,
            _policy=self,
        )

    def line(self, word: str, values: Sequence[str]) -> str:
        """The line that says so; with the table's header, if there is none yet.

        It holds what the word says now, too: TOML has no word twice.
        """
        header, text = toml_table("[isolation]", {word: values}).split("\n")
        if not self.stands:
            return f"{header}\n{text}"
        place = f", line {self.line_number}" if self.line_number else ""
        return f"{text}  # in [isolation]{place}"

    def remarks(self) -> Iterator[Fault]:
        """What is no fault, but what the policy's owner should know."""
        if self.left_out:
            names = ", ".join(self.left_out)
            yield Fault("isolation.require", f"lets processes start that lack {names}")
        if "*" in self.rule.native:
            yield Fault("isolation.native", "lets the native code of every plugin run")

    @property
    def left_out(self) -> tuple[str, ...]:
        """The layers of the default that `require` leaves out, in their order."""
        missing = DEFAULT_REQUIRED - self.required
        return tuple(layer.value for layer in Layer if layer in missing)

    @property
    def required(self) -> frozenset[Layer]:
        """The layers that must hold behind every process, a command's too."""
        if self.rule.require is None:
            return DEFAULT_REQUIRED
        return frozenset(map(Layer, self.rule.require))


def _first(patterns: Sequence[str], plugin_id: str) -> str | None:
    return next((p for p in patterns if id_matches(p, plugin_id)), None)
