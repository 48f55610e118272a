"""Stage 3: what a plugin is and asks, strictly, with all faults at once."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import pickle
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.errors import ManifestError
from capwasm.grants.manifest import Manifest, parse_manifest
from capwasm.grants.schema import manifest_schema
from capwasm.limits import DEFAULTS
from tests.toycaps import PLUGIN, TOYS, BellClause, DoorClause, manifest_text


def refusal(data: bytes | str) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(data.encode() if isinstance(data, str) else data, TOYS)
    return caught.value


def paths(data: bytes | str) -> list[str]:
    return sorted(f.path for f in refusal(data).faults)


def test_allows_the_smallest_manifest() -> None:
    manifest = parse_manifest(manifest_text(), TOYS)

    assert str(manifest.identity) == "acme.weather 1.2.0 (component)"
    assert manifest.requests == {}
    assert manifest.limits == DEFAULTS
    assert manifest.plugin.instance == "per-call"
    assert manifest.plugin.needs_license is False
    assert manifest.digest == hashlib.sha256(manifest_text()).hexdigest()


def test_allows_every_word() -> None:
    words = """
        author = "Acme"
        description = "Tells the weather."
        license = "MIT"
        needs-license = true
        entry = "plugin.wasm"
        world = "capwasm:plugin/plugin@0.1.0"
        instance = "pooled"
        [[door]]
        door = "front"
        acts = ["look"]
        optional = true
        why = "To see who rings."
        [bell]
        tunes = ["a", "b"]
        [limits]
        fuel = 1000
        wall-ms = 20
    """
    manifest = parse_manifest(manifest_text(words), TOYS)

    door, bell = manifest.requests["door"], manifest.requests["bell"]
    assert (door.asked[0].path, door.asked[0].optional) == ("door[0]", True)
    assert door.asked[0].why == "To see who rings."
    assert set(door.clauses) == {DoorClause("front", frozenset({"look"}))}
    assert set(bell.clauses) == {BellClause("a"), BellClause("b")}
    assert (manifest.limits.fuel, manifest.limits.wall_ms) == (1000, 20)
    assert manifest.named_limits == {"fuel", "wall-ms"}
    assert manifest.plugin.needs_license
    assert manifest.plugin.instance == "pooled"


NATIVE = PLUGIN.replace('"component"', '"native"')


def test_allows_a_native_plugin_without_entry() -> None:
    assert parse_manifest(NATIVE.encode(), TOYS).identity.kind == "native"


def test_refuses_a_manifest_made_by_anyone_else() -> None:
    manifest = parse_manifest(manifest_text(), TOYS)

    with pytest.raises(TypeError):
        Manifest(manifest.plugin, {}, DEFAULTS, frozenset(), "")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        copy.copy(manifest)
    with pytest.raises(TypeError):
        pickle.dumps(manifest)


def test_refuses_with_all_faults_at_once() -> None:
    text = """schema = 1
        extra = 1
        [plugin]
        id = "Weather"
        version = "1"
        requires-core = "^1"
        kind = "script"
        colour = "red"
        [[door]]
        door = "front"
        [[door]]
        door = "FRONT"
        acts = ["kick"]
        why = 3
        [bell]
        song = 1
        [limits]
        fuel = 0
        coffee = 1
    """
    error = refusal(text)

    assert error.code == "manifest.invalid"
    assert sorted(f.path for f in error.faults) == [
        "", "bell", "door[1].acts", "door[1].acts[0]", "door[1].door", "door[1].why", "limits.coffee",
        "limits.fuel", "plugin", "plugin.id", "plugin.kind", "plugin.name", "plugin.requires-core",
        "plugin.version",
    ]  # fmt: skip


@pytest.mark.case("MAN-08")
@pytest.mark.parametrize(
    ("body", "path", "words"),
    [
        ("[net]", "", "bell, door, limits, plugin, schema"),
        ('colour = "red"', "plugin", "author, description, entry, id, instance, isolation, kind"),
        ("[[door]]\nhost = 1", "door[0]", "acts, door, times"),
        ("[bell]\nloud = 1", "bell", "tunes"),
        ("[limits]\ncpu = 1", "limits.cpu", "concurrency, depth, fuel"),
    ],
)
def test_refuses_an_unknown_word_and_lists_the_valid_ones(body: str, path: str, words: str) -> None:
    (fault,) = refusal(manifest_text(body)).faults

    assert fault.path == path
    assert "unknown" in fault.message
    assert words in fault.message


@pytest.mark.case("MAN-08")
@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ("", "manifest.invalid"),
        ("schema = 0", "manifest.invalid"),
        ("schema = true", "manifest.invalid"),
        ('schema = "1"', "manifest.invalid"),
        ("schema = 1.0", "manifest.invalid"),
        ("schema = 2", "manifest.schema"),
        ("schema = 99\nfuture = 1", "manifest.schema"),
        ("schema = 99999999999999999999", "manifest.invalid"),
    ],
)
def test_refuses_another_schema(schema: str, code: str) -> None:
    assert refusal(PLUGIN.replace("schema = 1", schema)).code == code


@pytest.mark.case("MAN-08")
@pytest.mark.parametrize("gone", ["id", "name", "version", "requires-core", "kind"])
def test_refuses_a_missing_word(gone: str) -> None:
    text = "\n".join(line for line in PLUGIN.splitlines() if not line.startswith(gone))

    assert paths(text) == [f"plugin.{gone}"]


@pytest.mark.case("MAN-08")
@pytest.mark.parametrize(
    "body",
    ["[[plugin]]", "plugin = 3", "[plugin]\n[bell]\n[bell]", "[[bell]]", "bell = 1", "[door]",
     "door = 1", "door = [1]", "limits = 3", "[[limits]]", "[limits]\nfuel = true",
     '[limits]\nfuel = "9"', "[limits]\nfuel = 1.5", "[[door]]\noptional = 1",
     "[[door]]\nwhy = []", "[bell]\ntunes = 3"],
)  # fmt: skip
def test_refuses_a_value_of_the_wrong_type(body: str) -> None:
    assert refusal(manifest_text(body)).code in ("manifest.invalid", "manifest.toml")


@pytest.mark.case("MAN-09")
@pytest.mark.parametrize(
    "plugin_id",
    ["weather", "acme/weather", "acme..weather", "../weather", "acme.%2e%2e", "Acme.weather",
     "acme.Weather", "a" * 64 + ".b", "a." * 64 + "b", "acme.con", "nul.weather", "acme.com1",
     "acme.weather.", ".acme.weather", "-acme.weather", "acme-.weather", "acme._x", "acme.wеather",
     "acme.weather ", "", "*", "acme.*"],
)  # fmt: skip
def test_refuses_an_id_that_is_no_file_name(plugin_id: str) -> None:
    assert paths(PLUGIN.replace("acme.weather", plugin_id)) == ["plugin.id"]


@pytest.mark.case("FS-26")
@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("component", "../../../secret.json"),
        ("component", "assets/other.wasm"),
        ("component", "/plugin.wasm"),
        ("component", "plugin.wat"),
        ("native", "plugin.wasm"),
        ("native", "/lib/evil.so"),
    ],
)
def test_refuses_an_entry_that_points_elsewhere(kind: str, entry: str) -> None:
    base = PLUGIN.replace('"component"', f'"{kind}"')

    assert paths(f'{base}entry = "{entry}"') == ["plugin.entry"]


@pytest.mark.case("MAN-06")
@pytest.mark.parametrize("escape", ["\\u202E", "\\u200B", "\\u0000", "\\u001B", "\\u2028", "\\n",
                                    "\\uFEFF", "\\U000E0041", "\\u00AD", "\\uE000", "\\u007F"])  # fmt: skip
@pytest.mark.parametrize(
    "where",
    ['description = "a{}b"', 'author = "{}"', '[[door]]\nwhy = "a{}b"', '[[door]]\n"a{}b" = 1',
     '[[door]]\ndoor = "a{}"'],
)  # fmt: skip
def test_refuses_text_that_a_reviewer_could_not_see(where: str, escape: str) -> None:
    error = refusal(manifest_text(where.format(escape)))

    assert "invisible or control character" in str(error)
    assert str(error).isprintable() or "\n" in str(error)


@pytest.mark.case("MAN-06")
@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + manifest_text(),
        manifest_text().decode().encode("utf-16"),
        manifest_text().replace(b"Weather", b"Wea\xed\xa0\x80ther"),
        manifest_text().replace(b"Weather", b"Wea\x00ther"),
        manifest_text().replace(b"Weather", "Wea\u202ether".encode()),
        manifest_text('description = "\\uD800"'),
    ],
    ids=["BOM", "UTF-16", "lone surrogate", "NUL", "bidi", "escaped surrogate"],
)
def test_refuses_text_that_is_not_clean_utf8(data: bytes) -> None:
    assert refusal(data).code == "manifest.toml"


@pytest.mark.case("MAN-06")
@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("name", "x" * 81),
        ("name", ""),
        ("name", " x"),
        ("author", "x" * 201),
        ("description", "x" * 501),
        ("license", "x" * 101),
        ("world", "no world"),
        ("world", "a:b/c@" + "1" * 200),
        ("instance", "forever"),
    ],
)
def test_refuses_display_text_that_is_too_long_or_odd(word: str, text: str) -> None:
    base = PLUGIN.replace('name = "Weather"\n', "") if word == "name" else PLUGIN

    assert paths(f'{base}{word} = "{text}"') == [f"plugin.{word}"]


@pytest.mark.case("MAN-06")
def test_refuses_a_why_that_fills_the_screen() -> None:
    assert paths(manifest_text(f'[[door]]\nwhy = "{"x" * 201}"')) == ["door[0].why"]


@pytest.mark.case("MAN-05")
@pytest.mark.parametrize(
    "value",
    ["nan", "inf", "-inf", "1e999", "9223372036854775808", "-9223372036854775809",
     "0x" + "f" * 5000, "0b" + "1" * 50_000, "2027-01-31", "2027-01-31T00:00:00Z", "07:00:00"],
)  # fmt: skip
@pytest.mark.parametrize("where", ["[limits]\nfuel", "[[door]]\ntimes", "[bell]\ntunes"])
def test_refuses_a_value_that_is_no_plain_number_or_text(where: str, value: str) -> None:
    error = refusal(manifest_text(f"{where} = {value}"))

    assert error.code == "manifest.invalid"
    assert len(str(error)) < 500


@pytest.mark.case("MAN-04")
@pytest.mark.parametrize(
    "body",
    ["[bell]\ntunes = []\ntunes = ['a']", "[bell]\n[bell]", "[bell]\n[bell.tunes]\ntunes = 1"],
)
def test_refuses_one_key_twice(body: str) -> None:
    assert refusal(manifest_text(body)).code in ("manifest.toml", "manifest.invalid")


K = 1024
BOMBS = {
    "dotted key": b"a." * 20_000 + b"a = 1",
    "dotted key of quoted parts": b'" " . ' * 20_000 + b"a = 1",
    "dotted key in a header": b"[" + b"a." * 20_000 + b"a]",
    "dotted key in an inline table": b"x = {" + b"a." * 20_000 + b"a = 1}",
    "deep headers, many keys": b"".join(
        b"[a.b.c.d.e.f.g.h.i.j.k.l.m.k%d]\n" % i for i in range(7000)
    ),
    "nested arrays": b"x = " + b"[" * 5000 + b"]" * 5000,
    "nested arrays with values": b"x = " + b"[1," * 60_000,
    "nested inline tables": b"x = " + b"{a=" * 5000 + b"1" + b"}" * 5000,
    "one long word": b"a" * 250 * K,
    "a long string": b'x = "' + b"a" * 250 * K + b'"',
    "a string of escapes that never ends": b'x = "' + b'\\"' * 120 * K,
    "quotes": b'x = """' + b'"" ' * 80 * K,
    "a long number": b"x = " + b"9" * 250 * K,
    "a long hexadecimal number": b"[limits]\nfuel = 0x" + b"f" * 250 * K,
    "a long float": b"x = 1." + b"1" * 250 * K,
    "many tables": b"[[door]]\n" * 25_000,
    "many unknown words": b"".join(b"k%d=1\n" % i for i in range(25_000)),
    "many empty arrays": b"x = [" + b"[]," * 80_000 + b"]",
    "many tunes": b"[bell]\ntunes = [" + b"".join(b"'%d'," % i for i in range(25_000)) + b"]",
    "blank lines": b"\n" * 250 * K,
    "too large": b"#" * 300 * K,
}


