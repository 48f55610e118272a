"""`capwasm policy test`: each word of a case by what it shows, and by what it catches."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from capwasm.caps import standard_capabilities
from capwasm.cli import capwasm
from capwasm.errors import PolicyError
from capwasm.governance.cases import load_cases
from capwasm.governance.operations import FORMS, question
from capwasm.governance.trial import Outcome, try_case
from capwasm.grants.policy import Policy

KNOWN = standard_capabilities()
POLICY = """schema = 1
[consent]
automatic = ["log", "clock", "kv", "config", "random"]
[[deny.net]]
allow = "https://api.acme.com/v1/admin/*"
methods = ["*"]
[plugins."*".clock]
sleep = false
[[plugins."acme.*".net]]
allow = "https://api.acme.com/v1/*"
methods = ["GET", "POST"]
addresses = ["10.1.0.0/16"]
[plugins."acme.*".log]
level = "info"
[plugins."acme.*".kv]
quota = "1MiB"
value-bytes = "1KiB"
[plugins."acme.*".random]
bytes-per-call = 64
[plugins."acme.*".config]
keys = ["units"]
[[plugins."acme.weather".fs]]
bind = "reports"
path = "/srv/reports"
access = "read-write"
[[plugins."acme.weather".fs]]
bind = "archive"
path = "/srv/archive"
[[plugins."acme.weather".secret]]
name = "token"
use = "inject"
for = ["https://api.acme.com"]
[[plugins."acme.weather".exec]]
command = "thumbnail"
program = "/usr/bin/convert"
arguments = ["-resize", "{size:[0-9]{1,4}x[0-9]{1,4}}"]
[plugins."acme.weather".limits]
memory = 1048576
"""
ASKS = """
[[net]]
allow = "https://api.acme.com/v1/*"
methods = ["GET"]
[[fs]]
mount = "/data"
bind = "reports"
access = "read-write"
[[fs]]
mount = "/data/old"
bind = "archive"
[[secret]]
name = "token"
use = "inject"
for = ["https://api.acme.com"]
header = "Authorization: Bearer {}"
[[exec]]
command = "thumbnail"
[log]
[kv]
[clock]
sleep = false
[random]
bytes-per-call = 64
[config]
keys = ["units"]
"""
WEATHER = f"plugin = 'acme.weather'\nasks = '''{ASKS}'''\n"
ALLOWED = [
    ("net", "GET https://api.acme.com/v1/today"),
    ("net", "GET https://api.acme.com/v1/today at 10.1.2.3"),
    ("net", "GET https://api.acme.com/v1/today at 93.184.216.34"),
    ("fs", "write /data/out.csv"),
    ("fs", "read /data/old/x"),
    ("secret", "inject token https://api.acme.com"),
    ("exec", "thumbnail 100x100"),
    ("log", "info"),
    ("kv", "1KiB"),
    ("clock", "wall"),
    ("random", "64"),
    ("config", "units"),
]
REFUSED = [
    ("net", "POST https://api.acme.com/v1/today"),
    ("net", "GET https://api.acme.com/v2/today"),
    ("net", "GET https://api.acme.com/v1/admin/users"),
    ("net", "GET https://api.acme.com/v1/today at 10.2.2.3"),
    ("net", "GET https://api.acme.com/v1/today at 169.254.169.254"),
    ("fs", "write /data/old/x"),  # the longer mount holds it, which is read-only
    ("fs", "read /etc/passwd"),
    ("secret", "reveal token"),
    ("secret", "inject token https://evil.example"),
    ("exec", "thumbnail --help"),
    ("exec", "sh"),
    ("log", "debug"),
    ("kv", "2KiB"),
    ("clock", "sleep"),
    ("random", "65"),
    ("config", "password"),
]


def rows(pairs: list[tuple[str, str]]) -> str:
    return "[" + ", ".join(f"{{ {name} = {json.dumps(text)} }}" for name, text in pairs) + "]"


def outcome(body: str, tmp_path: Path, policy: str = POLICY) -> Outcome:
    file = tmp_path / "cases.toml"
    file.write_text(f"schema = 1\n[[case]]\nname = 'one'\n{body}\n")
    cases = load_cases(file)
    return try_case(cases.cases[0], Policy.load(policy.encode(), KNOWN), KNOWN, cases.beside)


def differs(body: str, tmp_path: Path) -> list[str]:
    return [d.what for d in outcome(body, tmp_path).differences]


def faults(text: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "cases.toml"
    file.write_text(text)
    with pytest.raises(PolicyError) as caught:
        load_cases(file)
    assert caught.value.code == "policy.cases"
    return [f.path for f in caught.value.faults]


def test_operations_that_the_grant_allows_and_those_that_it_refuses(tmp_path: Path) -> None:
    body = f"{WEATHER}consent = 'all'\nallows = {rows(ALLOWED)}\ndenies = {rows(REFUSED)}"
    assert outcome(body, tmp_path).differences == ()
    assert {name for name, _ in ALLOWED} == set(FORMS) == {c.name for c in KNOWN}


def test_each_operation_that_comes_out_otherwise_is_told(tmp_path: Path) -> None:
    body = f"{WEATHER}consent = 'all'\nallows = {rows(REFUSED)}\ndenies = {rows(ALLOWED)}"
    assert differs(body, tmp_path) == [f"{n}: {t}" for n, t in REFUSED + ALLOWED]


def test_a_plugin_that_is_not_loaded_does_nothing(tmp_path: Path) -> None:
    body = f"{WEATHER}expect = 'denied'\nallows = {rows(ALLOWED[:1])}\ndenies = {rows(ALLOWED[1:])}"
    assert differs(body, tmp_path) == ["net: GET https://api.acme.com/v1/today"]


@pytest.mark.parametrize(
    ("good", "bad", "what"),
    [
        ("consent = 'all'\nexpect = 'granted'", "expect = 'granted'", "expect"),
        ("expect = 'denied'", "consent = 'all'\nexpect = 'denied'", "expect"),
        ("code = 'grant.denied'", "code = 'grant.native'", "expect"),
        (
            (
                "missing = ['net[0]: consent', 'fs[0]: consent', 'fs[1]: consent',"
                " 'secret[0]: consent', 'exec[0]: consent']"
            ),
            "missing = ['net[0]: policy']",
            "missing",
        ),
        (
            "consent = 'all'\nwithout = ['net[0]']\nmissing = ['net[0]: consent']",
            "consent = 'all'\nwithout = ['net[0]']\nmissing = []",
            "missing",
        ),
        ("granted = []", "granted = ['net[0]']", "granted"),
        ("narrowed = ['fs[0]', 'kv']", "narrowed = ['log']", "narrowed"),
        ("limits = { memory = 1048576 }", "limits = { memory = 2 }", "limits.memory"),
        ("isolation = 'in-process'", "isolation = 'process'", "isolation"),
        (
            "kind = 'native'\ncode = 'grant.native'\nisolation = 'process'",
            "kind = 'native'\ncode = 'grant.denied'",
            "expect",
        ),
    ],
)
def test_each_word_shows_and_catches(tmp_path: Path, good: str, bad: str, what: str) -> None:
    if "narrowed" in good:
        got = {d.what: d.got for d in outcome(WEATHER + "narrowed = ['x']", tmp_path).differences}
        good = f"narrowed = {got['narrowed'].split(', ')}"
    assert differs(WEATHER + good, tmp_path) == []
    assert differs(WEATHER + bad, tmp_path) == [what]


def test_the_core_counts_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "plugin.toml").write_text(
        "schema = 1\n[plugin]\nid = 'acme.weather'\nname = 'W'\nversion = '1.0.0'\n"
        "requires-core = '>=2'\nkind = 'component'\n"
    )
    body = "manifest = 'plugin.toml'\n"
    assert differs(body + "expect = 'granted'", tmp_path) == []
    assert differs(body + "core = '2.1.0'\nexpect = 'granted'", tmp_path) == []
    assert differs(body + "core = '1.0.0'\nexpect = 'granted'", tmp_path) == ["expect"]
    assert (
        differs(
            body + "core = '1.0.0'\ncode = 'grant.core-version'\n"
            "missing = ['plugin.requires-core: core']",
            tmp_path,
        )
        == []
    )


def test_a_manifest_that_is_refused_is_a_denial_too(tmp_path: Path) -> None:
    body = "plugin = 'acme.weather'\nasks = '[siren]'\n"
    assert differs(body + "code = 'manifest.invalid'", tmp_path) == []
    assert differs(body + "expect = 'granted'", tmp_path) == ["expect"]
    many = "expect = 'granted'\nlimits = { memory = 1 }\nallows = [{ log = 'info' }]"
    assert differs(body + many, tmp_path) == ["expect", "limits.memory", "log: info"]


def test_a_table_that_the_manifest_has_not_can_not_be_left_out(tmp_path: Path) -> None:
    body = WEATHER + "consent = 'all'\nwithout = ['net[7]']\nexpect = 'granted'"
    assert differs(body, tmp_path) == ["without"]


CASE = "schema = 1\n[[case]]\nname = 'a'\nplugin = 'a.b'\nasks = ''\n"


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("schema = 1\n", ["case"]),
        ("schema = 1\ncase = []\n", ["case"]),
        ("schema = 2\n[[case]]\nname = 'a'\nplugin='a.b'\nasks=''\nexpect='granted'", ["schema"]),
        (CASE, ["case[0]"]),  # it expects nothing, so it could not fail
        (CASE + "expect = 'maybe'\n", ["case[0].expect"]),
        (CASE + "allows = [{ net = 'https://x.example' }]\n", ["case[0].allows[0]"]),
        (CASE + "allows = [{ tea = 'hot' }]\n", ["case[0].allows[0]"]),
        (
            CASE + "allows = [{ net = 'GET https://x.example', log = 'info' }]\n",
            ["case[0].allows[0]"],
        ),
        (CASE + "limits = { coffee = 1 }\n", ["case[0]"]),
        (CASE + "coffee = 1\n", ["case[0]"]),
        (CASE + "expect = 'denied'\n[[case]]\nname = 'b'\nexpect = 'denied'", ["case[1]"]),
        (CASE + "expect = 'granted'\ncode = 'grant.denied'\n", ["case[0]"]),
        (
            CASE
            + "expect = 'denied'\n"
            + CASE.removeprefix("schema = 1\n")
            + "expect = 'denied'\n",
            ["case[1].name"],
        ),
    ],
)
def test_refuses_a_file_of_cases_with_its_faults(
    tmp_path: Path, text: str, paths: list[str]
) -> None:
    assert faults(text, tmp_path) == paths


def test_refuses_what_is_no_file_of_cases(tmp_path: Path) -> None:
    for target in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(PolicyError) as caught:
            load_cases(target)
        assert caught.value.code == "policy.cases"
    assert faults("a = [", tmp_path) == []
    (tmp_path / "cases.toml").write_text(
        "schema = 1\n[[case]]\nname='a'\nmanifest='gone.toml'\nexpect='granted'"
    )
    found = load_cases(tmp_path / "cases.toml")
    with pytest.raises(PolicyError):
        try_case(found.cases[0], Policy.nothing(), KNOWN, found.beside)


@pytest.mark.parametrize(
    ("capability", "text"),
    [
        ("fs", "append /x"),
        ("fs", "read ../x"),
        ("fs", "read /a//b"),
        ("net", "TRACE https://x.example"),
        ("net", "GET https://u:p@x.example"),
        ("net", "GET https://x.example at nowhere"),
        ("secret", "inject token"),
        ("secret", "inject token http://x.example"),
        ("secret", "reveal a b c d"),
        ("kv", "much"),
        ("log", "loud"),
        ("clock", "tick"),
        ("exec", "'"),
    ],
)
def test_a_question_that_is_none_says_how_to_write_one(capability: str, text: str) -> None:
    with pytest.raises(ValueError, match="write ") as caught:
        question(capability, text)
    assert FORMS[capability] in str(caught.value)


def run(*args: str) -> tuple[int, str]:
    done = CliRunner().invoke(capwasm, ["policy", "test", *args])
    return done.exit_code, done.output


def test_the_command_tells_all_that_differs(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").touch(mode=0o600)
    (tmp_path / "policy.toml").write_text(POLICY)
    cases = tmp_path / "cases.toml"
    cases.write_text(
        f"schema = 1\npolicy = 'policy.toml'\n[[case]]\nname = 'good'\n{WEATHER}consent = 'all'\n"
        f"expect = 'granted'\n[[case]]\nname = 'bad <&\"'\n{WEATHER}expect = 'granted'\n"
        "limits = { memory = 7, fuel = 3 }\n"
    )
    code, text = run(str(cases), "--junit", str(tmp_path / "report.xml"))
    assert code == 1
    assert "ok      good" in text
    assert "- expected  granted" in text
    assert "+ got       denied: grant.denied" in text
    assert "limits.fuel" in text
    assert "2 case(s), 1 failed" in text
    suite = ET.parse(tmp_path / "report.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [c.get("name") for c in suite] == ["good", 'bad <&"']

    code, text = run(str(cases), "--json")
    found: dict[str, Any] = json.loads(text)
    assert (code, found["passed"]) == (1, False)
    assert [d["what"] for d in found["cases"][1]["differences"]] == [
        "expect",
        "limits.memory",
        "limits.fuel",
    ]
    (tmp_path / "empty.toml").touch(mode=0o600)
    (tmp_path / "empty.toml").write_text("schema = 1\n")
    assert run(str(cases), "--policy", str(tmp_path / "empty.toml"))[0] == 1
