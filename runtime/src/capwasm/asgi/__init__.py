"""Plugins that answer HTTP requests, as ASGI applications: `PluginApp(plugin)`.

Any ASGI server runs one, and any ASGI framework mounts one; nothing but the standard library is needed.
"""

from __future__ import annotations

from .app import PluginApp
from .conversation import Incomplete
from .heads import HIDE, WITHHOLD, Bounds

__all__ = ["HIDE", "WITHHOLD", "Bounds", "Incomplete", "PluginApp"]
