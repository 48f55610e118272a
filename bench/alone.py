"""What needs a process of its own: memory, and starting from nothing.

python -m bench.alone capwasm idle '{"count": 200}'
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, cast

from .kept import Workshop
from .subject import Skipped

__all__ = ["TASKS", "Hoard", "run_alone", "run_here"]


class Hoard(Protocol):
    """A subject that can fill memory.  Of the Python ones."""

    def keep(self, count: int) -> None:
        """Make that many instances, call each once, and keep them until closed."""

    def one(self) -> Callable[[], Any]:
        """2 + 40 on a kept instance."""


def run_alone(argv: Sequence[str]) -> dict[str, float]:
    """Run a measuring process: it prints one line of JSON.

    Raises:
        Skipped: it failed; with its last words.
    """
    done = subprocess.run(
        argv, cwd=Path(__file__).parents[1], capture_output=True, check=False, text=True
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Skipped(said[-1][:200])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_here(name: str, task: str, spec: dict[str, Any]) -> dict[str, float]:
    """The same task of a subject in Python."""
    return run_alone([sys.executable, "-m", "bench.alone", name, task, json.dumps(spec)])


def idle(name: str, spec: dict[str, Any]) -> dict[str, float]:
    """`count` instances that have been called once: time and resident memory of each."""
    subject, count = _open(name), int(spec["count"])
    subject.keep(2)  # what is paid once: compiled code, threads, caches
    gc.collect()
    before, start = _resident_kib(), time.perf_counter()
    subject.keep(count)
    seconds = time.perf_counter() - start
    gc.collect()
    after = _resident_kib()
    subject.close()
    return {
        "seconds": seconds / count,
        "kib": max(0, after - before) / count,
        "total-kib": float(after),
    }


def calls(name: str, spec: dict[str, Any]) -> dict[str, float]:
    """`count` short calls of one instance: how much more memory is resident after them."""
    subject, count = _open(name), int(spec["count"])
    call = subject.one()

    def some(count: int) -> None:
        for _ in range(count):
            if call() != 42:
                raise AssertionError("not 42")

    some(count // 10)
    gc.collect()
    before, start = _resident_kib(), time.perf_counter()
    some(count)
    seconds = time.perf_counter() - start
    gc.collect()
    grown = _resident_kib() - before
    subject.close()
    return {"seconds": seconds / count, "grown-kib": float(max(0, grown))}


def start(name: str, spec: dict[str, Any]) -> dict[str, float]:
    """A real plugin: imported, loaded, called, called again, and a second instance."""
    from . import starts

    return starts.BY_NAME[name](spec)


TASKS: dict[str, Callable[[str, dict[str, Any]], dict[str, float]]] = {
    "idle": idle,
    "calls": calls,
    "start": start,
}


def _open(name: str) -> Any:
    from .subjects import open_subject

    return cast("Hoard", open_subject(name, Workshop(builds=False)))


def _resident_kib() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise OSError("no VmRSS in /proc/self/status")


def main() -> None:
    """Measure in this process, on a worker thread; prints one line of JSON."""
    name, task, spec = sys.argv[1:]
    with ThreadPoolExecutor(1) as pool:
        print(json.dumps(pool.submit(TASKS[task], name, json.loads(spec)).result()))


if __name__ == "__main__":
    main()
