"""`capwasm policy lint`: each rule by what it finds, and by a twin in which it finds nothing."""

from __future__ import annotations

import json
import re
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from capwasm.caps import standard_capabilities
from capwasm.cli import capwasm
from capwasm.demo.owner import _POLICY as DEMO
from capwasm.governance._ground import covers, overlaps
from capwasm.governance._lint_net import is_shared_suffix
from capwasm.governance.lint import Lint, lint
from capwasm.governance.rules import RULES
from capwasm.grants.policy import Policy
from capwasm_shim.layers import DEFAULT_REQUIRED, Layer

KNOWN = standard_capabilities()
TODAY = date(2026, 12, 1)
GIB = 2**30
CLEAN = """schema = 1
owner = "security@acme.com"
review-by = "2027-06-30"
[consent]
automatic = ["log", "clock", "kv", "config"]
[updates]
[review]
[strikes]
[revocation]
url = "https://feeds.acme.com/feed"
[limits]
memory = 268435456
[[deny.net]]
allow = "https://api.acme.com/v1/admin/*"
methods = ["*"]
[plugins."*".log]
[plugins."*".clock]
[[plugins."acme.*".net]]
allow = "https://api.acme.com/v1/*"
[[plugins."acme.weather".fs]]
bind = "app-data"
path = "/srv/app/data"
access = "read-write"
quota = "100MiB"
[[plugins."acme.weather".fs]]
bind = "archive"
path = "/srv/app/archive"
[[plugins."acme.weather".secret]]
name = "token"
use = "inject"
for = ["https://api.acme.com"]
header = "Authorization: Bearer {}"
[[plugins."acme.weather".exec]]
command = "thumbnail"
program = "/usr/bin/convert"
arguments = ["-resize", "{size:[0-9]{1,4}x[0-9]{1,4}}"]
[plugins."acme.weather".kv]
quota = "1MiB"
[plugins."acme.weather".config]
keys = ["units"]
[plugins."acme.weather".limits]
memory = 134217728
"""


def findings(text: str, **more: Any) -> tuple[Lint, ...]:
    known: dict[str, Any] = {"installed": frozenset({"acme.weather"}), "memory": 2 * GIB}
    policy = Policy.load(text.encode(), KNOWN)
    return lint(policy, KNOWN, today=TODAY, **{**known, **more})


def rules(text: str, **more: Any) -> list[str]:
    return [f.rule for f in findings(text, **more)]


def swap(old: str, new: str) -> str:
    assert CLEAN.count(old) == 1, old
    return CLEAN.replace(old, new)


def net(allow: str, more: str = "", selector: str = "acme.weather") -> str:
    return f"""{CLEAN}[[plugins."{selector}".net]]\nallow = "{allow}"\n{more}\n"""


def fs(path: str, access: str = "read", more: str = 'quota = "1MiB"') -> str:
    return (
        f"""{CLEAN}[[plugins."acme.weather".fs]]\nbind = "other"\npath = "{path}"\n"""
        f"""access = "{access}"\n{more}\n"""
    )


def command(program: str, *words: str) -> str:
    return (
        f"""{CLEAN}[[plugins."acme.weather".exec]]\ncommand = "other"\nprogram = "{program}"\n"""
        f"arguments = {json.dumps(words)}\n"
    )


HEAD = 'owner = "security@acme.com"\nreview-by = "2027-06-30"\n'
SECRET = 'for = ["https://api.acme.com"]\nheader = "Authorization: Bearer {}"\n'
REQUIRE = json.dumps([layer.value for layer in Layer if layer in DEFAULT_REQUIRED])

