"""The words of the sandbox: its layers, what one process is given, and what was applied of it."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, Literal, Self, get_args

__all__ = [
    "DEFAULT_REQUIRED",
    "LIBRARIES",
    "NULL",
    "File",
    "Kind",
    "Layer",
    "LayerError",
    "Limits",
    "Report",
    "Spec",
]

Kind = Literal["native", "component", "exec"]

NULL: Final = "/dev/null"
"""The one device that an exec may be given; what is written to it is gone."""

# What DT_NEEDED of an ordinary plugin names.  In memory before the root is closed, they are found
# there; whatever else it names is not found at all.
LIBRARIES: Final = (
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "libstdc++.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libresolv.so.2",
)

_MAX_ITEMS: Final = 256  # arguments, variables, paths, files: each list
_MAX_TEXT: Final = 64 * 1024
_MAX_NUMBER: Final = 2**62  # still positive for every interface of the kernel
_FILE_MODES: Final = (0o444, 0o555)


class Layer(StrEnum):
    """One wall each.  In this order they are told; `sandbox.enter` knows in which they are built."""

    CLEAN_START = "clean-start"
    SESSION = "session"
    NO_NEW_PRIVS = "no-new-privs"
    PARENT_DEATH = "parent-death"
    NON_DUMPABLE = "non-dumpable"
    RLIMITS = "rlimits"
    OWN_USER = "own-user"
    USER_NAMESPACE = "user-namespace"
    PID_NAMESPACE = "pid-namespace"
    MOUNT_NAMESPACE = "mount-namespace"
    NET_NAMESPACE = "net-namespace"
    IPC_NAMESPACE = "ipc-namespace"
    UTS_NAMESPACE = "uts-namespace"
    CGROUP_NAMESPACE = "cgroup-namespace"
    NO_CAPABILITIES = "no-capabilities"
    LANDLOCK_FILES = "landlock-files"
    LANDLOCK_NET = "landlock-net"
    LANDLOCK_SCOPE = "landlock-scope"
    SECCOMP = "seccomp"
    CGROUP_MEMORY = "cgroup-memory"
    CGROUP_PIDS = "cgroup-pids"
    CGROUP_CPU = "cgroup-cpu"


# Of the first two root has one and everybody else the other; cgroups must be delegated, and each
# limit that they hold has an rlimit beside it.
DEFAULT_REQUIRED: Final = frozenset(Layer) - {
    Layer.OWN_USER,
    Layer.USER_NAMESPACE,
    Layer.CGROUP_MEMORY,
    Layer.CGROUP_PIDS,
    Layer.CGROUP_CPU,
}


class LayerError(Exception):
    """A layer that is required can't be had: nothing was loaded, and the process must end.

    Attributes:
        layer: which.   errno: the kernel's number, 0 if it is not the kernel who says so.
        text: why, for the operator.
    """

    def __init__(self, layer: Layer, number: int, text: str) -> None:
        super().__init__(layer, number, text)
        self.layer, self.errno, self.text = layer, number, text

    def __str__(self) -> str:
        name = errno.errorcode.get(self.errno)
        return f"{self.layer}: {self.text}{f' ({name})' if name else ''}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process may use.

    Attributes:
        memory: bytes; of address space where the code is native, of data for a component's engine,
            and of everything in the cgroup.
        cpu_seconds: of processor time, of all threads together, for the life of the process.
        threads: that it may have at once, its first one included, and those of its children.
        processes: 1: it can't have children; more: it can.  Only an exec's may be more.
        files: descriptors that it may have open at once.
        file_bytes: the largest file that it may write; 0 is none at all.
        cpu_percent: of one processor, in the cgroup; 0 is no bound.
    """

    memory: int = 256 * 2**20
    cpu_seconds: int = 3600
    threads: int = 1
    processes: int = 1
    files: int = 16
    file_bytes: int = 0
    cpu_percent: int = 0

    def __post_init__(self) -> None:
        least = {"file_bytes": 0, "cpu_percent": 0, "files": 3}
        for each in fields(self):
            _number(getattr(self, each.name), f"limits.{each.name}", least.get(each.name, 1))


@dataclass(frozen=True, slots=True)
class File:
    """A file of the private root: `/name`, with the bytes of a memfd that comes along.

    Attributes:
        name: one name, no path.   mode: 0o444 or 0o555; nobody ever writes it.
    """

    name: str
    mode: int = 0o444

    def __post_init__(self) -> None:
        if "/" in _text(self.name, "file name", 64) or self.name in {"", ".", ".."}:
            raise ValueError("file name: one name is wanted, without a slash")
        if type(self.mode) is not int or self.mode not in _FILE_MODES:
            raise ValueError("file mode: 0o444 or 0o555 is wanted")


