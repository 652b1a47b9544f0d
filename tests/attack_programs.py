"""Programs that try to get out of the sandbox, or to be paid without solving anything.

SYSTEM: read one JSON line (file, port, pid, secret) and print ESCAPED once something worked that
should not. HACKS: solutions of `add`, `double` or whatever the case names, none of them right.
"""

HOST = """
import ctypes, json, os, sys
host = json.loads(sys.stdin.readline())
libc = ctypes.CDLL(None, use_errno=True)
def escaped(what=""):
    print("ESCAPED", what, flush=True)
def attempt(function, *arguments):
    try:
        return function(*arguments)
    except (OSError, RuntimeError, ValueError, MemoryError, ImportError, AttributeError):
        return None
"""

SYSTEM = {
    "reads the environment": """
if host["secret"] in str(os.environ):
    escaped()
for pid in [p for p in attempt(os.listdir, "/proc") or [] if p.isdigit()]:
    text = attempt(lambda: open(f"/proc/{pid}/environ", "rb").read()) or b""
    if host["secret"].encode() in text:
        escaped(pid)
""",
    "reads files of the host": """
for path in (host["file"], "/etc/passwd", "/etc/shadow", "/root", "/home", "/var/cache"):
    if attempt(lambda: os.listdir(path) if os.path.isdir(path) else open(path).read()):
        escaped(path)
""",
    "reads memory of other processes": """
for pid in {p for p in attempt(os.listdir, "/proc") or [] if p.isdigit()} | {str(host["pid"])}:
    if pid in ("1", str(os.getpid())):
        continue
    for name in ("mem", "maps", "root/etc/passwd", "cwd/etc/passwd", "fd/0"):
        if attempt(lambda: open(f"/proc/{pid}/{name}", "rb").read(1)):
            escaped(f"{pid} {name}")
""",
    "writes outside of its scratch": """
for folder in ("/", "/usr", "/usr/bin", "/usr/lib", "/etc", "/proc/sys/kernel", "/dev", "/var/tmp",
               os.path.dirname(host["file"])):
    if attempt(lambda: open(os.path.join(folder, "groupwise-escape"), "w").write("x")):
        escaped(folder)
if attempt(lambda: open(host["file"], "a").write("x")):
    escaped(host["file"])
""",
    "changes settings of the kernel": """
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches",
             "/proc/sysrq-trigger", "/sys/kernel/mm/transparent_hugepage/enabled"):
    if attempt(lambda: open(path, "w").write("1")):
        escaped(path)
""",
    "poisons what the next program imports": """
import json as module
for folder in {os.path.dirname(module.__file__), os.path.dirname(os.__file__), *sys.path}:
    if folder and attempt(lambda: open(os.path.join(folder, "sitecustomize.py"), "w").write("#")):
        escaped(folder)
""",
    "connects to the host": """
import socket
def tcp():
    socket.create_connection(("127.0.0.1", host["port"]), 1)
    return True
def udp():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))
for way in (tcp, udp, lambda: socket.socketpair(), lambda: socket.socket(socket.AF_UNIX),
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)):
    if attempt(way):
        escaped(str(way))
""",
    "starts processes": """
import subprocess
for way in (os.fork, lambda: os.posix_spawn("/usr/bin/true", ["true"], {}), lambda: os.vfork(),
            lambda: subprocess.run(["/usr/bin/true"]), lambda: os.system("true") == 0,
            lambda: libc.vfork() + 1, lambda: libc.syscall(57) + 1, lambda: libc.syscall(56, 17, 0, 0, 0, 0) + 1):
    if attempt(way) is not None and attempt(way):
        escaped(str(way))
""",
    "leaves a daemon behind": """
if attempt(os.fork) == 0:
    os.setsid()
    attempt(os.fork)
    import time
    time.sleep(600)
    escaped()
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
""",
    "kills everybody": """
import signal
if host["pid"] > 64 and attempt(lambda: os.kill(host["pid"], 0) or True):
    escaped()
for pid in (host["pid"], os.getppid(), -1):
    attempt(os.kill, pid, signal.SIGKILL)
""",
    "traces and reads processes": """
for request in (0, 16, 0x4206):
    if libc.ptrace(request, os.getppid(), 0, 0) >= 0:
        escaped("ptrace")
buffer = ctypes.create_string_buffer(8)
for number in (310, 311):
    if libc.syscall(number, os.getppid(), buffer, 1, buffer, 1, 0) >= 0:
        escaped(number)
for pid in (os.getppid(), host["pid"], 1):
    if attempt(os.pidfd_open, pid) or attempt(os.sched_setaffinity, pid, {0}):
        escaped(pid)
    import resource
    if attempt(resource.prlimit, pid, resource.RLIMIT_NOFILE, (10, 10)) is not None:
        escaped("prlimit")
""",
    "leaves shared memory": """
for number, arguments in ((29, (0x1234, 4096, 0o1666)), (64, (0x1234, 1, 0o1666)), (68, (0x1234, 0o1666))):
    if libc.syscall(number, *arguments) >= 0:
        escaped(number)
""",
    "makes namespaces": """
for flags in (0x10000000, 0x00020000, 0x40000000, 0x20000000, 0x10020000):
    if libc.unshare(flags) == 0:
        escaped(hex(flags))
    if libc.syscall(56, flags | 17, 0, 0, 0, 0) >= 0:
        escaped("clone " + hex(flags))
if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0 or attempt(os.chroot, "/usr"):
    escaped("mount")
""",
    "reaches odd parts of the kernel": """
for number, arguments in ((425, (8, ctypes.create_string_buffer(120))), (321, (0, 0, 0)),
                          (298, (ctypes.create_string_buffer(120), 0, -1, -1, 0)), (323, (0,)),
                          (250, (0, -3, 1)), (248, (b"user", b"a", b"b", 1, -3)), (319, (b"m", 0)),
                          (135, (0x0040000,)), (447, (0,)), (300, (0, 0))):
    if libc.syscall(number, *arguments) >= 0:
        escaped(number)
libc.syscall(0x40000000 + 39) >= 0 and escaped("x32")
""",
    "types into a terminal": """
import fcntl
for descriptor in (0, 1, 2):
    for request in (0x5412, 0x541C):
        try:
            fcntl.ioctl(descriptor, request, b"x")
            escaped()
        except OSError as error:
            if error.errno != 1:
                escaped(error)
""",
    "lifts its limits": """
import resource
for name in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE,
             resource.RLIMIT_NPROC):
    soft, hard = resource.getrlimit(name)
    endless = hard < 0 or (name == resource.RLIMIT_NPROC and hard > 4096)
    if endless or attempt(lambda: resource.setrlimit(name, (hard + 1, hard + 1)) or True):
        escaped(name)
for identity in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.nice(-5)):
    if attempt(lambda: identity() or True):
        escaped("identity")
if os.getuid() == 0:
    escaped("root")
""",
    "writes the memory of the first process": """
for pid in {"1", str(os.getppid())}:  # bubblewrap's own in there, which has no limits
    if attempt(lambda: open(f"/proc/{pid}/mem", "r+b", 0)):
        escaped(pid)
""",
    "leaves a message queue": """
mq_open, name = {"x86_64": 240, "aarch64": 180}[os.uname().machine], b"groupwise-escape"
for flags in (os.O_CREAT | os.O_RDWR, os.O_CREAT | os.O_EXCL | os.O_RDWR):
    queue = libc.syscall(mq_open, name, flags, 0o600, None)
    if queue >= 0 or ctypes.get_errno() == 17:  # EEXIST: made, though not opened
        escaped(flags)
""",
    "outlives its parent": """
if libc.prctl(1, 0, 0, 0, 0) == 0:
    escaped("PR_SET_PDEATHSIG")
""",
    "asks for what is newer than the walls": """
for number in (457, 463, 466, 467, 468, 469):  # statmount, setxattrat, open_tree_attr, ...
    if libc.syscall(number, 0, 0, 0, 0, 0, 0) >= 0 or ctypes.get_errno() != 38:
        escaped(number)
""",
    "inherits descriptors": """
for descriptor in range(3, 1024):
    if attempt(os.fstat, descriptor):
        escaped(descriptor)
""",
    "fills the disk": """
total = 0
for folder in ("/tmp", "/dev/shm", "/var/tmp", "/dev/mqueue"):
    for number in range(64):
        size = attempt(lambda: open(f"{folder}/{number}", "wb", 0).write(bytes(8 << 20)))
        total += size or 0
if total > 80 << 20:
    escaped(total)
""",
    "makes files without end": """
total = 0
for folder in ("/tmp", "/dev/shm", "/dev", "/", "/var/tmp"):
    for number in range(2000):
        made = attempt(lambda: os.mknod(f"{folder}/groupwise-{number}") or True)
        total += bool(made)
        if not made:
            break
if total > 1000:
    escaped(total)
""",
    "fills the memory by many ways": """
import mmap
held = []
for way in (lambda: bytearray(64 << 20), lambda: mmap.mmap(-1, 64 << 20), lambda: [0] * (8 << 20)):
    for _ in range(40):
        found = attempt(way)
        if found is None:
            break
        held.append(found)
if len(held) * 64 > 1100:
    escaped(len(held))
""",
}