@pytest.mark.case("MAN-01", "MAN-02", "MAN-03", "PER-10")
@pytest.mark.parametrize("name", BOMBS)
def test_refuses_an_attack_on_the_parser_in_bounded_time_and_memory(name: str) -> None:
    data = manifest_text() + BOMBS[name] if BOMBS[name][:1] == b"[" else BOMBS[name]
    tracemalloc.start()
    began = time.monotonic()
    try:
        refusal(data)
        spent, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert spent < 20  # seconds under tracemalloc on a busy machine; unfenced it is minutes
    assert peak < 300 * K * K


@pytest.mark.case("LOG-08")
def test_refuses_a_flood_of_faults_with_as_many_as_can_be_read() -> None:
    error = refusal(manifest_text() + BOMBS["many unknown words"])

    assert len(error.faults) == 101
    assert error.faults[-1].message == "and 24900 more"


def test_allows_dots_in_text() -> None:
    text = 'description = "See a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s ...................."'

    assert parse_manifest(manifest_text(text), TOYS)


@pytest.mark.case("MAN-07")
def test_refuses_yaml() -> None:
    assert refusal(b"schema: 1\nplugin: !!python/object:os.system {}\n").code == "manifest.toml"


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_manifest_or_a_manifest_error(data: bytes) -> None:
    _parses_or_refuses(data)


