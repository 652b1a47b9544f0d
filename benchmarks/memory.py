"""The memory of a process and its children, looked at from inside."""

import contextlib
import threading


class MemoryWatch(threading.Thread):
    """Highest memory of this process and its children, in bytes, looked at every 0.2 s.

    Resident bytes of the process itself, and the children's PSS, so that pages which they share
    with it are counted once. A look takes a millisecond: steps are timed under it.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._done = threading.Event()

    def __enter__(self) -> "MemoryWatch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        """Look until the end of the `with`."""
        import psutil

        me = psutil.Process()
        while not self._done.wait(0.2):
            now = me.memory_info().rss
            for process in me.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # it ended in between
                    now += process.memory_full_info().pss
            self.peak = max(self.peak, now)
