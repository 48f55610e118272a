"""HTTP to granted origins, through the one egress engine."""

from .host import Net, NetState
from .model import NetClause, NetOperation
from .request import RequestSpec

__all__ = ["Net", "NetClause", "NetOperation", "NetState", "RequestSpec"]
