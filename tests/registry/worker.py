"""A process that changes a registry when it is told to: several commands at once, each a thread.

One JSON document a line, in and out.  `{"n": 1, "home": …, "verb": …, "args": […]}` is answered by
`{"n": 1, "action": …}` or `{"n": 1, "code": …}`, when it is done.
"""

from __future__ import annotations

import json
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from capwasm.errors import CapwasmError
from capwasm.registry.registry import Registry
from tests.registry.shop import Shop

_lock = threading.Lock()
_open: dict[str, Registry] = {}


def registry_of(home: str) -> Registry:
    """One registry for all threads of this process."""
    with _lock:
        if home not in _open:
            for old in _open.values():
                old.close()
            _open.clear()
            _open[home] = Shop(Path(home)).registry()
        return _open[home]


def answer(order: dict[str, Any]) -> None:
    """Do one thing, and say what it came to."""
    try:
        args = [bytes.fromhex(a[4:]) if str(a).startswith("hex:") else a for a in order["args"]]
        words = {} if order["verb"] == "collect" else {"who": f"worker {order['n']}"}
        outcome = getattr(registry_of(order["home"]), order["verb"])(*args, **words)
        said: dict[str, Any] = {"action": getattr(outcome, "action", "none")}
    except CapwasmError as exc:
        said = {"code": exc.code, "message": str(exc)}
    except BaseException:
        said = {"code": "foreign", "message": traceback.format_exc()}
    with _lock:
        sys.stdout.write(json.dumps({"n": order["n"], **said}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    for line in sys.stdin:
        threading.Thread(target=answer, args=(json.loads(line),)).start()