TOKENS = st.sampled_from(
    ["schema", "=", "1", "[plugin]", "[[door]]", "[bell]", "[limits]", "\n", "id", '"acme.weather"',
     "acts", "[", "]", "{", "}", ",", ".", "door", "true", "nan", "2027-01-01", "'x'", '"', "#",
     "tunes", "fuel", "optional", "why", "-1", "0xffffffffffffffffffff", '"""', "\\u202e", "=\n"]
)  # fmt: skip


@settings(max_examples=500)
@given(st.lists(TOKENS, max_size=30).map(" ".join), st.booleans())
def test_any_words_are_a_manifest_or_a_manifest_error(text: str, after: bool) -> None:
    _parses_or_refuses(manifest_text(text) if after else text.encode())


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.sampled_from(["door", "bell", "limits", "plugin", "x"]), PLAIN)
def test_any_value_in_any_place_is_taken_or_a_manifest_error(word: str, value: object) -> None:
    text = json.dumps(value).replace("null", '""').replace(": ", " = ")
    text = text.replace("NaN", "nan").replace("Infinity", "inf")
    _parses_or_refuses(f"schema = 1\n{word} = {text}\n".encode("utf-8", "replace"))


def _parses_or_refuses(data: bytes) -> None:
    with contextlib.suppress(ManifestError):
        parse_manifest(data, TOYS)


def test_the_schema_names_every_word_and_closes_every_table() -> None:
    schema = manifest_schema(TOYS)

    assert set(schema["properties"]) == {"schema", "plugin", "limits", "door", "bell"}
    assert set(schema["properties"]["limits"]["properties"]) == set(DEFAULTS.to_table())
    door = schema["properties"]["door"]["items"]
    assert set(door["properties"]) == {"door", "acts", "times", "optional", "why"}
    assert schema["properties"]["plugin"]["additionalProperties"] is False
    assert door["additionalProperties"] is False
    assert {"id", "name", "version", "requires-core", "kind"} == set(
        schema["properties"]["plugin"]["required"]
    )
    json.dumps(schema, allow_nan=False)


def test_every_reference_of_the_schema_leads_somewhere() -> None:
    schema = manifest_schema(TOYS)
    text = json.dumps(schema)

    for part in text.split('"#/$defs/')[1:]:
        assert part.split('"')[0] in schema["$defs"]
