"""A directory that is open: the only way to any file beneath it.

Every operation opens the directory that holds the last name, beneath this one, and then acts on
that name in it.  No path is looked up twice, and no link is ever followed.

There is no operation that makes a link, reads one, or changes a mode: a guest can't make one name
stand for a file elsewhere, nor learn where the host's links lead (FS-03, FS-08).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal, Unpack

from capwasm.caps._descriptors import none_to_spare
from capwasm.handles import Lease

from .beneath import check_inside, refuse_special
from .faults import FsError, refuse
from .file import File
from .listing import PAGE, DirStream, Entry, page
from .model import Access
from .node import (
    MAX_FILE_SIZE,
    MAX_TRANSFER,
    Kind,
    Mount,
    Node,
    Stat,
    file_id,
    paid_by,
    set_times,
)
from .opening import CALM, ENTER, HOLD, LOOK, How, Want
from .paths import Relative, relative
from .quota import Ledger
from .scan import count

__all__ = [
    "MAX_FILE_SIZE",
    "MAX_TRANSFER",
    "PAGE",
    "Dir",
    "DirStream",
    "Entry",
    "File",
    "Kind",
    "Mount",
    "Node",
    "Stat",
]

_TRIES: Final = 8  # a file that comes and goes between the look and the open

_Kinds = Literal["file", "directory", "any"]

_FILE_MODE: Final = 0o644
_DIR_MODE: Final = 0o755


class Dir(Node):
    """A directory beneath a mount.

    Attributes:
        access: what may be done through this handle, whatever another one may (FS-09).
    """

    __slots__ = ("access",)

    def __init__(self, mount: Mount, lease: Lease, fd: int, path: str, access: Access) -> None:
        """Take over `fd`."""
        super().__init__(mount, lease, fd, path)
        self.access = access

    # -- opening -------------------------------------------------------------------------------

    def reopen(self) -> Dir:
        """Another handle of the same directory, with the same rights."""
        return self.open_dir(".")

    def open_dir(self, path: str, access: Access | None = None) -> Dir:
        """Open a directory, with this one's access or less."""
        found = self._open_as("directory", path, Want(read=True))
        assert isinstance(found, Dir)
        if access is not None:
            found.access = self.access.meet(access)
        return found

    def open_file(self, path: str, **how: Unpack[How]) -> File:
        """Open a regular file.

        Raises:
            FsError: not allowed, or not possible; see `faults.WORDS`.
        """
        found = self._open_as("file", path, Want(**how))
        assert isinstance(found, File)
        return found

    def open_at(self, path: str, *, directory: bool = False, **how: Unpack[How]) -> File | Dir:
        """Open whichever is there, as `open_file` and `open_dir` do; or only a directory.

        Raises:
            FsError: not allowed, or not possible; see `faults.WORDS`.
        """
        return self._open_as("directory" if directory else "any", path, Want(**how))

    def _open_as(self, kind: _Kinds, path: str, want: Want) -> File | Dir:
        with self._operation("open", path, fuel=len(path)) as call:
            where = relative(path)
            self._may_keep_one_more()
            if want.changes and self.access is not Access.READ_WRITE:
                refuse(errno.EPERM, "read-only")
            if (want.truncate and not want.writes) or (want.create and kind == "directory"):
                refuse(errno.EINVAL, "flags")
            # Held from before the open: a file must be known to be open before it can be unlinked.
            with self._changing(call):
                for _ in range(_TRIES):
                    opened = self._try_open(where, want, kind)
                    if opened is not None:
                        return opened
            raise FsError(errno.EAGAIN, "changing")

    def _try_open(self, where: Relative, want: Want, kind: _Kinds) -> File | Dir | None:
        """Look at what is there, then open just that; None if it changed in between."""
        try:
            with self._resolved(where.names, LOOK) as fd:
                mode = os.fstat(fd).st_mode
        except FileNotFoundError:
            if not want.create:
                raise
            return self._create(where, want)
        if want.create and want.exclusive:
            refuse(errno.EEXIST, "exists")
        if stat.S_ISDIR(mode):
            if kind == "file" or want.changes:
                refuse(errno.EISDIR, "directory")
            return self._enter(where)
        if stat.S_ISREG(mode) and (where.directory or kind == "directory"):
            refuse(errno.ENOTDIR, "not-directory")
        # A device may act on the mere open, so it is told apart before, and again after.
        refuse_special(mode)
        with _kept(self._resolve(where.names, want.flags)) as fd:
            info = os.fstat(fd)
            refuse_special(info.st_mode)
            mode_word = "write" if want.writes else "read"
            self.mount.allowed("open", self._at(where), mode=mode_word, truncate=want.truncate)
            if want.truncate:
                os.ftruncate(fd, 0)
                self.mount.ledger.settle(bytes=-info.st_size)
            return self._file(fd, where, want)

    def _create(self, where: Relative, want: Want) -> File | None:
        if where.directory:
            refuse(errno.EISDIR, "directory")
        with self._one_more():
            self.mount.allowed("create", self._at(where))
            try:
                fd = self._resolve(where.names, want.flags | os.O_CREAT | os.O_EXCL, _FILE_MODE)
            except FileExistsError:
                if want.exclusive:
                    raise
                self.mount.ledger.settle(files=-1)
                return None
        with _kept(fd):
            return self._file(fd, where, want)

    def _enter(self, where: Relative) -> Dir:
        with _kept(self._resolve(where.names, ENTER)) as fd:
            self.mount.allowed("open", self._at(where), mode="directory")
            return Dir(self.mount, self.lease, fd, self._at(where), self.access)

    def _file(self, fd: int, where: Relative, want: Want) -> File:
        return File(
            self.mount,
            self.lease,
            fd,
            self._at(where),
            readable=want.read,
            writable=want.writes,
            appends=want.append,
        )

    # -- looking -------------------------------------------------------------------------------

    def stat_at(self, path: str) -> Stat:
        """What is known of the name; of a last link, the link itself.

        Raises:
            FsError: it can't be reached.
        """
        with self._operation("stat", path, fuel=len(path)):
            where = relative(path)
            with self._resolved(where.names, LOOK) as fd:
                info = os.fstat(fd)
            _check_slash(where, info.st_mode)
            return Stat.of(info)

    def page(
        self, path: str, after: str | None = None, limit: int = PAGE
    ) -> list[tuple[str, Stat]]:
        """The entries of a directory in the order of their names, after the name `after`.

        Raises:
            FsError: it can't be reached or read.
        """
        with (
            self._operation("list", path, fuel=len(path)) as call,
            self._resolved(relative(path).names, ENTER) as fd,
        ):
            return page(fd, after, min(limit, PAGE), paid_by(call))

    def entries(self) -> DirStream:
        """A stream of this directory's entries, from the start."""
        with self._operation("list"):
            self._may_keep_one_more()
            with _kept(self._resolve((), ENTER)) as fd:
                return DirStream(self.mount, self.lease, fd, self._path)

    def used(self) -> tuple[int, int]:
        """Bytes and names that the whole mount holds, if this is its root.

        Raises:
            FsError: there is no quota, and more than `quota.MAX_NAMES` names (EOVERFLOW).
        """
        with self._operation("used") as call, self._changing(call) as ledger:
            if ledger.counted:
                return ledger.bytes, ledger.files

            return count(self._fd, self.mount.resolve, paid_by(call))

    # -- changing ------------------------------------------------------------------------------

    def set_times_at(self, path: str, accessed_ns: int | None, modified_ns: int | None) -> None:
        """Set the times of a file or directory; None leaves one as it is.

        Raises:
            FsError: read-only, out of reach, or a time that no file can have.
        """
        with self._operation("set-times", path, fuel=len(path)):
            self._may_write()
            where = relative(path)
            with self._resolved(where.names, LOOK) as fd:
                mode = os.fstat(fd).st_mode
            _check_slash(where, mode)
            if not stat.S_ISDIR(mode):
                refuse_special(mode)
            with self._resolved(where.names, os.O_RDONLY | CALM) as fd:
                self.mount.allowed("set-times", self._at(where))
                set_times(fd, accessed_ns, modified_ns)

    def mkdir(self, path: str) -> None:
        """Make a directory.

        Raises:
            FsError: read-only, out of reach, there already, or over the quota.
        """
        with self._operation("make-directory", path, fuel=len(path)) as call:
            self._may_write()
            where = relative(path)
            if not where.names:
                refuse(errno.EEXIST, "exists")
            with (
                self._changing(call),
                self._resolved(where.names[:-1], HOLD) as parent,
                self._one_more(),
            ):
                self.mount.allowed("make-directory", self._at(where))
                os.mkdir(where.names[-1], _DIR_MODE, dir_fd=parent)

    def remove_file(self, path: str) -> None:
        """Remove a name that is no directory; of a link, the link itself.

        Raises:
            FsError: read-only, out of reach, not there, or a directory (EISDIR).
        """
        self._remove(path, directory=False)

    def remove_dir(self, path: str) -> None:
        """Remove an empty directory.

        Raises:
            FsError: read-only, out of reach, not there, no directory, or not empty.
        """
        self._remove(path, directory=True)

    def remove(self, path: str) -> None:
        """Remove whichever is there: a file, a link, or an empty directory.

        Raises:
            FsError: read-only, out of reach, not there, or not empty.
        """
        self._remove(path, directory=None)

    def _remove(self, path: str, *, directory: bool | None) -> None:
        with self._operation("remove", path, fuel=len(path)) as call:
            self._may_write()
            where = relative(path)
            name = _last(where)
            with (
                self._changing(call) as ledger,
                self._resolved(where.names[:-1], HOLD) as parent,
            ):
                info = os.stat(name, dir_fd=parent, follow_symlinks=False)
                _check_slash(where, info.st_mode)
                if directory is None:
                    directory = stat.S_ISDIR(info.st_mode)
                self.mount.allowed("remove", self._at(where))
                (os.rmdir if directory else os.unlink)(name, dir_fd=parent)
                _unlinked(ledger, info)

    def rename(self, path: str, to: Dir, to_path: str) -> None:
        """Give a file or directory another name within the mount, replacing what may be replaced.

        Raises:
            FsError: another mount (EXDEV), read-only on either side, out of reach, not there, or
                what is there can't be replaced.
        """
        first, second = sorted((self, to), key=id)  # one order, or two threads could wait crosswise
        with (
            first.in_use(),
            second.in_use(),
            self._operation("rename", path, fuel=len(path) + len(to_path)) as call,
        ):
            to.check()
            if to.mount is not self.mount:
                refuse(errno.EXDEV, "other-mount")
            self._may_write()
            to._may_write()
            old, new = relative(path), relative(to_path)
            old_name, new_name = _last(old), _last(new)
            with (
                self._changing(call) as ledger,
                self._resolved(old.names[:-1], HOLD) as old_dir,
                to._resolved(new.names[:-1], HOLD) as new_dir,
            ):
                moved = os.stat(old_name, dir_fd=old_dir, follow_symlinks=False)
                _check_slash(old, moved.st_mode)
                _check_slash(new, moved.st_mode)
                replaced = _stat_or_none(new_name, new_dir)
                self.mount.allowed("rename", self._at(old), to=self.mount.target(to._at(new)))
                os.rename(old_name, new_name, src_dir_fd=old_dir, dst_dir_fd=new_dir)
                # Two names of one file: rename(2) does nothing, and both names stay.
                if replaced is not None and file_id(replaced) != file_id(moved):
                    _unlinked(ledger, replaced)

    # -- below ---------------------------------------------------------------------------------

    def _resolve(self, names: Sequence[bytes], flags: int, mode: int = 0) -> int:
        fd = self.mount.resolve(self._fd, names, flags, mode)
        check_inside(fd, self.mount.real)
        return fd

    @contextmanager
    def _resolved(self, names: Sequence[bytes], flags: int) -> Iterator[int]:
        """Open beneath for as long as the block runs."""
        fd = self._resolve(names, flags)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        """Reserve a name, and give it back if the block fails."""
        self.mount.ledger.reserve(self.mount.quota, files=1)
        try:
            yield
        except BaseException:
            self.mount.ledger.settle(files=-1)
            raise

    def _may_keep_one_more(self) -> None:
        """Pass if a handle may take a descriptor.  Asked first: nothing is made and then refused.

        Raises:
            FsError: the rest is the host's (EMFILE).
        """
        if none_to_spare(self._fd):
            refuse(errno.EMFILE, "descriptors")

    def _at(self, where: Relative) -> str:
        names = [name.decode() for name in where.names]
        return "/".join([self._path, *names] if self._path else names)

    def _can_write(self) -> bool:
        return self.access is Access.READ_WRITE


@contextmanager
def _kept(fd: int) -> Iterator[int]:
    """Close `fd` only if the block fails: its handle takes it over."""
    try:
        yield fd
    except BaseException:
        os.close(fd)
        raise


def _last(where: Relative) -> bytes:
    """The name to act on in its directory.

    Raises:
        FsError: it is the directory itself, which has no name here (EBUSY).
    """
    if not where.names:
        refuse(errno.EBUSY, "root")
    return where.names[-1]


def _check_slash(where: Relative, mode: int) -> None:
    """A path that ends in a slash names a directory, and never what a link leads to (FS-05..06).

    Raises:
        FsError: it ends in a slash and is a link (ELOOP) or no directory (ENOTDIR).
    """
    if where.directory and stat.S_ISLNK(mode):
        refuse(errno.ELOOP, "link")
    if where.directory and not stat.S_ISDIR(mode):
        refuse(errno.ENOTDIR, "not-directory")


def _stat_or_none(name: bytes, parent: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _unlinked(ledger: Ledger, info: os.stat_result) -> None:
    """Tell the ledger that one name of this is gone."""
    if stat.S_ISREG(info.st_mode):
        ledger.unlinked(file_id(info), info.st_size, info.st_nlink)
    else:
        ledger.settle(files=-1)
