"""Every call of the Python SDK, from a guest that runs the Python it is sent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import GuestTrap
from capwasm.plugin import Plugin

from .bench import REPOSITORY, Author, Origin

pytestmark = pytest.mark.toolchain("componentize-py")

README = REPOSITORY / "guest-sdk/python/README.md"
ALL = """
[[fs]]
bind = "data"
path = "{root}/data"
access = "read-write"
[[fs]]
bind = "fixed"
path = "{root}/fixed"
access = "read"
[[net]]
allow = "{origin}/v1/*"
methods = ["*"]
[[secret]]
name = "acme-token"
use = "inject"
for = ["{origin}"]
[[secret]]
name = "pin"
use = "reveal"
[log]
[clock]
[random]
[kv]
[config]
values = {{ units = "metric" }}
[[exec]]
command = "shout"
program = "/usr/bin/tr"
arguments = [["a-z", "A-Z"], ["a-z", "{{to:A-Z|x}}"]]
"""


@pytest.fixture
def full(lab: Author, origin: Origin) -> Plugin:
    """The lab with everything granted."""
    lab.manifest = lab.manifest.replace("https://api.acme.com", origin.url)
    lab.directory("data")
    (lab.directory("fixed") / "a.md").write_text("# A\n")
    lab.allow(ALL.format(root=lab.root, origin=origin.url))
    lab.world.vault(acme_token="tok-123456789", pin="pin-987654321")
    return lab.load()


@pytest.fixture
def bare(lab: Author) -> Plugin:
    """The lab with nothing granted but the random bytes that Python starts with."""
    lab.allow("[random]\n")
    return lab.load()


def run(plugin: Plugin, source: str) -> str:
    result = plugin.call("run", source)
    assert result.ok, result.error
    return result.value.rstrip("\n")


ALLOWED = {
    "kv.get": ('print(kv.get("x"), kv.get("x", b"d"))', "None b'd'"),
    "kv.set": ('kv.set("k", "ü"); print(kv.get("k"))', "b'\\xc3\\xbc'"),
    "kv.set, a time": ('kv.set("t", b"1", ttl=0.001); clock.sleep(0.05); print(kv.get("t"))', "None"),
    "kv.increment": ('print(kv.increment("n"), kv.increment("n", -3))', "1 -2"),
    "kv.delete": ('kv.set("k", b""); print(kv.delete("k"), kv.delete("k"))', "True False"),
    "kv.compare_and_set": (
        'print(kv.compare_and_set("c", None, b"1"), kv.compare_and_set("c", None, b"2"))',
        "True False",
    ),
    "kv.keys": ('kv.store["b"] = b""; kv.store["a"] = b""; print(*kv.keys())', "a b"),
    "kv.store": (
        's = kv.store; s["q"] = b"1"; print(dict(s), "q" in s, len(s)); del s["q"]; print(s.get("q"))',
        "{'q': b'1'} True 1\nNone",
    ),
    "clock": ("print(clock.now().tzinfo, clock.monotonic() >= 0, time.time() > 1e9)", "UTC True True"),
    "datetime": ('print(datetime.datetime.strptime("2024-01-02", "%Y-%m-%d").day)', "2"),
    "random.bytes": ("print(len(random.bytes(9)))", "9"),
    "random.integer": ("print({random.integer(3) for _ in range(200)})", "{0, 1, 2}"),
    "config.get": ('print(config.get("units"), config.get("no", "d"), config.all())',
                   "metric d {'units': 'metric'}"),
    "secret.lease": ('print(secrets.get("pin").lease > 1)', "True"),
    "secret.reveal": ('print(len(secrets.get("pin").reveal()))', "13"),
    "exec.run": (
        'o = commands.run("shout", "A-Z", input="ab"); print(o.code, o.text(), o.ok, o.truncated)',
        "0 AB True False",
    ),
    "exec.check": ('print(commands.run("shout", "x", input=b"ab").check().stdout)', "b'xx'"),
    "pathlib": (
        """
p = pathlib.Path("/data/d"); p.mkdir(); (p / "x").write_text("ü")
print((p / "x").read_text(), [str(q) for q in pathlib.Path("/data").rglob("*")])
(p / "x").rename("/data/y"); p.rmdir(); print(os.listdir("/data"))
""",
        "ü ['/data/d', '/data/d/x']\n['y']",
    ),
    "open": (
        """
