"""A small key-value store for each plugin."""

from .handle import KvStore
from .host import Kv, KvState
from .model import KvClause

__all__ = ["Kv", "KvClause", "KvState", "KvStore"]
