"""capwasm through its public door: a home, a publisher's key, policy, consent, signed capsules.

Everything is on, as in production: fuel, epoch deadline, limits, grants, audit log on the disk.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import capwasm
from capwasm import ConsentRecord, Plugin, PrivateKey, Runtime, Subject, parse_manifest
from capwasm.caps.secrets import Vault, VaultKey
from capwasm.capsule.pack import pack

from .guests import guest, large_component, weather
from .subject import SETTING, Job, Sample

__all__ = ["Capwasm"]

_HEAD = """schema = 1
[plugin]
id = "bench.{name}"
name = "Bench"
version = "1.0.0"
requires-core = ">=0"
kind = "component"
instance = "{instance}"
[limits]
concurrency = 1024
value-bytes = 134217728
"""
# Every capability there is.  A guest that imports two of them still pays for all that is granted.
_GRANTS = """
[clock]
[config]
keys = ["greeting"]
[random]
[log]
[kv]
[[fs]]
mount = "/data"
bind = "data"
access = "read-write"
quota = "1MiB"
[[net]]
allow = "https://api.example.com/v1/*"
[[secret]]
name = "token"
use = "inject"
for = ["https://api.example.com"]
header = "Authorization: Bearer {}"
"""
_POLICY = """schema = 1
[plugins."bench.*".clock]
[plugins."bench.*".random]
[plugins."bench.*".log]
[plugins."bench.*".kv]
[plugins."bench.*".config]
values = {{ greeting = {greeting} }}
[[plugins."bench.*".fs]]
bind = "data"
path = {data}
access = "read-write"
quota = "1MiB"
[[plugins."bench.*".net]]
allow = "https://api.example.com/v1/*"
[[plugins."bench.*".secret]]
name = "token"
use = "inject"
for = ["https://api.example.com"]
header = "Authorization: Bearer {{}}"

