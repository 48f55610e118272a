"""The WIT of a build: the project's own, and capwasm's packages cut to what plugin.toml declares.

A component made by componentize-py imports all that its world includes, used or not.  So the world
`capwasm:plugin/capabilities` is written for each build: it holds what the manifest declares, and
the component's imports are as honest as its manifest.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from capwasm._shipped import wit_packages
from capwasm.errors import BuildError

if TYPE_CHECKING:
    from capwasm.grants.manifest import Manifest

__all__ = ["BINDING_NAMES", "declared_interfaces", "write_world"]

# Interface → the module that componentize-py makes of it; the guest SDK imports these names.
BINDING_NAMES: Final = {
    "capwasm:fs/files": "capwasm_fs",
    "capwasm:fetch/client": "capwasm_fetch",
    "capwasm:secrets/store": "capwasm_secrets",
    "capwasm:secrets/reveal": "capwasm_secrets_reveal",
    "capwasm:kv/store": "capwasm_kv",
    "capwasm:log/log": "capwasm_log",
    "capwasm:clock/clock": "capwasm_clock",
    "capwasm:random/random": "capwasm_random",
    "capwasm:config/config": "capwasm_config",
    "capwasm:exec/commands": "capwasm_exec",
}

_IMPORT: Final = re.compile(r"^[ \t]*import (capwasm:[a-z/-]+)@[0-9.]+;\n", re.MULTILINE)
_PACKAGE: Final = re.compile(r"^[ \t]*package[ \t]+(capwasm:[a-z-]+)", re.MULTILINE)


def declared_interfaces(manifest: Manifest, capabilities: Iterable[Any]) -> dict[str, str]:
    """The interfaces that a manifest declares: name without version → with version."""
    found = [i for c in capabilities if c.name in manifest.requests for i in c.interfaces]
    secret = manifest.requests.get("secret")
    if secret is not None and not any(
        c.to_toml()["use"] == "reveal" for a in secret.asked for c in a.clauses
    ):
        # Both uses are one table, and seeing a secret is not asked for.
        found = [i for i in found if not i.startswith("capwasm:secrets/reveal@")]
    return {i.partition("@")[0]: i for i in found}


def write_world(project: Path, target: Path, declared: Mapping[str, str]) -> None:
    """Copy the project's `wit/` to `target`, with capwasm's packages below `deps/`.

    Raises:
        BuildError: `build.project`: there is no `wit/`.
    """
    own = project / "wit"
    if not any(own.glob("*.wit")):
        raise BuildError(
            "there is no wit/world.wit, which says what the plugin exports: write one with a world "
            "that has `include capwasm:plugin/capabilities@0.1.0;` and your exports",
            code="build.project",
            context=str(project),
        )
    shutil.copytree(own, target, symlinks=False)
    deps = target / "deps"
    deps.mkdir(exist_ok=True)
    for entry in list(deps.iterdir()):
        # A project may keep copies of our packages for its editor; ours are the ones that count.
        files = [entry] if entry.is_file() else sorted(entry.glob("*.wit"))
        if any(_PACKAGE.search(f.read_text(encoding="utf-8")) for f in files if f.suffix == ".wit"):
            entry.unlink() if entry.is_file() else shutil.rmtree(entry)
    for name, texts in wit_packages().items():
        folder = deps / f"capwasm-{name}"
        folder.mkdir()
        for file, text in texts.items():
            cut = _IMPORT.sub(lambda m: m[0] if m[1] in declared else "", text)
            (folder / file).write_text(cut if name == "plugin" else text, encoding="utf-8")
