"""The container: one way to write given files, and nothing else is read."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.capsule.artifact import MAX_CAPSULE_BYTES, read_artifact
from capwasm.capsule.container import MAGIC, join, places, read_archive, split, write_archive
from capwasm.capsule.identity import Identity
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.members import name_fault
from capwasm.capsule.pack import collect, pack, sign_capsule
from capwasm.capsule.verify import verify
from capwasm.errors import ArtifactError, CapwasmError, ManifestError, VerificationError
from tests.capsules import FILES, KEY, STORE, forged, signed

EPOCH = (1980, 1, 1, 0, 0, 0)


def zip_of(
    *entries: tuple[str, bytes], method: int = zipfile.ZIP_STORED, mode: int = 0o100644
) -> bytes:
    """A zip as Python's own library writes it, with the fields that ours fixes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type, info.external_attr, info.create_system = method, mode << 16, 3
            archive.writestr(info, data)
    return out.getvalue()


def honest() -> list[tuple[str, bytes]]:
    return sorted(FILES.items())


def code_of(archive: bytes) -> str:
    """The code that an archive is refused with, though a trusted key signed all of it."""
    with pytest.raises(VerificationError) as caught:
        verify(read_artifact(forged(archive)), STORE)
    with pytest.raises(VerificationError) as raw:
        read_archive(memoryview(archive))
    assert raw.value.code == caught.value.code
    return caught.value.code


def with_name(old: bytes, new: bytes) -> bytes:
    """The honest archive with one name changed in both its tables."""
    assert len(old) == len(new)
    archive = zip_of(*honest())
    assert archive.count(old) == 2
    return archive.replace(old, new)


def test_allows_what_an_independent_writer_writes() -> None:
    assert write_archive(FILES) == zip_of(*honest())


def test_allows_an_independent_reader_to_read_the_capsule_itself() -> None:
    with zipfile.ZipFile(io.BytesIO(signed())) as archive:
        assert archive.testzip() is None
        assert {n: archive.read(n) for n in archive.namelist()} == FILES


@given(
    st.dictionaries(
        st.from_regex(r"assets/[a-z]{1,9}", fullmatch=True).filter(lambda n: not name_fault(n)),
        st.binary(max_size=9),
        max_size=9,
    )
)
def test_allows_to_say_where_each_file_lies_before_the_archive_is_read(
    files: dict[str, bytes],
) -> None:
    archive = write_archive(files)
    where = places({name: len(data) for name, data in files.items()})
    assert {name: archive[place] for name, place in where.items()} == files
    assert {n: bytes(d) for n, d in read_archive(memoryview(archive)).items()} == files


def test_allows_the_members_back_as_views_that_nobody_can_write() -> None:
    members = read_archive(memoryview(write_archive(FILES)))

    assert {n: bytes(v) for n, v in members.items()} == FILES
    assert all(v.readonly for v in members.values())


