"""The plugin's log: levelled, bounded, redacted; also where its standard output goes."""

from .handle import LogState, PluginRecord
from .host import Log
from .model import LogClause

__all__ = ["Log", "LogClause", "LogState", "PluginRecord"]
