"""Bad plugins, one or more for each rule of the scanners of components and manifests."""

from __future__ import annotations

import base64
import hashlib
import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .building import capsule, component, custom, manifest, module, producers, section, text, wat

__all__ = ["SEEDS", "Seed"]


@dataclass(frozen=True)
class Seed:
    """A bad plugin.

    Attributes:
        rules: what is to be found in it, and nothing else.
        make: builds and signs it.
        context: what its scan is given.
        worst: the gravest severity, where the rule's own is not the one.
    """

    rules: set[str]
    make: Callable[[], bytes]
    context: Mapping[str, Any] = field(default_factory=dict)
    worst: str = ""


_RANDOM: Final = random.Random(7)
NOISE: Final = _RANDOM.randbytes(40 * 1024)
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def noise(count: int) -> str:
    """Letters and digits as a generator makes them, with each kind among them."""
    return "".join(_LETTERS[(i * 23 + i // 5 * 7) % 62] for i in range(count))


@dataclass(frozen=True)
class Data:
    """Makes a plugin with that in a data segment."""

    raw: bytes

    def __call__(self) -> bytes:
        return capsule(component(data=b"\0" + self.raw + b"\0"))


def data(value: bytes | str) -> Data:
    """A plugin with that in a data segment."""
    return Data(value.encode() if isinstance(value, str) else value)


def built(**words: Any) -> Callable[[], bytes]:
    """A plugin whose module is made with these words."""
    return lambda: capsule(component(**words))


def custom_in_module(*sections: bytes) -> Callable[[], bytes]:
    """A plugin whose module has these custom sections."""
    return built(customs=(producers(), *sections))


def asking(tables: str, **words: Any) -> Callable[[], bytes]:
    """A plugin whose manifest asks that, and whose component imports what it asks of the network."""
    return lambda: capsule(FETCHING, manifest(tables, **words))


def world(name: str, wit: str) -> Callable[[], bytes]:
    """A plugin of a world, with its WIT."""
    toml = manifest(words=f'world = "acme:weather/{name}@1.0.0"')
    files = {"wit/world.wit": f"package acme:weather@1.0.0;\n{wit}".encode()}
    return lambda: capsule(None, toml, **files)


_RUN = '(core module (func (export "run") (result i32) i32.const 7) (@custom "producers" "\\00"))'
_LIFT = '(core instance (instantiate 0)) (func (export "run") (result u32) (canon lift (core func 0 "run")))'
CLOCK = wat(
    f'(component (import "capwasm:clock/clock@0.1.0" (instance (export "now" (func (result u64)))))'
    f"{_RUN} {_LIFT})"
)
RANDOM = wat(
    '(component (import "wasi:random/random@0.2.0" (instance (export "get-random-u64" (func (result u64)))))'
    f"{_RUN} {_LIFT})"
)
STRANGE = wat(
    f'(component (import "acme:strange/api@1.0.0" (instance (export "x" (func)))) {_RUN} {_LIFT})'
)
# An interface with no function of it used is an import all the same.
FETCHING = wat(f'(component (import "capwasm:fetch/client@0.1.0" (instance)) {_RUN} {_LIFT})')
SILENT = wat(f"(component {_RUN})")
HOSTLIKE = wat(
    f"(component {_RUN} {_LIFT}"
    ' (instance (export "now" (func 0))) (export "capwasm:clock/clock@0.1.0" (instance 0)))'
)
# Valid in its frame, and not in what stands in it.
GARBLED = b"\0asm\x0d\0\x01\0" + section(7, b"\x01\xff\xff\xff")

_ELF = struct.pack(
    "<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 3, 62, 1, 0, 64, 0, 0, 64, 56, 0, 64, 0, 0
)
_PE = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + bytes(20)
_MACHO = struct.pack("<IIIIIIII", 0xFEEDFACF, 0x01000007, 3, 2, 0, 0, 0, 0)
_ZIP = (
    struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 8, 0, 0, 0, 9, 9, 5, 0) + b"a.txt" + bytes(9)
)
_GZIP = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\x03" + bytes(20)
_PEM = "-----BEGIN PRIVATE KEY-----\n" + base64.b64encode(bytes(range(60))).decode() + "\n"

SEEDS: Final[dict[str, Seed]] = {
    # -- imports and exports
    "imports what it does not declare": Seed({"imports.undeclared"}, lambda: capsule(CLOCK)),
    "imports what nobody offers": Seed({"imports.unserved"}, lambda: capsule(STRANGE)),
    "asks for the clock and does not import it": Seed(
        {"imports.unused"}, lambda: capsule(None, manifest("[clock]\n"))
    ),
    "asks for a command and does not import it": Seed(
        {"imports.unused"},
        lambda: capsule(None, manifest('[[exec]]\ncommand = "thumbnail"\nwhy = "pictures"\n')),
        worst="medium",
    ),
    "imports WASI without a table": Seed({"imports.powerless"}, lambda: capsule(RANDOM)),
    "has types that can't be read": Seed({"component.unreadable"}, lambda: capsule(GARBLED)),
    "exports nothing": Seed({"exports.none"}, lambda: capsule(SILENT)),
    "lacks an export of its world": Seed(
        {"exports.missing"},
        world("weather", "world weather { export run: func() -> u32; export stop: func(); }"),
    ),
    "exports what its world does not say": Seed(
        {"exports.outside"}, world("weather", "world weather { import wasi:io/poll@0.2.0; }")
    ),
    "does not say what its world is": Seed(
        {"exports.unseen-world"},
        lambda: capsule(None, manifest(words='world = "acme:weather/weather@1.0.0"')),
    ),
    "exports an interface of the host": Seed({"exports.host-interface"}, lambda: capsule(HOSTLIKE)),
    # -- sections
    "is cut off": Seed(
        {"wasm.malformed", "component.unreadable"}, lambda: capsule(component() + b"\x00\x7fab")
    ),
    "has an unknown custom section": Seed(
        {"wasm.custom-unknown"}, custom_in_module(custom("stash", b"x"))
    ),
    "has a large custom section": Seed(
        {"wasm.custom-large"}, custom_in_module(custom("stash", b"stash " * 12_000))
    ),
    "has a custom section twice": Seed(
        {"wasm.custom-twice"}, custom_in_module(custom("build_id", b"1"), custom("build_id", b"2"))
    ),
    "has a custom section of the component twice": Seed(
        {"wasm.custom-twice"},
        lambda: capsule(component(after=(custom("version", b"1"), custom("version", b"2")))),
    ),
    "has debug information": Seed(
        {"wasm.debug"}, custom_in_module(custom(".debug_info", bytes(99)))
    ),
    "says where its sources are": Seed(
        {"wasm.sources"}, custom_in_module(custom("sourceMappingURL", text("weather.wasm.map")))
    ),
    "has names": Seed({"wasm.names"}, custom_in_module(custom("name", b"\x00\x04\x03abc"))),
    "does not say what made it": Seed({"wasm.producers"}, built(customs=())),
    "says that nobody known made it": Seed(
        {"wasm.producers-odd"}, built(customs=(producers("sly"),))
    ),
    "says what made it in no known form": Seed(
        {"wasm.producers-odd"}, built(customs=(custom("producers", b"\x05ab"),))
    ),
    "runs by itself": Seed({"wasm.start"}, built(fields="(func) (start 0)")),
    "begins with 3 GiB": Seed({"wasm.memory"}, built(memory=49_152)),
    "begins with a million elements": Seed({"wasm.table"}, built(fields="(table 1000000 funcref)")),
    "has very many functions": Seed({"wasm.functions"}, built(fields="(func)" * 60_001)),
    # -- what it carries
    "carries a program of Linux": Seed({"embedded.program"}, data(_ELF)),
    "carries a program of Windows": Seed({"embedded.program"}, data(_PE)),
    "carries a program of macOS": Seed({"embedded.program"}, data(_MACHO)),
    "carries a program as an asset": Seed(
        {"embedded.program"}, lambda: capsule(**{"assets/icon.png": b"\x89PNG" + _ELF})
    ),
    "carries a program in a custom section": Seed(
        {"embedded.program", "wasm.custom-unknown"}, custom_in_module(custom("stash", _ELF))
    ),
    "carries a module": Seed({"embedded.wasm"}, data(module())),
    "carries a program in base64": Seed(
        {"embedded.program"}, data(base64.b64encode(_ELF + bytes(99)))
    ),
    "carries a zip": Seed({"embedded.archive"}, data(_ZIP)),
    "carries a gzip": Seed({"embedded.archive"}, data(_GZIP)),
    "carries a script": Seed({"embedded.script"}, data("#!/bin/sh\nid > /dev/null\n")),
    "carries a command for PowerShell": Seed(
        {"embedded.script"}, data("powershell -nop -enc SQBFAFgAIAAoAE4AZQB3AC0ATwBiAGoA")
    ),
    "carries noise": Seed({"data.packed"}, data(NOISE)),
    # -- addresses
    "names the metadata service": Seed(
        {"hosts.metadata"}, data("http://169.254.169.254/latest/meta-data/")
    ),
    "names the metadata service past a filter": Seed(
        {"hosts.metadata"}, data("http://2852039166/")
    ),
    "names the metadata service in wide text": Seed(
        {"hosts.metadata"}, data("metadata.google.internal".encode("utf-16-le"))
    ),
    "names a private address": Seed({"hosts.private"}, data("connect 10.12.0.7 now")),
    "names its own machine": Seed({"hosts.loopback"}, data("http://127.0.0.1:8080/admin")),
    "names a public address": Seed({"hosts.public-address"}, data("http://93.184.215.14/gate.php")),
    "has a URL that it does not ask for": Seed(
        {"hosts.unasked"}, data("https://c2.evil.test/poll")
    ),
    "names a hidden service": Seed({"hosts.onion"}, data(f"http://{'a2' * 28}.onion/")),
    "names a webhook": Seed({"hosts.drop"}, data("https://discord.com/api/webhooks/1/x")),
    "names a tunnel": Seed({"hosts.drop"}, data("wss://a1b2.ngrok.io/")),
    # -- secrets
    "holds a token": Seed({"secrets.token"}, data(" ghp_" + noise(36) + " ")),
    "holds an access key": Seed({"secrets.token"}, data(" AKIA" + "Z3X7QK5M2LW6T4VB ")),
    "holds a token in its README": Seed(
        {"secrets.token"}, lambda: capsule(**{"README.md": f"glpat-{noise(20)}\n".encode()})
    ),
    "holds a private key": Seed({"secrets.private-key"}, data(_PEM)),
    "holds a password": Seed({"secrets.assigned"}, data(f'"api_key": "{noise(24)}"')),
    "holds a random text": Seed({"secrets.random-text"}, data(f" {noise(60)} ")),
    # -- paths
    "tells its author's name": Seed({"paths.home"}, data("/home/jdoe/work/weather/src/lib.rs")),
    "tells its author's name on Windows": Seed({"paths.home"}, data(r"C:\Users\jdoe\src\lib.rs")),
    "tells where it was built": Seed(
        {"paths.build"}, data("/.cargo/registry/src/index/serde-1.0/lib.rs")
    ),
    # -- the manifest
    "has an unreadable manifest": Seed(
        {"manifest.invalid"}, lambda: capsule(None, manifest("[[net]]\nallow = 7\n"))
    ),
    "says nothing of itself": Seed(
        {"manifest.undescribed"},
        lambda: capsule(None, manifest().replace(b'license = "Apache-2.0"\n', b"")),
    ),
    "does not say why": Seed(
        {"manifest.unexplained"}, asking('[[net]]\nallow = "https://a.example/"\n')
    ),
    "asks for all below a name": Seed(
        {"manifest.wide-host"}, asking('[[net]]\nallow = "https://*.a.example/"\nwhy = "x"\n')
    ),
    "asks for every method": Seed(
        {"manifest.any-method"},
        asking('[[net]]\nallow = "https://a.example/"\nmethods = ["*"]\nwhy = "x"\n'),
    ),
    "asks for plain HTTP": Seed(
        {"manifest.plain-http"}, asking('[[net]]\nallow = "http://a.example/"\nwhy = "x"\n')
    ),
    "asks for a private network": Seed(
        {"manifest.private-address"}, asking('[[net]]\nallow = "https://10.0.0.0/8"\nwhy = "x"\n')
    ),
    "asks for the metadata service": Seed(
        {"manifest.metadata", "manifest.plain-http"},
        asking('[[net]]\nallow = "http://169.254.169.254/"\nwhy = "x"\n'),
    ),
    "has nearly the id of another": Seed(
        {"manifest.look-alike"}, capsule, {"ids": frozenset({"acne.weather"})}
    ),
    "has the id of another to the eye": Seed(
        {"manifest.look-alike"},
        capsule,
        {"ids": frozenset({"acrne.weather"})},
    ),
    "has a name of two scripts": Seed(
        {"manifest.mixed-scripts"}, lambda: capsule(None, manifest(name="We\u0430ther"))
    ),
    # -- what is known
    "is known to be bad by its code": Seed(
        {"known.bad-digest"},
        capsule,
        {"known_bad": {hashlib.sha256(component()).hexdigest(): "seen in an attack"}},
    ),
    "is revoked": Seed({"known.revoked"}, capsule, {"revoked": lambda _s: "digest x"}),
}