# rule -> a policy in which it finds something, and one that is as near as can be, in which nothing is.
CASES: dict[str, list[tuple[str, str]]] = {
    "governance.owner": [(swap('owner = "security@acme.com"\n', ""), CLEAN)],
    "governance.review-by": [(swap('review-by = "2027-06-30"\n', ""), CLEAN)],
    "governance.due": [(swap("2027-06-30", "2026-12-15"), swap("2027-06-30", "2026-12-16"))],
    "governance.overdue": [(swap("2027-06-30", "2026-11-30"), swap("2027-06-30", "2026-12-31"))],
    "consent.no-effect": [(swap('"config"]', '"config", "net"]'), CLEAN)],
    "consent.automatic-for-all": [
        (
            swap('"config"]', '"config", "fs"]')
            .replace("access", "# access")
            .replace('"acme.weather".fs]]\nbind = "archive"', '"*".fs]]\nbind = "archive"'),
            CLEAN.replace('"acme.weather".fs]]\nbind = "archive"', '"*".fs]]\nbind = "archive"'),
        )
    ],
    "updates.absent": [(swap("[updates]\n", ""), "schema = 1\n" + HEAD + '[plugins."*".log]\n')],
    "review.absent": [(swap("[review]\n", ""), "schema = 1\n" + HEAD + '[plugins."*".log]\n')],
    "strikes.absent": [(swap("[strikes]\n", ""), "schema = 1\n" + HEAD + '[plugins."*".log]\n')],
    "updates.no-way-back": [
        (
            swap("[updates]\n", "[updates]\nerror-budget = { failures = 0 }\n"),
            swap("[updates]\n", "[updates]\nerror-budget = { failures = 1 }\n"),
        )
    ],
    "revocation.plain-http": [(swap("https://feeds", "http://feeds"), CLEAN)],
    "isolation.weakened": [
        (
            CLEAN + '[isolation]\nrequire = ["seccomp"]\n',
            f"{CLEAN}[isolation]\nrequire = {REQUIRE}\n",
        )
    ],
    "isolation.native-for-all": [
        (CLEAN + '[isolation]\nnative = ["*"]\n', CLEAN + '[isolation]\nnative = ["acme.old"]\n')
    ],
    "selector.high-for-all": [
        (swap('"acme.*".net', '"*".net'), CLEAN),
        (swap('"acme.weather".secret', '"*".secret'), CLEAN),
    ],
    "selector.says-nothing": [
        (CLEAN + '[plugins."other.x"]\n', CLEAN),
        (CLEAN + '[plugins."acme.x".limits]\n', CLEAN + '[plugins."acme.*".limits]\ndepth = 2\n'),
    ],
    "selector.not-installed": [
        (CLEAN + '[plugins."acme.waether".random]\n', CLEAN + '[plugins."acme.*".random]\n')
    ],
    "limits.above-machine": [
        (
            swap("memory = 134217728", f"memory = {4 * GIB}").replace("268435456", str(4 * GIB)),
            swap("memory = 134217728", "memory = 1024"),
        ),
        (
            swap("command =", 'memory = "16GiB"\ncommand ='),
            swap("command =", 'memory = "1GiB"\ncommand ='),
        ),
    ],
    "limits.above-ceiling": [(swap("134217728", "268435457"), swap("134217728", "268435456"))],
    "rule.denied": [
        (
            CLEAN + '[[plugins."acme.*".deny.fs]]\nbind = "archive"\n',
            CLEAN + '[[plugins."acme.*".deny.fs]]\nmount = "/x"\npath = "/srv/app/archive"\n',
        )
    ],
    "rule.repeated": [
        (net("https://api.acme.com/v1/today"), net("https://api.acme.com/v2/*")),
        (net("https://api.acme.com/v1/*", selector="acme.*"), CLEAN),
    ],
    "rule.nothing": [
        (swap('quota = "100MiB"', "quota = 0"), CLEAN),
        (swap('keys = ["units"]', "keys = []"), CLEAN),
    ],
    "deny.no-effect": [
        (
            CLEAN + '[[deny.net]]\nallow = "https://tracker.example"\n',
            CLEAN + '[[deny.net]]\nallow = "https://api.acme.com/v1/users"\n',
        ),
        (CLEAN + '[[plugins."other.x".deny.exec]]\ncommand = "thumbnail"\n', CLEAN),
    ],
    "deny.repeated": [
        (
            CLEAN + '[[deny.net]]\nallow = "https://api.acme.com/v1/admin/x"\n',
            CLEAN + '[[deny.net]]\nallow = "https://api.acme.com/v1/x"\n',
        )
    ],
    "net.plain-http": [
        (net("http://old.acme.com"), net("https://old.acme.com")),
        (net("http://10.1.2.3"), net("http://127.0.0.1:8080")),
    ],
    "net.shared-suffix": [
        (net("https://*.github.io"), net("https://*.acme.github.io")),
        (net("https://*.co.uk"), net("https://*.acme.co.uk")),
    ],
    "net.every-method": [
        (
            net("https://b.acme.com", 'methods = ["*"]'),
            net("https://b.acme.com", 'methods = ["POST"]'),
        )
    ],
    "net.private": [
        (net("https://b.acme.com", 'addresses = ["10.1.0.0/16"]'), net("https://b.acme.com")),
        (net("https://192.168.1.0/24"), net("https://93.184.216.34")),
        (net("https://127.0.0.0/8:8080"), net("https://127.0.0.1:8080")),
    ],
    "net.metadata": [(net("http://169.254.169.254"), net("https://93.184.216.34"))],
    "net.wide-network": [
        (net("https://10.0.0.0/12"), net("https://93.184.0.0/16")),
        (net("https://b.acme.com", 'addresses = ["fd01::/16"]'), net("https://b.acme.com")),
    ],
    "net.many-ports": [(net("https://b.acme.com:1-65535"), net("https://b.acme.com:8000-8015"))],
    "fs.any-directory": [
        (swap('path = "/srv/app/archive"\n', ""), CLEAN),
    ],
    "fs.wide-write": [
        (fs("/var/lib", "read-write"), fs("/var/lib/acme", "read-write")),
        (fs("/etc/cron.d", "read-write"), fs("/srv/etc", "read-write")),
        (fs("/home/ann", "read-write"), fs("/home/ann/inbox", "read-write")),
    ],
    "fs.wide-read": [(fs("/etc"), fs("/etc/acme")), (fs("/home"), fs("/srv/home"))],
    "fs.credentials": [(fs("/srv/x/.ssh"), fs("/srv/x/ssh"))],
    "fs.no-quota": [
        (fs("/srv/out", "read-write", ""), fs("/srv/out", "read-write")),
        (fs("/srv/out", "read-write", "files = 9"), fs("/srv/out", "read", "")),
    ],
    "secret.reveal": [(swap('use = "inject"\n' + SECRET, 'use = "reveal"\n'), CLEAN)],
    "secret.wide-net": [(net("https://*.acme.com"), net("https://*.other.example"))],
    "secret.unsendable": [(swap('for = ["https://api', 'for = ["https://b'), CLEAN)],
    "secret.any-header": [(swap('header = "Authorization: Bearer {}"\n', ""), CLEAN)],
    "exec.interpreter": [
        (command("/usr/bin/python3.11"), command("/usr/bin/pythonize")),
        (command("/bin/sh"), command("/usr/bin/shasum")),
        (command("/usr/bin/find"), command("/opt/acme/finder")),
    ],
    "exec.free-argument": [
        (command("/opt/acme/x", "{t:.*}"), command("/opt/acme/x", "{t:[a-z]{1,9}}")),
        (command("/opt/acme/x", "-o", "--t={t:(?s:.+)}"), command("/opt/acme/x", "--t={t:[0-9]+}")),
    ],
    "exec.path-argument": [
        (command("/opt/acme/x", "{f:[a-z./]+}"), command("/opt/acme/x", "{f:[a-z]+[.]png}"))
    ],
    "exec.no-program": [(swap('program = "/usr/bin/convert"\n', ""), CLEAN)],
}


