"""On what machine, with which versions."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["describe"]


def describe() -> dict[str, str | int | float]:
    """Processor, cores, system, versions, date, and how busy it was."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "capwasm": _version("capwasm"),
        "wasmtime": _version("wasmtime"),
        "extism": _version("extism"),
        "extism-sys": _version("extism-sys"),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "load": round(load, 2),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    parts = [line.partition(":") for line in lines]
    fields = {key.strip(): value.strip() for key, _, value in parts}
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"
