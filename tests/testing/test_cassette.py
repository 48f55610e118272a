"""What was recorded plays back without any capability, and holds no secret."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capwasm.testing import Bench, BenchError, ReplayMismatchError, UnansweredError
from capwasm.testing.plain import Handles, Secrets, from_plain, to_plain
from capwasm.values import Err, Ok, Some, Variant
from tests.testing.conftest import project, run

API = "https://api.example.com"
SECRET = "s3cr3t-v4lue"


@pytest.fixture
def cassette(tmp_path: Path) -> Path:
    return tmp_path / "cassettes/a.json"


def calls_of(cassette: Path) -> list[dict[str, Any]]:
    return [c for calls in json.loads(cassette.read_text())["instances"] for c in calls]


def everything(bench: Bench) -> list[str]:
    """One of each, allowed and refused, with handles and with WASI."""
    return [
        run(bench, "kv.set", "a", "1"),
        run(bench, "kv.get", "a"),
        run(bench, "random.next"),
        run(bench, "clock.now"),
        run(bench, "fetch.stream", "GET", f"{API}/a"),
        run(bench, "fetch", "GET", "https://evil.example/"),
        run(bench, "fs.write", "/data/a", "hello"),
        run(bench, "fs.read", "/data/a"),
        run(bench, "fs.read", "/data/none"),
        run(bench, "log", "info", "one"),
        run(bench, "config.all"),
    ]


def test_a_replay_is_as_the_run_was(make: Callable[..., Bench], cassette: Path) -> None:
    first = make()
    first.fetch.answer(f"{API}/a", body="x" * 3000)
    with first.record(cassette):
        was = everything(first)
    assert was[4] == "x" * 3000

    second = make(seed=b"other", config={"city": "Rome"})
    second.clock.step(1000)
    with second.replay(cassette):
        assert everything(second) == was
    assert second.fetch.requests == []
    assert dict(second.kv) == {}
    assert list(second.files("notes").iterdir()) == []
    assert [r.message for r in second.logs] == ["one"]
    # The block is over: the capabilities are there again.
    assert run(second, "kv.get", "a") != "1"


def test_a_recording_is_the_same_again(make: Callable[..., Bench], tmp_path: Path) -> None:
    for name in ("a", "b"):
        bench = make()
        with bench.record(tmp_path / name):
            run(bench, "kv.set", "a", "1")
            run(bench, "random.next")
            run(bench, "clock.now")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_call_of_every_interface_is_recorded(
    make: Callable[..., Bench], cassette: Path
) -> None:
    bench = make()
    bench.fetch.answer(f"{API}/a", body="x")
    with bench.record(cassette):
        everything(bench)
    names = {c["call"].partition(" ")[0] for c in calls_of(cassette)}
    assert {"capwasm:kv/store", "capwasm:fetch/client", "capwasm:clock/clock"} <= names
    assert any(name.startswith("wasi:") for name in names)
    refused = [c for c in calls_of(cassette) if "refused" in c]
    assert "denied" in {c["refused"] for c in refused}


def test_another_call_fails_with_the_difference(make: Callable[..., Bench], cassette: Path) -> None:
    bench = make()
    with bench.record(cassette):
        run(bench, "kv.set", "a", "1")
    other = make()
    with pytest.raises(ReplayMismatchError) as failed, other.replay(cassette):
        run(other, "kv.set", "a", "2")
    text = str(failed.value)
    assert "a.json: call" in text
    assert re.search(r'^- +"\$text": "1"$', text, re.MULTILINE)
    assert re.search(r'^\+ +"\$text": "2"$', text, re.MULTILINE)
    assert "preopens get-directories" in text  # what came before


def test_one_call_too_many_fails(make: Callable[..., Bench], cassette: Path) -> None:
    bench = make()
    with bench.record(cassette):
        run(bench, "kv.get", "a")
    other = make()
    with other.replay(cassette):
        run(other, "kv.get", "a")
        with pytest.raises(ReplayMismatchError, match="nothing more was recorded"):
            run(other, "kv.get", "a")


def test_one_call_too_few_fails_when_the_block_ends(
    make: Callable[..., Bench], cassette: Path
) -> None:
    bench = make()
    with bench.record(cassette):
        run(bench, "kv.get", "a")
        run(bench, "kv.get", "b")
    other = make()
    with (
        pytest.raises(ReplayMismatchError, match=r'not made:(.|\n)*- capwasm:kv/store get\("b"\)'),
        other.replay(cassette),
    ):
        run(other, "kv.get", "a")


def test_what_ends_a_call_ends_it_again(make: Callable[..., Bench], cassette: Path) -> None:
    from capwasm.errors import GuestTrap

    asked = "[clock]\nwall = false\n[log]\n"
    bench = make(asked, secrets={}, config={})
    with bench.record(cassette), pytest.raises(GuestTrap, match="wall is not granted"):
        bench.call("run", "clock.now", [])
    other = make(asked, secrets={}, config={})
    with other.replay(cassette), pytest.raises(GuestTrap, match="wall is not granted"):
        other.call("run", "clock.now", [])


# -- instances ----------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["in-process", "process"])
@pytest.mark.parametrize("instance", ["per-call", "pooled", "single"])
def test_each_instance_is_told_at_its_start_what_it_was_told(
    tmp_path: Path, cassette: Path, instance: str, isolation: str
) -> None:
    place = project(tmp_path / "p", "[clock]\n[random]\n", instance, isolation, "starter")

    def seeds(bench: Bench) -> list[int]:
        return [bench.call("seed") for _ in range(3)]

    with Bench(place) as bench, bench.record(cassette):
        was = seeds(bench)
    assert len(set(was)) == (3 if instance == "per-call" else 1)
    assert {c["in"] for c in calls_of(cassette)} == {"(start)"}
    with Bench(place, seed=b"other") as bench:
        assert seeds(bench) != was
        with bench.replay(cassette):
            assert seeds(bench) == was


# -- secrets ------------------------------------------------------------------------------------


def test_no_secret_is_ever_in_it(make: Callable[..., Bench], cassette: Path) -> None:
    bench = make()
    bench.fetch.answer(f"{API}/a*", body="x")
    encoded = base64.b64encode(f"user:{SECRET}".encode()).decode()
    with bench.record(cassette):
        assert run(bench, "secret.reveal", "key") == SECRET
        run(bench, "kv.set", SECRET, f"it is {SECRET}!")
        run(bench, "kv.set", "b", encoded)
        run(bench, "log", "info", f"with {SECRET}")
        run(bench, "fs.write", "/data/a", SECRET)
        run(bench, "fetch", "GET", f"{API}/a?token={SECRET}")
    text = cassette.read_text()
    for form in (SECRET, SECRET[::-1], SECRET.encode().hex(), encoded, encoded[8:-4]):
        assert form not in text
    assert '"$secret": "key"' in text
    assert "it is [secret:key]!" in text

    # And it still plays back: with the secret, with another, and with none.
    for secrets in ({"key": SECRET}, {"key": "an0ther-0ne"}, {}):
        other = make(secrets=secrets)
        with other.replay(cassette):
            value = run(other, "secret.reveal", "key")
            assert value == secrets.get("key", "placeholder-of-key")
            run(other, "kv.set", value, f"it is {value}!")
            # What is computed from another secret is another value, unless it looks the same.
            same = base64.b64encode(f"user:{SECRET}".encode()).decode()
            run(other, "kv.set", "b", same if value == SECRET else "dXNlcjp[secret:key]U=")
            run(other, "log", "info", f"with {value}")
            run(other, "fs.write", "/data/a", value)
            run(other, "fetch", "GET", f"{API}/a?token={value}")


def test_a_failure_tells_no_secret(prober: Bench) -> None:
    run(prober, "secret.reveal", "key")
    with pytest.raises(UnansweredError, match=r"b\?token=\[secret:key\]"):
        run(prober, "fetch", "GET", f"{API}/b?token={SECRET}")


def test_a_secret_in_pieces_is_refused_and_nothing_written(
    make: Callable[..., Bench], cassette: Path
) -> None:
    bench = make()
    with pytest.raises(BenchError, match="in pieces"), bench.record(cassette):  # noqa: PT012
        run(bench, "log", "info", SECRET[:5])
        run(bench, "log", "info", SECRET[5:])
    assert not cassette.exists()


def test_a_secret_that_could_not_be_masked_is_refused(
    make: Callable[..., Bench], cassette: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make(secrets={"key": "abc"})
    with pytest.raises(BenchError, match="can't be kept out"), bench.record(cassette):
        pytest.fail("the block must not run")
    assert not cassette.exists()


# -- files --------------------------------------------------------------------------------------


def test_a_block_that_fails_writes_nothing(make: Callable[..., Bench], cassette: Path) -> None:
    cassette.parent.mkdir()
    cassette.write_text("as it was")
    bench = make()
    with pytest.raises(RuntimeError), bench.record(cassette):
        raise RuntimeError
    assert cassette.read_text() == "as it was"


def test_blocks_do_not_nest(make: Callable[..., Bench], cassette: Path) -> None:
    bench = make()
    with (
        bench.record(cassette),
        pytest.raises(BenchError, match="in another"),
        bench.record(cassette),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "no cassette"),
        ('{"cassette": 2, "instances": []}', "another version"),
        ('{"cassette": 1, "instances": [{}]}', "no cassette"),
        ('{"cassette": 1, "instances": [[{"call": 1, "args": []}]]}', "no cassette"),
        (None, "record it first"),
    ],
)
def test_what_is_no_cassette_is_refused(
    prober: Bench, tmp_path: Path, text: str | None, told: str
) -> None:
    if text is not None:
        (tmp_path / "c").write_text(text)
    with pytest.raises(BenchError, match=told), prober.replay(tmp_path / "c"):
        pytest.fail("the block must not run")


def test_a_cassette_that_lies_ends_the_call(prober: Bench, cassette: Path) -> None:
    with prober.record(cassette):
        run(prober, "kv.get", "a")
    good = cassette.read_text()
    lies = [
        ('"result": null', '"result": {"$handle": 99, "of": "os.system"}'),
        ('"result": null', '"ends": "Popen", "code": "x", "message": "y"'),
        ('"result": null', '"result": {"$secret": "root"}'),
    ]
    for true, lie in lies:
        head, _, tail = good.rpartition(true)
        cassette.write_text(head + lie + tail)
        with pytest.raises(BenchError), prober.replay(cassette):
            run(prober, "kv.get", "a")


# -- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -5,
        2**64 - 1,
        1.5,
        float("inf"),
        "text",
        "",
        b"text",
        b"",
        b"\xff\0",
        [1, [2]],
        Variant("a"),
        Variant("a", [1]),
        Some(None),
        Some(Some(1)),
        Ok(None),
        Err("denied"),
        {"ok": 1, "some": {"$": 2}},
    ],
)
def test_values_come_back_as_they_were(value: Any) -> None:
    handles, secrets = Handles({}), Secrets({"key": SECRET.encode()})
    plain = json.loads(json.dumps(to_plain(value, handles, secrets)))
    assert from_plain(plain, handles, secrets) == value


def test_what_does_not_cross_is_refused() -> None:
    with pytest.raises(BenchError, match="object"):
        to_plain(object(), Handles({}), Secrets({}))
