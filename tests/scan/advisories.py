"""A small OSV database for tests, laid out as the real one is."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NOW = "2026-11-20T00:00:00Z"


def advisory(
    name: str, ecosystem: str, package: str, *events: Mapping[str, str], **more: Any
) -> dict[str, Any]:
    """A record about one package; events are those of one range."""
    entry: dict[str, Any] = {"package": {"ecosystem": ecosystem, "name": package}}
    if events:
        kind = more.pop("kind", "ECOSYSTEM" if ecosystem == "PyPI" else "SEMVER")
        entry["ranges"] = [{"type": kind, "events": list(events)}]
    if "versions" in more:
        entry["versions"] = more.pop("versions")
    return {
        "schema_version": "1.7.0", "id": name, "modified": NOW, "published": NOW,
        "summary": f"Something is wrong in {package}", "affected": [entry], **more,
    }  # fmt: skip


def zipped(records: Iterable[Mapping[str, Any] | bytes]) -> bytes:
    """The records as one `all.zip`."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        for number, record in enumerate(records):
            data = record if isinstance(record, bytes) else json.dumps(record).encode()
            name = f"odd-{number}" if isinstance(record, bytes) else record["id"]
            packed.writestr(f"{name}.json", data)
    return made.getvalue()


def database(place: Path, **ecosystems: Iterable[Mapping[str, Any] | bytes]) -> Path:
    """A directory of zips, one an ecosystem; `crates_io` is crates.io."""
    for name, records in ecosystems.items():
        folder = place / name.replace("_", ".")
        folder.mkdir(parents=True)
        (folder / "all.zip").write_bytes(zipped(records))
    return place
