"""Run in a mount namespace of its own: what is mounted inside a granted directory, and around it.

Prints what each operation came to, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from capwasm.caps.fs import Fs
from capwasm.errors import CapabilityError
from tests.caps.fs.tools import WAYS, clause, mounted, outcome


def main(base: Path) -> None:
    root, outside = base / "root", base / "outside"
    (root / "inner").mkdir(parents=True)
    (root / "file").touch()
    outside.mkdir()
    (outside / "canary").write_bytes(b"secret")
    for source, target in (
        (outside, root / "inner"),
        (outside / "canary", root / "file"),
        (base / "outside", base / "alias"),
    ):
        if source.is_dir():
            target.mkdir(exist_ok=True)
        subprocess.run(["mount", "--bind", str(source), str(target)], check=True)
    found: dict[str, object] = {}
    for way in WAYS:
        with mounted(base, clause(root, quota_bytes=1000), way=way) as bench:
            top = bench.root
            found[way] = {
                "read": outcome(lambda t=top: t.open_file("inner/canary", read=True)),
                "create": outcome(lambda t=top: t.open_file("inner/x", write=True, create=True)),
                "stat": outcome(lambda t=top: t.stat_at("inner")),
                "list": outcome(lambda t=top: t.page("inner")),
                "times": outcome(lambda t=top: t.set_times_at("inner", 0, 0)),
                "mkdir": outcome(lambda t=top: t.mkdir("inner/x")),
                "remove": outcome(lambda t=top: t.remove("inner")),
                "rename": outcome(lambda t=top: t.rename("inner", t, "x")),
                "read-file": outcome(lambda t=top: t.open_file("file", read=True)),
                "write-file": outcome(lambda t=top: t.open_file("file", write=True, truncate=True)),
                "counted": list(top.used()),
            }
    try:
        fs = Fs(protected=[outside / "canary"])
        with mounted(base, clause(base / "alias"), fs=fs):
            found["alias"] = "granted"
    except CapabilityError as exc:
        found["alias"] = str(exc)
    found["canary"] = (outside / "canary").read_text()
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
