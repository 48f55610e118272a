"""A process that approves, when it is told to: `python -m tests.review.saying HOME NAME…`."""

from __future__ import annotations

import sys
from pathlib import Path

from capwasm.errors import CapwasmError
from tests.review.hall import Hall

if __name__ == "__main__":
    hall = Hall(Path(sys.argv[1]))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for name in sys.argv[2:]:
        try:
            hall.approve(name)
        except CapwasmError as exc:
            sys.stdout.write(f"{exc.code}\n")
        else:
            sys.stdout.write("said\n")
    hall.close()
