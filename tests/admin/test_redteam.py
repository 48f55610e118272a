"""Attacks on the page by somebody who had not written it: each a hole that was there once."""

from __future__ import annotations

import re
from pathlib import Path

from capwasm.registry.model import State
from tests.admin.conftest import Office, office
from tests.admin.place import Reply, Visitor, served
from tests.kit import guest

PLUGIN = "test.guest"
PLAIN = 'schema = 1\n[plugins."*".log]\n[[plugins."test.*".net]]\nallow = "https://api.example.com/v1/*"\n'
MORE = '[log]\n[[net]]\nallow = "https://api.example.com/v1/*"\n'


def shown(page: Reply) -> str:
    found = re.search(r'name="shown" value="([^"]+)"', page.text)
    assert found is not None
    return found[1]


def suspended_with_more_waiting(root: Path) -> Office:
    """1.0.0 is suspended; 1.1.0 asks for the network, and waits for a person to look at it."""
    made = office(root, PLAIN)
    take = made.registry.install
    take(made.world.capsule(guest("hostile")), who="eve")
    take(made.world.capsule(guest("hostile"), MORE, version="1.1.0"), who="eve")
    plugin = made.registry.show(PLUGIN)
    assert (plugin.serving, plugin.waiting) == ("1.0.0", "1.1.0")
    made.registry.suspend(PLUGIN, who="eve", why="it misbehaved")
    return made


def test_refuses_to_let_in_what_waits_by_resuming_what_was_suspended(tmp_path: Path) -> None:
    made = suspended_with_more_waiting(tmp_path)
    with served(made.home, user="olga") as site:
        visitor = Visitor(site)
        visitor.sign_in()
        page = visitor.get(f"/plugins/{PLUGIN}")
        assert "Have it serve again" in page.text
        assert (
            visitor.post(f"/plugins/{PLUGIN}/resume", {"form": page.form, "reason": "fixed"}).status
            == 303
        )
        plugin = made.registry.show(PLUGIN)
        assert (plugin.serving, plugin.state, plugin.waiting) == ("1.0.0", State.ACTIVE, "1.1.0")
        again = visitor.post(f"/plugins/{PLUGIN}/resume", {"form": page.form, "reason": "fixed"})
        assert again.code == "registry.state"
    made.close()


def test_refuses_to_activate_what_is_not_what_was_shown(tmp_path: Path) -> None:
    made = suspended_with_more_waiting(tmp_path)
    case = f"/reviews/{PLUGIN}/1.1.0"
    with served(made.home, user="olga") as site:
        visitor = Visitor(site)
        visitor.sign_in()
        page = visitor.get(case)
        fields = {"form": page.form, "reason": "fine", "shown": shown(page)}
        made.registry.reject(PLUGIN, who="eve", why="another one")
        wider = '[log]\n[[net]]\nallow = "https://api.example.com/*"\n'
        (made.home / "policy.toml").write_text(PLAIN.replace("/v1/*", "/*"))
        made.registry.install(
            made.world.capsule(guest("hostile"), wider, version="1.1.0"), who="eve"
        )
        assert visitor.post(f"{case}/activate", fields).code == "review.changed"
        assert made.registry.show(PLUGIN).waiting == "1.1.0"
        fields["shown"] = shown(visitor.get(case))
        assert visitor.post(f"{case}/activate", fields).status == 303
    made.close()
