"""Inside the sandbox: runs a program as the main one, with what follows on descriptor 0 as input.

The program comes first, as one frame (4 bytes of length). "ready" on descriptor 1 says that the
sandbox stands; all that follows there is the program's. Errors go to /dev/null.
"""

import builtins
import posix
import sys

MEMORY_EXIT, SYNTAX_EXIT = 113, 114


def main():
    """Read the program, make this interpreter look like its own, run it."""
    posix.write(1, b"ready")
    source = exactly(int.from_bytes(exactly(4), "big"))
    null = posix.open("/dev/null", posix.O_RDWR)
    posix.dup2(null, 2)
    posix.close(null)
    sys.argv[:] = ["program.py"]
    builtins.exit = builtins.quit = sys.exit
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    try:
        try:
            code = compile(source, "program.py", "exec")
        except (SyntaxError, ValueError):
            posix._exit(SYNTAX_EXIT)
        exec(code, module.__dict__)
    except MemoryError:
        posix._exit(MEMORY_EXIT)


def exactly(size):
    """`size` bytes of descriptor 0."""
    data = b""
    while len(data) < size:
        chunk = posix.read(0, size - len(data))
        if not chunk:
            posix._exit(1)
        data += chunk
    return data


if __name__ == "__main__":
    main()
