"""What a native plugin's libraries import, how they are hardened, and what no linker would make.

The sandbox holds whatever is in a library.  These findings are for the person who decides whether it
belongs there at all: code that only answers calls needs no `execve`, no writable code and no packer.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from capwasm.review.finding import Finding, Severity
from capwasm_shim.layers import LIBRARIES

from . import elf_image as elf
from .elf_image import EXECUTE, WRITE, Image, OddElf, read_image
from .model import Context, Rule, Scanner
from .subject import Subject

__all__ = ["SCANNERS"]

_S = Severity

MALFORMED: Final = Rule(
    "native.malformed",
    _S.HIGH,
    "The library is not what a linker makes, so what it really does can't be told.",
    "Link it anew, with a linker of the system, and pack that.",
)
TARGET: Final = Rule(
    "native.target",
    _S.HIGH,
    "The library is for another machine than the directory that it lies in says.",
    "Put each library in the directory of its target.",
)
NO_ABI: Final = Rule(
    "native.no-abi",
    _S.HIGH,
    "The library lacks a function that a plugin must have, so it can't be called.",
    "Define capwasm_plugin_describe, _call and _free, with CAPWASM_EXPORT.",
)
PROGRAMS: Final = Rule(
    "native.starts-programs", _S.HIGH, "It imports functions that start other programs.",
    "Ask for [[exec]] in the manifest, and use the host's commands.",
)  # fmt: skip
SPIES: Final = Rule(
    "native.reads-processes", _S.HIGH,
    "It imports functions that look into, or stop, other processes.", "Do without.",
)  # fmt: skip
KERNEL: Final = Rule(
    "native.changes-system", _S.HIGH,
    "It imports functions that change mounts, namespaces, users or the kernel.", "Do without.",
)  # fmt: skip
PROCESSES: Final = Rule(
    "native.makes-processes", _S.MEDIUM, "It imports functions that make processes.",
    "Use threads; the sandbox allows no process.",
)  # fmt: skip
LOADER: Final = Rule(
    "native.loads-code", _S.MEDIUM,
    "It imports functions that load more code, or find functions by name, while it runs.",
    "Link what is needed; what is found by name is in no list of imports.",
)  # fmt: skip
MEMORY: Final = Rule(
    "native.changes-code", _S.MEDIUM,
    "It imports functions by which memory is made executable, or code is kept in memory alone.",
    "Do without; a plugin that compiles code is better a component.",
)  # fmt: skip
NETWORK: Final = Rule(
    "native.network", _S.MEDIUM, "It imports functions of the network, which the sandbox refuses.",
    "Ask for [[net]] in the manifest, and use the host's fetch.",
)  # fmt: skip
SYSCALL: Final = Rule(
    "native.any-syscall", _S.LOW,
    "It imports syscall(), by which any system call can be made under no name of its own.",
    "Call the C library's function; runtimes of some languages need it.",
)  # fmt: skip
FILES: Final = Rule(
    "native.files", _S.NOTE, "It imports functions that open files, of which it sees none.",
    "Ask for [[fs]] in the manifest, and use the host's files.",
)  # fmt: skip
RAW: Final = Rule(
    "native.raw-syscall", _S.MEDIUM,
    "Its code makes system calls itself, so its imports do not tell what it asks of the kernel.",
    "Call the functions of the C library.",
)  # fmt: skip
NEEDED: Final = Rule(
    "native.needed", _S.MEDIUM,
    "It needs a library that the sandbox does not have, and won't load.", "Link it statically.",
)  # fmt: skip
SEARCH: Final = Rule(
    "native.rpath", _S.MEDIUM, "It says itself where libraries are to be looked for.",
    "Link without -rpath.",
)  # fmt: skip
NO_RELRO: Final = Rule(
    "native.no-relro", _S.MEDIUM,
    "What the loader filled in stays writable: a stray write can redirect its calls.",
    "Link with -Wl,-z,relro,-z,now.",
)  # fmt: skip
PARTIAL_RELRO: Final = Rule(
    "native.partial-relro", _S.LOW,
    "Functions are bound when they are first called, so their table stays writable.",
    "Link with -Wl,-z,now.",
)  # fmt: skip
EXEC_STACK: Final = Rule(
    "native.exec-stack", _S.HIGH, "It asks for a stack that is executable.",
    "Link with -Wl,-z,noexecstack; code in assembly needs a .note.GNU-stack section.",
)  # fmt: skip
NO_NX: Final = Rule(
    "native.no-nx", _S.HIGH, "It does not say that its stack needs not be executable.",
    "Link with -Wl,-z,noexecstack.",
)  # fmt: skip
TEXTREL: Final = Rule(
    "native.text-relocations", _S.HIGH,
    "Its code is changed when it is loaded, and is writable for that time.", "Compile with -fPIC.",
)  # fmt: skip
WX: Final = Rule(
    "native.writable-code", _S.HIGH, "It has memory that is writable and executable at once.",
    "Link without -N and -z rwx-segments.",
)  # fmt: skip
CONSTRUCTORS: Final = Rule(
    "native.constructors", _S.NOTE,
    "It has code that runs when it is loaded, before anything is called.",
)  # fmt: skip
PACKED: Final = Rule(
    "native.packed", _S.HIGH, "Its code is packed or encrypted: what is seen is not what runs.",
    "Pack the library as the linker made it.",
)  # fmt: skip
UNSTRIPPED: Final = Rule(
    "native.unstripped", _S.NOTE,
    "It has symbols or debugging data, which tell names and paths of its author's machine.",
    "Link with -Wl,--strip-all.",
)  # fmt: skip

# Canonical names: without leading underscores, and without what C libraries add for size, checks
# and versions.
_WORDS: Final[dict[Rule, str]] = {
    PROGRAMS: "system popen execve execv execvp execvpe execl execlp execle execveat fexecve"
    " posix_spawn posix_spawnp wordexp",
    SPIES: "ptrace process_vm_readv process_vm_writev kill killpg tgkill tkill pidfd_open"
    " pidfd_getfd pidfd_send_signal sigqueue kcmp",
    KERNEL: "mount umount umount2 setns unshare pivot_root chroot init_module finit_module"
    " delete_module bpf keyctl add_key request_key iopl ioperm reboot swapon swapoff"
    " perf_event_open userfaultfd personality setuid setgid setreuid setregid setresuid setresgid"
    " setgroups initgroups capset acct sethostname settimeofday clock_settime io_uring_setup",
    PROCESSES: "fork vfork clone clone3 daemon forkpty",
    LOADER: "dlopen dlmopen dlopen_mode dlsym dlvsym dlsym_priv",
    MEMORY: "mprotect pkey_mprotect memfd_create shm_open remap_file_pages",
    NETWORK: "socket connect bind listen accept accept4 sendto sendmsg recvfrom recvmsg"
    " getaddrinfo gethostbyname gethostbyname_r gethostbyaddr res_query res_nquery res_search",
    SYSCALL: "syscall",
    FILES: "open openat fopen freopen creat opendir unlink unlinkat rename renameat mkdir rmdir"
    " readlink symlink link chmod chown truncate inotify_init fanotify_init name_to_handle_at"
    " open_by_handle_at",
}
_RULE_OF: Final = {word: rule for rule, words in _WORDS.items() for word in words.split()}

_ABI: Final = ("capwasm_plugin_describe", "capwasm_plugin_call", "capwasm_plugin_free")
_MACHINES: Final = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
# With the loader itself, which GNU's compilers name for thread-local memory.
_THERE: Final = frozenset(LIBRARIES) | {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
# mov eax, imm32; syscall.  The two bytes of `syscall` alone are found in any code by chance.
_X86_CALL: Final = re.compile(rb"\xb8(.[\x00-\x03])\x00\x00(?:\x0f\x05|\xcd\x80)", re.DOTALL)
_ARM_CALL: Final = bytes.fromhex("010000d4")  # svc #0
_PACKERS: Final = (b"UPX!", b"$Info: This file is packed")
_DENSE: Final = 7.6  # bits a byte; machine code has about 6, what is compressed nearly 8
_DENSE_BYTES: Final = 16 * 1024
_SAMPLE: Final = 2**20


def _scan(subject: Subject, _context: Context) -> Iterator[Finding]:
    for triple, name in sorted(subject.libraries.items()):
        data = subject.members[name]
        try:
            image = read_image(data)
        except OddElf as exc:
            yield MALFORMED.at(name, str(exc))
            continue
        machine = _MACHINES.get(triple.partition("-")[0])
        if machine is None:
            yield TARGET.at(name, triple, message="The sandbox does not run on that machine.")
        if (image.machine, image.bits, image.little) != (machine, 64, True):
            order = "little" if image.little else "big"
            if machine is not None:
                yield TARGET.at(name, f"{image.machine}, {image.bits} bits, {order}-endian")
            continue
        yield from _shape(image, name)
        yield from _imports(image, name)
        yield from _hardening(image, name)
        yield from _code(image, data, name)


def _shape(image: Image, name: str) -> Iterator[Finding]:
    """What it is, and what the loader does with it."""
    if image.kind != "ET_DYN" or image.has("PT_INTERP"):
        yield MALFORMED.at(name, image.kind, message="It is a program, not a library.")
    for oddity in image.oddities:
        yield MALFORMED.at(name, oddity)
    missing = [word for word in _ABI if word not in image.exports]
    if missing:
        yield NO_ABI.at(name, ", ".join(missing))
    for library in image.needed:
        if "/" in library:
            yield NEEDED.at(
                name, library, severity=_S.HIGH, message="It names a library by its path."
            )
        elif library not in _THERE:
            yield NEEDED.at(name, library)
    for word, path in image.search:
        # An empty or relative entry is the directory that the process happens to be in.
        open_to = any(not entry.startswith(("/", "$ORIGIN")) for entry in path.split(":"))
        yield SEARCH.at(name, f"{word} {path}", severity=_S.HIGH if open_to else None)
    entries = image.tags.get(elf.INIT_ARRAYSZ, 0) // 8
    # Every compiler's start-up code is one of them.
    if entries > 1 or image.ifuncs:
        more = " and functions that choose functions" if image.ifuncs else ""
        yield CONSTRUCTORS.at(name, f"init_array has {entries}{more}")
    debug = sorted(s for s in image.sections if s in (".symtab", ".debug_info", ".zdebug_info"))
    if debug:
        yield UNSTRIPPED.at(name, ", ".join(debug))


def _imports(image: Image, name: str) -> Iterator[Finding]:
    """One finding a kind, which names all functions of it."""
    found: dict[Rule, list[str]] = {}
    for symbol in sorted(image.imports):
        rule = _RULE_OF.get(_canonical(symbol))
        if rule is not None:
            found.setdefault(rule, []).append(symbol)
    for rule, symbols in found.items():
        yield rule.at(f"{name}:imports", ", ".join(symbols))


def _canonical(symbol: str) -> str:
    """`__libc_dlopen_mode` → `dlopen_mode`, `__open64_2` → `open`, `fork_nocancel` → `fork`."""
    word = symbol.lstrip("_").removeprefix("libc_").removeprefix("GI_")
    for ending in ("_chk", "_2", "_nocancel", "64"):
        word = word.removesuffix(ending)
    return word


def _hardening(image: Image, name: str) -> Iterator[Finding]:
    flags, flags_1 = image.tags.get(elf.FLAGS, 0), image.tags.get(elf.FLAGS_1, 0)
    if image.has("PT_GNU_RELRO") is None:
        yield NO_RELRO.at(name)
    elif not (elf.BIND_NOW in image.tags or flags & 0x8 or flags_1 & 0x1):
        yield PARTIAL_RELRO.at(name)
    stack = image.has("PT_GNU_STACK")
    if stack is None:
        yield NO_NX.at(name)
    elif stack.flags & EXECUTE:
        yield EXEC_STACK.at(name)
    if elf.TEXTREL in image.tags or flags & 0x4:
        yield TEXTREL.at(name)
    for load in image.loads:
        if load.flags & WRITE and load.flags & EXECUTE:
            yield WX.at(f"{name}@{load.offset:#x}", f"{load.size} bytes")


def _code(image: Image, data: memoryview, name: str) -> Iterator[Finding]:
    """What the bytes of its code tell."""
    marks = [mark for mark in _PACKERS if _within(data, mark)]
    for load in image.loads:
        if not load.flags & EXECUTE:
            continue
        code = bytes(data[load.offset : load.offset + load.filled])
        if len(code) >= _DENSE_BYTES and (bits := _entropy(code[:_SAMPLE])) > _DENSE:
            marks.append(f"{bits:.1f} bits a byte".encode())
        if image.machine == "EM_X86_64":
            calls = [
                (hit.start(), int.from_bytes(hit[1], "little")) for hit in _X86_CALL.finditer(code)
            ]
        else:
            calls = [
                (at, -1) for at in range(0, len(code) - 3, 4) if code[at : at + 4] == _ARM_CALL
            ]
        if calls:
            numbers = ", ".join(sorted({str(n) for _, n in calls if n >= 0})[:20])
            told = f"{len(calls)} places" + (f"; numbers {numbers}" if numbers else "")
            yield RAW.at(f"{name}@{load.offset + calls[0][0]:#x}", told)
    if marks:
        yield PACKED.at(name, ", ".join(mark.decode() for mark in marks))


def _calls(code: bytes, machine: str) -> Iterator[tuple[int, int]]:
    """Where code calls the kernel itself, and with which number; -1 where that is not beside it."""
    if machine == "EM_X86_64":
        for hit in _X86_CALL.finditer(code):
            yield hit.start(), int.from_bytes(hit[1], "little")
        return
    at = code.find(_ARM_CALL)
    while at >= 0:
        if at % 4 == 0:  # every instruction is
            yield at, -1
        at = code.find(_ARM_CALL, at + 1)


def _within(data: memoryview, mark: bytes) -> bool:
    """Whether a packer's mark is near an end of the file, where packers leave it."""
    return mark in bytes(data[:4096]) or mark in bytes(data[-4096:])


def _entropy(data: bytes) -> float:
    """Shannon's, in bits a byte."""
    return -sum(n / len(data) * math.log2(n / len(data)) for n in Counter(data).values())


RULES: Final = (
    MALFORMED, TARGET, NO_ABI, *_WORDS, RAW, NEEDED, SEARCH, NO_RELRO, PARTIAL_RELRO, EXEC_STACK,
    NO_NX, TEXTREL, WX, CONSTRUCTORS, PACKED, UNSTRIPPED,
)  # fmt: skip

SCANNERS: Final = (Scanner("native", _scan, RULES, frozenset({"native"}), needs=("elftools",)),)
