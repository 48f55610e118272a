"""The example plugins do what their heads say, and what is committed is what the sources make."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from capwasm.caps import standard_capabilities
from capwasm.capsule.artifact import read_artifact
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.pack import collect, pack, sign_capsule
from capwasm.grants.manifest import parse_manifest
from capwasm_shim.protocol import Outcome
from tests.shim.native_peer import TRIPLE, NativePeer

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "native-shim/examples"


class Host:
    """Enough of a host for the examples: a store, files, settings, one secret, pages."""

    def __init__(self) -> None:
        self.kv: dict[str, bytes] = {}
        self.files: dict[str, bytearray] = {}
        self.settings: dict[str, str] = {}
        self.secrets: list[str] = []
        self.pages: dict[str, bytes] = {}
        self.log: list[tuple[str, list[list[str]]]] = []
        self.sent: list[tuple[list[Any], list[int]]] = []
        self.open: dict[int, Any] = {}
        self.synced = 0

    def __call__(self, interface: str, name: str, args: list[Any]) -> Any:
        key = interface.partition(":")[2].partition("/")[0], name.rpartition(".")[2]
        return getattr(self, "_".join(key).replace("-", "_"))(*args)

    def _handle(self, thing: Any) -> list[int]:
        self.open[len(self.open) + 1] = thing
        return [0, len(self.open)]

    def kv_increment(self, key: str, delta: int) -> Any:
        self.kv[key] = str(int(self.kv.get(key, b"0")) + delta).encode()
        return [0, int(self.kv[key])]

    def kv_get(self, key: str) -> Any:
        return [0, [self.kv[key]] if key in self.kv else None]

    def kv_set(self, key: str, value: bytes, _ttl: Any) -> Any:
        if len(value) > 1 << 20:
            return [1, 3]
        self.kv[key] = bytes(value)
        return [0, None]

    def kv_keys(self, prefix: str, after: list[str] | None) -> Any:
        found = [k for k in sorted(self.kv) if k.startswith(prefix)]
        return [0, [k for k in found if after is None or k > after[0]][:1000]]

    def config_get(self, key: str) -> Any:
        return [self.settings[key]] if key in self.settings else None

    def log_write(self, _level: int, message: str, fields: list[list[str]]) -> None:
        self.log.append((message, fields))

    def fs_open(self, path: str, mode: int) -> Any:
        if mode == 0 and path not in self.files:
            return [1, 1]
        return self._handle(self.files.setdefault(path, bytearray()))

    def fs_write(self, file: int, offset: int, data: bytes) -> Any:
        self.open[file][offset : offset + len(data)] = data
        return [0, None]

    def fs_read(self, file: int, offset: int, length: int) -> Any:
        return [0, bytes(self.open[file][offset : offset + length])]

    def fs_sync(self, _file: int) -> Any:
        self.synced += 1
        return [0, None]

    def secrets_get(self, name: str) -> Any:
        return self._handle(name) if name in self.secrets else [1, 0]

    def fetch_send(self, request: list[Any], credentials: list[int]) -> Any:
        self.sent.append((request, [self.open[c] for c in credentials]))
        page = self.pages.get(request[1])
        return [1, 0] if page is None else self._handle(bytearray(page))

    def fetch_status(self, _response: int) -> int:
        return 200

    def fetch_read(self, response: int, length: int) -> Any:
        part = bytes(self.open[response][:length])
        del self.open[response][:length]
        return [0, part]


def example(name: str, path: Path | None = None) -> tuple[NativePeer, Callable[..., Any], Host]:
    path = path or EXAMPLES / name / f"capsule/lib/{TRIPLE}/plugin.so"
    if not path.exists():
        pytest.skip(f"no example for {TRIPLE}: python native-shim/build.py makes it")
    peer, host = NativePeer(path), Host()

    def call(topic: str, message: bytes = b"") -> Any:
        outcome, (case, data) = peer.call(topic, message, host)
        assert outcome == Outcome.VALUE
        return data if case else bytes(data)

    return peer, call, host


# -- C --------------------------------------------------------------------------------------------


def test_notes_are_kept_listed_written_and_sent() -> None:
    peer, call, host = example("c")
    try:
        assert call("list") == b""
        assert [call("add", note) for note in (b"milk", "brød".encode())] == [b"1", b"2"]
        assert call("list") == "milk\nbrød\n".encode()
        assert host.log[0] == ("a note was added", [["key", "note/000000000001"]])

        host.settings.update(file="/data/notes.txt", url="https://notes.example/in")
        assert call("export") == b"11"
        assert (host.files["/data/notes.txt"], host.synced) == ("milk\nbrød\n".encode(), 1)

        host.secrets.append("notes-token")
        host.pages["https://notes.example/in"] = b""
        assert call("send") == b"200"
        request, credentials = host.sent[0]
        assert request[:2] == ["POST", "https://notes.example/in"]
        assert request[3:] == [["milk\nbrød\n".encode()], [5000], 2]
        assert credentials == ["notes-token"]
        # Each handle that was opened was closed: the file, the secret, the response.
        assert sorted(peer.drops) == sorted(host.open)
    finally:
        assert peer.close() == 0


def test_notes_over_a_page_of_keys_and_a_mebibyte() -> None:
    peer, call, host = example("c")
    try:
        notes = [str(n).encode() * 400 for n in range(1, 2006)]
        host.kv = {f"note/{n:012}": note for n, note in enumerate(notes)}
        host.settings["file"] = "/data/notes.txt"
        whole = b"".join(note + b"\n" for note in notes)

        assert call("list") == whole
        assert call("export") == str(len(whole)).encode()
        assert host.files["/data/notes.txt"] == whole
    finally:
        assert peer.close() == 0


def test_notes_tell_in_words_what_was_refused() -> None:
    peer, call, host = example("c")
    try:
        assert call("export") == "the notes can't be exported (2)"
        assert call("send") == "the notes can't be sent (2)"
        host.settings["url"] = "https://elsewhere.example/"
        assert call("send") == "the notes can't be sent (1)"
        assert call("add", b"x" * ((1 << 20) + 1)) == "the note can't be kept (4)"
        assert call("burn") == "no such topic (0)"
    finally:
        assert peer.close() == 0


# -- Rust -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watch(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in Rust, built from its sources."""
    library = tmp_path_factory.mktemp("watch") / "plugin.so"
    try:
        script.build_rust(script.PLUGINS["example-rust"], library)
    except script.Missing as exc:
        pytest.skip(str(exc))
    return library


