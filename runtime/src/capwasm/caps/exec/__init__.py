"""Commands of the host that the operator named, each run in a sandbox of its own."""

from .host import Exec
from .model import ExecClause
from .running import Spawner

__all__ = ["Exec", "ExecClause", "Spawner"]
