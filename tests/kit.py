"""A whole world for end-to-end tests: keys, policy, consent, vault, audit, and real guests."""

from __future__ import annotations

import atexit
import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import wasmtime

from capwasm.capability import HostFunc, Interface
from capwasm.caps import standard_capabilities
from capwasm.caps.secrets import Vault, VaultKey
from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.pack import pack, sign_capsule
from capwasm.capsule.verify import verify
from capwasm.engine.compile import Compiler
from capwasm.engine.compiled import Compiled
from capwasm.engine.engine import PluginEngine
from capwasm.grants.consent import ConsentRecord, Subject
from capwasm.grants.consent_store import ConsentStore
from capwasm.grants.manifest import parse_manifest
from capwasm.plugin import Plugin
from capwasm.runtime import Runtime

GUESTS = Path(__file__).parent / "guests"
OPTIONAL = {
    "[[fs]]": '[[fs]]\nmount = "/none"\nbind = "none"\naccess = "read"\noptional = true\n',
    "[[net]]": '[[net]]\nallow = "https://none.example/"\noptional = true\n',
    "[[secret]]": '[[secret]]\nname = "none"\nuse = "reveal"\noptional = true\n',
    "[clock]": "[clock]\noptional = true\n",
    "[random]": "[random]\noptional = true\n",
    "[log]": "[log]\noptional = true\n",
    "[kv]": "[kv]\noptional = true\n",
    "[config]": '[config]\nkeys = ["none"]\noptional = true\n',
    "[[exec]]": '[[exec]]\ncommand = "none"\noptional = true\n',
}
HEAD = """schema = 1
[plugin]
id = "{id}"
name = "A test"
version = "{version}"
requires-core = "{requires}"
kind = "component"
instance = "{instance}"
"""


@cache
def guest(name: str) -> bytes:
    """The component of that name below tests/guests, from WAT or as committed."""
    wat = GUESTS / f"{name}.wat"
    if wat.exists():
        return bytes(wasmtime.wat2wasm(wat.read_text()))
    return (GUESTS / f"{name}.wasm").read_bytes()


@cache
def compiled(engine: PluginEngine, name: str) -> Compiled:
    """That guest, compiled once an engine."""
    return Compiler(engine, None).compile(guest(name))


class ListServed:
    """These interfaces, as an instance is served with them."""

    def __init__(self, interfaces: Sequence[Interface]) -> None:
        self.interfaces = {i.name: i for i in interfaces}

    def function(self, interface: str, name: str) -> HostFunc:
        return self.interfaces[interface].functions[name]

    def close(self) -> None:
        pass


# Each world has a cache of its own, of the entries that a world of this session has made before.
_COMPILED = tempfile.TemporaryDirectory(prefix="capwasm-tests-")
atexit.register(_COMPILED.cleanup)


def _link_new(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(mode=0o700, exist_ok=True)
        for file in source.iterdir():
            with contextlib.suppress(FileExistsError):
                os.link(file, target / file.name)


class World:
    """One operator's home directory with one trusted publisher."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.home = root / "home"
        self.home.mkdir(mode=0o700)
        _link_new(Path(_COMPILED.name), self.home / "cache")
        self.key = PrivateKey.generate()
        self.options = options
        self.trust()
        self.policy("")
        self._runtime: Runtime | None = None

    def trust(self) -> None:
        (self.home / "trust.toml").write_text(
            f'schema = 1\n[[key]]\nname = "test"\npublic = "{self.key.public.base64()}"\n'
            'roles = ["publisher"]\nids = ["test.*"]\n'
        )

    def policy(self, text: str) -> None:
        """Write the policy; all low and medium risks are consented to by itself."""
        (self.home / "policy.toml").write_text(
            'schema = 1\n[consent]\nautomatic = ["log","clock","random","config","kv","fs","secret"]\n'
            + text
        )

    def vault(self, **values: str) -> Vault:
        """A vault with these secrets (underscores become dashes)."""
        vault = Vault.create(self.home / "vault", VaultKey.generate(self.home / "vault.key"))
        for name, value in values.items():
            vault.set(name.replace("_", "-"), value.encode())
        return vault

    def capsule(
        self,
        code: bytes,
        manifest: str = "",
        *,
        id: str = "test.guest",  # noqa: A002
        version: str = "1.0.0",
        instance: str = "per-call",
        requires: str = ">=0",
    ) -> bytes:
        """A signed capsule of that component; `manifest` is what follows the [plugin] table."""
        head = HEAD.format(id=id, version=version, instance=instance, requires=requires)
        packed = pack({"plugin.toml": (head + manifest).encode(), "plugin.wasm": code})
        return sign_capsule(read_artifact(packed), self.key)

    def consent(self, capsule: bytes) -> None:
        """Record consent to all that the capsule asks for."""
        capabilities = standard_capabilities()
        runtime_trust = self.runtime.trust
        artifact = verify(read_artifact(capsule), runtime_trust)
        manifest = parse_manifest(artifact.manifest_bytes, capabilities)
        digest = artifact.code_digest if artifact.kind == "component" else artifact.digest
        ConsentStore(self.home / "consents").give(
            ConsentRecord.of(
                Subject.of(manifest, digest),
                {name: request.clauses for name, request in manifest.requests.items()},
                manifest.limits,
                who="tester",
                when=datetime.now(UTC),
                reason="a test",
            )
        )

    @property
    def runtime(self) -> Runtime:
        """The runtime on this home, opened when first asked for."""
        if self._runtime is None:
            self._runtime = Runtime.open(self.home, core_version="1.0.0", **self.options)
        return self._runtime

    def load(self, code: bytes, manifest: str = "", **about: Any) -> Plugin:
        """Sign, consent, load."""
        capsule = self.capsule(code, manifest, **about)
        self.consent(capsule)
        return self.runtime.load(capsule)

    def prober(self, manifest: str = "", **about: Any) -> Prober:
        """The guest that tries anything, loaded with that manifest.

        It imports every capability, so what the manifest leaves out is declared as optional.
        """
        rest = "".join(text for word, text in OPTIONAL.items() if word not in manifest)
        return Prober(self.load(guest("prober"), manifest + rest, **about))

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What the audit log holds; the runtime stays open."""
        from capwasm.record.audit import tail

        return [r for r in tail(self.home / "audit", 100_000) if kind in (None, r.get("kind"))]

    def close(self) -> None:
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None
            _link_new(self.home / "cache", Path(_COMPILED.name))


class Prober:
    """Calls the prober: `prober("fs.read", "/data/x")` gives the text or raises `Refused(word)`."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        self._call: Callable[..., Any] = plugin.call

    def __call__(self, operation: str, *arguments: str) -> str:
        result = self._call("run", operation, list(arguments))
        if not result.ok:
            raise Refused(result.error.strip('"'))
        return result.value


class Refused(Exception):
    """The guest was told no; `word` is what it was told."""

    def __init__(self, word: str) -> None:
        self.word = word
        super().__init__(word)
