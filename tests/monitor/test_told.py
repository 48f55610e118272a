"""What a core is told: every kind has its sentence, and the page knows each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from capwasm.monitor.told import Lifecycle, LifecycleKind, between
from capwasm.registry.model import Listed, State

PAGE = Path(__file__).resolve().parents[2] / "docs/monitoring.md"
SERVES = Listed(
    id="acme.x", serving="1.0.0", state=State.ACTIVE, highest="1.0.0", key_ids="", pinned=None,
    waiting=None, removed=None, who="ann", when="2027-01-31T00:00:00Z", why="a test",
)  # fmt: skip


@pytest.mark.parametrize("kind", LifecycleKind)
def test_every_kind_has_a_sentence_and_is_in_the_page(kind: LifecycleKind) -> None:
    text = Lifecycle(kind, "acme.x", "1.0.0", "registry.state: seal 0xbad").text
    assert text.startswith("acme.x ")
    assert text.endswith(".")
    assert "0xbad" not in text, "what operators write is not for users"
    told = PAGE.read_text(encoding="utf-8").partition("## Telling the user")[2]
    assert f"`{kind}`" in told


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (None, {}, ["installed"]),
        ({}, {"serving": "1.1.0"}, ["activated"]),
        ({}, {"state": State.SUSPENDED}, ["suspended"]),
        ({"state": State.SUSPENDED}, {}, ["resumed"]),
        ({"state": State.SUSPENDED}, {"serving": "1.1.0"}, ["activated"]),
        ({}, {"state": State.REVOKED}, ["revoked"]),
        ({}, {"waiting": "1.1.0"}, ["pending"]),
        ({}, {"removed": "2027-02-01T00:00:00Z"}, ["removed"]),
        ({}, {}, []),
        ({}, {"who": "bob", "why": "killed"}, []),
    ],
)
def test_what_became_of_a_plugin_between_two_looks(
    before: dict[str, str] | None, after: dict[str, str], kinds: list[str]
) -> None:
    was = None if before is None else SERVES._replace(**before)
    assert [str(e.kind) for e in between(was, SERVES._replace(**after))] == kinds


def test_is_a_value() -> None:
    event = Lifecycle(LifecycleKind.STRIKE, "acme.x", "1.0.0")
    assert replace(event, running=True) != event
    assert (event.code, event.reason) == ("", "")
