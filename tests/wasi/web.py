"""A guest of `wasi:http`, for these tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from capwasm.caps.net.host import NetState
from capwasm.limits import DEFAULTS
from tests.caps.net.doors import Coded, WebGuest
from tests.caps.net.servers import Place
from tests.helpers import in_call

LIMITS = replace(DEFAULTS, wall_ms=20_000)


def guest(place: Place, **opened: Any) -> WebGuest:
    return WebGuest(NetState(place.grant, place.bench.engine), **opened)


def told(web: WebGuest, url: str, method: str = "GET", **words: Any) -> str:
    with in_call(words.pop("limits", LIMITS)), pytest.raises(Coded) as caught:
        web.ask(method, url, **words)
    return caught.value.code
