"""Native plugins: each seeded fault is found by its rule, and a clean one gives nothing grave."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.review.finding import Severity
from capwasm.scan import elf
from capwasm.scan.elf_image import OddElf, read_image

from .natives import INCLUDE, NEEDS_COMPILER, TRIPLE, Elf, build
from .supply import findings, native, report

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARY = f"lib/{TRIPLE}/plugin.so"

pytest.importorskip("elftools", reason="the extra scan has it")


def found_in(library: bytes, triple: str = TRIPLE) -> dict:
    return findings(elf.SCANNERS, native(library, triple))


# -- clean ones ---------------------------------------------------------------------------------


@NEEDS_COMPILER
def test_a_clean_plugin_gives_nothing() -> None:
    assert found_in(build()) == {}


@pytest.mark.parametrize("path", ["native-shim/examples/c/capsule/lib", "tests/native"])
def test_the_committed_plugins_are_clean_where_they_should_be(path: str) -> None:
    name = "plugin.so" if "capsule" in path else "prober.so"
    library = (REPOSITORY / path / "x86_64-linux-gnu" / name).read_bytes()

    found = found_in(library, "x86_64-linux-gnu")

    assert all(f.severity.rank < Severity.HIGH.rank for f in found.values()), found


@NEEDS_COMPILER
def test_a_plugin_in_cpp_is_clean(tmp_path: Path) -> None:
    code = (
        "#include <string>\n#include <vector>\n#include <stdexcept>\n"
        "std::vector<std::string> kept;\n"
        'extern "C" __attribute__((visibility("default"))) const void *capwasm_plugin_describe(unsigned, const void *)'
        " { return kept.data(); }\n"
        'extern "C" __attribute__((visibility("default"))) int capwasm_plugin_call(const char *t, unsigned long n, const void *, unsigned long, void *)'
        " { try { kept.emplace_back(t, n); throw std::runtime_error(t); } catch (...) {} return 0; }\n"
        'extern "C" __attribute__((visibility("default"))) void capwasm_plugin_free(void *, unsigned long) {}\n'
    )
    made = tmp_path / "p.so"
    ended = subprocess.run(
        [*["g++", "-x", "c++", "-O1", "-fPIC", "-shared", "-Wl,-z,relro,-z,now,--strip-all", "-", "-o"], str(made)],
        input=code.encode(), capture_output=True, check=False,
    )  # fmt: skip
    if ended.returncode:
        pytest.skip(f"no C++ here: {ended.stderr[-200:]!r}")

    found = found_in(made.read_bytes())

    assert all(f.severity.rank < Severity.MEDIUM.rank for f in found.values()), found


# -- seeded by compiling ------------------------------------------------------------------------

SEEDS: dict[str, tuple[str, tuple[str, ...], str, Severity, str]] = {
    "native.starts-programs": ('system("id")', (), "", Severity.HIGH, "system"),
    "native.reads-processes": (
        "ptrace(0, 1, 0, 0)", (), "#include <sys/ptrace.h>", Severity.HIGH, "ptrace",
    ),
    "native.changes-system": ("unshare(0)", (), "#include <sched.h>", Severity.HIGH, "unshare"),
    "native.makes-processes": ("fork()", (), "#include <unistd.h>", Severity.MEDIUM, "fork"),
    "native.loads-code": (
        '(long)dlsym(dlopen("x", 1), "y")', (), "#include <dlfcn.h>", Severity.MEDIUM,
        "dlopen, dlsym",
    ),
    "native.changes-code": (
        "mprotect(0, 1, 7)", (), "#include <sys/mman.h>", Severity.MEDIUM, "mprotect",
    ),
    "native.network": ("socket(1, 1, 0)", (), "#include <sys/socket.h>", Severity.MEDIUM, "socket"),
    "native.any-syscall": (
        "syscall(39)", (), "#include <unistd.h>", Severity.LOW, "syscall",
    ),
    "native.files": (
        'open("/etc/passwd", 0)', (), "#include <fcntl.h>", Severity.NOTE, "open",
    ),
    "native.raw-syscall": (
        '({ int r; __asm__ volatile("movl $57, %%eax\\n\\tsyscall" : "=a"(r) :: "rcx", "r11"); r; })',
        (), "", Severity.MEDIUM, "1 places; numbers 57",
    ),
    "native.needed": (
        "0", ("-Wl,--no-as-needed", "-l:libBrokenLocale.so.1"), "", Severity.MEDIUM,
        "libBrokenLocale.so.1",
    ),
    "native.rpath": ("0", ("-Wl,-rpath,/opt/lib",), "", Severity.MEDIUM, "RUNPATH /opt/lib"),
    "native.no-relro": ("0", ("-Wl,-z,norelro",), "", Severity.MEDIUM, ""),
    "native.partial-relro": ("0", ("-Wl,-z,lazy",), "", Severity.LOW, ""),
    "native.exec-stack": ("0", ("-Wl,-z,execstack",), "", Severity.HIGH, ""),
    "native.constructors": (
        "0", (), '__attribute__((constructor)) static void early(void) { __asm__(""); }',
        Severity.NOTE, "init_array has 2",
    ),
    "native.unstripped": ("0", ("-g",), "", Severity.NOTE, ".debug_info"),
}  # fmt: skip


@NEEDS_COMPILER
@pytest.mark.parametrize("rule", SEEDS)
def test_finds_what_was_compiled_in(rule: str) -> None:
    body, flags, before, severity, evidence = SEEDS[rule]

    found = found_in(build(body, *flags, before=before))

    assert rule in found, found
    assert found[rule].severity is severity
    assert evidence in found[rule].evidence
    assert found[rule].place.startswith(LIBRARY)


@NEEDS_COMPILER
def test_finds_text_relocations() -> None:
    # Absolute addresses in the code itself: what -fPIC is there to avoid.
    code = '__asm__(".text\\n.globl at\\nat: .quad at\\n");'

    found = found_in(build("0", "-Wl,-z,notext", before=code))

    assert found["native.text-relocations"].severity is Severity.HIGH


@NEEDS_COMPILER
def test_finds_a_library_without_the_abi() -> None:
    found = found_in(build(base="int nothing(void) { return 0; }"))

    assert found["native.no-abi"].evidence.startswith("capwasm_plugin_describe")


@NEEDS_COMPILER
def test_finds_a_program_in_place_of_a_library() -> None:
    fixed = Elf(build()).put(0x10, "H", 2)
    made = Elf(build())
    interpreted = made.put(made.header(STACK), "I", 3)

    for library in (bytes(fixed), bytes(interpreted)):
        assert "program" in found_in(library)["native.malformed"].message


@NEEDS_COMPILER
def test_a_relative_search_path_is_graver() -> None:
    for path in ("lib", "/opt/lib:", ":/opt/lib"):
        found = found_in(build("0", f"-Wl,-rpath,{path}"))

        assert found["native.rpath"].severity is Severity.HIGH, path


@NEEDS_COMPILER
def test_a_function_that_another_replaces_is_an_import() -> None:
    """Its own `system` is bound to the C library's, which was loaded before it."""
    before = '__attribute__((visibility("default"), weak)) int system(const char *c) { return !c; }'

    found = found_in(build('system("id")', "-fvisibility=default", before=before))

    assert found["native.starts-programs"].evidence == "system"


