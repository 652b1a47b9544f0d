"""The system calls that a sandboxed program is refused, as a filter that the kernel runs.

A classic BPF program for seccomp, for x86-64 and aarch64, made from a table: libseccomp would
need its shared library on the machine, and the table is short. `filter_bytes` is what
`bwrap --seccomp FD` reads and what `PR_SET_SECCOMP` takes.
"""

import errno
import struct

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""`platform.machine()` to AUDIT_ARCH_*."""

# Name: its number on x86-64 and on aarch64, None where it does not exist.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # another process, and what reaches into one
    "fork": (57, None), "vfork": (58, None), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "setpriority": (141, 140),
    "ioprio_set": (251, 30), "migrate_pages": (256, 238), "move_pages": (279, 239),
    # network
    "socket": (41, 198), "socketpair": (53, 199),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "move_mount": (429, 429),
    "open_tree": (428, 428), "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    # parts of the kernel that no test needs and many exploits do
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "personality": (135, 92),
    "modify_ldt": (154, None), "iopl": (172, None), "ioperm": (173, None), "uselib": (134, None),
    "vmsplice": (278, 75), "fanotify_init": (300, 262), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "acct": (163, 89), "swapon": (167, 224), "swapoff": (168, 225),
    "reboot": (169, 142), "syslog": (103, 116), "lookup_dcookie": (212, 18),
    "seccomp": (317, 277),
    # memory that RLIMIT_AS does not count or that outlives the program
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197),
    "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "mq_open": (240, 180), "mq_unlink": (241, 181),
}  # fmt: skip
"""Answered with EPERM."""

METADATA: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "utimensat": (280, 88),
    "futimesat": (261, None), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "inotify_add_watch": (254, 27),
}  # fmt: skip
"""What Landlock does not govern: changes of files, news of them; refused where it is alone."""

SPECIAL: dict[str, tuple[int, int]] = {
    "clone": (56, 220), "clone3": (435, 435), "ioctl": (16, 29), "prlimit64": (302, 261),
    "prctl": (157, 167),
}  # fmt: skip
"""Those whose arguments decide; clone3 hides its own behind a pointer and is not implemented."""

CLONE_THREAD = 0x00010000
CLONE_NEW_NAMESPACES = 0x7E020000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
PR_SET_PDEATHSIG, PR_SET_SECCOMP = 1, 22
X32_BIT = 0x40000000
FIRST_UNKNOWN = 457
"""statmount, of Linux 6.8: from here on nothing is implemented, which programs must expect. What
this table has never heard of is what walls have never heard of: setxattrat, open_tree_attr."""

ALLOW = 0x7FFF0000
KILL = 0x80000000
REFUSE = 0x00050000 | errno.EPERM
NOT_THERE = 0x00050000 | errno.ENOSYS

_NUMBER, _ARCHITECTURE = 0, 4  # offsets into struct seccomp_data
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def filter_bytes(machine: str, *, processes: bool = False, metadata: bool = True) -> bytes:
    """The filter for `machine` ("x86_64" or "aarch64"), 8 bytes an instruction.

    Threads are allowed, processes only if `processes`; glibc falls back from clone3 to clone.
    Without `metadata`, changes of modes, owners, times and attributes are refused too.

    Raises:
        ValueError: There is no table for `machine`.
    """
    if machine not in ARCHITECTURES:
        raise ValueError(
            f"no system call table for {machine!r}; rewards/seccomp.py knows "
            f"{', '.join(ARCHITECTURES)}"
        )
    column = list(ARCHITECTURES).index(machine)
    code = [
        _op(_LOAD, _ARCHITECTURE),
        _op(_EQUAL, ARCHITECTURES[machine], yes=1),
        _op(_RETURN, KILL),
        _op(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        code += [_op(_AT_LEAST, X32_BIT, no=1), _op(_RETURN, REFUSE)]
    code += [_op(_AT_LEAST, FIRST_UNKNOWN, no=1), _op(_RETURN, NOT_THERE)]
    refused = REFUSED if metadata else REFUSED | METADATA
    for name, numbers in refused.items():
        if numbers[column] is not None and not (processes and name in ("fork", "vfork")):
            code += [_op(_EQUAL, numbers[column], no=1), _op(_RETURN, REFUSE)]
    for name, numbers in SPECIAL.items():
        rule = _special_rule(name, processes)
        code += [_op(_EQUAL, numbers[column], no=len(rule)), *rule]
    return b"".join([*code, _op(_RETURN, ALLOW)])


def _special_rule(name: str, processes: bool) -> list[bytes]:
    """What is done with a call by its arguments; it always returns."""
    allow, refuse = _op(_RETURN, ALLOW), _op(_RETURN, REFUSE)
    if name == "clone":
        rule = [_op(_LOAD, _argument(0)), _op(_ANY_BIT, CLONE_NEW_NAMESPACES, no=1), refuse]
        return (
            [*rule, allow]
            if processes
            else [*rule, _op(_ANY_BIT, CLONE_THREAD, no=1), allow, refuse]
        )
    if name == "ioctl":  # writing into the terminal that started us
        return [
            _op(_LOAD, _argument(1)),
            _op(_EQUAL, TIOCSTI, yes=1),
            _op(_EQUAL, TIOCLINUX, no=1),
            refuse,
            allow,
        ]
    if name == "prlimit64":  # limits of oneself only
        return [_op(_LOAD, _argument(0)), _op(_EQUAL, 0, no=1), allow, refuse]
    if name == "prctl":  # to die with the parent is not the program's to undo
        return [
            _op(_LOAD, _argument(0)),
            _op(_EQUAL, PR_SET_PDEATHSIG, yes=1),
            _op(_EQUAL, PR_SET_SECCOMP, no=1),
            refuse,
            allow,
        ]
    assert name == "clone3"
    return [_op(_RETURN, NOT_THERE)]


def _argument(index: int) -> int:
    """Offset of the lower half of an argument; both machines are little-endian."""
    return 16 + 8 * index


def _op(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """struct sock_filter: skip `yes` or `no` instructions by the outcome."""
    return struct.pack("<HBBI", code, yes, no, value)