@pytest.mark.toolchain("cargo")
def test_watch_tells_which_pages_have_changed(watch: Path) -> None:
    peer, call, host = example("rust", watch)
    try:
        one, two = "https://pages.example/1", "https://pages.example/2"
        host.files["/lists/all"] = bytearray(f"# pages\n{one}\n\n  {two}\n".encode())
        host.pages = {one: b"a" * 200_000, two: b"b"}
        assert call("check", b"/lists/all") == b""
        assert call("check", b"/lists/all") == b""

        host.pages[one] += b"!"
        host.secrets.append("watch-token")
        assert call("check", b"/lists/all") == f"{one}\n".encode()
        assert host.log == [("a page has changed", [["url", one]])]
        assert [credentials for _, credentials in host.sent[-2:]] == [["watch-token"]] * 2
        assert sorted(peer.drops) == sorted(host.open)
    finally:
        assert peer.close() == 0


@pytest.mark.toolchain("cargo")
def test_watch_tells_in_words_what_was_refused(watch: Path) -> None:
    peer, call, host = example("rust", watch)
    try:
        assert call("check", b"/lists/none") == "fs.open was refused (2)"
        assert call("check", b"\xff") == "the path is not UTF-8"
        host.files["/lists/all"] = bytearray(b"https://elsewhere.example/")
        assert call("check", b"/lists/all") == "fetch.send was refused (1)"
        assert call("guess") == "no such topic"
        assert sorted(peer.drops) == sorted(host.open)
    finally:
        assert peer.close() == 0


# -- from sources ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "build_native", REPOSITORY / "native-shim/build.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_committed_library_is_what_its_sources_make(script: ModuleType) -> None:
    assert script.faults() == []


def test_every_committed_library_is_of_a_known_plugin(script: ModuleType) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.so"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not in a git checkout")

    known = {p.library.format(triple=t) for p in script.PLUGINS.values() for t in script.COMMITTED}
    assert set(tracked.stdout.split()) <= known


