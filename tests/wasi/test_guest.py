"""WASI from the other side: a component in Rust, through its standard library."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from capwasm.capability import Interface
from capwasm.caps.clock.handle import SystemTime
from capwasm.caps.fs.host import Fs
from capwasm.caps.fs.model import Access, FsClause
from capwasm.caps.log.handle import PluginRecord
from capwasm.engine.abi import table
from capwasm.engine.compile import Compiler
from capwasm.engine.engine import PluginEngine
from capwasm.engine.link import Linked, link
from capwasm.errors import DeadlineExceeded, GuestTrap, LinkError, OutputLimitExceeded
from capwasm.handles import Handle
from capwasm.instance import Instance
from capwasm.limits import DEFAULTS, Limits
from capwasm.values import Err, Ok
from capwasm.wasi import GuestExit, WasiConfig, unserved_reason
from capwasm.wasi.sockets import _ERROR_CODES
from tests.helpers import grant_of, open_context
from tests.kit import ListServed

from .served import Wasi, clock_state, log_state, random_state

PROBER = Path(__file__).parents[1] / "guests/prober.wasm"


def _never(*_args: object) -> None:
    raise AssertionError("these tests only use WASI")


class _Never(Handle):
    """A resource of an interface that these tests don't use."""


def others() -> list[Interface]:
    """The component imports all of `capwasm:*` too, and calls none of it here."""
    resources = {
        "capwasm:fs/files": ["file"],
        "capwasm:fetch/client": ["response"],
        "capwasm:secrets/store": ["secret"],
    }
    return [
        Interface(
            f"{name}@0.1.0",
            dict.fromkeys(functions, _never),
            {r: type(r, (_Never,), {}) for r in resources.get(name, [])},
        )
        for name, functions in table().items()
        if name.startswith("capwasm:")
    ]


@pytest.fixture(scope="module")
def engine() -> Iterator[PluginEngine]:
    engine = PluginEngine()
    yield engine
    engine.close()


def joined(engine: PluginEngine, code: bytes, *, lane: bool = True) -> Linked:
    component = Compiler(engine, None, lane=lane).compile(code)
    served = [*Wasi().interfaces.values(), *others()]
    return link(engine, component, served, owners={}, unserved=unserved_reason)


@pytest.fixture(scope="module", params=[True, False], ids=["lane", "plain"])
def linked(engine: PluginEngine, request: pytest.FixtureRequest) -> Linked:
    linked = joined(engine, PROBER.read_bytes(), lane=request.param)
    assert bool(linked.lane) == request.param
    return linked


Opener = Callable[..., Callable[..., Any]]


@pytest.fixture
def prober(engine: PluginEngine, linked: Linked) -> Iterator[Opener]:
    instances = []

    def open_one(wasi: Wasi, limits: Limits = DEFAULTS) -> Callable[..., Any]:
        served = [*wasi.interfaces.values(), *others()]
        instance = Instance(engine, linked, "acme.prober@1.0.0", limits, ListServed(served))
        instance.start()
        instances.append(instance)

        def run(operation: str, *arguments: str) -> Any:
            value, _ = instance.call(linked.exports.find("run"), (operation, list(arguments)))
            return value

        return run

    yield open_one
    for instance in instances:
        instance.close()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[Path, Wasi]]:
    for name in ("rw/sub", "ro", "outside", "data"):
        (tmp_path / name).mkdir(parents=True, mode=0o700)
    (tmp_path / "ro/file").write_text("read me")
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "rw/up").symlink_to("../outside/secret")
    fs = Fs()
    state = fs.open(
        grant_of(
            FsClause("/rw", None, str(tmp_path / "rw"), Access.READ_WRITE),
            FsClause("/ro", None, str(tmp_path / "ro"), Access.READ),
        ),
        open_context(tmp_path / "data"),
    )
    yield tmp_path, Wasi({"fs": state})
    fs.close(state)