# Each of these is signed by a trusted key, so that only the rules on archives stand in the way.
ZIPS: Mapping[str, tuple[bytes, str]] = {
    "a path out": (with_name(b"assets/icon.svg", b"../../icon.svgx"), "verify.member-name"),
    "a path out, half way": (with_name(b"assets/icon.svg", b"assets/../a.svg"), "verify.member-name"),
    "an absolute path": (with_name(b"assets/icon.svg", b"/etc/cron.d/svg"), "verify.member-name"),
    "a drive": (with_name(b"assets/icon.svg", b"C:/sets/icon.sv"), "verify.member-name"),
    "a backslash": (with_name(b"assets/icon.svg", b"assets\\icon.svg"), "verify.member-name"),
    "a NUL": (with_name(b"assets/icon.svg", b"assets/i\0on.svg"), "verify.member-name"),
    "an escape code": (with_name(b"assets/icon.svg", b"assets/\x1b[2J.svg"), "verify.member-name"),
    "a hidden file": (with_name(b"assets/icon.svg", b"assets/.con.svg"), "verify.member-name"),
    "a device": (with_name(b"assets/icon.svg", b"assets/NUL.svgx"), "verify.member-name"),
    "an empty part": (with_name(b"assets/icon.svg", b"assets//con.svg"), "verify.member-name"),
    "a dot at the end": (with_name(b"assets/icon.svg", b"assets/icon.sv."), "verify.member-name"),
    "not ASCII, not NFC": (with_name(b"assets/icon.svg", "assets/ic\u0301o.sv".encode()), "verify.member-name"),
    "a directory entry": (zip_of(*honest()[:2], ("assets/", b"")), "verify.member-name"),
    "compressed": (zip_of(*honest(), method=zipfile.ZIP_DEFLATED), "verify.bomb"),
    "a bomb": (zip_of(("plugin.toml", b"\0" * 2**22), method=zipfile.ZIP_DEFLATED), "verify.bomb"),
    "links": (zip_of(*honest(), mode=stat.S_IFLNK | 0o777), "verify.member-link"),
    "a device node": (zip_of(*honest(), mode=stat.S_IFCHR | 0o666), "verify.member-link"),
    "setuid": (zip_of(*honest(), mode=0o104755), "verify.zip"),
    "not sorted": (zip_of(*reversed(honest())), "verify.zip"),
    "a byte before": (b"\0" + zip_of(*honest()), "verify.zip"),
    "a byte after": (zip_of(*honest()) + b"\0", "verify.zip"),
    "a comment": (zip_of(*honest())[:-2] + b"\x01\0c", "verify.zip"),
    "two ends": (zip_of(*honest()) + zip_of(*honest())[-22:], "verify.zip"),
    "two archives": (zip_of(*honest()) + zip_of(*honest()), "verify.zip"),
    "no end": (zip_of(*honest())[:-22], "verify.zip"),
    "cut in a header": (zip_of(*honest())[:20], "verify.zip"),
    "cut in a file": (zip_of(*honest())[:50], "verify.zip"),
    "nothing": (b"", "verify.zip"),
    "too many": (zip_of(*[(f"assets/{n:03}", b"") for n in range(257)]), "verify.bomb"),
}  # fmt: skip


@pytest.mark.case("FS-27", "FS-28", "SIG-20")
@pytest.mark.parametrize(("archive", "code"), ZIPS.values(), ids=ZIPS)
def test_refuses_a_hostile_archive_that_a_trusted_key_signed(archive: bytes, code: str) -> None:
    assert code_of(archive) == code


@pytest.mark.case("FS-28")
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refuses_one_name_twice() -> None:
    entries = honest()

    assert code_of(zip_of(*entries[:2], entries[1], *entries[2:])) == "verify.member-duplicate"


@pytest.mark.case("FS-28")
@pytest.mark.parametrize("where", ["local", "directory"])
def test_refuses_two_tables_that_tell_two_names(where: str) -> None:
    archive = zip_of(*honest())
    at = archive.index(b"README.md") if where == "local" else archive.rindex(b"README.md")

    changed = archive[:at] + b"README.mc" + archive[at + 9 :]

    assert code_of(changed) == "verify.zip"


# Offsets of the fields that have one value each, in a local header and in a directory's entry.
LOCAL = {"version": 4, "flags": 6, "time": 10, "date": 12, "crc": 14, "packed": 18, "extra": 28}
CENTRAL = {"made by": 4, "version": 6, "flags": 8, "method": 10, "time": 12, "crc": 16, "size": 24,
           "extra": 30, "comment": 32, "disk": 34, "internal": 36, "offset": 42}  # fmt: skip


@pytest.mark.case("FS-28")
@pytest.mark.parametrize(
    ("start", "field"),
    [(b"PK\x03\x04", f) for f in LOCAL] + [(b"PK\x01\x02", f) for f in CENTRAL],
)
def test_refuses_any_other_value_of_a_fixed_field(start: bytes, field: str) -> None:
    archive = bytearray(zip_of(*honest()))
    offset = archive.index(start) + (LOCAL if start == b"PK\x03\x04" else CENTRAL)[field]
    archive[offset] ^= 0x08

    assert code_of(bytes(archive)) == "verify.zip"


@pytest.mark.case("FS-28")
def test_refuses_zip64_and_data_descriptors() -> None:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w") as archive,
        archive.open(zipfile.ZipInfo("plugin.toml", EPOCH), "w", force_zip64=True) as file,
    ):
        file.write(b"x")

    assert code_of(out.getvalue()) == "verify.zip"


@pytest.mark.case("FS-27")
def test_refuses_files_that_overlap() -> None:
    inner = write_archive({"plugin.wasm": b"x"})[:42]
    outer = struct.pack(
        "<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 0, 0, 33, zlib.crc32(inner), len(inner), len(inner), 11, 0
    )  # fmt: skip

    assert code_of(outer + b"plugin.toml" + inner + write_archive({})) == "verify.zip"


