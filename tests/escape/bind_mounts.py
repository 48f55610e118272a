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


def granted(base: Path, path: Path, protected: Path) -> str:
    """`granted`, or why not, where `protected` is the runtime's own."""
    try:
        with mounted(base, clause(path), fs=Fs(protected=[protected])):
            return "granted"
    except CapabilityError as exc:
        return str(exc)


def main(base: Path) -> None:
    root, outside = base / "root", base / "outside"
    (root / "inner").mkdir(parents=True)
    (root / "file").touch()
    outside.mkdir()
    state = base / "own"
    for folder in (state / "consents", base / "srv" / "app" / "state", base / "apart"):
        folder.mkdir(parents=True)
    (outside / "canary").write_bytes(b"secret")
    for source, target in (
        (outside, root / "inner"),
        (outside / "canary", root / "file"),
        (base / "outside", base / "alias"),
        (state / "consents", base / "part"),
        (base / "srv" / "app" / "state", base / "var"),
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
    found["alias"] = granted(base, base / "alias", outside / "canary")
    # A part of the runtime's directory under another name; and that directory, which is itself
    # another name for a part of what is granted.
    found["part"] = granted(base, base / "part", state)
    found["whole"] = granted(base, base / "srv", base / "var")
    found["apart"] = granted(base, base / "apart", state)
    found["canary"] = (outside / "canary").read_text()
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
