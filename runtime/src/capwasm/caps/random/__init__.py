"""Random bytes, fit for keys."""

from .handle import RandomState, SeededBytes, system_bytes
from .host import Random
from .model import RandomClause

__all__ = ["Random", "RandomClause", "RandomState", "SeededBytes", "system_bytes"]