@NEEDS_COMPILER
@pytest.mark.parametrize("name", ["__libc_fork", "__open64_2", "__fprintf_chk"])
def test_other_names_of_a_function_are_known(name: str) -> None:
    rule = {"__libc_fork": "native.makes-processes", "__open64_2": "native.files"}.get(name)
    body = f"((int (*)(void)){name})()"

    found = found_in(build(body, "-Wl,--unresolved-symbols=ignore-all", before=f"int {name}();"))

    assert set(found) == ({rule} if rule else set())


# -- seeded by changing bytes -------------------------------------------------------------------

LOAD, DYNAMIC, STACK = 1, 2, 0x6474E551
NEEDED, STRTAB, GNU_HASH, SYMTAB, RELA, RELASZ = 1, 5, 0x6FFFFEF5, 6, 7, 8


@NEEDS_COMPILER
def test_finds_a_stack_that_nothing_is_said_of() -> None:
    made = Elf(build())
    made.put(made.header(STACK), "I", 0)

    assert "native.no-nx" in found_in(bytes(made))


@NEEDS_COMPILER
def test_finds_memory_that_is_writable_and_code() -> None:
    made = Elf(build())
    code = made.header(LOAD) + 56
    assert made.get(code + 4, "I") == 5  # read, execute
    made.put(code + 4, "I", 7)

    assert found_in(bytes(made))["native.writable-code"].severity is Severity.HIGH


