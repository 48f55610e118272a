"""Files beneath the directories that were granted, and nothing else of the host."""

from .faults import FsError
from .handle import Dir, DirStream, Entry, File, Kind, Node, Stat
from .host import Fs, FsState
from .model import Access, FsClause

__all__ = [
    "Access",
    "Dir",
    "DirStream",
    "Entry",
    "File",
    "Fs",
    "FsClause",
    "FsError",
    "FsState",
    "Kind",
    "Node",
    "Stat",
]