[plugins."demo.*".log]
[plugins."demo.*".kv]
[plugins."demo.*".config]
values = {{ origin = "http://127.0.0.1:8973" }}
[[plugins."demo.*".fs]]
bind = "reports"
path = {data}
access = "read-write"
quota = "64KiB"
[[plugins."demo.*".net]]
allow = "http://127.0.0.1:8973/v1/*"
[[plugins."demo.*".secret]]
name = "weather-token"
use = "inject"
for = ["http://127.0.0.1:8973"]
header = "Authorization: Bearer {{}}"
"""
_TRUST = """schema = 1
[[key]]
name = "bench"
public = "{public}"
roles = ["publisher"]
ids = ["bench.*", "demo.*"]
"""


class Capwasm:
    """One runtime on a home of its own, in a directory that goes away with it."""

    name = "capwasm"

    def __init__(self) -> None:
        """Set up what an operator sets up once."""
        self._stack = ExitStack()
        root = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="capwasm-bench-")))
        self._home, data = root / "home", root / "data"
        self._home.mkdir(mode=0o700)
        data.mkdir()
        self._key = PrivateKey.generate()
        (self._home / "trust.toml").write_text(_TRUST.format(public=self._key.public.base64()))
        (self._home / "policy.toml").write_text(
            _POLICY.format(greeting=json.dumps(SETTING), data=json.dumps(str(data)))
        )
        vault = Vault.create(self._home / "vault", VaultKey.generate(self._home / "vault.key"))
        vault.set("token", b"nothing of worth")
        vault.set("weather-token", b"nothing of worth")
        self._runtime = self._stack.enter_context(Runtime.open(self._home, core_version="1.0.0"))

    def _capsule(self, code: bytes, manifest: bytes) -> bytes:
        """A signed capsule, to all of which somebody has consented."""
        packed = pack({"plugin.toml": manifest, "plugin.wasm": code})
        capsule = capwasm.sign_capsule(capwasm.read_artifact(packed), self._key)
        runtime = self._runtime
        proven = runtime.verify(capsule)
        asked = parse_manifest(proven.manifest_bytes, runtime.capabilities)
        assert runtime.consents is not None
        runtime.consents.give(
            ConsentRecord.of(
                Subject.of(asked, proven.code_digest),
                {name: request.clauses for name, request in asked.requests.items()},
                asked.limits,
                who="bench",
                when=datetime.now(UTC),
                reason="to measure",
            )
        )
        return capsule

    def _load(self, name: str, code: bytes, instance: str, grants: str = "") -> Plugin:
        manifest = _HEAD.format(name=name, instance=instance) + grants
        return self._runtime.load(self._capsule(code, manifest.encode()))

    @cached_property
    def _echo(self) -> Plugin:
        return self._load("echo", guest("echo"), "pooled")

    @cached_property
    def _host(self) -> Plugin:
        return self._load("host", guest("host"), "pooled", _GRANTS)

    @cached_property
    def _per_call(self) -> Plugin:
        return self._load("fresh", guest("host"), "per-call", _GRANTS)

    @cached_property
    def _rust(self) -> tuple[bytes, Plugin]:
        code, manifest = weather()
        capsule = self._capsule(code, manifest)
        return capsule, self._runtime.load(capsule)

    @cached_property
    def _large(self) -> bytes:
        manifest = _HEAD.format(name="large", instance="per-call")
        return self._capsule(large_component(), manifest.encode())

    # -- the work -------------------------------------------------------------------------------

    def add(self, how: str) -> Job:
        """`Session.call` on a kept instance, or `Plugin.call`."""
        call = (
            self._stack.enter_context(self._echo.session()).call
            if how == "kept"
            else self._echo.call
        )
        return Job(lambda: call("add", 2, 40))

    def _echoed(self, function: str, value: Any, plain: Callable[[Any], Any] = lambda v: v) -> Job:
        call = self._stack.enter_context(self._echo.session()).call
        return Job(lambda: call(function, value), plain)

    def string(self, text: str, *, copy: bool) -> Job:
        """A WIT `string`."""
        return self._echoed("copy-string" if copy else "echo-string", text)

    def data(self, data: bytes) -> Job:
        """A WIT `list<u8>`."""
        return self._echoed("echo-bytes", data)

    def record(self, sample: Sample) -> Job:
        """A dataclass comes back."""
        return self._echoed("echo-record", asdict(sample), asdict)

    def records(self, samples: list[Sample]) -> Job:
        """A list of dataclasses comes back."""
        values = [asdict(s) for s in samples]
        return self._echoed("echo-records", values, lambda found: [asdict(s) for s in found])

    def times(self, count: int) -> Job:
        """The granted clock."""
        call = self._stack.enter_context(self._host.session()).call
        return Job(lambda: call("times", count))

    def texts(self, count: int) -> Job:
        """A granted setting: looked up in the grant each time."""
        call = self._stack.enter_context(self._host.session()).call
        return Job(lambda: call("texts", count))

    def fresh(self, *, compiled: bool) -> Job:
        """One call of a `per-call` plugin; it is compiled either way, at load."""
        del compiled
        call = self._per_call.call
        return Job(lambda: call("add", 2, 40))

    def start(self) -> Job:
        """A session, opened and closed."""
        _, plugin = self._rust

        def run() -> bool:
            with plugin.session():
                return plugin.alive

        return Job(run)

    def load(self, which: str, *, warm: bool) -> Job:
        """`Runtime.load` from bytes: verify, grant, compile or map, link, start, on record."""
        capsule = self._large if which == "large" else self._rust[0]
        cache = self._home / "cache"

        def run() -> bool:
            if not warm:
                for entry in cache.glob("*.cwasm"):
                    entry.unlink()
            with self._runtime.load(capsule) as plugin:
                return plugin.alive

        return Job(run)

    def spin(self, rounds: int, threads: int) -> Job:
        """One pooled plugin, called from several threads."""
        call = self._echo.call
        if threads == 1:
            return Job(lambda: [call("spin", rounds)])
        pool = self._stack.enter_context(ThreadPoolExecutor(threads))
        return Job(lambda: list(pool.map(call, ["spin"] * threads, [rounds] * threads)))

    def idle(self, count: int) -> Callable[[], None]:
        """Sessions of one plugin."""
        plugin = self._echo

        def make() -> None:
            for _ in range(count):
                session = self._stack.enter_context(plugin.session())
                assert session.call("add", 2, 40) == 42

        return make

    def close(self) -> None:
        """Close the runtime, remove the home."""
        self._stack.close()