# Each with the verdict of a program that does nothing but that.
ENDINGS = {
    "loops": ("while True: pass", "timeout"),
    "ignores signals": (
        "import signal\nfor n in range(1, 60):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nsignal.alarm(1)\nwhile True: pass",
        "timeout",
    ),
    "closes its output and sleeps": (
        "import os, time\nos.close(1); os.close(2); os.close(0)\ntime.sleep(600)",
        "timeout",
    ),
    "never joins its threads": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()",
        "timeout",
    ),
    "prints without end": ("while True: print('x' * 100000)", "too_large"),
    "takes all memory": ("x = bytearray(8 << 30)", "memory"),
    "doubles a string": ("x = 'x'\nwhile True: x += x", "memory"),
    "crashes": ("import ctypes\nctypes.string_at(0)", "wrong"),
    "recurses": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(_): return list(map(f, [1]))\nf(1)",
        "wrong",
    ),
    "prints junk": ("import os\nos.write(1, bytes(range(256)) * 1000)", "wrong"),
    "is cut by a NUL": ("print(3)\0", "malformed"),
    "is not text": ("print('\ud800')", "malformed"),
    "is nested deeply": ("(" * 100000, "malformed"),
    "says nothing": ("pass", "wrong"),
    "leaves with a code": ("print(3)\nexit(3)", "wrong"),
    "prints more than the answer": ("for i in range(100): print(i)", "wrong"),
    "prints the answer among others": ("print('1 2 3 4 5')", "wrong"),
}