@pytest.mark.case("SEC-01", "FS-20")
def test_refuses_a_program_any_outside(prober: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPWASM_TEST_SECRET", "do-not-tell")
    run = prober(Wasi())

    assert run("std.env") == Ok("")
    assert run("std.args") == Ok("")
    assert run("std.stdin") == Ok("")
    for path in ("/etc/passwd", "file", "/", ".", "/proc/self/environ"):
        assert isinstance(run("std.read", path), Err)


def test_allows_a_program_what_the_core_gives(prober: Opener) -> None:
    run = prober(Wasi(config=WasiConfig(args=("tool", "-v"), env={"LANG": "C"})))

    assert run("std.env") == Ok("LANG=C")
    assert run("std.args") == Ok("tool\n-v")


def test_allows_a_program_its_granted_files(prober: Opener, files: tuple[Path, Wasi]) -> None:
    root, wasi = files
    run = prober(wasi)
    long = "0123456789" * 20_000  # several chunks

    assert run("std.read", "/ro/file") == Ok("read me")
    assert run("std.write", "/rw/new", long) == Ok("")
    assert run("std.append", "/rw/new", "!") == Ok("")
    assert run("std.read", "/rw/new") == Ok(long + "!")
    assert run("std.len", "/rw/new") == Ok("200001")
    assert run("std.set-len", "/rw/new", "3") == Ok("")
    assert run("std.mkdir", "/rw/d") == Ok("")
    assert run("std.rename", "/rw/new", "/rw/d/moved") == Ok("")
    assert (root / "rw/d/moved").read_text() == "012"
    assert run("std.list", "/rw") == Ok("d\nsub\nup")
    assert run("std.remove", "/rw/d/moved") == Ok("")
    assert run("std.rmdir", "/rw/d") == Ok("")
    assert run("std.rmdir", "/rw/d") == Err("NotFound")


@pytest.mark.case("FS-07", "FS-08")
def test_refuses_a_program_what_it_was_not_granted(
    prober: Opener, files: tuple[Path, Wasi]
) -> None:
    root, wasi = files
    run = prober(wasi)

    for operation, *arguments in (
        ("std.write", "/ro/file", "x"),
        ("std.write", "/ro/new", "x"),
        ("std.append", "/ro/file", "x"),
        ("std.truncate", "/ro/file"),
        ("std.set-len", "/ro/file", "0"),
        ("std.remove", "/ro/file"),
        ("std.mkdir", "/ro/d"),
        ("std.rename", "/ro/file", "/rw/stolen"),
        ("std.hard-link", "/ro/file", "/rw/stolen"),
        ("std.read", "/rw/up"),
        ("std.read", "/rw/../outside/secret"),
        ("std.read", "/outside/secret"),
    ):
        assert isinstance(run(operation, *arguments), Err), operation
    assert (root / "ro/file").read_text() == "read me"
    assert sorted(p.name for p in (root / "rw").iterdir()) == ["sub", "up"]


def test_allows_a_program_to_print_to_its_log(prober: Opener) -> None:
    kept: list[PluginRecord] = []
    run = prober(Wasi({"log": log_state(kept)}))

    assert run("std.print", "out", "err") == Ok("")
    with pytest.raises(GuestTrap):
        run("panic", "the reason")
    assert [(r.channel, r.message) for r in kept[:2]] == [("stdout", "out"), ("stderr", "err")]
    assert "the reason" in [r.message for r in kept]


@pytest.mark.case("RES-20", "RES-21")
def test_refuses_a_program_an_endless_print(prober: Opener) -> None:
    wasi = Wasi()
    run = prober(wasi)

    assert run("std.print-flood", "100") == Ok("")
    with pytest.raises(OutputLimitExceeded):
        run("std.print-flood", "1000000")
    assert [e.action for e in wasi.events] == ["wasi:cli/stdout.write"]


def test_allows_a_program_the_granted_time(prober: Opener) -> None:
    run = prober(Wasi({"clock": clock_state(SystemTime())}))
    began = time.monotonic()

    assert abs(int(run("std.time").unwrap()) - time.time()) < 60
    assert run("std.sleep", "50") == Ok("")
    assert time.monotonic() - began >= 0.045  # the clock that it reads is rounded down


@pytest.mark.parametrize("operation", ["std.time", "std.sleep"])
def test_refuses_a_program_the_time_and_names_the_table(prober: Opener, operation: str) -> None:
    run = prober(Wasi({"random": random_state()}))

    with pytest.raises(GuestTrap) as caught:
        run(operation, "1")

    assert (caught.value.code, caught.value.faults[0].fix) == ("grant.denied", "[clock]")


@pytest.mark.case("RES-24")
def test_refuses_a_program_to_sleep_for_years(prober: Opener) -> None:
    run = prober(Wasi({"clock": clock_state(SystemTime())}), replace(DEFAULTS, wall_ms=100))
    began = time.monotonic()

    with pytest.raises(DeadlineExceeded):
        run("std.sleep", str(10**12))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [0, 1, 7])
def test_allows_a_program_to_exit_and_tells_how(prober: Opener, status: int) -> None:
    with pytest.raises(GuestExit) as caught:
        prober(Wasi())("std.exit", str(status))

    assert caught.value.status in (status, min(status, 1))


# -- what no standard library does: components in text ---------------------------------------------


POLL = """
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $p (sub resource)))
    (export "poll" (func (param "in" (list (borrow $p))) (result (list u32))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.12" (instance $clock
    (alias outer 1 $pollable (type $q))
    (export "pollable" (type $p (eq $q)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
  (core module $memory
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $m (instantiate $memory))
  (core func $after (canon lower (func $clock "subscribe-duration")))
  (core func $wait (canon lower (func $poll "poll")
    (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
  (core module $code
    (import "m" "memory" (memory 1))
    (import "w" "after" (func $after (param i64) (result i32)))
    (import "w" "wait" (func $wait (param i32 i32 i32)))
    (func (export "run") (param i32) (result i32)
      (i32.store (i32.const 0) (call $after (i64.const 60000000000)))
      (i32.store (i32.const 4) (call $after (i64.const 20000000)))
      (call $wait (i32.const 0) (local.get 0) (i32.const 16))
      (i32.add
        (i32.mul (i32.load (i32.const 20)) (i32.const 10)) (i32.load (i32.load (i32.const 16))))))
  (core instance $c (instantiate $code (with "m" (instance $m)) (with "w" (instance
    (export "after" (func $after)) (export "wait" (func $wait))))))
  (func (export "run") (param "count" u32) (result u32) (canon lift (core func $c "run"))))
"""