@dataclass(frozen=True, slots=True)
class Spec:
    """What one process is given.

    Attributes:
        kind: chooses the seccomp profile, and which memory is counted.
        layers: to apply.  Policy can't shorten this list; only tests of the sandbox do.
        required: those without which nothing may run.  Others that can't be had are reported.
        limits: see `Limits`.
        files: of the private root, in the order of the memfds that hold their bytes.
        argv, env: of an `exec`.
        binds: paths of the host that an `exec` sees, read-only, at the same place; no device among
            them can be used but `NULL`.
        executables: the paths among these that may be executed: program, loader.
    """

    kind: Kind
    layers: tuple[Layer, ...] = tuple(Layer)
    required: frozenset[Layer] = DEFAULT_REQUIRED
    limits: Limits = field(default_factory=Limits)
    files: tuple[File, ...] = ()
    argv: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    binds: tuple[str, ...] = ()
    executables: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind: one of {', '.join(get_args(Kind))} is wanted")
        if len(set(self.layers)) != len(self.layers):
            raise ValueError("layers: one is named twice")
        if len({f.name for f in self.files}) != len(self.files):
            raise ValueError("files: a name is there twice")
        for path in (*self.binds, *self.executables):
            _path(path)
        for text in self.argv:
            _text(text, "argv")
        for name, value in self.env:
            if not _text(name, "env") or "=" in name:
                raise ValueError("env: a name is empty, or holds '='")
            _text(value, "env")
        if self.kind == "exec":
            if not self.argv or self.argv[0] not in self.executables:
                raise ValueError("argv: the program must be one of the executables")
        elif self.argv or self.env or self.binds or self.executables:
            raise ValueError(f"a {self.kind} has no arguments, environment, binds or executables")
        elif self.limits.processes > 1:
            raise ValueError(f"limits.processes: of a {self.kind}, 1 is wanted")

    def to_map(self) -> dict[str, Any]:
        """Only maps, lists, text and numbers; `from_map` takes it back."""
        return {
            "kind": self.kind,
            "layers": [str(layer) for layer in self.layers],
            "required": sorted(str(layer) for layer in self.required),
            "limits": {f.name: getattr(self.limits, f.name) for f in fields(Limits)},
            "files": [[f.name, f.mode] for f in self.files],
            "argv": list(self.argv),
            "env": [list(pair) for pair in self.env],
            "binds": list(self.binds),
            "executables": list(self.executables),
        }

    @classmethod
    def from_map(cls, given: object) -> Self:
        """The spec that `to_map` wrote; takes nothing that is missing, unknown or of another type.

        Raises:
            ValueError: says which field is wrong.
        """
        map_ = _map(given, "spec", {f.name for f in fields(cls)})
        limits = _map(map_["limits"], "limits", {f.name for f in fields(Limits)})
        return cls(
            kind=map_["kind"],
            layers=tuple(_layer(word) for word in _list(map_["layers"], "layers")),
            required=frozenset(_layer(word) for word in _list(map_["required"], "required")),
            limits=Limits(**limits),
            files=tuple(File(*_pair(each, "files")) for each in _list(map_["files"], "files")),
            argv=tuple(_list(map_["argv"], "argv")),
            env=tuple(_pair(each, "env") for each in _list(map_["env"], "env")),
            binds=tuple(_list(map_["binds"], "binds")),
            executables=tuple(_list(map_["executables"], "executables")),
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What holds a process.

    Attributes:
        applied: the layers that do.   missing: those that could not be had, each with why.
    """

    applied: tuple[Layer, ...]
    missing: Mapping[Layer, str]

    def to_map(self) -> dict[str, Any]:
        """Only maps, lists and text; `from_map` takes it back."""
        return {
            "applied": [str(layer) for layer in self.applied],
            "missing": {str(layer): why for layer, why in self.missing.items()},
        }

    @classmethod
    def from_map(cls, given: object) -> Self:
        """The report that `to_map` wrote.

        Raises:
            ValueError: says which field is wrong.
        """
        map_ = _map(given, "report", {"applied", "missing"})
        applied = tuple(_layer(word) for word in _list(map_["applied"], "applied"))
        missing = _map(map_["missing"], "missing", None)
        return cls(applied, {_layer(k): _text(v, "missing") for k, v in missing.items()})


def _map(given: object, what: str, keys: set[str] | None) -> dict[str, Any]:
    if type(given) is not dict or len(given) > _MAX_ITEMS:
        raise ValueError(f"{what}: a map is wanted")
    if keys is not None and given.keys() != keys:
        raise ValueError(f"{what}: its keys must be {', '.join(sorted(keys))}")
    return given


def _list(given: object, what: str) -> list[Any]:
    if type(given) is not list or len(given) > _MAX_ITEMS:
        raise ValueError(f"{what}: a list of at most {_MAX_ITEMS} is wanted")
    return given


def _pair(given: object, what: str) -> tuple[Any, Any]:
    if type(given) is not list or len(given) != 2:
        raise ValueError(f"{what}: a pair is wanted")
    return given[0], given[1]


def _layer(given: object) -> Layer:
    if type(given) is not str or given not in _LAYERS:
        raise ValueError("layers: an unknown layer")
    return Layer(given)


def _number(given: object, what: str, least: int) -> int:
    if type(given) is not int or not least <= given <= _MAX_NUMBER:
        raise ValueError(f"{what}: a whole number of at least {least} is wanted")
    return given


def _text(given: object, what: str, longest: int = _MAX_TEXT) -> str:
    # A NUL would end it early for the kernel; a lone surrogate has no bytes.
    if type(given) is not str or len(given) > longest or "\0" in given or not _encodes(given):
        raise ValueError(f"{what}: text without NUL, of at most {longest} characters, is wanted")
    return given


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _path(given: object) -> str:
    text = _text(given, "path", 4096)
    if not text.startswith("/") or any(p in {"", ".", ".."} for p in text[1:].split("/")):
        raise ValueError("path: an absolute path without empty, '.' or '..' parts is wanted")
    return text


_LAYERS: Final = frozenset(str(layer) for layer in Layer)