with open("/data/f", "w") as f: f.write("ab")
with open("/data/f", "r+b") as f: f.seek(1); f.write(b"Z")
with open("/data/f", "a") as f: f.write("!")
print(open("/data/f").read(), os.stat("/data/f").st_size)
""",
        "aZ! 3",
    ),
    "read only": ('print(pathlib.Path("/fixed/a.md").read_text())', "# A"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "printed"), ALLOWED.values(), ids=ALLOWED)
def test_allows_a_granted_call(full: Plugin, source: str, printed: str) -> None:
    assert run(full, source) == printed


REFUSED = {
    "kv.get": ('kv.get("k")', "Denied", "kv.get k: denied"),
    "kv.set": ('kv.set("k", b"")', "Denied", "kv.set k: denied"),
    "kv.store": ('kv.store["k"]', "Denied", "kv.get k: denied"),
    "random.bytes": ("random.bytes(70000)", "TooLarge", "random.bytes 70000: too-large"),
    "config.get": ('print(config.get("units"))', None, "None"),
    "exec.run": ('commands.run("shout", "x")', "Denied", "exec.run shout: denied"),
    "secrets.get": ('secrets.get("pin")', "Denied", "secret pin: denied"),
    "fetch.get": ('fetch.get("https://a.example/")', "Denied", "fetch GET https://a.example/: denied"),
    "open": ('open("/data/x")', "FileNotFoundError", "[Errno 44] No such file or directory: '/data/x'"),
    "open of the host": ('open("/etc/passwd")', "FileNotFoundError",
                         "[Errno 44] No such file or directory: '/etc/passwd'"),
    "environ": ("print(dict(os.environ))", None, "{}"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_refuses_a_call_that_was_not_granted(
    bare: Plugin, source: str, error: str | None, text: str
) -> None:
    caught = f"try:\n    {source}\nexcept Exception as e:\n    print(type(e).__name__, e)"

    assert run(bare, caught) == (f"{error} {text}" if error else text)


def test_refuses_time_that_was_not_granted_and_says_the_line(bare: Plugin) -> None:
    with pytest.raises(GuestTrap) as caught:
        bare.call("run", "time.time()")

    assert caught.value.code == "grant.denied"
    assert caught.value.faults[0].fix == "[clock]"


def test_refuses_to_write_where_only_reading_was_granted(full: Plugin) -> None:
    source = (
        "for way in (lambda: open('/fixed/n', 'w'), lambda: open('/fixed/a.md', 'a'),"
        " lambda: os.remove('/fixed/a.md'), lambda: os.rename('/fixed/a.md', '/data/a')):\n"
        "    try: way(); print('done')\n"
        "    except OSError as e: print('no')\n"
    )

    assert run(full, source) == "no\nno\nno\nno"


def test_refuses_a_way_out_of_a_mount(full: Plugin, tmp_path: Path) -> None:
    (tmp_path / "data/out").symlink_to(tmp_path)
    (tmp_path / "outside.txt").write_text("outside")
    source = (
        "for p in ('/data/../fixed/a.md', '/data/out/outside.txt', '/data/out/../outside.txt'):\n"
        "    try: print(open(p).read())\n"
        "    except OSError as e: print('no')\n"
    )

    assert run(full, source) == "no\nno\nno"


# -- fetch ---------------------------------------------------------------------------------------


def test_allows_every_way_of_reading_a_response(full: Plugin, origin: Origin) -> None:
    url = f"{origin.url}/v1/x"
    source = (
        f"with fetch.get({url!r}) as r:\n"
        "    print(r.status, r.ok, r.headers['CONTENT-type'], r.url)\n"
        "    print(r.read(3), r.text()[:3])\n"
        f"print(fetch.get({url!r}).json()['summary'])\n"
        f"print(fetch.post({url!r}, json={{'a': 'ü'}}).text())\n"
        f"print(fetch.request('PUT', {url!r}, body='b', headers={{'X-A': '1'}}).status)\n"
    )

    assert run(full, source).splitlines() == [
        f"200 True application/json {url}",
        "b'{\"c' els",
        "rain",
        '{"a":"ü"}',
        "200",
    ]
    assert origin.asked[2][2]["content-type"] == "application/json"
    assert origin.asked[3][2]["x-a"] == "1"


def test_allows_a_secret_by_name_and_by_handle_and_sends_none_without(
    full: Plugin, origin: Origin
) -> None:
    url = f"{origin.url}/v1/x"
    run(
        full,
        f"fetch.get({url!r}, secret='acme-token')\n"
        f"with secrets.get('acme-token') as s: fetch.get({url!r}, secret=s)\n"
        f"fetch.get({url!r})",
    )

    sent = [headers.get("authorization") for _, _, headers, _ in origin.asked]
    assert sent == ["Bearer tok-123456789", "Bearer tok-123456789", None]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("fetch.get(u + '/admin')", "Denied"),
        ("fetch.get('http://10.0.0.1/')", "Denied"),
        ("fetch.get('not a url')", "Invalid"),
        ("fetch.get(u + '/v1/Nowhere').raise_for_status()", "Unavailable"),
        ("fetch.get(u + '/v1/x').bytes(limit=3)", "TooLarge"),
        ("r = fetch.get(u + '/v1/x'); r.close(); r.read()", "ValueError"),
        ("fetch.get(u + '/v1/x', secret='nope')", "Denied"),
        ("fetch.get(u + '/v1/x', secret='pin')", "Denied"),
    ],
)
def test_refuses_a_fetch_with_one_exception_of_the_tree(
    full: Plugin, origin: Origin, call: str, error: str
) -> None:
    source = f"u = {origin.url!r}\ntry:\n    {call}\nexcept Exception as e: print(type(e).__name__)"

    assert run(full, source) == error


# -- log -----------------------------------------------------------------------------------------


def test_allows_the_log_and_the_standard_librarys_logging(
    full: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "capwasm.plugin")
    run(
        full,
        "log.info('one', a=1); log.debug('two'); log.error('three')\n"
        "logger = logging.getLogger('mine'); logger.addHandler(log.Handler())\n"
        "logger.error('four %s', 4)",
    )

    text = "\n".join(r.getMessage() for r in caplog.records if r.name == "capwasm.plugin")
    for part in ("one", "a=1", "two", "three", "four 4", "logger=mine"):
        assert part in text


def test_refuses_nothing_and_writes_nothing_where_the_log_was_not_granted(
    bare: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "capwasm.plugin")
    run(bare, "log.info('one')")

    assert not [r for r in caplog.records if r.name == "capwasm.plugin"]


# -- values and errors ---------------------------------------------------------------------------

ITEM = "{'name': 'a', 'size': 3, 'note': None, 'tags': ['x'], 'at': (1, 2)}"


def test_allows_plain_values_for_every_type(full: Plugin) -> None:
    def give(kind: str, source: str) -> Any:
        return full.call(f"shapes.give-{kind}", source)

    item = give("item", ITEM).value
    assert (item.name, item.size, item.note, list(item.tags), item.at) == (
        "a",
        3,
        None,
        ["x"],
        (1, 2),
    )
    obj = "type('Own', (), dict(name='b', size=1, note='n', tags=('p', 'q'), at=[0.5, 1]))"
    assert give("item", obj).value.note == "n"
    assert [i.name for i in give("items", f"[{ITEM}, {obj}]")] == ["a", "b"]
    assert give("color", "'dark-blue'").value == "dark-blue"
    assert give("color", "__import__('wit_world').exports.shapes.Color.RED").value == "red"
    assert {r.value for r in give("rights", "{'read', 'write-all'}")} == {"read", "write-all"}
    assert give("rights", "()") == frozenset()
    shapes = "__import__('wit_world').exports.shapes"
    assert give("shape", f"{shapes}.Shape_Named('x')").value.value == "x"
    assert give("bytes", "bytearray(b'ab')") == b"ab"
    assert give("bool", "True") is True
    assert give("nested", "None") is None


MISFITS = {
    "item": ("None", "give_item(): WIT wants Item(name, size, note, tags, at); it has no name, got None"),
    "items": ("'text'", "give_items(): WIT wants a list, got str 'text'"),
    "color": ("'blue'", "give_color(): WIT wants one of red, dark-blue, got str 'blue'"),
    "rights": ("{'x'}", "give_rights(): WIT wants some of read, write-all, got str 'x'"),
    "shape": ("3", "give_shape(): WIT wants one of Shape_Nothing, Shape_Named, Shape_Whole, got int 3"),
    "bytes": ("'a'", "give_bytes(): WIT wants bytes, got str 'a'"),
    "bool": ("1", "give_bool(): WIT wants bool, got int 1"),
}  # fmt: skip


@pytest.mark.case("TYP-05")
@pytest.mark.parametrize("kind", MISFITS)
def test_refuses_a_value_that_does_not_fit_and_logs_where(
    full: Plugin, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, message = MISFITS[kind]
    with pytest.raises(GuestTrap):
        full.call(f"shapes.give-{kind}", source)

    assert message in caplog.text


def test_allows_a_typed_failure(full: Plugin) -> None:
    fail = "(_ for _ in ()).throw(capwasm_guest.Failure({}))"

    assert full.call("shapes.give-item", fail.format("'dark-blue'")).error.value == "dark-blue"
    assert full.call("run", "raise capwasm_guest.Failure('why')").error == "why"


def test_refuses_a_failure_where_wit_has_no_err_and_says_so(
    full: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(GuestTrap):
        full.call("bare", "raise capwasm_guest.Failure('why')")

    assert "write -> result<…, string> in wit/" in caplog.text


def test_refuses_an_unforeseen_exception_and_logs_its_file_and_line(
    full: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(GuestTrap):
        full.call("run", "1 / 0")

    assert re.search(r'plugin\.py\\?", line \d+, in run', caplog.text)
    assert "ZeroDivisionError" in caplog.text


def test_refuses_a_late_import_and_says_what_to_do(
    full: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(GuestTrap):
        full.call("run", "import wave")

    assert "import it at the top of a module" in caplog.text


def test_allows_a_fresh_start_for_each_call(full: Plugin) -> None:
    assert [full.call("calls") for _ in range(3)] == [1, 1, 1]
    drawn = {run(full, "print(std_random.random())") for _ in range(5)}
    assert len(drawn) == 5, "the generator must not be the one of the build"


def test_allows_one_object_for_all_calls_of_a_session(full: Plugin) -> None:
    with full.session() as session:
        assert [session.call("calls") for _ in range(3)] == [1, 2, 3]


# -- the README ----------------------------------------------------------------------------------


def snippets() -> list[str]:
    return re.findall(r"```python run\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(snippets())))
def test_allows_each_example_of_the_readme(full: Plugin, origin: Origin, number: int) -> None:
    source = snippets()[number].replace("https://api.acme.com", origin.url)

    run(full, source)