def test_no_committed_library_holds_a_path_of_the_machine_it_was_made_on(
    script: ModuleType,
) -> None:
    for plugin in script.PLUGINS.values():
        for triple in script.COMMITTED if not plugin.is_rust else ():
            code = (REPOSITORY / plugin.library.format(triple=triple)).read_bytes()
            for root in (b"/root/", b"/home/", b"/Users/", bytes(REPOSITORY)):
                assert root not in code, (plugin.library, root)


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("tests/native/prober.c", "its sources or the header have changed"),
        ("native-shim/include/capwasm_plugin.h", "its sources or the header have changed"),
        ("tests/native/x86_64-linux-gnu/prober.so", "is not the one that was recorded"),
    ],
)
def test_refuses_what_changed_without_a_rebuild(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, fault: str
) -> None:
    for name in ("native-shim/include", "native-shim/examples", "tests/native"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    monkeypatch.setattr(script, "REPOSITORY", tmp_path)
    assert script.faults() == []
    with (tmp_path / place).open("ab") as file:
        file.write(b"\n")

    assert any(line.startswith("prober/") and fault in line for line in script.faults())


def test_refuses_a_library_that_nothing_is_recorded_of(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = json.loads(script.DIGESTS.read_text())
    del recorded["prober/x86_64-linux-gnu"]
    recorded["stranger/x86_64-linux-gnu"] = {}
    (tmp_path / "digests.json").write_text(json.dumps(recorded))
    monkeypatch.setattr(script, "DIGESTS", tmp_path / "digests.json")

    found = script.faults()

    assert any(f.startswith("prober/x86_64-linux-gnu: ") for f in found)
    assert any(f.startswith("stranger/x86_64-linux-gnu: ") for f in found)


def test_says_which_compiler_is_missing(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script.shutil, "which", lambda _: None)

    for build, command in ((script.build_c, "apt-get install gcc"), (script.build_rust, "rustup")):
        with pytest.raises(script.Missing, match=command):
            build(script.PLUGINS["prober"], tmp_path / "x.so")


@pytest.mark.toolchain("cc")
@pytest.mark.parametrize(
    ("language", "standard"), [("c", "c11"), ("c", "c17"), ("c++", "c++11"), ("c++", "c++17")]
)
def test_the_header_needs_nothing_and_has_no_warnings(
    tmp_path: Path, language: str, standard: str
) -> None:
    compiler = shutil.which("cc")
    if compiler is None or (language == "c++" and shutil.which("c++") is None):
        pytest.skip("no compiler for it")
    source = tmp_path / "only.c"
    source.write_text('#include "capwasm_plugin.h"\n#include "capwasm_plugin.h"\n')
    flags = [f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]

    done = subprocess.run(
        [compiler, "-x", language, *flags, f"-I{REPOSITORY}/native-shim/include", source],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.toolchain("cc")
def test_the_sources_make_what_works(script: ModuleType, tmp_path: Path) -> None:
    library = tmp_path / "notes.so"
    try:
        script.build_c(script.PLUGINS["example-c"], library)
    except script.Missing as exc:
        pytest.skip(str(exc))
    peer, call, _ = example("c", library)
    try:
        assert call("add", b"one") == b"1"
    finally:
        assert peer.close() == 0


@pytest.mark.toolchain("cc")
def test_the_plugin_of_the_page_for_authors_works_as_it_stands(
    script: ModuleType, tmp_path: Path
) -> None:
    page = (REPOSITORY / "docs/native.md").read_text()
    source, manifest = (
        re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)[0] for language in ("c", "toml")
    )
    (tmp_path / "greeter.c").write_text(source)
    (tmp_path / "plugin.toml").write_text(manifest)
    parse_manifest(manifest.encode(), standard_capabilities())
    plugin = script.Plugin((str(tmp_path / "greeter.c"),), "", ("-Wno-unused-parameter",))
    try:
        script.build_c(plugin, tmp_path / "greeter.so")
    except script.Missing as exc:
        pytest.skip(str(exc))
    peer, call, host = example("c", tmp_path / "greeter.so")
    try:
        assert (call("greet", b"Ann"), host.kv) == (b"Hello, Ann", {"visits": b"1"})
    finally:
        assert peer.close() == 0


# -- a capsule ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["c", "rust"])
def test_an_example_becomes_a_signed_capsule(name: str) -> None:
    members = collect(EXAMPLES / name / "capsule")
    members.setdefault(f"lib/{TRIPLE}/plugin.so", b"\x7fELF")  # the one in Rust is not committed

    signed = read_artifact(sign_capsule(read_artifact(pack(members)), PrivateKey.generate()))

    assert len(signed.data) > sum(map(len, members.values()))