def test_nothing_is_said_of_a_clean_policy() -> None:
    assert findings(CLEAN) == ()
    assert findings(CLEAN, installed=None, memory=None) == ()


def test_each_rule_has_a_case() -> None:
    assert list(CASES) == sorted(CASES, key=list(CASES).index)
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [(rule, *pair) for rule, pairs in CASES.items() for pair in pairs],
    ids=[f"{rule}-{i}" for rule, pairs in CASES.items() for i in range(len(pairs))],
)
def test_each_rule_finds_and_spares(rule: str, bad: str, good: str) -> None:
    (finding, *_) = [f for f in findings(bad) if f.rule == rule] or pytest.fail(f"{rules(bad)}")

    assert finding.severity is RULES[rule].severity
    assert finding.message
    assert finding.fix
    assert rule not in rules(good)


def test_a_finding_stands_at_its_line() -> None:
    text = net("http://old.acme.com")
    (finding,) = [f for f in findings(text) if f.rule == "net.plain-http"]

    assert text.splitlines()[(finding.line or 0) - 1] == '[[plugins."acme.weather".net]]'
    assert finding.path == 'plugins."acme.weather".net[0]'
    assert finding.fix == "https://old.acme.com"


def test_the_gravest_come_first() -> None:
    ranks = [f.severity.rank for f in findings(net("http://10.0.0.0/8", 'methods = ["*"]'))]
    assert ranks == sorted(ranks, reverse=True)
    assert len(ranks) >= 4


