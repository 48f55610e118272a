"""What takes minutes to build, built when it is first needed and kept outside the tree."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .subject import Unavailable

__all__ = ["Workshop", "cache", "run_tool"]


def cache() -> Path:
    """The directory for what is kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    place = (Path(base) if base else Path.home() / ".cache") / "capwasm-bench"
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    return place


@dataclass(frozen=True, slots=True)
class Workshop:
    """Builds, or only takes what is there.

    Attributes:
        builds: whether it may build what is missing or out of date.
        failed: what did not build, with the reason: it isn't tried again.
    """

    builds: bool = True
    failed: dict[str, Unavailable] = field(default_factory=dict)

    def get(
        self,
        name: str,
        *,
        sources: Iterable[Path],
        versions: Sequence[str] = (),
        build: Callable[[Path], Path],
        note: str,
    ) -> Path:
        """The file that `build` made of these very sources.

        Args:
            name: of the directory that is built in, and kept from one build to the next.
            sources: files, and directories with all that is in them.
            versions: of the tools.
            build: makes it in the directory that it is given, and says where it lies.
            note: what it is and how long it takes.

        Raises:
            Unavailable: it isn't there and may not be built, or doesn't build.
        """
        if name in self.failed:
            raise self.failed[name]
        digest = _digest(sources, versions)
        place = cache() / name
        place.mkdir(parents=True, exist_ok=True)
        stamp = place / "made-from"
        with (place / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = stamp.read_text().split("\n") if stamp.exists() else []
            if kept[:1] == [digest] and Path(kept[1]).exists():
                return Path(kept[1])
            if not self.builds:
                raise Unavailable(f"{note}: not built yet; a run without --quick builds it")
            print(f"building {note}", file=sys.stderr, flush=True)
            stamp.unlink(missing_ok=True)
            try:
                made = build(place)
            except Unavailable as exc:
                self.failed[name] = exc
                raise
            stamp.write_text(f"{digest}\n{made}")
            return made


def run_tool(argv: Sequence[str], *, cwd: Path, env: dict[str, str] | None = None) -> None:
    """Run it.

    Raises:
        Unavailable: it isn't there, or failed; with the end of what it said.
    """
    environment = {**os.environ, **(env or {})}
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as exc:
        raise Unavailable(f"there is no {argv[0]} here") from exc
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["without a word"]
        why = next((line for line in said if "rror" in line), said[-1])
        raise Unavailable(f"{argv[0]} failed: {why.strip()[:200]}")


def _digest(sources: Iterable[Path], versions: Sequence[str]) -> str:
    total = hashlib.sha256("\n".join(versions).encode())
    for place in sources:
        files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
        for path in files:
            if "__pycache__" not in path.parts:
                name = path.relative_to(place) if place.is_dir() else path.name
                total.update(f"\0{name}\0".encode() + path.read_bytes())
    return total.hexdigest()
