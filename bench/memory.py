"""What an idle instance costs in resident memory: each subject in a process of its own.

python -m bench.memory capwasm 200
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

from .subject import Unavailable
from .subjects import NAMES, open_subject

__all__ = ["idle_kib"]


def idle_kib(name: str, count: int) -> float:
    """KiB of resident memory for each of `count` instances that have been called once.

    Raises:
        subprocess.CalledProcessError: the measuring process failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "bench.memory", name, str(count)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        check=True,
        text=True,
    )
    return float(json.loads(done.stdout)["kib"])


def _resident_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise Unavailable("no /proc/self/status here")


def main() -> None:
    """Measure in this process; prints one line of JSON."""
    name, count = sys.argv[1], int(sys.argv[2])
    assert name in NAMES
    subject = open_subject(name)
    subject.idle(2)()  # what is paid once: compiled code, threads, caches
    fill = subject.idle(count)
    gc.collect()
    before = _resident_kib()
    fill()
    gc.collect()
    print(json.dumps({"kib": (_resident_kib() - before) / count}))
    subject.close()


if __name__ == "__main__":
    main()
