"""The weaker sandbox, put on by a process over itself before it runs anything it does not trust.

Landlock (reading below `roots` only, no TCP, no signals or abstract sockets to the outside), then
a seccomp filter. `lock_down` comes before another program of this folder in one source text.
"""

import ctypes
import posix

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 38, 22
_SIGKILL, _SECCOMP_MODE_FILTER = 9, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_QUERY_VERSION, _PATH_BENEATH = 1, 1
_ALL_FILE_RIGHTS, _READ_FILE, _READ_FOLDER, _WRITE_FILE = 0xFFFF, 1 << 2, 1 << 3, 1 << 1
_ALL_TCP, _ALL_SCOPES = 3, 3


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("rights", ctypes.c_uint64), ("folder", ctypes.c_int32)]


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


_libc = ctypes.CDLL(None, use_errno=True)


def landlock_version():
    """The ABI that the kernel offers, 0 if none; 6 (Linux 6.12) is the first that scopes signals."""
    return max(0, _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _QUERY_VERSION))


def lock_down(roots, filter_code):
    """Keep only reading below `roots` and /dev/null; raises OSError if any step is refused."""
    _checked("die with the parent", _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0))
    _checked("no new privileges", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    rules = _Ruleset(_ALL_FILE_RIGHTS, _ALL_TCP, _ALL_SCOPES)
    size = ctypes.c_size_t(ctypes.sizeof(rules))
    ruleset = _checked("Landlock", _libc.syscall(_CREATE_RULESET, ctypes.byref(rules), size, 0))
    for root in roots:
        _allow(ruleset, root, _READ_FILE | _READ_FOLDER)
    _allow(ruleset, "/dev/null", _READ_FILE | _WRITE_FILE)
    _allow(ruleset, "/dev/urandom", _READ_FILE)
    _checked("Landlock", _libc.syscall(_RESTRICT_SELF, ruleset, 0))
    posix.close(ruleset)
    program = _Filter(len(filter_code) // 8, filter_code)
    mode = ctypes.c_ulong(_SECCOMP_MODE_FILTER)
    _checked("seccomp", _libc.prctl(_PR_SET_SECCOMP, mode, ctypes.byref(program), 0, 0))


def _allow(ruleset, path, rights):
    folder = posix.open(path, posix.O_PATH | posix.O_CLOEXEC)
    rule = _Beneath(rights, folder)
    _checked(path, _libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
    posix.close(folder)


def _checked(step, result):
    if result < 0:
        raise OSError(ctypes.get_errno(), step)
    return result
