"""What each kind of process may ask the kernel for.  All else is refused.

A name that this processor's kernel doesn't have (`open` on aarch64) is passed over.  The tables say
why each group is there; what is in none of them gets EPERM.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

__all__ = ["ABSENT", "FORKING", "HOSTILE", "PROFILES", "Rule", "masked"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A call that is allowed where some of its arguments are as told.

    Attributes:
        name: of the call.
        tests: argument number, mask, and the value that it must have under the mask.  The mask is
            as wide as what the kernel looks at, or a bit that it ignores would hide the rest
            (CVE-2019-10063).
    """

    name: str
    tests: tuple[tuple[int, int, int], ...]


_INT: Final = 0xFFFFFFFF  # an argument of C's type int: the kernel looks at 32 of its 64 bits
_LONG: Final = 0xFFFFFFFFFFFFFFFF


def masked(name: str, argument: int, *values: int, mask: int = _INT) -> tuple[Rule, ...]:
    """The call with any one of these values in that argument."""
    return tuple(Rule(name, ((argument, mask, value),)) for value in values)


def _plain(names: str) -> tuple[Rule, ...]:
    return tuple(Rule(name, ()) for name in names.split())


# The lanes and windows: they are open already, so what is read and written is what was given.
_TALK: Final = _plain(
    "read write readv writev pread64 pwrite64 recvfrom recvmsg sendto sendmsg"
    " poll ppoll select pselect6 close lseek fstat"
) + masked("shutdown", 1, 0, 1, 2)

# Memory.  PROT_EXEC is in it: dlopen and compiled code need it, and native code is what it is.
_MEMORY: Final = _plain("brk mmap munmap mremap mprotect madvise msync")

# Threads of this process, and waiting.  Exactly the flags of glibc's pthread_create: no new process,
# no namespace.  clone3 hides its flags behind a pointer, so it is absent, and glibc uses clone.
_THREADS: Final = masked("clone", 0, 0x003D0F00, mask=_LONG) + _plain(
    "futex futex_waitv set_robust_list get_robust_list rseq set_tid_address gettid getpid getppid"
    " sched_yield sched_getaffinity nanosleep clock_nanosleep exit exit_group restart_syscall"
)

# Handlers for its own faults.  A signal goes to itself alone, which is process 1 of its namespace;
# without that namespace abort() ends by a fault instead.
_SIGNALS: Final = _plain("rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack") + masked(
    "tgkill", 0, 1
)

# What it is told of itself, of time and of the machine's size.
_ASK: Final = (
    Rule("prlimit64", ((0, _INT, 0), (2, _LONG, 0))),  # of itself, and to read it
    *_plain(
        "clock_gettime clock_getres gettimeofday time getrandom times getrusage sysinfo"
        " getuid geteuid getgid getegid getresuid getresgid getgroups getcwd getrlimit"
    ),
    *masked("prctl", 0, 3, 15, 16, 21, 23, 39),  # get dumpable, names, seccomp, bounding set, nnp
)

# dlopen of the plugin's file, and what libc looks at before it gives up.  Opening is for reading.
_NO_WRITE: Final = (
    os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY
)
_FILES: Final = (
    masked("open", 1, 0, mask=_NO_WRITE)
    + masked("openat", 2, 0, mask=_NO_WRITE)
    + _plain(
        "stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents64"
    )
)

# Descriptors as such: copies, flags, pipes and counters.  Not: who gets the signals of one
# (F_SETOWN), leases, larger pipes.
_F: Final = (0, 1, 2, 3, 4, 1030)  # F_DUPFD F_GETFD F_SETFD F_GETFL F_SETFL F_DUPFD_CLOEXEC
_DESCRIPTORS: Final = (
    _plain("dup dup2 dup3 pipe pipe2 eventfd2")
    + masked("fcntl", 1, *_F)
    + masked("ioctl", 1, 0x5450, 0x5451, 0x5421)  # FIONCLEX FIOCLEX FIONBIO: no terminal's
)

_COMMON: Final = _TALK + _MEMORY + _THREADS + _SIGNALS + _ASK + _FILES + _DESCRIPTORS

# An engine lays compiled code and memory images in memfds, and on some processors makes all
# threads see new code.
_ENGINE: Final = _plain("memfd_create ftruncate membarrier") + masked("fcntl", 1, 1033, 1034)

# A program of the operator's.  Its threads are not glibc's alone: any flags, but no namespaces.
_NAMESPACES: Final = 0x7E020080  # CLONE_NEW*, NEWTIME among them
_CLONE_THREAD: Final = 0x00010000
_TIOC_READS: Final = (0x5401, 0x5413, 0x541B)  # TCGETS TIOCGWINSZ FIONREAD
_PROGRAM: Final = (
    masked("clone", 0, _CLONE_THREAD, mask=_NAMESPACES | _CLONE_THREAD)
    + masked("socketpair", 0, 1)  # AF_UNIX, between its own processes
    + masked("ioctl", 1, *_TIOC_READS)
    + _plain(
        "execve wait4 waitid arch_prctl kill tgkill tkill getpgrp getpgid setpgid getsid"
        " setsid uname umask chdir fchdir statfs fstatfs open openat getdents sendfile splice"
        " copy_file_range fadvise64 flock fsync fdatasync ftruncate fallocate mkdir mkdirat unlink"
        " unlinkat rename renameat renameat2 rmdir chmod fchmod fchmodat utimensat epoll_create"
        " epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd timerfd_create"
        " timerfd_settime timerfd_gettime signalfd4 alarm setitimer getitimer pause"
        " rt_sigtimedwait rt_sigsuspend rt_sigpending timer_create timer_settime timer_gettime"
        " timer_delete capget sched_setaffinity sched_getparam sched_getscheduler"
        " sched_get_priority_max sched_get_priority_min getpriority getsockopt setsockopt"
        " getsockname getpeername mlock munlock membarrier getcpu"
    )
)

# And its children, where it may have any.
_CHILDREN: Final = masked("clone", 0, 0, mask=_NAMESPACES) + _plain("fork vfork")

FORKING: Final = "exec, forking"

PROFILES: Final[dict[str, tuple[Rule, ...]]] = {
    "native": _COMMON,
    "component": _COMMON + _ENGINE,
    "exec": _COMMON + _PROGRAM,
    FORKING: _COMMON + _PROGRAM + _CHILDREN,
}

# Answered as by a kernel that hasn't got them, as callers then do without: flags behind a pointer
# that no filter sees, and rings that no filter is asked about (NAT-07, NAT-09).
ABSENT: Final = (
    "clone3 openat2 io_uring_setup io_uring_enter io_uring_register".split()  # noqa: SIM905  a table
)

# No library asks for these by chance: the process is killed, and the host records why.  Other
# processes' memory and descriptors, the kernel's programs, keys and modules (NAT-08); other
# namespaces, roots and mounts (NAT-09); another personality, hardware, time and machine state.
HOSTILE: Final = (  # noqa: SIM905  a table
    "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp perf_event_open bpf userfaultfd"
    " keyctl add_key request_key init_module finit_module delete_module kexec_load kexec_file_load"
    " unshare setns mount umount2 pivot_root chroot move_mount open_tree fsopen fsmount fsconfig"
    " fspick mount_setattr open_by_handle_at name_to_handle_at fanotify_init"
    " iopl ioperm modify_ldt reboot swapon swapoff acct quotactl nfsservctl vhangup syslog"
    " clock_settime clock_adjtime settimeofday adjtimex sethostname setdomainname lookup_dcookie"
).split()
