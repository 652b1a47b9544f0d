"""Messages between the trainer and a scoring process: length, then bytes, each with a deadline."""

import socket
import struct
import time

MAX_BYTES = 1 << 30
_HEAD = struct.Struct(">Q")


class ChannelClosedError(ConnectionError):
    """The other side is gone, or sent what is no message."""


class Channel:
    """One end of a socket pair. Every wait ends at a deadline, a time of `time.monotonic`."""

    def __init__(self, end: socket.socket):
        self._socket = end

    def send(self, message: bytes, deadline: float | None = None) -> None:
        """Raises TimeoutError, or ChannelClosedError."""
        self._limit(deadline)
        try:
            self._socket.sendall(_HEAD.pack(len(message)) + message)
        except TimeoutError:
            raise
        except OSError as error:
            raise ChannelClosedError("the other side is gone") from error

    def receive(self, deadline: float | None = None, *, max_bytes: int = MAX_BYTES) -> bytes:
        """Raises TimeoutError, or ChannelClosedError, also for a message above `max_bytes`."""
        (size,) = _HEAD.unpack(self._read(_HEAD.size, deadline))
        if size > max_bytes:
            raise ChannelClosedError(f"a message of {size} bytes; at most {max_bytes} are taken")
        return self._read(size, deadline)

    def close(self) -> None:
        """Whoever waits on the other side is told."""
        self._socket.close()

    def _read(self, size: int, deadline: float | None) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            self._limit(deadline)
            try:
                part = self._socket.recv(min(size - len(parts), 1 << 20))
            except TimeoutError:
                raise
            except OSError as error:
                raise ChannelClosedError("the other side is gone") from error
            if not part:
                raise ChannelClosedError("the other side is gone")
            parts += part
        return bytes(parts)

    def _limit(self, deadline: float | None) -> None:
        if deadline is None:
            self._socket.settimeout(None)
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
