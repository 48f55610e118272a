"""What a plugin answers, and what a client is told of one that does not."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from capwasm.asgi import Bounds, Incomplete, PluginApp
from capwasm.errors import LinkError
from capwasm.plugin import Plugin

from .clients import Client, ask, scope
from .conftest import Load


def test_allows_a_plugin_to_see_a_request_and_to_answer_it(plugin: Plugin) -> None:
    app = PluginApp(plugin)
    got = ask(app, "/head?a=1&b=%20", headers=[(b"Host", b"app.example"), (b"X-Own", b"1")])

    assert got.status == 200
    assert got.whole
    assert got.text == (
        'method Method::Get\nscheme Some(Scheme::Http)\nauthority Some("app.example")\n'
        'path Some("/head?a=1&b=%20")\nx-own: 1\n'
    )
    assert ask(app, "/echo?201", Client([b"abc", b"de"]), method="POST").text == "abcde"
    assert ask(app, "/echo?201", Client([b"x"]), method="PUT").status == 201
    for path in ("/length?3,3", "/splice"):
        assert ask(app, path, Client([b"yyy"])).text == "yyy"


def test_refuses_a_plugin_that_answers_no_requests(load: Load) -> None:
    with pytest.raises(LinkError, match="incoming-handler"):
        PluginApp(load(code="shout"))


def test_refuses_a_client_s_credentials_to_a_plugin_unless_the_core_shows_them(
    plugin: Plugin,
) -> None:
    headers = [
        (b"cookie", b"session=1"),
        (b"authorization", b"Bearer x"),
        (b"proxy-authorization", b"Basic y"),
        (b"connection", b"X-Hop"),
        (b"x-hop", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"x-end", b"2"),
    ]
    text = ask(PluginApp(plugin), headers=headers).text
    assert text.endswith('path Some("/head")\nx-end: 2\n')

    shown = ask(PluginApp(plugin, hide=["X-End"]), headers=headers).text
    assert "cookie: session=1\n" in shown
    assert "authorization: Bearer x\n" in shown
    assert "x-end" not in shown
    assert "x-hop" not in shown
    assert "chunked" not in shown


def test_refuses_headers_that_act_on_more_than_the_answer(plugin: Plugin) -> None:
    assert set(ask(PluginApp(plugin), "/powers").headers) - {"content-length"} == {"x-own"}

    allowed = ask(PluginApp(plugin, withhold=()), "/powers").headers
    assert allowed["set-cookie"] == "session=mine"
    assert allowed["x-sendfile"] == "/etc/passwd"


@pytest.mark.case("NET-18", "NET-19")
@pytest.mark.parametrize(
    ("query", "outcome"),
    [
        ("x-own=fine", "Ok(())"),
        ("x-own=a%25nset-cookie:b", "Ok(())"),  # `%25n` is no line's end here
        ("x-own=a%nset-cookie:b", "Err(HeaderError::InvalidSyntax)"),
        ("x%20y=1", "Ok(())"),
        ("connection=close", "Err(HeaderError::Forbidden)"),
        ("transfer-encoding=chunked", "Err(HeaderError::Forbidden)"),
    ],
)
def test_refuses_headers_that_would_frame_or_split_the_answer(
    plugin: Plugin, query: str, outcome: str
) -> None:
    assert ask(PluginApp(plugin), f"/fields?{query}").text == outcome


@pytest.mark.parametrize(
    ("status", "word"),
    [(200, "taken"), (599, "taken"), (100, "refused"), (199, "refused"), (600, "refused")],
)
def test_refuses_a_status_that_is_no_answer(plugin: Plugin, status: int, word: str) -> None:
    got = ask(PluginApp(plugin), f"/status?{status}")
    assert (got.text, got.status) == (word, status if word == "taken" else 200)


def test_allows_no_body_where_there_is_none(plugin: Plugin) -> None:
    app = PluginApp(plugin)
    assert ask(app, "/head", method="HEAD").text == ask(app, "/status?204").text == ""
    assert ask(app, "/length?5,5", method="HEAD").headers["content-length"] == "5"
    assert "content-length" not in ask(app, "/status?204").headers


def test_allows_trailers_where_the_server_sends_them(plugin: Plugin) -> None:
    app = PluginApp(plugin)
    got = ask(app, "/trailers", extensions={"http.response.trailers": {}})
    assert got.sent[0]["trailers"]
    assert got.text == "body"
    assert got.sent[-1]["headers"] == [(b"x-checksum", b"42")]  # a cookie is withheld there too

    plain = ask(app, "/trailers")
    assert "trailers" not in plain.sent[0]
    assert plain.whole


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/never", 502),
        ("/trap", 502),
        ("/error?denied", 403),
        ("/error?size", 413),
        ("/error?timeout", 504),
        ("/error?other", 500),
        ("/nope", 404),
    ],
)
def test_refuses_to_tell_a_client_more_than_a_status(
    plugin: Plugin, path: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "capwasm.asgi"):
        got = ask(PluginApp(plugin), path)
    assert got.status == status
    assert got.whole
    told = repr(got.sent)
    assert "secret" not in told
    assert "guest" not in told
    assert "trap" not in told
    named = [r for r in caplog.records if r.name == "capwasm.asgi"]
    assert len(named) == (0 if status == 404 else 1)  # that one is the plugin's own answer


@pytest.mark.parametrize("path", ["/half", "/half-trap", "/length?5,4", "/length?5,6"])
def test_refuses_to_end_a_response_that_broke_off(plugin: Plugin, path: str) -> None:
    client = Client()
    try:
        ask(PluginApp(plugin), path, client)
    except Incomplete:  # it had begun: the server closes the connection
        assert client.status == 200
        assert not client.whole
    else:
        assert client.status == 502 or (path.endswith("5,6") and client.text == "yyyyy")


def test_refuses_a_second_answer(load: Load) -> None:
    load_events = load.world.events  # type: ignore[attr-defined]
    got = ask(PluginApp(load()), "/twice")
    assert got.status == 200
    assert got.whole
    assert [e["reason"] for e in load_events("crash")] == ["guest.trap"]


@pytest.mark.case("RES-04")
def test_refuses_more_time_than_a_call_has(load: Load) -> None:
    plugin = load({"wall-ms": 300, "fuel": 10**11})
    app = PluginApp(plugin)
    assert [ask(app, p).status for p in ("/wait", "/spin")] == [504, 504]
    client = Client([b"a"], open_end=True)  # a body that never ends
    assert ask(app, "/sink", client).status == 504
    begun = Client()
    with pytest.raises(Incomplete):
        ask(app, "/silent", begun)
    assert begun.status == 200
    assert begun.text == "then silence"
    assert not begun.whole
    assert ask(app, "/head").status == 200


def test_refuses_more_than_limits_concurrency_at_a_time(load: Load) -> None:
    plugin = load({"concurrency": 1, "wall-ms": 800})
    app = PluginApp(plugin)

    async def both() -> tuple[Client, Client]:
        first = asyncio.ensure_future(Client().visit(app, "/wait"))
        await asyncio.sleep(0.2)
        second = await Client().visit(app, "/head")
        return await first, second

    first, second = asyncio.run(both())
    assert (first.status, second.status) == (504, 503)
    assert second.headers["retry-after"] == "1"
    assert ask(app).status == 200  # the place is free again


@pytest.mark.parametrize("how", ["kill", "evict"])
def test_refuses_what_was_killed(load: Load, how: str) -> None:
    plugin = load({"wall-ms": 20_000})
    app = PluginApp(plugin)
    timer = threading.Timer(0.3, getattr(plugin, how), ["a test"])
    timer.start()
    assert ask(app, "/wait").status == 503
    timer.join()
    assert ask(app).status == (200 if how == "kill" else 503)


def test_refuses_to_go_on_for_a_client_that_left(load: Load) -> None:
    plugin = load({"wall-ms": 30_000})
    app = PluginApp(plugin)
    for path in ("/wait", "/spin", "/sink", "/source?900000"):
        client = Client([b"a"], gone=True)
        ask(app, path, client)
        assert not client.whole
    plugin.wait_quiet(10)
    assert plugin.under_way() == []
    assert ask(app).status == 200

    async def cancelled() -> Client:
        client = Client()
        task = asyncio.ensure_future(client.visit(app, "/wait"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return client

    assert asyncio.run(cancelled()).sent == []
    plugin.wait_quiet(10)
    assert plugin.under_way() == []


def test_refuses_a_client_that_takes_nothing(load: Load) -> None:
    plugin = load({"wall-ms": 500})
    app = PluginApp(plugin, send_seconds=0.2)
    for path in ("/source?9000000", "/nope"):  # more, and less, than is held for it
        client = Client(slow=True)
        if path == "/nope":  # its one piece says that it is the last: for the server it is sent
            with pytest.raises(Incomplete):
                ask(app, path, client)
            continue
        with pytest.raises(Incomplete):
            ask(app, path, client)
        assert not client.whole
        assert len(client.text) <= 512 * 1024


def test_refuses_requests_that_are_too_large(plugin: Plugin) -> None:
    app = PluginApp(plugin, bounds=Bounds(body=10, headers=3, header_bytes=100, target=20))
    assert ask(app, "/sink", Client([b"a" * 10])).text == "10 bytes"

    assert ask(app, "/sink", headers=[(b"content-length", b"11")]).status == 413
    assert ask(app, "/sink", Client([b"a" * 6, b"a" * 6])).status == 413
    assert ask(app, "/" + "a" * 20).status == 414
    assert ask(app, headers=[(b"x", b"1")] * 4).status == 431
    assert ask(app, headers=[(b"x", b"1" * 100)]).status == 431


@pytest.mark.case("NET-18")
@pytest.mark.parametrize(
    "over",
    [
        {"headers": [(b"x", b"a\r\nb: c")]},
        {"headers": [(b"x\n", b"a")]},
        {"headers": [(b"x", b"a\0")]},
        {"headers": [(b"host", b"a"), (b"host", b"b")]},
        {"headers": [(b"host", b"a/../b")]},
        {"headers": [(b"content-length", b"1"), (b"content-length", b"2")]},
        {"headers": [(b"content-length", b"-1")]},
        {"headers": [(b"content-length", b"\xb2")]},
        {"method": "GE T"},
        {"method": ""},
    ],
)
def test_refuses_what_is_malformed(over: dict[str, Any], plugin: Plugin) -> None:
    assert ask(PluginApp(plugin), **over).status == 400


@pytest.mark.parametrize(
    ("path", "root", "seen"),
    [
        ("/app/x", "/app", "/x"),
        ("/app", "/app", "/"),
        ("/apple", "/app", "/apple"),
        ("/x", "", "/x"),
        ("/a%2Fb", "", "/a%2Fb"),
        ("/a\u00e9\x7f", "", "/a%C3%A9%7F"),
    ],
)
def test_allows_a_plugin_to_see_the_path_below_itself(path: str, root: str, seen: str) -> None:
    from capwasm.asgi.heads import request_head

    made = scope(path, root_path=root, raw_path=path.encode())
    assert request_head(made, Bounds(), ()).path == seen


def test_refuses_websockets_and_lives_along_with_a_server(plugin: Plugin) -> None:
    app = PluginApp(plugin)

    def run(kind: str, *messages: str) -> list[str]:
        sent: list[str] = []
        waiting = [{"type": m} for m in messages]

        async def receive() -> Any:
            return waiting.pop(0)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        asyncio.run(app({"type": kind}, receive, send))
        return sent

    assert run("websocket", "websocket.connect") == ["websocket.close"]
    lived = run("lifespan", "lifespan.startup", "lifespan.shutdown")
    assert lived == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(ValueError, match="not served"):
        run("telnet")


def test_each_request_is_one_call_and_on_record(load: Load) -> None:
    app = PluginApp(load())
    for _ in range(3):
        assert ask(app).status == 200
    load.world.close()  # type: ignore[attr-defined]
    calls = load.world.events("call")  # type: ignore[attr-defined]
    assert {e["action"] for e in calls} == {"incoming-handler.handle"}
    assert sum(e["details"]["calls"] for e in calls) == 3
