"""Makes `runtime/src/capwasm/engine/abi.txt` from the WIT files; `--check` only compares.

Needs `wasm-tools` and `cargo` on PATH: the texts of WASI 0.2 come from the crate `wasip2`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import wasmtime
import wasmtime.component

from capwasm.engine.abi import canonical
from capwasm.engine.config import make_config
from capwasm.engine.walk import walk

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "runtime/src/capwasm/engine/abi.txt"
WASIP2 = "2.0.1"
WORLD = """package capwasm:abi;

world all {{
    include capwasm:plugin/capabilities@0.1.0;
    include wasi:cli/imports@{wasi};
    import wasi:http/types@{wasi};
    import wasi:http/outgoing-handler@{wasi};
}}
"""


def wasi_texts(scratch: Path) -> tuple[Path, str]:
    """The folder of WASI's WIT files, and their version."""
    (scratch / "src").mkdir(parents=True)
    (scratch / "src/lib.rs").touch()
    (scratch / "Cargo.toml").write_text(
        f'[package]\nname = "abi"\nversion = "0.0.0"\nedition = "2021"\n'
        f'[dependencies]\nwasip2 = "={WASIP2}"\n'
    )
    run = subprocess.run(
        ["cargo", "metadata", "--format-version=1"], cwd=scratch, check=True, capture_output=True
    )
    package = next(p for p in json.loads(run.stdout)["packages"] if p["name"] == "wasip2")
    return Path(package["manifest_path"]).parent / "wit/deps", package["version"].split("wasi-")[1]


def build() -> str:
    """The table's text."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        wasi, version = wasi_texts(scratch / "crate")
        world = scratch / "wit"
        (world / "deps").mkdir(parents=True)
        (world / "all.wit").write_text(WORLD.format(wasi=version))
        for package in HERE.iterdir():
            if package.is_dir() and any(package.glob("*.wit")):
                shutil.copytree(
                    package,
                    world / "deps" / package.name,
                    ignore=lambda _d, names: [n for n in names if not n.endswith(".wit")],
                )
        for file in wasi.glob("*.wit"):
            (world / "deps" / f"wasi-{file.stem}").mkdir()
            shutil.copy(file, world / "deps" / f"wasi-{file.stem}" / file.name)
        core, component = scratch / "core.wasm", scratch / "all.wasm"
        subprocess.run(
            [
                "wasm-tools",
                "component",
                "embed",
                "--dummy",
                "-w",
                "all",
                str(world),
                "-o",
                str(core),
            ],
            check=True,
        )
        subprocess.run(
            ["wasm-tools", "component", "new", str(core), "-o", str(component)], check=True
        )
        engine = wasmtime.Engine(make_config())
        types = walk(wasmtime.component.Component(engine, component.read_bytes()), engine)
    lines = ["# Made by wit/build_abi.py from the WIT files; do not edit."]
    for interface in sorted(types.imports, key=lambda i: i.name):
        lines.append(f"interface {interface.name}")
        lines += [f"  {n} = {canonical(f)}" for n, f in sorted(interface.functions)]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or compare."""
    text = build()
    if "--check" in sys.argv:
        same = TARGET.read_text(encoding="utf-8") == text
        print("abi.txt is up to date" if same else "abi.txt is stale: run wit/build_abi.py")
        return 0 if same else 1
    TARGET.write_text(text, encoding="utf-8")
    print(f"wrote {TARGET.name}: {text.count(' = ')} functions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
