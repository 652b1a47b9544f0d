import ctypes
import ctypes.util
import errno
import struct

import pytest

from rewards.seccomp import ARCHITECTURES, METADATA, REFUSED, SPECIAL, filter_bytes

ALLOW, KILL = "allow", "kill"
THREAD = 0x003D0F00  # what glibc's pthread_create gives to clone
FORK = 0x01200011  # what its fork gives


def run(code, machine, number, arguments=()):
    """What the kernel would answer: a reading of BPF of our own, for the five codes in use."""
    data = struct.pack("<IIQ6Q", number, machine, 0, *arguments, *[0] * (6 - len(arguments)))
    at, loaded = 0, 0
    while True:
        operation, yes, no, value = struct.unpack_from("<HBBI", code, 8 * at)
        at += 1
        if operation == 0x20:
            (loaded,) = struct.unpack_from("<I", data, value)
        elif operation == 0x06:
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(value, value & 0xFFFF)
        else:
            true = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}
            at += yes if true[operation] else no


def number_of(name, machine):
    numbers = {**REFUSED, **METADATA, **SPECIAL}[name]
    return numbers[list(ARCHITECTURES).index(machine)]


def test_every_number_is_libseccomps():
    path = ctypes.util.find_library("seccomp")
    if path is None:
        pytest.skip("libseccomp, the reference, is not installed")
    resolve = ctypes.CDLL(path).seccomp_syscall_resolve_name_arch
    known = 0
    for column, audit in enumerate(ARCHITECTURES.values()):
        for name, numbers in {**REFUSED, **METADATA, **SPECIAL}.items():
            number = resolve(ctypes.c_uint32(audit), name.encode())
            if number == -1:  # newer than the library
                continue
            assert (number if number >= 0 else None) == numbers[column], (name, audit)
            known += 1
    assert known > 150


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_is_refused_is_refused_and_the_rest_is_not(machine):
    code, audit = filter_bytes(machine), ARCHITECTURES[machine]
    column = list(ARCHITECTURES).index(machine)
    refused = {numbers[column] for numbers in REFUSED.values()} - {None}
    special = {numbers[column] for numbers in SPECIAL.values()}
    for number in set(range(600)) - special:
        expected = errno.EPERM if number in refused else ALLOW
        if number >= 457:  # statmount and all that came after it
            expected = errno.ENOSYS
        assert run(code, audit, number) == expected, number


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_arguments_decide_where_they_must(machine):
    def ask(name, *arguments, **options):
        code = filter_bytes(machine, **options)
        return run(code, ARCHITECTURES[machine], number_of(name, machine), arguments)

    assert ask("clone", THREAD) == ALLOW
    assert ask("clone", FORK) == errno.EPERM
    assert ask("clone", FORK, processes=True) == ALLOW
    assert ask("clone", THREAD | 0x10000000) == errno.EPERM  # a user namespace
    assert ask("clone", FORK | 0x20000000, processes=True) == errno.EPERM  # a process namespace
    assert ask("clone3", 0, 0) == errno.ENOSYS
    assert ask("clone3", 0, 0, processes=True) == errno.ENOSYS
    assert ask("ioctl", 0, 0x5401) == ALLOW  # TCGETS
    assert ask("ioctl", 0, 0x5412) == errno.EPERM  # TIOCSTI
    assert ask("ioctl", 0, 0x100005412) == errno.EPERM  # the kernel reads 32 bits
    assert ask("ioctl", 0, 0x541C) == errno.EPERM  # TIOCLINUX
    assert ask("prlimit64", 0) == ALLOW
    assert ask("prlimit64", 1) == errno.EPERM
    assert ask("prctl", 15) == ALLOW  # PR_SET_NAME
    assert ask("prctl", 1) == errno.EPERM  # PR_SET_PDEATHSIG
    assert ask("prctl", 22) == errno.EPERM  # PR_SET_SECCOMP


def test_metadata_is_refused_where_asked():
    open_code, shut_code = filter_bytes("x86_64"), filter_bytes("x86_64", metadata=False)
    assert run(open_code, ARCHITECTURES["x86_64"], 90) == ALLOW  # chmod
    assert run(shut_code, ARCHITECTURES["x86_64"], 90) == errno.EPERM


def test_processes_may_be_allowed():
    code = filter_bytes("x86_64", processes=True)
    assert run(code, ARCHITECTURES["x86_64"], 57) == ALLOW  # fork
    assert run(filter_bytes("x86_64"), ARCHITECTURES["x86_64"], 57) == errno.EPERM


def test_other_ways_into_the_kernel_are_shut():
    code = filter_bytes("x86_64")
    assert run(code, 0x40000003, 2) == KILL  # i386: fork by int 0x80
    assert run(code, ARCHITECTURES["x86_64"], 0x40000000 + 39) == errno.EPERM  # x32: getpid


def test_another_machine_is_refused_by_name():
    with pytest.raises(ValueError, match="no system call table for 'riscv64'"):
        filter_bytes("riscv64")
