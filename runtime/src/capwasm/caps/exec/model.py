"""Which commands a plugin asks for, and what the operator says that each one is.  Pure.

The manifest names a command.  All that matters stands in the policy: the program, the form of its
arguments, what it may read, and how much of everything it may use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from capwasm._words import kebab
from capwasm.caps._paths import host_path_fault
from capwasm.caps._tables import Size, Table, show_size
from capwasm.lattice import Clause, _Bottom, meet_min, meet_same, within_min, within_same

from .pattern import MAX_PATTERNS, Pattern

__all__ = [
    "AskedCommand",
    "ConsentedCommand",
    "ExecClause",
    "GivenCommand",
    "Quantities",
]

NAME: Final = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
MAX_NAME: Final = 64
MAX_READS: Final = 64
MAX_TIMEOUT_MS: Final = 600_000
MAX_BYTES: Final = 64 * 2**20
MIN_MEMORY, MAX_MEMORY = 16 * 2**20, 64 * 2**30
MAX_PROCESSES: Final = 1024
MAX_THREADS: Final = 1024
MAX_RUNS: Final = 1_000_000

Patterns = tuple[tuple[str, ...], ...]


class Quantities(NamedTuple):
    """How much of everything one command may use, by the names that tables and clauses have for it.

    The values are those if no side says.
    """

    timeout_ms: int = 5_000
    memory: int = 256 * 2**20
    processes: int = 1
    threads: int = 16
    input_bytes: int = 2**20
    output_bytes: int = 2**20
    runs: int = 16


def _path(text: str) -> str:
    if (fault := host_path_fault(text)) is not None:
        raise ValueError(fault)
    return text


def _patterns(given: tuple[str, ...] | Patterns) -> Patterns:
    """Several patterns, or the one that was written without the outer brackets."""
    several = tuple(form for form in given if isinstance(form, tuple))
    patterns: Patterns = several if given and len(several) == len(given) else (_words(given),)
    for words in patterns:
        Pattern.of(words)
    return patterns


def _words(given: Sequence[str | tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(word for word in given if isinstance(word, str))


Name = Annotated[str, Field(pattern=NAME, max_length=MAX_NAME)]
Path = Annotated[str, AfterValidator(_path)]
Arguments = Annotated[
    tuple[str, ...] | Annotated[Patterns, Field(max_length=MAX_PATTERNS)],
    AfterValidator(_patterns),
    Field(
        description="What follows the program: fixed words and holes, {name:regular expression};"
        " or several such arrays, of which the first that fits is taken."
    ),
]
Reads = Annotated[
    frozenset[Path],
    Field(max_length=MAX_READS, description="Files and directories that it sees, read-only."),
]


class AskedCommand(Table):
    """An `[[exec]]` table of a manifest: only a name."""

    command: Annotated[Name, Field(description="The name by which the plugin calls it.")]

    def clauses(self) -> list[ExecClause]:
        """One."""
        return [ExecClause(self.command)]


class ConsentedCommand(Table):
    """An `[[exec]]` table of a consent: what it leaves out it leaves open."""

    command: Annotated[Name | None, Field(description="The name by which the plugin calls it.")] = (
        None
    )
    program: Annotated[
        Path | None,
        Field(description="Its program: the absolute path of a binary, not of a script."),
    ] = None
    arguments: Arguments | None = None
    reads: Reads | None = None
    timeout_ms: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS)] | None = Field(
        default=None, description="How long it may run; 5000 if no side says."
    )
    memory: Annotated[Size, Field(ge=MIN_MEMORY, le=MAX_MEMORY)] | None = Field(
        default=None, description="How much memory it may have; 256MiB if no side says."
    )
    processes: Annotated[int, Field(ge=1, le=MAX_PROCESSES)] | None = Field(
        default=None, description="How many processes it may be; 1 if no side says: no other."
    )
    threads: Annotated[int, Field(ge=1, le=MAX_THREADS)] | None = Field(
        default=None, description="How many threads all of it may have; 16 if no side says."
    )
    input_bytes: Annotated[Size, Field(ge=0, le=MAX_BYTES)] | None = Field(
        default=None, description="Bytes of its standard input; 1MiB if no side says."
    )
    output_bytes: Annotated[Size, Field(ge=0, le=MAX_BYTES)] | None = Field(
        default=None, description="Bytes of its standard output; 1MiB if no side says."
    )
    runs: Annotated[int, Field(ge=1, le=MAX_RUNS)] | None = Field(
        default=None, description="How often one call may run it; 16 if no side says."
    )

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.command is None and self.program is None:
            raise ValueError("must name something: write command or program")
        return self

    def clauses(self) -> list[ExecClause]:
        """One."""
        arguments = self.arguments
        return [
            ExecClause(
                self.command,
                self.program,
                None if arguments is None else _patterns(arguments),
                self.reads,
                *(getattr(self, word) for word in Quantities._fields),
            )
        ]


class GivenCommand(ConsentedCommand):
    """An `[[exec]]` table of a policy: without `arguments` there are none, and no `reads` is none."""

    arguments: Arguments = ()
    reads: Reads = frozenset()


@dataclass(frozen=True, slots=True)
class ExecClause(Clause):
    """One command.

    Attributes:
        command: its name, or None for any.
        program: the path of the program, or None for any.
        arguments: the forms that its arguments may have, or None for any.
        reads: paths of the host that it sees besides the system's libraries, or None for any.
        timeout_ms: how long it may run.   memory: bytes.   processes, threads: at a time.
        input_bytes, output_bytes: of its standard input and output.
        runs: how often one call of the plugin may run it.
    """

    command: str | None = None
    program: str | None = None
    arguments: Patterns | None = None
    reads: frozenset[str] | None = None
    timeout_ms: int | None = None
    memory: int | None = None
    processes: int | None = None
    threads: int | None = None
    input_bytes: int | None = None
    output_bytes: int | None = None
    runs: int | None = None

    def meet(self, other: Self) -> Self | None:
        """The same command, with what both sides give it."""
        command = meet_same(self.command, other.command)
        program = meet_same(self.program, other.program)
        arguments = meet_same(self.arguments, other.arguments)
        if (
            isinstance(command, _Bottom)
            or isinstance(program, _Bottom)
            or isinstance(arguments, _Bottom)
        ):
            return None
        mine, theirs = self._quantities(), other._quantities()
        least = [meet_min(a, b) for a, b in zip(mine, theirs, strict=True)]
        return type(self)(command, program, arguments, self._shared_reads(other), *least)

    def within(self, other: Self) -> bool:
        """Whether it is the same command, with no more of anything than `other`."""
        pairs = zip(self._quantities(), other._quantities(), strict=True)
        return (
            within_same(self.command, other.command)
            and within_same(self.program, other.program)
            and within_same(self.arguments, other.arguments)
            and (other.reads is None or (self.reads is not None and self.reads <= other.reads))
            and all(within_min(a, b) for a, b in pairs)
        )

    def satisfied_by(self, granted: Self) -> bool:
        """Whether `granted` gives the command; what it is, a manifest leaves to the operator."""
        return (
            within_same(self.command, granted.command)
            and (self.program is None or within_same(self.program, granted.program))
            and (self.arguments is None or within_same(self.arguments, granted.arguments))
            and (self.reads is None or granted.reads is None or self.reads <= granted.reads)
        )

    def denied_by(self, rule: Self) -> bool:
        """Whether a deny rule names the command or the program; the rest of it plays no part."""
        return rule.command in (None, self.command) and rule.program in (None, self.program)

    def fill(self, values: Sequence[str]) -> tuple[str, ...] | None:
        """The arguments with these values in the holes of the first form that fits, or None."""
        filled = (Pattern.of(words).fill(values) for words in self.arguments or ((),))
        return next((each for each in filled if each is not None), None)

    @property
    def in_force(self) -> Quantities:
        """Its quantities, with the defaults for those that every side left open."""
        return Quantities(
            *(
                default if given is None else given
                for given, default in zip(self._quantities(), Quantities(), strict=True)
            )
        )

    def describe(self) -> str:
        """One line for a person."""
        what = f"run the command {self.command}" if self.command else "run any command"
        if self.program is None:
            return what
        line = f"{what}: {self.program}"
        if self.arguments not in (None, ((),)):
            forms = (" ".join(map(_shown, form)) or "(alone)" for form in self.arguments or ())
            line += f" {' or '.join(forms)}"
        if self.reads:
            line += f" (reads {', '.join(sorted(self.reads))})"
        return line

    def to_toml(self) -> dict[str, Any]:
        """The table, with what is not open."""
        return dict(self._words())

    def _words(self) -> Iterator[tuple[str, Any]]:
        if self.command is not None:
            yield "command", self.command
        if self.program is not None:
            yield "program", self.program
        if self.arguments is not None:
            one = len(self.arguments) == 1
            yield "arguments", list(self.arguments[0]) if one else [list(a) for a in self.arguments]
        if self.reads is not None:
            yield "reads", sorted(self.reads)
        for word, value in zip(_QUANTITIES, self._quantities(), strict=True):
            if value is not None:
                yield word, show_size(value) if word in _SIZES else value

    def _quantities(self) -> tuple[int | None, ...]:
        return tuple(getattr(self, word) for word in Quantities._fields)

    def _shared_reads(self, other: Self) -> frozenset[str] | None:
        # None of the paths is no contradiction here: a command may well do without.
        if self.reads is None or other.reads is None:
            return other.reads if self.reads is None else self.reads
        return self.reads & other.reads


_QUANTITIES: Final = tuple(map(kebab, Quantities._fields))
_SIZES: Final = frozenset({"memory", "input-bytes", "output-bytes"})


def _shown(word: str) -> str:
    return word if word and " " not in word else f'"{word}"'