@given(st.binary(max_size=200))
def test_refuses_noise_as_an_archive(noise: bytes) -> None:
    for data in (noise, b"PK\x03\x04" + noise):
        with pytest.raises(VerificationError):
            read_archive(memoryview(data))


HEADERS: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", "verify.not-a-capsule"),
    "a zip": (b"PK\x03\x04" + bytes(40), "verify.not-a-capsule"),
    "wasm": (b"\0asm\x0d\0\x01\0", "verify.not-a-capsule"),
    "half a magic": (MAGIC[:5], "verify.not-a-capsule"),
    "the magic alone": (MAGIC, "verify.truncated"),
    "format 0": (MAGIC + struct.pack("<II", 0, 0), "verify.format"),
    "format 2": (MAGIC + struct.pack("<II", 2, 0), "verify.format"),
    "64 KiB and a byte": (MAGIC + struct.pack("<II", 1, 65537) + bytes(70000), "verify.envelope-too-large"),
    "4 GiB": (MAGIC + struct.pack("<II", 1, 2**32 - 1), "verify.envelope-too-large"),
    "cut in the envelope": (MAGIC + struct.pack("<II", 1, 9) + b"{}", "verify.truncated"),
}  # fmt: skip


@pytest.mark.case("SIG-04", "MAN-08", "PER-03")
@pytest.mark.parametrize(("data", "code"), HEADERS.values(), ids=HEADERS)
def test_refuses_another_header(data: bytes, code: str) -> None:
    with pytest.raises(VerificationError) as caught:
        verify(read_artifact(data), STORE)

    assert caught.value.code == code


def test_refuses_to_join_an_envelope_that_is_too_large() -> None:
    with pytest.raises(ValueError, match="at most"):
        join(bytes(65537), b"")
    assert len(split(join(bytes(65536), b"")).envelope) == 65536


member_names = st.from_regex(
    r"assets/[a-z0-9]{1,8}(/[a-z0-9]{1,8})?\.[a-z]{1,4}", fullmatch=True
).filter(lambda name: name_fault(name) is None)  # it does find lpt0


@settings(max_examples=60)
@given(extra=st.dictionaries(member_names, st.binary(max_size=300), max_size=6), code=st.binary())
def test_allows_any_files_to_come_back_as_they_went_in(
    extra: dict[str, bytes], code: bytes
) -> None:
    members = {**FILES, **extra, "plugin.wasm": code}
    shuffled = dict(reversed(members.items()))

    verified = verify(read_artifact(signed(members=members)), STORE)

    assert {n: bytes(v) for n, v in verified.members.items()} == members
    assert verified.code == code
    assert verified.manifest_bytes == members["plugin.toml"]
    assert pack(members) == pack(shuffled)


def test_allows_a_native_capsule_for_two_targets() -> None:
    so = {f"lib/{t}/plugin.so": t.encode() for t in ("x86_64-linux-gnu", "aarch64-linux-gnu")}
    native = {"plugin.toml": FILES["plugin.toml"].replace(b"component", b"native"), **so}

    verified = verify(read_artifact(signed(members=native)), STORE)

    assert verified.kind == "native"
    assert verified.library("x86_64-linux-gnu") == b"x86_64-linux-gnu"
    assert verified.library("riscv64-linux-gnu") is None
    with pytest.raises(ValueError, match="library for each target"):
        _ = verified.code


@pytest.mark.case("FS-27", "SIG-03")
def test_refuses_to_pack_what_may_not_be_there_and_lists_all() -> None:
    bad = {
        "plugin.toml": FILES["plugin.toml"],
        "src/lib.rs": b"",
        "lib/x86_64-linux-gnu/plugin.so": b"",
        "assets/.env": b"",
        "assets/A": b"",
        "assets/a": b"",
        "assets/a/b": b"",
        "../up": b"",
        "a" * 129: b"",
        "assets/" + "a/" * 8 + "a": b"",
    }

    with pytest.raises(ArtifactError) as caught:
        pack(bad)

    text = str(caught.value)
    assert caught.value.code == "artifact.pack"
    for word in ("src/lib.rs", "plugin.so", ".env", "only by case", "lies below", "../up", "128",
                 "8 parts", "the code is missing"):  # fmt: skip
        assert word in text


def test_refuses_to_pack_more_than_a_capsule_may_hold() -> None:
    big = bytes(MAX_CAPSULE_BYTES)

    with pytest.raises(ArtifactError) as caught:
        pack({**FILES, "plugin.wasm": big})

    assert caught.value.code == "artifact.too-large"


