"""A throw-away server for tests of the sandbox, and what came of one attack in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from capwasm_shim.layers import File, Layer, Limits, Report, Spec

_PROGRAM = Path(__file__).with_name("boxed.py")
EVERYTHING = tuple(Layer)


@dataclass(frozen=True)
class Came:
    """What came of it: its result (or how it ended), its report, or the layer that failed."""

    result: str | None
    report: Report | None
    failed: list[str] | None
    starved: bool


class Box:
    """One server, in a process of its own."""

    def __init__(self, mode: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_PROGRAM), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.pid = self._answer()["pid"]

    def try_(
        self,
        attack: str,
        *args: Any,
        layers: Iterable[Layer] = EVERYTHING,
        spec: Spec | None = None,
        files: Iterable[str] = (),
        **more: Any,
    ) -> Came:
        """Run an attack in a new process with these layers."""
        files = tuple(files)
        spec = spec or Spec("native", required=frozenset())
        spec = replace(
            spec, layers=tuple(layers), files=tuple(File(f"f{n}") for n in range(len(files)))
        )
        self.send(attack, *args, spec=spec, files=files, **more)
        found = self._answer()
        return Came(
            found.get("result"),
            Report.from_map(found["report"]) if "report" in found else None,
            found.get("failed"),
            found.get("starved", False),
        )

    def send(self, attack: str, *args: Any, spec: Spec, **more: Any) -> None:
        job = {"spec": spec.to_map(), "attack": attack, "args": args, **more}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def told(self) -> dict[str, Any]:
        return self._answer()

    def kill(self) -> None:
        self._process.kill()
        self._end()

    def close(self) -> None:
        self._end()

    def _end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(20)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


def small(**limits: int) -> Spec:
    return Spec("native", required=frozenset(), limits=Limits(**limits))
