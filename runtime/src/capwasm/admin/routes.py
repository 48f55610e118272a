"""Every address of the page, and what answers it."""

from __future__ import annotations

from typing import Final

from . import audits, deeds, pages, plugins, reviews
from .asking import Route

__all__ = ["ROUTES"]

_CASE: Final = "/reviews/{id}/{version}"
_PLUGIN: Final = "/plugins/{id}"

ROUTES: Final = (
    Route("/", pages.overview),
    Route("/stamp", pages.stamp, quiet=True),
    Route("/exceptions", pages.exceptions),
    Route("/policy", pages.policy),
    Route("/about", pages.about),
    Route("/reviews", reviews.queue),
    Route(_CASE, reviews.case),
    Route(f"{_CASE}/approve", post=deeds.approve),
    Route(f"{_CASE}/reject", post=deeds.reject),
    Route(f"{_CASE}/activate", post=deeds.activate),
    Route(f"{_CASE}/except", post=deeds.except_),
    Route(f"{_CASE}/revoke", post=deeds.revoke),
    Route("/plugins", plugins.listing),
    Route(_PLUGIN, plugins.plugin),
    Route(f"{_PLUGIN}/suspend", post=deeds.suspend),
    Route(f"{_PLUGIN}/resume", post=deeds.resume),
    Route(f"{_PLUGIN}/kill", post=deeds.kill),
    Route("/audit", audits.log),
    Route("/audit/{log}/verify", post=audits.verify),
    Route("/audit/{log}/{seq}", audits.record),
)
"""All of them; `tests/admin` walks this table."""