def test_refuses_to_pack_files_whose_statement_has_no_room() -> None:
    many = {f"assets/{'long' * 25}{n:03}": b"" for n in range(240)}

    with pytest.raises(ArtifactError, match="fewer files"):
        pack({**FILES, **many})
    with pytest.raises(ArtifactError, match="more than 256 files"):
        pack({**FILES, **{f"assets/{n}": b"" for n in range(256)}})


@pytest.mark.case("MAN-09")
@pytest.mark.parametrize(
    ("word", "value"),
    [(b"acme.weather", v) for v in (b"acme", b"Acme.x", b"acme/x.y", b"acme..x", b"acme.-x",
     b"acme.x-", b"../acme.x", b"acme.%2e", b"con.x", b"a." + b"b" * 127, b"a." + b"b" * 64)]
    + [(b"1.2.0", v) for v in (b"1.2", b"01.2.0", b"1.2.0-", b"v1.2.0", b"1.2.0 ", b"1.2.9999999999")]
    + [(b"component", v) for v in (b"wasm", b"Component", b"")],
)  # fmt: skip
def test_refuses_to_pack_a_manifest_that_does_not_say_who_it_is(word: bytes, value: bytes) -> None:
    with pytest.raises(ManifestError):
        pack({**FILES, "plugin.toml": FILES["plugin.toml"].replace(word, value)})


@pytest.mark.parametrize("manifest", [b"", b"plugin = 1", b"\xff", b"[plugin]\nid = 1\nkind = []"])
def test_refuses_to_pack_without_a_sound_manifest(manifest: bytes) -> None:
    with pytest.raises(CapwasmError):
        pack({**FILES, "plugin.toml": manifest})


def make_tree(root: Path) -> Path:
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_allows_a_directory_to_be_packed(tmp_path: Path) -> None:
    assert collect(make_tree(tmp_path)) == FILES


@pytest.mark.case("FS-27", "SIG-05")
def test_refuses_links_and_special_files_in_a_directory_and_lists_all(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    (root / "assets/passwd").symlink_to("/etc/passwd")
    (root / "wit").symlink_to("/etc")
    os.mkfifo(root / "assets/fifo")

    with pytest.raises(ArtifactError) as caught:
        collect(root)

    assert [f.path for f in caught.value.faults] == ["'assets/fifo'", "'assets/passwd'", "'wit'"]


def test_refuses_a_directory_that_is_not_there_or_too_full(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="can't be listed"):
        collect(tmp_path / "none")
    for n in range(4097):
        (tmp_path / str(n)).touch()
    with pytest.raises(ArtifactError, match="more than 4096 files"):
        collect(tmp_path)


@pytest.mark.case("SIG-02", "SIG-06")
def test_refuses_to_sign_a_statement_that_is_not_true_of_the_content() -> None:
    other = write_archive({**FILES, "plugin.wasm": b"evil"})
    parts = split(signed())

    with pytest.raises(VerificationError) as caught:
        sign_capsule(read_artifact(join(bytes(parts.envelope), other)), KEY)

    assert caught.value.code == "verify.digest"


@pytest.mark.case("SIG-06")
def test_refuses_to_sign_for_a_plugin_that_the_manifest_does_not_name() -> None:
    other = forged(write_archive(FILES), identity=Identity("acme.other", "1.2.0", "component"))

    with pytest.raises(VerificationError) as caught:
        sign_capsule(read_artifact(other), KEY)

    assert caught.value.code == "verify.identity"


def test_refuses_a_seventeenth_signature() -> None:
    full = signed(*(PrivateKey.generate() for _ in range(16)))

    with pytest.raises(ArtifactError, match="at most 16"):
        sign_capsule(read_artifact(full), KEY)


def test_refuses_to_sign_what_is_no_capsule() -> None:
    for data in (b"", b"\0asm", join(b"{}", write_archive(FILES))):
        with pytest.raises(VerificationError):
            sign_capsule(read_artifact(data), KEY)
    with pytest.raises(VerificationError) as caught:
        sign_capsule(read_artifact(forged(write_archive(FILES), payload_type="text/x")), KEY)
    assert caught.value.code == "verify.payload-type"


def test_allows_signing_twice_and_changes_nothing() -> None:
    once = signed()

    assert sign_capsule(read_artifact(once), KEY) == once


@pytest.mark.parametrize("name", ["a\0b", "nothing-is-here", "a" * 300])
def test_refuses_to_pack_what_is_no_directory(name: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        collect(name)
    assert caught.value.code == "artifact.pack"
