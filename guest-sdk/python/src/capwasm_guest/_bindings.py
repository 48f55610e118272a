"""The one way to the generated bindings, and what they look like to a type checker.

componentize-py makes the modules below `wit_world.imports` while it builds a component; there are
none before.  `capwasm build` gives those of capwasm fixed names, whatever the world is called.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from typing import Any, Protocol, cast

__all__ = [
    "ClockImport",
    "CommandOutput",
    "ConfigImport",
    "ExecImport",
    "FetchImport",
    "FileInfo",
    "FileResource",
    "FsImport",
    "KvImport",
    "LogImport",
    "MountRecord",
    "RandomImport",
    "ResponseResource",
    "RevealImport",
    "SecretResource",
    "SecretsImport",
    "err_type",
    "guard",
    "load",
    "started",
]

# What plugin.toml must declare so that the world imports the interface.
_TABLES = {
    "capwasm_fs": "[[fs]]",
    "capwasm_fetch": "[[net]]",
    "capwasm_secrets": "[[secret]]",
    "capwasm_secrets_reveal": '[[secret]] (use = "reveal")',
    "capwasm_kv": "[kv]",
    "capwasm_log": "[log]",
    "capwasm_clock": "[clock]",
    "capwasm_random": "[random]",
    "capwasm_config": "[config]",
    "capwasm_exec": "[[exec]]",
}

_running = False


def started() -> None:
    """The first call has come: from now on there are capabilities, and no library to import."""
    global _running  # noqa: PLW0603  the one fact of this process: a snapshot, or a plugin
    if not _running:
        _running = True
        sys.meta_path.append(_Late())


class _Late(MetaPathFinder):
    """Asked last for a module that nobody has: says why."""

    def find_spec(self, fullname: str, *_: object) -> None:
        """Find nothing.

        Raises:
            ModuleNotFoundError: always.
        """
        raise ModuleNotFoundError(
            f"No module named {fullname!r}: a component holds what was imported while it was "
            "built; import it at the top of a module",
            name=fullname,
        )


def guard(what: str) -> None:
    """Pass if the plugin runs.

    Raises:
        RuntimeError: it is being built, and so nothing has been granted yet.
    """
    if not _running:
        raise RuntimeError(
            f"{what} was used while the plugin is being built: code at module level runs then, "
            "and has no capabilities. Move it into a method of the plugin's class"
        )


def load(name: str, user: str) -> Any:
    """The generated module of an imported interface.

    Raises:
        ImportError: the world does not import it; says the line of plugin.toml that is missing.
    """
    try:
        import_module("wit_world")
    except ImportError:
        raise ImportError(
            f"{user} works inside a component only: make one with `capwasm build`"
        ) from None
    try:
        return import_module(f"wit_world.imports.{name}")
    except ImportError:
        raise ImportError(
            f"{user} needs a {_TABLES[name]} table in plugin.toml, and a world that includes "
            "capwasm:plugin/capabilities in wit/"
        ) from None


def err_type() -> type[Exception]:
    """The exception that stands for the `err` of a WIT result."""
    return cast("type[Exception]", import_module("componentize_py_types").Err)


# -- what the generated modules hold -------------------------------------------------------------


class Header(Protocol):
    """`capwasm:fetch/client.header`."""

    name: str
    value: str


class SecretResource(Protocol):
    """`capwasm:secrets/store.secret`."""

    def name(self) -> str:
        """See WIT."""

    def lease_ms(self) -> int:
        """See WIT."""

    def __exit__(self, *exc: object) -> bool | None:
        """Drop it."""


class ResponseResource(Protocol):
    """`capwasm:fetch/client.response`."""

    def status(self) -> int:
        """See WIT."""

    def headers(self) -> list[Header]:
        """See WIT."""

    def url(self) -> str:
        """See WIT."""

    def read(self, length: int) -> bytes:
        """See WIT."""

    def read_all(self, limit: int) -> bytes:
        """See WIT."""

    def __exit__(self, *exc: object) -> bool | None:
        """Drop it."""


class FetchImport(Protocol):
    """`capwasm:fetch/client`."""

    Header: type[Any]
    Request: type[Any]
    Redirects: Any

    def send(self, request: Any, credentials: list[SecretResource]) -> ResponseResource:
        """See WIT."""


class SecretsImport(Protocol):
    """`capwasm:secrets/store`."""

    def get(self, name: str) -> SecretResource:
        """See WIT."""


class RevealImport(Protocol):
    """`capwasm:secrets/reveal`."""

    def reveal(self, secret: SecretResource) -> bytes:
        """See WIT."""


class KvImport(Protocol):
    """`capwasm:kv/store`."""

    def get(self, key: str) -> bytes | None:
        """See WIT."""

    def set(self, key: str, value: bytes, ttl_ms: int | None) -> None:
        """See WIT."""

    def compare_and_set(self, key: str, expected: bytes | None, value: bytes) -> bool:
        """See WIT."""

    def increment(self, key: str, delta: int) -> int:
        """See WIT."""

    def delete(self, key: str) -> bool:
        """See WIT."""

    def keys(self, prefix: str, after: str | None) -> list[str]:
        """See WIT."""


class LogImport(Protocol):
    """`capwasm:log/log`."""

    Level: Any
    Field: type[Any]

    def write(self, level: Any, message: str, fields: list[Any]) -> None:
        """See WIT."""


class ClockImport(Protocol):
    """`capwasm:clock/clock`."""

    def now(self) -> int:
        """See WIT."""

    def monotonic(self) -> int:
        """See WIT."""

    def sleep(self, ns: int) -> None:
        """See WIT."""


class RandomImport(Protocol):
    """`capwasm:random/random`."""

    def bytes(self, length: int) -> bytes:
        """See WIT."""

    def next_u64(self) -> int:
        """See WIT."""


class ConfigImport(Protocol):
    """`capwasm:config/config`."""

    def get(self, key: str) -> str | None:
        """See WIT."""

    def all(self) -> list[tuple[str, str]]:
        """See WIT."""


class CommandOutput(Protocol):
    """`capwasm:exec/commands.output`."""

    code: int | None
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool
    stderr_truncated: bool


class ExecImport(Protocol):
    """`capwasm:exec/commands`."""

    def run(self, command: str, arguments: list[str], input: bytes) -> CommandOutput:  # noqa: A002
        """See WIT."""


class EnumMember(Protocol):
    """A case of a generated enum."""

    @property
    def name(self) -> str:
        """In capitals, with `_` for `-`."""


class MountRecord(Protocol):
    """`capwasm:fs/files.mount`."""

    path: str
    access: EnumMember
    quota_bytes: int | None
    used_bytes: int


class FileInfo(Protocol):
    """`capwasm:fs/files.info`."""

    name: str
    kind: EnumMember
    size: int
    modified_ns: int


class FileResource(Protocol):
    """`capwasm:fs/files.file`."""

    def read(self, offset: int, length: int) -> bytes:
        """See WIT."""

    def write(self, offset: int, bytes: bytes) -> None:  # noqa: A002
        """See WIT."""

    def size(self) -> int:
        """See WIT."""

    def set_size(self, size: int) -> None:
        """See WIT."""

    def sync(self) -> None:
        """See WIT."""

    def __exit__(self, *exc: object) -> bool | None:
        """Drop it."""


class FsImport(Protocol):
    """`capwasm:fs/files`."""

    Mode: Any

    def mounts(self) -> list[MountRecord]:
        """See WIT."""

    def open(self, path: str, mode: Any) -> FileResource:
        """See WIT."""

    def stat(self, path: str) -> FileInfo:
        """See WIT."""

    def make_directory(self, path: str) -> None:
        """See WIT."""

    def remove(self, path: str) -> None:
        """See WIT."""

    def rename(self, from_: str, to: str) -> None:
        """See WIT."""

    def list(self, path: str, after: str | None) -> list[FileInfo]:
        """See WIT."""
