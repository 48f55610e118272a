"""A host in Rust on the same engine: what there is to be gained, and what is owed to Python.

It runs as a process of its own that waits for its turn; see rusthost/src/main.rs for what crosses.
"""

from __future__ import annotations

import json
import struct
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .alone import run_alone
from .guests import guest, large_component
from .kept import Workshop, run_tool
from .plugins import real_plugin
from .subject import Sample, Skipped, Timed, Timer

__all__ = ["Rust"]

_CRATE = Path(__file__).parent / "rusthost"


def _build(place: Path) -> Path:
    # The engine asks for a newer compiler than it needs.
    what = ["cargo", "build", "--release", "--locked", "--ignore-rust-version"]
    run_tool(what, cwd=_CRATE, env={"CARGO_TARGET_DIR": str(place / "target")})
    return place / "target/release/rusthost"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A job that the other process has made."""

    ask: Callable[..., tuple[dict[str, Any], bytes]]
    job: int
    parse: Callable[[bytes], Any] | None

    def timed(self, runs: int) -> Timed:
        """One question."""
        head, payload = self.ask({"run": self.job, "runs": runs})
        return Timed(head["wall"], head["cpu"], payload if self.parse else head["value"])

    def plain(self, value: Any) -> Any:
        """JSON as it is; bytes as what they stand for."""
        return self.parse(value) if self.parse else value


class Rust:
    """One process.

    `Rust`: typed functions, with fuel, deadline and limits as capwasm has them.  `Rust Val`: the
    same with values whose types are found out at run time, as a C API has to.  `Rust plain`: typed,
    without a guard.
    """

    def __init__(self, name: str, workshop: Workshop) -> None:
        """Build it if need be, and start it.

        Raises:
            Unavailable: it isn't built, and can't or may not be.
        """
        self.name = name
        self._workshop = workshop
        self._binary = str(
            workshop.get(
                "rust",
                sources=[_CRATE / "Cargo.toml", _CRATE / "Cargo.lock", _CRATE / "src"],
                build=_build,
                note="the Rust host (cargo, minutes)",
            )
        )
        how = "val" if name == "Rust Val" else "typed"
        self._about = {"how": how, "guarded": name != "Rust plain"}
        self._stack = ExitStack()
        self._files = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        for one in ("echo", "host"):
            (self._files / f"{one}.wasm").write_bytes(guest(one))
        (self._files / "large.wasm").write_bytes(large_component())
        self._child = self._stack.enter_context(
            subprocess.Popen(
                [self._binary, "serve", str(self._files)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )

    def _ask(self, head: dict[str, Any], payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({**head, "bytes": len(payload)}).encode() + b"\n" + payload)
        stdin.flush()
        answer = json.loads(stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer, stdout.read(answer.get("bytes", 0))

    def _make(
        self,
        name: str,
        payload: bytes = b"",
        parse: Callable[[bytes], Any] | None = None,
        **spec: Any,
    ) -> Timer:
        head, _ = self._ask({"make": name, **self._about, **spec}, payload)
        return _Asked(self._ask, head["job"], parse)

    def _not_plain(self) -> None:
        """A few figures without guards are enough."""
        if self.name == "Rust plain":
            raise Skipped("")

    def _only_rust(self) -> None:
        """No value crosses there, so the other two would measure the same again."""
        if self.name != "Rust":
            raise Skipped("")

    # -- the work -------------------------------------------------------------------------------

    def add(self, how: str) -> Timer:
        """Always on a kept instance."""
        del how
        return self._make("add")

    def string(self, text: str, *, copy: bool) -> Timer:
        """From a `&str` to a `String`."""
        return self._make("string", text.encode(), lambda b: b.decode(), copy=copy)

    def data(self, data: bytes) -> Timer:
        """From a `&[u8]` to a `Vec<u8>`."""
        return self._make("data", data, bytes)

    def _numbers(self, name: str, numbers: list[Any], code: str) -> Timer:
        self._not_plain()
        form = struct.Struct(f"<{len(numbers)}{code}")
        return self._make(name, form.pack(*numbers), lambda b: list(form.unpack(b)))

    def u32s(self, numbers: list[int]) -> Timer:
        """From a slice to a `Vec<u32>`."""
        return self._numbers("u32s", numbers, "I")

    def f64s(self, numbers: list[float]) -> Timer:
        """From a slice to a `Vec<f64>`."""
        return self._numbers("f64s", numbers, "d")

    def record(self, sample: Sample) -> Timer:
        """A struct."""
        self._not_plain()
        return self._make("record", sample=asdict(sample))

    def records(self, samples: list[Sample]) -> Timer:
        """A `Vec` of them."""
        self._not_plain()
        return self._make("records", samples=[asdict(s) for s in samples])

    def times(self, count: int) -> Timer:
        """A closure."""
        self._not_plain()
        return self._make("times", count=count)

    def texts(self, count: int) -> Timer:
        """A closure."""
        self._not_plain()
        return self._make("texts", count=count)

    def values(self, count: int, size: int) -> Timer:
        """A closure over a `Vec<u8>`."""
        self._not_plain()
        return self._make("values", count=count, size=size)

    def fresh(self, how: str) -> Timer:
        """Store and pooled instance; compiled before, whatever `how` says."""
        self._not_plain()
        del how
        return self._make("fresh")

    def start(self) -> Timer:
        """A pooled instance with WASI; every other import is a trap."""
        self._only_rust()
        return self._make("start", path=str(real_plugin("Rust", self._workshop).path))

    def load(self) -> Timer:
        """Mapped as it was compiled before; nothing is verified."""
        self._only_rust()
        return self._make("load", path=str(self._files / "large.wasm"))

    def spin(self, rounds: int, threads: int) -> Timer:
        """A store for each thread."""
        self._only_rust()
        return self._make("spin", rounds=rounds, threads=threads)

    def short(self, calls: int, threads: int) -> Timer:
        """A store for each thread."""
        self._only_rust()
        return self._make("short", calls=calls, threads=threads)

    # -- alone ----------------------------------------------------------------------------------

    def alone(self, task: str, **spec: Any) -> Callable[[], dict[str, float]]:
        """The same program with another command."""
        self._only_rust()
        match task:
            case "start":
                return self._prepare(**spec)
            case _:
                return partial(
                    run_alone, [self._binary, task, str(self._files), str(spec["count"])]
                )

    def _prepare(self, language: Any, *, cold: bool, **spec: Any) -> Callable[[], dict[str, float]]:
        real = real_plugin(language, self._workshop)
        compiled = real.compiled(f"{self.name} {version('wasmtime')}")
        asked = {**spec, **real.call, "path": str(real.path), "compiled": str(compiled)}

        def run(*, cold: bool) -> dict[str, float]:
            return run_alone([self._binary, "start", json.dumps({**asked, "cold": cold})])

        if not cold and not compiled.exists():
            run(cold=True)
        return partial(run, cold=cold)

    def close(self) -> None:
        """End the process: it ends with its input."""
        if self._child.stdin is not None:
            self._child.stdin.close()
        self._stack.close()
