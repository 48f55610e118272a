"""Makes the bindings of the Go SDK from wit/.

python guest-sdk/go/generate.py            write src/internal/wit
python guest-sdk/go/generate.py --check    only say what differs; needs gofmt, as writing does
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from capwasm._shipped import wit_packages
from capwasm.authoring.componentizer import bind_go
from capwasm.authoring.project import build_cache

HERE = Path(__file__).resolve().parent
TARGET = HERE / "src/internal/wit"
MODULE = "go.example/capwasm"


def made() -> dict[str, str]:
    """The files below `TARGET`, by path."""
    found = wit_packages()
    order = ["plugin", *sorted(set(found) - {"plugin"})]
    packages = [
        [(f"wit/{name}/{file}", text.encode()) for file, text in found[name].items()]
        for name in order
    ]
    files = {}
    bound = bind_go(packages, "capabilities", build_cache() / "go/tool")
    for name, content in bound.items():
        if "/" not in name:  # go.mod, and the main package that exports nothing
            continue
        text = content.decode().replace('"wit_component/', f'"{MODULE}/internal/wit/')
        if name.endswith(".go"):
            text = subprocess.run(
                ["gofmt"],
                input=text,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        files[name] = text
    return files


def differing(files: dict[str, str]) -> list[str]:
    """The paths at which what is there is not what was made."""
    there = {p.relative_to(TARGET).as_posix(): p for p in TARGET.rglob("*") if p.is_file()}
    return sorted(
        name
        for name in {*files, *there}
        if name not in files
        or name not in there
        or there[name].read_text(encoding="utf-8") != files[name]
    )


def main(arguments: list[str]) -> int:
    """Write them, or compare."""
    files = made()
    if arguments == ["--check"]:
        found = differing(files)
        sys.stdout.writelines(f"{name}: run python guest-sdk/go/generate.py\n" for name in found)
        return int(bool(found))
    shutil.rmtree(TARGET, ignore_errors=True)
    for name, text in files.items():
        path = TARGET / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
