"""Each seeded bad plugin is found, by its rule and by no other; each rule has one."""

from __future__ import annotations

from importlib import import_module

import pytest

from capwasm.capsule.artifact import read_artifact
from capwasm.scan.scanners import catalogue
from capwasm.scan.subject import Subject
from tests.kit import guest

from .building import CAPABILITIES, capsule, custom, look
from .seeds import SEEDS, Data, Seed, noise

MINE = ("known", "asks", "shape", "world", "paths", "hosts", "tokens", "payloads")
SCANNERS = tuple(s for name in MINE for s in import_module(f"capwasm.scan.{name}").SCANNERS)
RULES = {rule.id: rule for scanner in SCANNERS for rule in scanner.rules}


def test_nothing_is_found_in_the_plugin_that_the_bad_ones_are_made_of() -> None:
    report = look(capsule(), SCANNERS)

    assert report.findings == ()
    assert all(not run.skipped for run in report.scanners)


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS)
def test_a_bad_plugin_is_found(seed: Seed) -> None:
    report = look(seed.make(), SCANNERS, **seed.context)

    assert {f.rule for f in report.findings} == seed.rules
    worst = seed.worst or max((RULES[r].severity for r in seed.rules), key=lambda s: s.rank)
    assert report.worst == worst
    assert all(f.place for f in report.findings)


HIDDEN = {name: seed for name, seed in SEEDS.items() if isinstance(seed.make, Data)}


@pytest.mark.parametrize("seed", HIDDEN.values(), ids=HIDDEN)
def test_what_is_bad_does_not_hide_in_a_good_plugin(seed: Seed) -> None:
    assert isinstance(seed.make, Data)
    good = guest("wordcount")
    before = {f.rule for f in look(capsule(good), SCANNERS).findings}
    hidden = good + custom("description", b"\0" + seed.make.raw + b"\0")

    assert {f.rule for f in look(capsule(hidden), SCANNERS).findings} == before | seed.rules


def test_a_capsule_that_nobody_vouches_for_is_found() -> None:
    unproven = Subject.unproven(read_artifact(capsule()), CAPABILITIES, "no key is trusted")

    assert [f.rule for f in look(unproven, SCANNERS).findings] == ["known.unproven"]


def test_every_rule_has_a_bad_plugin() -> None:
    found = set().union(*(seed.rules for seed in SEEDS.values())) | {"known.unproven"}
    assert found == RULES.keys()
    assert catalogue(SCANNERS).keys() == found | {
        *("scan.failed", "scan.timeout", "scan.skipped", "scan.cut")
    }


@pytest.mark.parametrize("name", [n for n, s in SEEDS.items() if "secrets." in str(s.rules)])
def test_refuses_to_show_a_secret(name: str) -> None:
    report = look(SEEDS[name].make(), SCANNERS)

    text = report.to_json().decode()
    assert "… (" in text.encode().decode("unicode_escape") or "PRIVATE KEY" in text
    for secret in (noise(20), "Z3X7QK5M2LW6", "AAECAwQFBgcICQoL"):
        assert secret[4:16] not in text
