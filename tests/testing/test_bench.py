"""The bench runs the product's own capabilities; what it replaces decides nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from capwasm.authoring.project import build_cache
from capwasm.errors import BuildError, GrantDeniedError
from capwasm.home import make_private
from capwasm.testing import Answer, Bench, BenchError, Request, UnansweredError
from tests.testing.conftest import run

API = "https://api.example.com"


# -- what is real -------------------------------------------------------------------------------


def test_the_store_is_the_plugins_and_the_tests(prober: Bench) -> None:
    run(prober, "kv.set", "a", "from the plugin")
    prober.kv["b"] = "from the test"
    assert dict(prober.kv) == {"a": b"from the plugin", "b": b"from the test"}
    assert run(prober, "kv.get", "b") == "from the test"
    del prober.kv["b"]
    assert "b" not in prober.kv
    with pytest.raises(KeyError):
        del prober.kv["b"]


def test_files_stand_in_a_directory_of_the_bench(prober: Bench) -> None:
    (prober.files("notes") / "in").write_text("hello")
    assert run(prober, "fs.read", "/data/in") == "hello"
    with pytest.raises(BenchError, match="asks for no directory other; it asks for notes"):
        prober.files("other")
    assert run(prober, "fs.read", "/etc/passwd") in ("denied", "not-found")


def test_logs_are_kept_in_order(prober: Bench) -> None:
    run(prober, "log", "info", "one")
    run(prober, "log", "warn", "s3cr3t-v4lue")
    run(prober, "secret.reveal", "key")
    run(prober, "log", "warn", "s3cr3t-v4lue")
    assert [r.level for r in prober.logs] == ["info", "warn", "warn"]
    assert prober.logs[2].message == "[secret:key]"


def test_each_bench_begins_anew(make: Any) -> None:
    first = make()
    run(first, "kv.set", "a", "1")
    assert dict(make().kv) == {}


def test_its_home_is_gone_in_the_end(make: Any) -> None:
    bench = make()
    place = bench.files("notes")
    assert place.is_dir()
    bench.close()
    bench.close()
    assert not place.exists()


# -- fetch --------------------------------------------------------------------------------------


def test_a_fetch_gets_the_tests_answer(prober: Bench) -> None:
    prober.fetch.answer(f"{API}/a", json={"n": 1})
    assert run(prober, "fetch", "GET", f"{API}/a") == '200 {"n": 1}'
    [request] = prober.fetch.requests
    assert (request.method, request.url) == ("GET", f"{API}/a")


def test_one_that_is_not_granted_is_refused_before_any_answer(prober: Bench) -> None:
    prober.fetch.answer("https://evil.example/", body="secrets please")
    assert run(prober, "fetch", "GET", "https://evil.example/") == "denied"
    assert run(prober, "fetch", "DELETE", f"{API}/a") == "denied"
    assert prober.fetch.requests == []
    assert [e.reason for e in prober.denied] == ["not-granted", "not-granted"]


@pytest.mark.parametrize("address", ["10.0.0.7", "127.0.0.1", "169.254.169.254"])
def test_a_name_that_leads_inside_is_refused(prober: Bench, address: str) -> None:
    prober.fetch.answer(f"{API}/a", body="inside")
    prober.fetch.resolve("api.example.com", address)
    assert run(prober, "fetch", "GET", f"{API}/a") == "denied"
    assert prober.fetch.requests == []
    prober.fetch.resolve("api.example.com", "93.184.215.14")
    assert run(prober, "fetch", "GET", f"{API}/a") == "200 inside"


def test_a_redirect_passes_the_rules_again(prober: Bench) -> None:
    prober.fetch.answer(f"{API}/a", status=302, headers={"location": "https://evil.example/"})
    prober.fetch.answer("https://evil.example/", body="here")
    assert run(prober, "fetch", "GET", f"{API}/a") == "denied"
    prober.fetch.answer(f"{API}/a", status=302, headers={"location": "/b"})
    prober.fetch.answer(f"{API}/b", body="there")
    assert run(prober, "fetch", "GET", f"{API}/a") == "200 there"
    assert [r.url for r in prober.fetch.requests] == [f"{API}/a", f"{API}/a", f"{API}/b"]


def test_a_handler_sees_the_request(prober: Bench) -> None:
    def handler(request: Request) -> Answer:
        return Answer(201, body=request.url.encode())

    prober.fetch.answer(f"{API}/*", handler, method="POST")
    assert run(prober, "fetch", "POST", f"{API}/a?b=c") == f"201 {API}/a?b=c"
    with pytest.raises(UnansweredError):
        run(prober, "fetch", "GET", f"{API}/a")


def test_the_last_answer_counts_as_often_as_it_says(prober: Bench) -> None:
    prober.fetch.answer(f"{API}/a", body="usual")
    prober.fetch.answer(f"{API}/a", status=503, times=2)
    got = [run(prober, "fetch", "GET", f"{API}/a") for _ in range(3)]
    assert got == ["503 ", "503 ", "200 usual"]


def test_a_fetch_without_an_answer_fails_the_test_and_says_how(prober: Bench) -> None:
    with pytest.raises(UnansweredError, match=r'bench.fetch.answer\("https://api.example.com/x"'):
        run(prober, "fetch", "GET", f"{API}/x")


def test_a_server_that_is_gone(prober: Bench) -> None:
    prober.fetch.resolve("api.example.com")
    assert run(prober, "fetch", "GET", f"{API}/a") == "unavailable"


def test_what_is_no_answer_is_refused(prober: Bench) -> None:
    with pytest.raises(ValueError, match="a body or JSON"):
        prober.fetch.answer(API, body="x", json={})
    with pytest.raises(ValueError, match="not-a-url"):
        prober.fetch.answer("not-a-url")
    prober.fetch.answer(f"{API}/a", headers={"bad header": "x"})
    with pytest.raises(BenchError, match="is no HTTP"):
        run(prober, "fetch", "GET", f"{API}/a")


def test_an_answer_that_fails_fails_the_test(prober: Bench) -> None:
    def handler(request: Request) -> Answer:
        assert request.method == "PUT"
        return Answer()

    prober.fetch.answer(f"{API}/a", handler)
    with pytest.raises(BenchError, match="AssertionError") as failed:
        run(prober, "fetch", "GET", f"{API}/a")
    assert isinstance(failed.value.__cause__, AssertionError)


# -- clock and random ---------------------------------------------------------------------------


def test_time_stands_until_it_is_stepped(prober: Bench) -> None:
    first = int(run(prober, "clock.now"))
    assert datetime.fromtimestamp(first / 1e9, UTC) == datetime(2030, 1, 1, tzinfo=UTC)
    prober.clock.step(90)
    assert int(run(prober, "clock.now")) == first + 90 * 10**9
    prober.clock.now = datetime(2031, 5, 1, tzinfo=UTC)
    assert int(run(prober, "clock.now")) == prober.clock.wall_ns()
    with pytest.raises(ValueError, match="time zone"):
        prober.clock.now = datetime(2031, 5, 1)  # noqa: DTZ001
    with pytest.raises(ValueError, match="forward"):
        prober.clock.step(-1)


def test_random_bytes_are_the_same_in_each_run(make: Any) -> None:
    a, b, c = make(), make(), make(seed=b"other")
    drawn = [[run(x, "random.next") for _ in range(3)] for x in (a, b, c)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 3


def test_entries_of_the_store_expire_by_the_benchs_clock(prober: Bench) -> None:
    run(prober, "kv.set", "a", "1", "60000")
    prober.clock.step(59)
    assert "a" in prober.kv
    prober.clock.step(2)
    assert "a" not in prober.kv


# -- assertions ---------------------------------------------------------------------------------


def test_what_was_used_and_what_was_not(prober: Bench) -> None:
    run(prober, "kv.set", "a", "1")
    assert prober.used == {"kv"}
    assert {"net", "fs", "secret"} <= prober.unused
    prober.assert_only_used("kv")
    prober.fetch.answer(f"{API}/a", body="x")
    run(prober, "fetch", "GET", f"{API}/a")
    with pytest.raises(AssertionError, match="also used net"):
        prober.assert_only_used("kv")
    with pytest.raises(AssertionError, match="did not use fs"):
        prober.assert_only_used("kv", "net", "fs")
    prober.forget()
    prober.assert_only_used()
    with pytest.raises(BenchError, match="no capability network"):
        prober.assert_only_used("network")


def test_what_was_refused_is_not_used_and_is_told(prober: Bench) -> None:
    assert run(prober, "fetch", "GET", "https://evil.example/") == "denied"
    assert "net" not in prober.used
    with pytest.raises(AssertionError, match=r"refused net GET https://evil.example:443/ \(not-gr"):
        prober.assert_only_used()
    with pytest.raises(AssertionError, match="not-granted"):
        prober.assert_nothing_denied()


def test_a_manifest_for_the_run(prober: Bench) -> None:
    run(prober, "fetch", "GET", "https://evil.example/")
    text = prober.manifest_for_run().text
    assert 'allow = "https://evil.example:443/"' in text
    assert text.count("[[net]]") == 2
    assert "[[fs]]" in text


# -- what does not load -------------------------------------------------------------------------


def test_a_directory_by_its_path_is_never_given(make: Any) -> None:
    bench = make('[[fs]]\nmount = "/etc"\npath = "/etc"\naccess = "read"\n', secrets={}, config={})
    with pytest.raises(GrantDeniedError):
        _ = bench.plugin


def test_what_it_does_not_ask_is_not_given(make: Any) -> None:
    for options in ({"secrets": {"other": "x"}}, {"config": {"other": "x"}}, {"binds": {"x": "/"}}):
        with pytest.raises(BuildError, match="it is given what it does not ask"):
            _ = make(**options).plugin


# -- the operator's part ------------------------------------------------------------------------

COMMAND = """
[[plugins."test.guest".exec]]
command = "count"
program = "/usr/bin/wc"
arguments = ["-c"]
"""


def test_a_command_is_what_the_policy_of_the_test_says(make: Any) -> None:
    asked = '[log]\n[[exec]]\ncommand = "count"\n'
    options: dict[str, Any] = {"secrets": {}, "config": {}}
    assert "5" in run(make(asked, policy=COMMAND, **options), "exec", "count", "hello")
    with pytest.raises(GrantDeniedError):
        _ = make(asked, **options).plugin


def test_a_denial_of_the_operator_is_tried_out(make: Any) -> None:
    asked = '[log]\n[[net]]\nallow = "https://api.example.com/"\noptional = true\n'
    denied = '[[deny.net]]\nallow = "https://api.example.com/"\n'
    bench = make(asked, policy=denied, secrets={}, config={})
    bench.fetch.answer(f"{API}/", body="x")
    assert run(bench, "fetch", "GET", f"{API}/") == "denied"
    assert "net" not in bench.granted


# -- a language's runtime -----------------------------------------------------------------------


@pytest.mark.toolchain("componentize-py")
@pytest.mark.skipif(find_spec("componentize_py") is None, reason="componentize-py is missing")
def test_a_plugin_in_python_is_the_same_in_each_run(tmp_path: Path) -> None:
    from tests.builds import compiled, component, share

    example = Path(__file__).parents[2] / "guest-sdk/python/examples/weather"
    (tmp_path / "plugin.wasm").write_bytes(component(example))
    (tmp_path / "plugin.toml").write_bytes((example / "plugin.toml").read_bytes())
    cassette = tmp_path / "oslo.json"
    make_private(build_cache() / "compiled")
    share(compiled(), build_cache() / "compiled")
    with Bench(tmp_path, secrets={"acme-token": "t0p-s3cret"}) as bench, bench.record(cassette):
        bench.fetch.answer("https://api.acme.example/*", json={"celsius": 3, "summary": "rain"})
        was = bench.call("forecast", "Oslo").unwrap()
        bench.assert_only_used("net", "kv", "log", "random", "secret", "config")
    assert "t0p-s3cret" not in cassette.read_text()
    with Bench(tmp_path) as bench, bench.replay(cassette):
        assert bench.call("forecast", "Oslo").unwrap().summary == was.summary == "rain"