@NEEDS_COMPILER
def test_finds_a_library_for_another_machine() -> None:
    assert "native.target" in found_in(build(), "aarch64-linux-gnu")
    assert "native.target" in found_in(build(), "riscv64-linux-gnu")
    big = Elf(build()).put(5, "B", 2)
    assert {"native.target", "native.malformed"} & set(found_in(bytes(big)))


@NEEDS_COMPILER
def test_a_library_for_the_other_machine_is_read_as_well() -> None:
    made = Elf(build())
    made.put(0x12, "H", 183)  # EM_AARCH64
    code = made.get(made.header(LOAD) + 56 + 8, "Q")
    made.put(code, "I", 0xD4000001)  # svc #0

    found = found_in(bytes(made), "aarch64-linux-gnu")

    assert set(found) == {"native.raw-syscall"}


@NEEDS_COMPILER
def test_segments_in_one_page_are_told_of() -> None:
    """The loader maps whole pages, so the later one hides what a reader would see of the first."""
    made = Elf(build())
    first = made.header(LOAD)
    made.put(first + 32, "QQ", 0x1001, 0x1001)  # into the page of the second

    assert "share a page" in found_in(bytes(made))["native.malformed"].evidence


@NEEDS_COMPILER
def test_sections_that_lie_hide_no_import() -> None:
    """The loader reads no section header, so a reader must not either."""
    made = Elf(build('system("id")'))
    start, count = made.get(0x28, "Q"), made.get(0x3C, "H")
    for index in range(count):
        at = start + 64 * index
        # All sections are empty and of no kind; then also: there are none.
        made.put(at + 4, "I", 0).put(at + 24, "QQ", 0, 0)
    none = Elf(bytes(made)).put(0x28, "Q", 0).put(0x3A, "HHH", 0, 0, 0)

    for library in (bytes(made), bytes(none)):
        assert found_in(library)["native.starts-programs"].evidence == "system"


@NEEDS_COMPILER
def test_a_hash_table_that_counts_no_symbol_hides_no_import() -> None:
    made = Elf(build('system("id")'))
    at = made.get(made.tag(GNU_HASH) + 8, "Q")  # at its address in the file, as it is mapped first
    made.put(at, "II", 1, 1)  # one bucket, the first symbol is number 1
    made.put(at + 16 + 8 * made.get(at + 8, "I"), "I", 0)  # and it is empty

    assert found_in(bytes(made))["native.starts-programs"].evidence == "system"


@NEEDS_COMPILER
def test_two_tables_of_one_kind_are_told_of() -> None:
    made = Elf(build())
    spare = made.tag(GNU_HASH)
    made.put(spare, "QQ", STRTAB, made.get(made.tag(STRTAB) + 8, "Q"))

    assert "twice" in found_in(bytes(made))["native.malformed"].evidence


