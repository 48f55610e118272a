"""What the author of a plugin does: keep a key, and sign a capsule with it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from capwasm import PrivateKey, read_artifact, sign_capsule
from capwasm.capsule.pack import pack

__all__ = ["flip_a_bit", "publish"]

# The address of the service in the plugin.toml that ships with the demo.
_ORIGIN = "http://127.0.0.1:8973"


def publish(path: Path, key: PrivateKey, origin: str) -> Path:
    """Pack the example plugin for the service at `origin`, sign it, and write the capsule."""
    here = files("capwasm.demo")
    manifest = (here / "plugin.toml").read_text(encoding="utf-8").replace(_ORIGIN, origin)
    code = (here / "weather.wasm").read_bytes()
    capsule = pack({"plugin.toml": manifest.encode(), "plugin.wasm": code})
    path.write_bytes(sign_capsule(read_artifact(capsule), key))
    return path


def flip_a_bit(capsule: bytes) -> bytes:
    """The same capsule with one bit of its code changed."""
    middle = len(capsule) // 2
    return capsule[:middle] + bytes([capsule[middle] ^ 1]) + capsule[middle + 1 :]
