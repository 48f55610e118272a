"""Every call of the JavaScript SDK, from a guest that runs the JavaScript it is sent."""

from __future__ import annotations

import re

import pytest

from capwasm.errors import GuestTrap
from capwasm.plugin import Plugin
from capwasm.values import Err
from tests.guests_python.bench import REPOSITORY, Origin

pytestmark = pytest.mark.toolchain("node")

README = REPOSITORY / "guest-sdk/js/README.md"
_IMPORT = re.compile(r'^import \{[^}]*\} from "@capwasm/guest";\n', re.MULTILINE)


def run(plugin: Plugin, source: str) -> str:
    result = plugin.call("run", source)
    assert result.ok, result.error
    return str(result.value)


def test_allows_every_example_of_the_readme(full: Plugin, origin: Origin) -> None:
    examples = re.findall(r"```js run\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert len(examples) == 10
    for example in examples:
        source = _IMPORT.sub("", example).replace("https://api.acme.com", origin.url)
        assert source != example
        assert run(full, source) == ""


def test_the_readme_names_every_call() -> None:
    types = (REPOSITORY / "guest-sdk/js/src/index.d.ts").read_text("utf-8")
    text = README.read_text("utf-8")
    for space, body in re.findall(r"export namespace (\w+) \{\n(.*?)\n\}", types, re.DOTALL):
        for name in set(re.findall(r"^  function (\w+)", body, re.MULTILINE)) - {"write", "remove"}:
            assert f"{space}.{name}(" in text, f"{space}.{name}"


ALLOWED = {
    "fetch": (
        ('const r = await fetch(U + "/v1/x"); print(r.status, r.ok, r.headers.get("CONTENT-type"), r.url === U + "/v1/x");'
        " print(await r.text(), r.bodyUsed)"),
        '200 true application/json true\n{"celsius": 3.5, "summary": "rain"} true',
    ),
    "fetch, post": (
        ('const r = await fetch(U + "/v1/x", {method: "post", body: "ü"});'
        ' print(r.headers.get("content-type"), await r.text())'),
        "text/plain;charset=UTF-8 ü",
    ),
    "fetch, a form": (
        ('const body = new URLSearchParams({a: "b c"});'
        ' print(await (await fetch(new URL(U + "/v1/x"), {method: "POST", body})).text())'),
        "a=b+c",
    ),
    "fetch, a blob": (
        ('const r = await fetch(U + "/v1/x", {method: "POST", body: new Blob(["b"], {type: "x/y"})});'
        ' print(r.headers.get("content-type"), await r.text())'),
        "x/y b",
    ),
    "fetch, a Request": (
        'const q = new Request(U + "/v1/x", {method: "POST", body: "q"}); print(await (await fetch(q)).text())',
        "q",
    ),
    "fetch, a stream": (
        'let n = 0; for await (const p of (await fetch(U + "/v1/x")).body) n += p.length; print(n)',
        "35",
    ),
    "the global fetch": ('print((await globalThis.fetch(U + "/v1/x")) instanceof Response)', "true"),
    "Headers": (
        ('const h = new Headers({A: "1"}); h.append("a", "2"); h.set("B", "3");'
        ' print(h.get("a"), h.has("b"), [...h].join(";")); h.delete("a"); print([...h.keys()])'),
        "1, 2 true a,1, 2;b,3\nb",
    ),
    "kv": (
        ('await kv.set("k", "ü"); print(await kv.getText("k"), await kv.get("no"), await kv.increment("fresh"),'
        ' await kv.increment("fresh", -3n), await kv.delete("k"))'),
        "ü  1 -2 true",
    ),
    "kv, a time": (
        'await kv.set("t", "1", {ttl: 1}); await clock.sleep(30); print(await kv.get("t"))',
        "",
    ),
    "fs": (
        ('await fs.mkdir("/data/d"); await fs.writeFile("/data/d/a", "hej"); await fs.appendFile("/data/d/a", new Uint8Array([33]));'
        ' print(await fs.readFile("/data/d/a", "utf8"), await fs.readdir("/data/d"), await fs.exists("/data/b"))'),
        "hej! a false",
    ),
    "random": (
        ("const drawn = new Set(Array.from({length: 200}, () => random.integer(3)));"
        " print([...drawn].sort(), random.uuid().length)"),
        "0,1,2 36",
    ),
    "secrets": (
        'const s = await secrets.get("pin"); print(s.name, s.lease > 1, (await s.reveal()).length)',
        "pin true 13",
    ),
    "exec": (
        'const o = await exec.run("shout", ["A-Z"], {input: "ab"}); print(o.code, o.text(), o.ok)',
        "0 AB true",
    ),
    "globals": ("print(Date.now() > 1.6e12, Math.random() < 1, crypto.randomUUID().length)", "true true 36"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_allows_a_granted_call(full: Plugin, origin: Origin, name: str) -> None:
    source, printed = ALLOWED[name]
    assert run(full, f'const U = "{origin.url}"; {source}') == printed


REFUSED = {
    "kv": ('await kv.get("k")', "kv.get k: denied"),
    "secrets": ('await secrets.get("pin")', "secret pin: denied"),
    "fetch": ('await fetch("https://a.example/")', "fetch GET https://a.example/: denied"),
    "the global fetch": (
        'await globalThis.fetch("https://a.example/")',
        "fetch GET https://a.example/: denied",
    ),
    "fs": ('await fs.readFile("/data/a")', "fs.open /data/a: denied"),
    "exec": ('await exec.run("shout", ["A-Z"])', "exec.run shout: denied"),
    "random": ("random.bytes(3)", "random.bytes 3: denied"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_a_call_that_was_not_granted(bare: Plugin, name: str) -> None:
    source, said = REFUSED[name]
    assert bare.call("run", source) == Err(said)
    caught = f"try {{ {source} }} catch (e) {{ print(e instanceof CapabilityError, e.word) }}"
    assert run(bare, caught) == "true denied"


def test_refuses_chance_by_its_global_name_with_the_line(bare: Plugin) -> None:
    with pytest.raises(GuestTrap) as caught:
        bare.call("run", "print(crypto.randomUUID())")
    assert caught.value.faults[0].fix == "[random]"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('await fetch(U + "/admin")', "CapabilityError denied"),
        ('await fetch("not a url")', "CapabilityError invalid"),
        ('await fetch(U + "/v1/x", {secret: "nope"})', "CapabilityError denied"),
        ('await fetch(U + "/v1/x", {redirect: "no"})', "TypeError undefined"),
        ('await fetch(U + "/v1/x", {signal: ABORTED})', "AbortError undefined"),
        (
            'const r = await fetch(U + "/v1/x"); await r.text(); await r.text()',
            "TypeError undefined",
        ),
        ('await (await fetch(U + "/v1/x")).bytes({limit: 3})', "CapabilityError too-large"),
        ('await fs.open("/data/x", "q")', "TypeError undefined"),
        ('await fs.writeFile("/fixed/x", "")', "CapabilityError denied"),
        ("random.integer(0)", "RangeError undefined"),
        ("random.bytes(70000)", "CapabilityError too-large"),
    ],
)
def test_refuses_with_one_kind_of_error(
    full: Plugin, origin: Origin, source: str, said: str
) -> None:
    source = source.replace(
        "ABORTED", "(() => { const c = new AbortController(); c.abort(); return c.signal })()"
    )
    caught = f'const U = "{origin.url}"; try {{ {source} }} catch (e) {{ print(e.name, e.word) }}'
    assert run(full, caught) == said.replace("undefined", "").rstrip() + (
        " " if "undefined" in said else ""
    )


# -- how a call ends -----------------------------------------------------------------------------


def test_gives_the_err_of_a_function(full: Plugin) -> None:
    assert full.call("run", 'throw new Failure("no")') == Err("no")
    assert full.call("run", 'throw "plain"') == Err("plain")
    assert str(full.call("give", 'throw new Failure("too-small")').error) == "too-small"
    assert full.call("give", 'return {name: "a", size: 2}').value.size == 2
    assert full.call("own-bytes", b"ab") is True


@pytest.mark.parametrize("function", ["run", "give", "bare"])
def test_ends_the_call_for_any_other_error(
    full: Plugin, caplog: pytest.LogCaptureFixture, function: str
) -> None:
    caplog.set_level("DEBUG", "capwasm.plugin")
    with pytest.raises(GuestTrap):
        full.call(function, 'throw new RangeError("boom", {cause: new Error("inner")})')

    text = "\n".join(r.getMessage() for r in caplog.records)
    assert "RangeError: boom" in text
    assert "caused by Error: inner" in text


def test_tells_where_in_the_authors_sources_it_broke(
    full: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "capwasm.plugin")
    with pytest.raises(GuestTrap):
        full.call("bare", "deep")

    text = "\n".join(r.getMessage() for r in caplog.records)
    assert "broken Quiet" in text
    assert "at breaks (helper.ts:10)" in text
    assert "at bare (plugin.ts:42)" in text
    assert "bundle.js" not in text


def test_console_writes_to_the_log_with_its_levels(
    full: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "capwasm.plugin")
    run(full, 'console.log("one", {a: 1n}); console.warn("two"); console.error(new Error("three"))')

    records = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "capwasm.plugin"]
    for (level, text), wanted in zip(
        records, [("INFO", "one {"), ("WARNING", "two"), ("ERROR", "Error: three")], strict=True
    ):
        assert level == wanted[0]
        assert wanted[1] in text
