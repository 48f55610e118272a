"""The two example plugins, built from their sources and run for real."""

from __future__ import annotations

import json

import pytest

from capwasm.errors import GrantDeniedError

from .bench import Author, Origin

pytestmark = pytest.mark.toolchain("componentize-py")

TOKEN = "tok-3f9a17c2e4"


def grant_weather(author: Author, origin: Origin, *, but: str = "") -> None:
    tables = {
        "net": f'[[net]]\nallow = "{origin.url}/v1/*"\n',
        "secret": f'[[secret]]\nname = "acme-token"\nuse = "inject"\nfor = ["{origin.url}"]\n',
        "kv": "[kv]\n",
        "log": "[log]\n",
        "random": "[random]\n",
        "config": f'[config]\nvalues = {{ origin = "{origin.url}" }}\n',
    }
    author.allow("".join(text for name, text in tables.items() if name != but))
    author.world.vault(acme_token=TOKEN)


@pytest.mark.case("SEC-07")
def test_allows_a_forecast_with_a_secret_that_the_plugin_never_sees(
    weather: Author, origin: Origin
) -> None:
    grant_weather(weather, origin)
    plugin = weather.load()

    report = plugin.call("forecast", " Oslo ").value

    assert (report.city, report.celsius, report.summary, report.cached) == (
        "Oslo",
        3.5,
        "rain",
        False,
    )
    ((method, path, headers, _),) = origin.asked
    assert (method, path) == ("GET", "/v1/weather?city=Oslo")
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in json.dumps(weather.world.events())


def test_allows_the_cache_to_answer_in_a_fresh_instance(weather: Author, origin: Origin) -> None:
    grant_weather(weather, origin)
    plugin = weather.load()

    first, second = (plugin.call("forecast", "Oslo").value for _ in range(2))

    assert (first.cached, second.cached) == (False, True)
    assert len(origin.asked) == 1


def test_refuses_a_city_in_the_plugins_own_words(weather: Author, origin: Origin) -> None:
    grant_weather(weather, origin)
    plugin = weather.load()

    assert plugin.call("forecast", "Nowhere").error == "no such city: Nowhere"
    assert plugin.call("forecast", "  ").error == "a city's name has 1 to 80 characters"


@pytest.mark.parametrize("table", ["net", "secret", "kv", "random"])
def test_refuses_to_load_without_what_the_manifest_needs(
    weather: Author, origin: Origin, table: str
) -> None:
    grant_weather(weather, origin, but=table)

    with pytest.raises(GrantDeniedError) as caught:
        weather.load()

    assert any(f.path.startswith(table) for f in caught.value.faults)
    assert origin.asked == []


def test_refuses_a_request_to_another_origin(weather: Author, origin: Origin) -> None:
    grant_weather(weather, origin, but="config")
    plugin = weather.load()

    # Without the setting, it asks the address that is written in the source.
    assert plugin.call("forecast", "Oslo").error.endswith(": denied")
    assert origin.asked == []


def test_refuses_the_secret_within_an_instance_once_it_is_revoked(
    weather: Author, origin: Origin
) -> None:
    grant_weather(weather, origin)
    plugin = weather.load()
    assert plugin.call("forecast", "Oslo").ok

    weather.world.runtime.revoke_secret("acme-token", "leaked")

    assert plugin.call("forecast", "Bergen").error == "secret acme-token: closed"
    assert len(origin.asked) == 1


def grant_notes(author: Author) -> None:
    notes, index = author.directory("notes"), author.directory("index")
    author.allow(
        f'[[fs]]\nbind = "notes"\npath = "{notes}"\naccess = "read"\n'
        f'[[fs]]\nbind = "index"\npath = "{index}"\naccess = "read-write"\n'
        "[log]\n[clock]\n[random]\n"
    )


def test_allows_an_index_of_a_granted_directory(notes: Author) -> None:
    grant_notes(notes)
    (notes.root / "notes/sub").mkdir()
    (notes.root / "notes/a.md").write_text("# Tea\n\nGreen tea.\n")
    (notes.root / "notes/sub/b.md").write_text("Black tea, søt.\n")
    (notes.root / "notes/bad.md").write_bytes(b"\xff\xfe\x00")
    plugin = notes.load()

    summary = plugin.call("build").value

    assert (summary.notes, summary.words, list(summary.skipped)) == (2, 4, ["bad.md"])
    assert json.loads((notes.root / "index/words.json").read_text())["tea"] == ["a.md", "sub/b.md"]
    assert "- [Tea](a.md)" in (notes.root / "index/notes.md").read_text()
    assert plugin.call("search", "SØT") == ["sub/b.md"]
    assert not any((notes.root / "notes").rglob("*.json"))


def test_refuses_notes_that_a_link_leads_to(notes: Author) -> None:
    grant_notes(notes)
    secret = notes.root / "secret.md"
    secret.write_text("outside words\n")
    (notes.root / "notes/link.md").symlink_to(secret)
    (notes.root / "notes/up").symlink_to(notes.root)
    (notes.root / "notes/a.md").write_text("inside\n")
    plugin = notes.load()

    with pytest.raises(Exception) as caught:
        plugin.call("build")

    assert "outside" not in str(caught.value)
    index = notes.root / "index/words.json"
    assert not index.exists()


@pytest.mark.case("FS-22")
def test_refuses_an_index_that_is_over_the_quota(notes: Author) -> None:
    grant_notes(notes)
    notes.manifest = notes.manifest.replace("4MiB", "1KiB")
    (notes.root / "notes/a.md").write_text(" ".join(f"word{i}" for i in range(500)))
    plugin = notes.load()

    problem = plugin.call("build").error

    assert problem.case == "cannot-write"