@NEEDS_COMPILER
def test_a_relocation_into_the_loaders_tables_is_told_of() -> None:
    made = Elf(build())
    table = made.get(made.tag(RELA) + 8, "Q")
    made.put(table, "Q", made.get(made.header(DYNAMIC) + 16, "Q"))

    assert "rewrites" in found_in(bytes(made))["native.malformed"].evidence


@NEEDS_COMPILER
def test_a_dynamic_table_is_read_where_it_is_mapped() -> None:
    """Its header's offset may point at another table, which no loader reads."""
    made = Elf(build('system("id")'))
    made.put(made.header(DYNAMIC) + 8, "Q", 0)

    assert "native.starts-programs" in found_in(bytes(made))


@NEEDS_COMPILER
@pytest.mark.case("NAT-21")
def test_a_library_that_is_named_by_its_path_is_grave() -> None:
    path = "/lib/x86_64-linux-gnu/libBrokenLocale.so.1"
    if not Path(path).exists():
        pytest.skip(f"there is no {path} to link with")
    made = build("0", "-Wl,--no-as-needed", path)
    renamed = made.replace(b"libBrokenLocale.so.1\0", b"./BrokenLocale.so.1\0\0", 1)

    found = found_in(renamed)

    assert found["native.needed"].severity is Severity.HIGH


@NEEDS_COMPILER
def test_finds_packed_code() -> None:
    marked = build() + b"\0" * 16 + b"UPX!" + b"\0" * 32
    noise = random.Random(7).randbytes(64 * 1024)
    table = ",".join(str(b) for b in noise)
    before = f'__attribute__((section(".text#"))) const unsigned char packed[] = {{{table}}};'
    dense = build("packed[(long)t & 65535]", before=before)

    for library in (marked, dense):
        assert found_in(library)["native.packed"].severity is Severity.HIGH


# -- hostile files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x7fELF",
        b"\x7fELF\x02\x01\x01" + bytes(57),
        b"\x7fELF\x01\x01\x01" + bytes(200),
        bytes(64),
    ],
)
def test_a_file_that_is_cut_short_is_malformed(data: bytes) -> None:
    assert set(found_in(data)) & {"native.malformed", "native.target"}


@NEEDS_COMPILER
def test_every_cut_is_told_of() -> None:
    whole = build("fork()", before="#include <unistd.h>")
    end = max(
        struct.unpack_from("<Q", whole, at + 8)[0] + struct.unpack_from("<Q", whole, at + 32)[0]
        for at in range(64, 64 + 56 * struct.unpack_from("<H", whole, 0x38)[0], 56)
        if struct.unpack_from("<I", whole, at)[0] == LOAD
    )
    for length in [*range(0, 512, 37), *range(512, end, 1499)]:
        with pytest.raises(OddElf):
            read_image(memoryview(whole[:length]))
    assert "native.makes-processes" in found_in(whole[:end])


@NEEDS_COMPILER
@pytest.mark.parametrize(
    ("at", "form", "value"),
    [
        (0x20, "Q", 2**63), (0x38, "H", 0xFFFF), (0x38, "H", 0), (0x28, "Q", 2**64 - 1),
        (0x3C, "H", 0xFFFF), (0x3E, "H", 0xFFFF), (0x36, "H", 1),
    ],
)  # fmt: skip
def test_absurd_headers_are_bounded(at: int, form: str, value: int) -> None:
    made = report(elf.SCANNERS, native(bytes(Elf(build()).put(at, form, value))))

    assert not {f.rule for f in made.findings} & {"scan.failed", "scan.timeout"}


@NEEDS_COMPILER
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 0x1200), st.binary(min_size=1, max_size=8)), max_size=6
    )
)
def test_whatever_the_bytes_are_it_is_read_or_odd(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(build("fork()", before="#include <unistd.h>"))
    for at, new in changes:
        data[at : at + len(new)] = new
    try:
        read_image(memoryview(bytes(data)))
    except OddElf:
        return


def test_the_header_for_plugins_is_where_the_builder_looks() -> None:
    assert (INCLUDE / "capwasm_plugin.h").is_file()