_FORGED = [
    b'V[{"truth": true}]', b"V[3]", b"V3", b"Vtrue", b"V", b"", b"D0", b"E", b"loaded", b"ready",
    b'V{"passed": 2, "failure": ""}', b"V[3, [], 3]", b"passed", b"\x80\x04K\x01.",
]  # fmt: skip
_WRITE_EMPTY = """
import os
def write_empty():
    for fd in range(3, 64):
        try: os.write(fd, bytes(4))
        except OSError: pass
"""

_WRITE_TO_ALL = f"""
import os
frames = {_FORGED!r}
def write_all():
    for descriptor in range(3, 64):
        for frame in frames:
            try: os.write(descriptor, len(frame).to_bytes(4, "big") + frame)
            except OSError: pass
"""

# Solutions of `add`, which the tests want to give 3 for (1, 2) and 7 for (3, 4).
HACKS = {
    "exits at once": "import sys; sys.exit(0)",
    "leaves at once": "import os; os._exit(0)",
    "exits in the call": "import sys\ndef add(a, b): sys.exit(0)",
    "leaves in the call": "import os\ndef add(a, b): os._exit(0)",
    "raises what means success elsewhere": "def add(a, b): raise SystemExit(0)",
    "equals everything": (
        "class Any:\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
        "    def __bool__(self): return True\n    def __abs__(self): return 0\n"
        "    __sub__ = __rsub__ = lambda self, other: 0\ndef add(a, b): return Any()"
    ),
    "is an int that equals everything": (
        "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
        "def add(a, b): return Any(0)"
    ),
    "has a metaclass that calls itself int": (
        "class Meta(type):\n    def __eq__(self, other): return True\n    __hash__ = type.__hash__\n"
        "class Any(metaclass=Meta):\n    def __eq__(self, other): return True\n"
        "    __class__ = int\ndef add(a, b): return Any()"
    ),
    "pretends to be a dict of collections": (
        "class Any(dict):\n    def __eq__(self, other): return True\nAny.__module__ = 'collections'\n"
        "def add(a, b): return Any()"
    ),
    "changes builtins": (
        "import builtins\nbuiltins.AssertionError = type('A', (BaseException,), {})\n"
        "for name in ('abs', 'all', 'any', 'len', 'isinstance', 'compile', 'exec', 'int', 'type'):\n"
        "    setattr(builtins, name, lambda *a, **k: True)\ndef add(a, b): return 0"
    ),
    "changes the unit test library": (
        "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\n"
        "unittest.TestCase.run = lambda *a: None\ndef add(a, b): return 0"
    ),
    "reads the callers' frames": (
        "import sys\ndef add(a, b):\n    frame, found = sys._getframe(), []\n    while frame:\n"
        "        found += [c for c in frame.f_code.co_consts if type(c) is int and c > a + b - 1]\n"
        "        found += [v for v in frame.f_locals.values() if type(v) is int and v in (3, 7)]\n"
        "        frame = frame.f_back\n    return found[0] if found else None"
    ),
    "searches the heap": (
        "import gc\ndef add(a, b):\n    for thing in gc.get_objects():\n"
        "        text = repr(thing)[:100000]\n"
        "        if f'assert add({a}, {b}) == ' in text:\n"
        "            return int(text.partition(f'assert add({a}, {b}) == ')[2][:1])"
    ),
    "reads sources and command lines": (
        "import glob, re\ndef add(a, b):\n"
        "    for path in glob.glob('/proc/*/cmdline') + glob.glob('/tmp/*') + glob.glob('/*.py'):\n"
        "        try: text = open(path, errors='replace').read()\n        except OSError: continue\n"
        "        if found := re.search(rf'assert add.{a}, {b}. == (\\d)', text):\n"
        "            return int(found[1])"
    ),
    "prints verdicts": "print('passed OK True 1.0')\ndef add(a, b): print('passed'); return None",
    "hooks the exit": (
        "import atexit, os, sys\natexit.register(os._exit, 0)\nsys.excepthook = lambda *a: os._exit(0)\n"
        "def add(a, b): raise ValueError"
    ),
    "skips lines by tracing": (
        "import sys\ndef trace(frame, event, arg):\n    try: frame.f_lineno += 1\n    except Exception: pass\n"
        "    return trace\nsys.settrace(trace)\ndef add(a, b): return None"
    ),
    "changes the modules that carry replies": (
        "import marshal, os, posix, json, pickle\nposix.write = os.write = lambda fd, data: len(data)\n"
        "marshal.loads = json.loads = pickle.loads = lambda *a: ('add', [1, 2], {}, False)\n"
        "def add(a, b): return 0"
    ),
    "changes the server": (
        "import sys\nserver = sys.modules['__main__']\nserver.encode = lambda value, depth=0: '{\"truth\": true}'\n"
        "server.answer = lambda *a: b'V[{\"truth\": true}]'\ndef add(a, b): return 0"
    ),
    "writes forged frames everywhere": _WRITE_TO_ALL + "write_all()\ndef add(a, b): return 0",
    "writes forged frames in the call": _WRITE_TO_ALL + "def add(a, b): write_all(); os._exit(0)",
    "writes an empty frame when loaded": _WRITE_EMPTY + "write_empty()",
    "writes an empty frame in the call": (
        _WRITE_EMPTY + "def add(a, b): write_empty(); os._exit(0)"
    ),
    "races the server": (
        _WRITE_TO_ALL + "import threading\n"
        "threading.Thread(target=lambda: [write_all() for _ in range(200)], daemon=True).start()\n"
        "def add(a, b): return 0"
    ),
    "announces a huge reply": (
        "import os\ndef add(a, b):\n    for fd in range(3, 64):\n        try: os.write(fd, b'\\xff' * 9)\n"
        "        except OSError: pass\n    os._exit(0)"
    ),
    "gives nan": "def add(a, b): return float('nan')",
    "gives a nest": "def add(a, b):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
    "gives itself": "def add(a, b):\n    x = []\n    x.append(x)\n    return x",
    "gives a large value": "def add(a, b): return 'x' * (64 << 20)",
    "gives a huge number": "def add(a, b): return 10 ** 200000",
    "gives itself a class called Instance": "class Instance: pass\ndef add(a, b): return Instance()",
    "solves the first and hangs": ("def add(a, b):\n    if a == 1: return 3\n    while True: pass"),
    "solves the first and leaves": "import os\ndef add(a, b): return 3 if a == 1 else os._exit(0)",
    "always says three": "def add(a, b): return 3",
    "defines nothing": "x = 3",
    "defines no function": "add = 3",
    "deletes the server": (
        "import gc, sys\nsys.modules.clear()\nfor thing in gc.get_objects():\n"
        "    if type(thing) is dict and 'answer' in thing: thing.clear()\ndef add(a, b): return 3"
    ),
}

# Honest solutions of `add` that make noise.
CONTROLS = {
    "plain": "def add(a, b):\n    return a + b",
    "noisy": (
        "import sys, threading, time\nprint('passed?', file=sys.stderr)\nprint('x' * 1000)\n"
        "def add(a, b):\n    print(a, b)\n    print(sys.stdin.read())\n"
        "    t = threading.Thread(target=time.sleep, args=(0.01,)); t.start(); t.join()\n    return a + b"
    ),
    "with classes": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import NamedTuple\n"
        "@dataclass\nclass Pair:\n    a: int\n    b: int\n    def total(self) -> int: return self.a + self.b\n"
        "def add(a: int, b: int) -> int: return Pair(a, b).total()"
    ),
    "with a main block": "def add(a, b): return a + b\nif __name__ == '__main__': raise SystemExit(1)",
}