def test_what_is_not_known_is_not_guessed() -> None:
    text = CLEAN + '[plugins."acme.waether".random]\n'
    assert "selector.not-installed" not in rules(text, installed=None)
    big = swap("memory = 134217728", f"memory = {4 * GIB}")
    assert "limits.above-machine" not in rules(big, memory=None)


def test_nothing_is_said_where_there_is_no_policy() -> None:
    found = lint(Policy.nothing(), KNOWN, today=TODAY)
    assert found == ()


def test_the_policy_of_the_demo_has_nothing_grave() -> None:
    text = DEMO.format(origin="http://127.0.0.1:8080", reports='"/srv/demo/reports"')
    assert not [f for f in findings(text, installed=None) if f.severity.rank >= 3]


def test_the_example_of_the_page_is_clean_but_for_its_date() -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
    lines = re.search(r"(?:^    .*\n|^\n)+", page[page.index("    schema = 1") :], re.MULTILINE)
    assert lines is not None
    text = "\n".join(line.removeprefix("    ") for line in lines[0].splitlines())
    assert not [f for f in findings(text, installed=None) if f.severity.rank >= 3]


def test_the_largest_policy_is_looked_at_in_time() -> None:
    """Rules that all differ, as many as a file may hold: each is compared only with its like."""
    rows = [
        f'[[plugins."a.b{s}".net]]\nallow = "a{i}.x.example"\n'
        for s in range(18)
        for i in range(240)
    ]
    text = f"schema = 1\n{''.join(rows)}"
    began = time.monotonic()
    assert "rule.repeated" not in rules(text)
    assert time.monotonic() - began < 60


def test_patterns() -> None:
    assert covers("*", "acme.*")
    assert covers("acme.*", "acme.weather")
    assert not covers("acme.weather", "acme.*")
    assert not covers("acme.*", "acmeevil.x")
    assert overlaps("acme.weather", "acme.*")
    assert not overlaps("acme.*", "other.*")


@pytest.mark.parametrize("name", ["co.uk", "com.au", "github.io", "s3.eu-west-1.amazonaws.com"])
def test_shared_suffixes(name: str) -> None:
    assert is_shared_suffix(name)
    assert not is_shared_suffix(f"acme.{name}")


def run(*args: str, code: int) -> str:
    done = CliRunner().invoke(capwasm, ["policy", "lint", *args])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAPWASM_HOME", str(tmp_path / "home"))
    path = tmp_path / "policy.toml"
    path.touch(mode=0o600)
    return path


def test_the_command_tells_and_fails_from_a_severity_on(policy: Path) -> None:
    policy.write_text(net("http://old.acme.com").replace("2027-06-30", "2999-06-30"))
    text = run(str(policy), code=1)
    assert "high    net.plain-http" in text
    assert "fix: https://old.acme.com" in text
    run(str(policy), "--fail-on", "never", code=0)

    policy.write_text(swap("2027-06-30", "2999-06-30").replace("[updates]\n", ""))
    run(str(policy), code=0)
    run(str(policy), "--fail-on", "medium", code=0)
    found = json.loads(run(str(policy), "--fail-on", "low", "--json", code=1))
    assert (found["ok"], [f["rule"] for f in found["findings"]]) == (False, ["updates.absent"])

    policy.write_text(swap("2027-06-30", "2999-06-30"))
    assert "nothing unwise" in run(str(policy), "--fail-on", "note", code=0)


def test_the_command_refuses_what_is_no_policy(policy: Path) -> None:
    policy.write_text("schema = 1\ncoffee = 2\n")
    assert json.loads(run(str(policy), "--json", code=1))["code"] == "policy.invalid"
