"""Native plugins for tests of scanners, built by the machine's compiler; each has one thing wrong.

What is not about compiling is made of a built one by changing bytes: `Elf` knows the places.
"""

from __future__ import annotations

import functools
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import pytest

from capwasm.capsule.target import this_triple

INCLUDE: Final = Path(__file__).resolve().parents[2] / "native-shim/include"
TRIPLE: Final = this_triple()

NEEDS_COMPILER = pytest.mark.skipif(
    shutil.which("gcc") is None or not TRIPLE.startswith("x86_64-linux-gnu"),
    reason="native plugins are built here with gcc, for x86_64",
)

GCC: Final = (
    *("gcc", "-std=gnu11", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-w"),
    f"-I{INCLUDE}",
)
HARD: Final = ("-Wl,-z,relro,-z,now,-z,noexecstack,--build-id=none",)
PLUGIN: Final = r"""
#include <stddef.h>
#include <capwasm_plugin.h>
static const capwasm_description me = {CAPWASM_ABI, sizeof me, {"seed", 4}, NULL, 0};
CAPWASM_EXPORT const capwasm_description *capwasm_plugin_describe(uint32_t abi, const capwasm_host *host) {
    (void)host;
    return abi == CAPWASM_ABI ? &me : NULL;
}
CAPWASM_EXPORT int capwasm_plugin_call(const char *t, size_t n, const uint8_t *m, size_t k, capwasm_result *r) {
    (void)t, (void)n, (void)m, (void)k, (void)r;
    return BODY;
}
CAPWASM_EXPORT void capwasm_plugin_free(void *data, size_t size) { (void)data, (void)size; }
"""


@functools.cache
def build(body: str = "0", *flags: str, before: str = "", base: str = PLUGIN) -> bytes:
    """A plugin whose call returns `body`, hardened and stripped unless the flags say otherwise."""
    with tempfile.TemporaryDirectory(prefix="capwasm-test-") as place:
        source, library = Path(place, "p.c"), Path(place, "p.so")
        strip = () if "-g" in flags else ("-Wl,--strip-all",)
        source.write_text("#define _GNU_SOURCE\n" + before + base.replace("BODY", body))
        subprocess.run(
            [*GCC, str(source), "-o", str(library), *HARD, *strip, *flags],
            check=True,
            capture_output=True,
            timeout=60,
        )
        return library.read_bytes()


class Elf:
    """A built library as bytes that can be changed where its headers are."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def header(self, kind: int) -> int:
        """Where the program header of a kind stands."""
        start, size, count = 64, 56, struct.unpack_from("<H", self.data, 0x38)[0]
        assert struct.unpack_from("<Q", self.data, 0x20)[0] == start
        for at in range(start, start + size * count, size):
            if struct.unpack_from("<I", self.data, at)[0] == kind:
                return at
        raise AssertionError(f"no program header {kind:#x}")

    def tag(self, number: int) -> int:
        """Where an entry of the dynamic table stands."""
        at = struct.unpack_from("<Q", self.data, self.header(2) + 8)[0]
        while struct.unpack_from("<Q", self.data, at)[0] != number:
            assert struct.unpack_from("<Q", self.data, at)[0] != 0
            at += 16
        return int(at)

    def put(self, at: int, form: str, *values: int) -> Elf:
        struct.pack_into(f"<{form}", self.data, at, *values)
        return self

    def get(self, at: int, form: str) -> int:
        return int(struct.unpack_from(f"<{form}", self.data, at)[0])

    def __bytes__(self) -> bytes:
        return bytes(self.data)