SOCKET = """
(component
  (import "wasi:sockets/tcp@0.2.3" (instance $tcp (export "tcp-socket" (type (sub resource)))))
  (alias export $tcp "tcp-socket" (type $socket))
  (import "wasi:sockets/tcp-create-socket@0.2.3" (instance $create
    (alias outer 1 $socket (type $s))
    (type $f (enum "ipv4" "ipv6"))
    (export "family" (type $family (eq $f)))
    (type $e (enum %s))
    (export "error-code" (type $error (eq $e)))
    (export "create-tcp-socket" (func
      (param "address-family" $family) (result (result (own $s) (error $error)))))))
  (core module $memory (memory (export "memory") 1))
  (core instance $m (instantiate $memory))
  (core func $make (canon lower (func $create "create-tcp-socket")
    (memory (core memory $m "memory"))))
  (core module $code
    (import "m" "memory" (memory 1))
    (import "w" "make" (func $make (param i32 i32)))
    (func (export "run") (result i32)
      (call $make (i32.const 0) (i32.const 0))
      (i32.add (i32.mul (i32.load8_u (i32.const 0)) (i32.const 100)) (i32.load8_u (i32.const 4)))))
  (core instance $c (instantiate $code (with "m" (instance $m)) (with "w" (instance
    (export "make" (func $make))))))
  (func (export "run") (result u32) (canon lift (core func $c "run"))))
""" % " ".join(f'"{word}"' for word in _ERROR_CODES.split())  # noqa: UP031  braces are WAT's


def run_text(engine: PluginEngine, text: str, wasi: Wasi, *arguments: int) -> Any:
    linked = joined(engine, bytes(wasmtime.wat2wasm(text)))
    instance = Instance(
        engine, linked, "acme.text@1.0.0", DEFAULTS, ListServed(list(wasi.interfaces.values()))
    )
    instance.start()
    try:
        value, _ = instance.call(linked.exports.find("run"), arguments)
    finally:
        instance.close()
    return value


def test_allows_a_guest_to_poll_two_timers_across_versions(engine: PluginEngine) -> None:
    wasi = Wasi({"clock": clock_state(SystemTime())})

    # One is ready, and it is the second.
    assert run_text(engine, POLL, wasi, 2) == 11


def test_refuses_a_guest_to_poll_nothing(engine: PluginEngine) -> None:
    with pytest.raises(GuestTrap, match="empty"):
        run_text(engine, POLL, Wasi({"clock": clock_state(SystemTime())}), 0)


@pytest.mark.case("NET-26", "NET-27")
def test_refuses_a_guest_a_socket(engine: PluginEngine) -> None:
    wasi = Wasi()

    # 100 is `err`, 1 is `access-denied`.
    assert run_text(engine, SOCKET, wasi) == 101
    assert [e.action for e in wasi.events] == ["wasi:sockets/tcp-create-socket.create-tcp-socket"]


@pytest.mark.case("NET-26")
@pytest.mark.parametrize(
    ("interface", "word"),
    [
        ("wasi:http/outgoing-handler@0.2.0", "[[net]]"),
        ("wasi:keyvalue/store@0.2.0", "capwasm:kv"),
        ("wasi:io/streams@0.2.13", "wasi:io/streams@0.2.12"),
        ("wasi:io/streams@0.3.0", "wasi:io/streams@0.2.12"),
        ("wasi:made/up@0.2.0", "not offer"),
    ],
)
def test_refuses_at_load_what_is_not_served(
    engine: PluginEngine, interface: str, word: str
) -> None:
    text = f"""(component (import "{interface}" (instance (export "f" (func)))))"""

    with pytest.raises(LinkError) as caught:
        joined(engine, bytes(wasmtime.wat2wasm(text)))

    assert word in str(caught.value)


@pytest.mark.case("RES-14")
def test_thousands_of_calls_leave_no_handle_and_no_memory(
    engine: PluginEngine, linked: Linked, files: tuple[Path, Wasi]
) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    root, wasi = files
    (root / "ro/file").write_bytes(bytes(range(32, 127)) * 100)
    served = ListServed([*wasi.interfaces.values(), *others()])
    instance = Instance(engine, linked, "acme.prober@1.0.0", DEFAULTS, served)
    instance.start()
    run, sizes = linked.exports.find("run"), []
    for i in range(900):
        value, _ = instance.call(run, ("std.read", ["/ro/file"]))
        assert value == Ok((root / "ro/file").read_text())
        if i in (300, 600, 899):
            sizes.append((len(instance.handles), resident()))
    instance.close()
    (first, before), *_, (last, after) = sizes
    assert first == last
    assert after - before < 8 << 20
