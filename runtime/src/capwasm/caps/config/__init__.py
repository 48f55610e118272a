"""Settings that the operator gave the plugin."""

from .host import Config, ConfigState
from .model import ConfigClause

__all__ = ["Config", "ConfigClause", "ConfigState"]
