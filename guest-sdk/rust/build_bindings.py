"""Makes `src/bindings.rs` from the WIT packages, with wit-bindgen; `--check` only compares.

Needs `wit-bindgen` of the version that Cargo.toml names: cargo install wit-bindgen-cli.  A plain test
compares the digest in the first line, which needs no tool.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE / "src/bindings.rs"
WIT = HERE.parents[1] / "wit"
WORLD = """package capwasm:guest@0.1.0;

world guest {
    include capwasm:plugin/capabilities@0.1.0;
}
"""


def digest() -> str:
    """SHA-256 over the name and content of every WIT file."""
    total = hashlib.sha256(WORLD.encode())
    for path in sorted(WIT.glob("*/*.wit")):
        total.update(f"{path.relative_to(WIT).as_posix()}\0".encode() + path.read_bytes())
    return total.hexdigest()


def build() -> str:
    """The text of the bindings."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for path in WIT.glob("*/*.wit"):
            target = place / "wit/deps" / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (place / "wit/guest.wit").write_text(WORLD, encoding="utf-8")
        argv = ["wit-bindgen", "rust", "wit", "--world", "guest", "--generate-all", "--format"]
        argv += ["--type-section-suffix", "_capwasm_guest", "--out-dir", "out"]
        subprocess.run(argv, cwd=place, check=True, stdout=subprocess.DEVNULL)
        return f"// WIT: {digest()}\n" + (place / "out/guest.rs").read_text(encoding="utf-8")


def main() -> int:
    """Write or compare."""
    text = build()
    if "--check" in sys.argv:
        same = TARGET.read_text(encoding="utf-8") == text
        sys.stdout.write("bindings.rs is up to date\n" if same else "bindings.rs is stale\n")
        return 0 if same else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
