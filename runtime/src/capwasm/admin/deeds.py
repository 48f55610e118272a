"""What is done by the page: each the same change as the command of that name makes, with a reason."""

from __future__ import annotations

from datetime import timedelta

from capwasm.errors import AdminError, RegistryError
from capwasm.registry.desk import Desk
from capwasm.registry.model import Outcome, State
from capwasm.registry.registry import Registry

from .asking import Ask, Go

__all__ = ["activate", "approve", "except_", "kill", "reject", "resume", "revoke", "suspend"]


def _case(ask: Ask) -> str:
    return f"/reviews/{ask.words['id']}/{ask.words['version']}"


def _plugin(ask: Ask) -> str:
    return f"/plugins/{ask.words['id']}"


def _name(ask: Ask) -> str:
    return f"{ask.words['id']} {ask.words['version']}"


# -- reviews ---------------------------------------------------------------------------------------


def approve(ask: Ask) -> Go:
    """Sign an approval of exactly what the page showed."""
    reason, key = ask.form.reason(), ask.office.signer
    if not ask.form.ticked("seen"):
        raise AdminError("say that you have looked at the permissions and the findings")
    with ask.office.changing() as registry:
        Desk(registry).approve(
            ask.words["id"], ask.words["version"], key=key, why=reason, seen=ask.form.raw("shown")
        )
    return Go(_case(ask), f"Your approval of {_name(ask)} is signed and kept.")


def reject(ask: Ask) -> Go:
    """Forget a version that waits; with a key, for good."""
    reason, office = ask.form.reason(), ask.office
    key = office.me.key
    with office.changing() as registry:
        Desk(registry).reject(
            ask.words["id"], ask.words["version"], who=office.me.name, why=reason, key=key
        )
    signed = " for good, and that is signed" if key else ""
    return Go("/reviews", f"{_name(ask)} is rejected{signed}.")


def activate(ask: Ask) -> Go:
    """Have exactly what the page showed serve: it counts as seen by a person."""
    reason = ask.form.reason()
    id_, version = ask.words["id"], ask.words["version"]

    def deed(registry: Registry, who: str) -> Outcome:
        _unchanged(ask, Desk(registry))
        return registry.activate(id_, version, who=who, why=reason)

    ask.office.act(deed)
    return Go(_plugin(ask), f"{_name(ask)} serves now.")


def except_(ask: Ask) -> Go:
    """Sign one half of a security exception."""
    reason, key = ask.form.reason(), ask.office.signer
    what, until = ask.form.text("what", 64), ask.form.day("expires")
    if not what or until is None:
        raise AdminError("choose what the exception is about, and the day on which it ends")
    with ask.office.changing() as registry:
        desk = Desk(registry)
        _unchanged(ask, desk)
        desk.except_(
            ask.words["id"],
            ask.words["version"],
            key=key,
            what=what,
            expires=until + timedelta(days=1),  # the day itself still counts
            why=reason,
        )
    return Go(_case(ask), f"Your half of the exception for {_name(ask)} is signed.")


def _unchanged(ask: Ask, desk: Desk) -> None:
    """Pass if it is what the reader saw: not another content, not other findings."""
    if ask.form.raw("shown") != desk.case(ask.words["id"], ask.words["version"]).seen:
        raise RegistryError(
            "it is not what you were shown: other content, or a newer scan; look again",
            code="review.changed",
            context=ask.words["id"],
        )


# -- plugins ---------------------------------------------------------------------------------------


def suspend(ask: Ask) -> Go:
    """Take a plugin out of service."""
    id_, reason = ask.words["id"], ask.form.reason()
    ask.office.act(lambda registry, who: registry.suspend(id_, who=who, why=reason))
    return Go(_plugin(ask), f"{id_} is suspended. What runs of it is ended within a second.")


def resume(ask: Ask) -> Go:
    """Have the version serve again that was suspended, and not one that waits to be looked at."""
    id_, reason = ask.words["id"], ask.form.reason()

    def deed(registry: Registry, who: str) -> Outcome:
        found = registry.show(id_)
        if found.state is not State.SUSPENDED:
            raise RegistryError("it is not suspended", code="registry.state", context=id_)
        return registry.activate(id_, found.serving, who=who, why=reason)

    ask.office.act(deed)
    return Go(_plugin(ask), f"{id_} serves again.")


def kill(ask: Ask) -> Go:
    """End what runs of a plugin; it may be called again."""
    id_, reason = ask.words["id"], ask.form.reason()

    def deed(registry: Registry, who: str) -> Outcome:
        registry.show(id_)  # of what nobody has heard there is nothing to end
        return registry.kill(id_, who=who, why=reason)

    ask.office.act(deed)
    return Go(_plugin(ask), f"What runs of {id_} is ended within a second.")


def revoke(ask: Ask) -> Go:
    """End a version for good."""
    id_, version, reason = ask.words["id"], ask.words["version"], ask.form.reason()
    if not ask.form.ticked("sure"):
        raise AdminError("say that you know that a revoked version never runs again")
    ask.office.act(lambda registry, who: registry.revoke(id_, version, who=who, why=reason))
    return Go(_plugin(ask), f"{_name(ask)} is revoked for good.")
