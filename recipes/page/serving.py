"""The page over HTTP on this machine alone, following runs that are training.

Bound to 127.0.0.1, and only requests that name it are answered: a page elsewhere whose host name
is made to point here (DNS rebinding) names another host. Nothing can be changed through it.
"""

import gzip
import json
import sys
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from recipes.page.document import document, policy
from recipes.page.report import Shown, state_of
from recipes.page.run_reader import UNREADABLE

ADDRESS = "127.0.0.1"
HTTP_PORT = 80
KEPT_BLOBS = 64
READ_S = 2.0
"""After so many seconds of reading a run's rounds, those read so far are shown."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Following:
    """What is served: the runs' state, read again when a file has changed, and single rounds."""

    def __init__(self, shown: Sequence[Shown]):
        self.shown = shown
        self.blob = lru_cache(maxsize=KEPT_BLOBS)(self._blob)
        self._lock = threading.Lock()
        self._stamps: list[Any] = []
        self._state, self._tag, self._is_whole = b"", "", False

    def state(self) -> tuple[bytes, str]:
        """The state as gzipped JSON, and a tag that changes with it."""
        with self._lock:
            stamps = [one.run.stamp() for one in self.shown]
            if stamps != self._stamps or not self._is_whole:
                read = [one.refresh(most_s=READ_S) for one in self.shown]
                self._is_whole = all(read)
                state = state_of(self.shown, serve=True, reading=not self._is_whole)
                text = json.dumps(state, allow_nan=False)
                self._state = gzip.compress(text.encode(), 3, mtime=0)
                self._tag = f'"{sha256(self._state).hexdigest()[:16]}"'
                self._stamps = stamps
            return self._state, self._tag

    def has_trainer(self, run: int, index: int) -> bool:
        """Whether a round has its second file by now: with it the blob is another."""
        return self.shown[run].run.trained_file(index).exists()

    def _blob(self, run: int, index: int, _has_trainer: bool) -> bytes:
        return self.shown[run].blob(index)


class Handler(BaseHTTPRequestHandler):
    """Answers GET /, /state, /pieces/RUN and /round/RUN/INDEX."""

    server: "PageServer"
    server_version = "groupwise"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """One request."""
        if not self._is_ours():
            self._send(
                HTTPStatus.FORBIDDEN, b"this server answers to 127.0.0.1 only\n", "text/plain"
            )
            return
        path = self.path.partition("?")[0]
        if path == "/":
            page = document({"serve": True, "runs": [], "panels": []}, [], serve=True)
            self._send(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")
        elif path == "/state":
            self._send_state()
        elif path.startswith("/round/"):
            self._send_blob(self._round, path)
        elif path.startswith("/pieces/"):
            self._send_blob(self._pieces, path)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"no such page\n", "text/plain")

    def _is_ours(self) -> bool:
        port = self.server.server_address[1]
        hosts = {f"{name}:{port}" for name in (ADDRESS, "localhost")}
        if port == HTTP_PORT:  # which browsers leave out
            hosts |= {ADDRESS, "localhost"}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in hosts and (
            origin is None or origin in {f"http://{host}" for host in hosts}
        )

    def _send_state(self) -> None:
        data, tag = self.server.following.state()
        if self.headers.get("If-None-Match") == tag:
            self._send(HTTPStatus.NOT_MODIFIED, b"", "application/json")
            return
        extra = {"Content-Encoding": "gzip", "ETag": tag}
        self._send(HTTPStatus.OK, data, "application/json", extra)

    def _round(self, run: int, index: int) -> bytes:
        following = self.server.following
        if index not in following.shown[run].rounds:
            raise LookupError(index)
        return following.blob(run, index, following.has_trainer(run, index))

    def _pieces(self, run: int) -> bytes:
        return self.server.following.shown[run].pieces_blob()

    def _send_blob(self, make: Callable[..., bytes], path: str) -> None:
        """`make` of the numbers in the path."""
        words = path.split("/")[2:]
        try:
            if not all(word.isdecimal() and word.isascii() for word in words):
                raise LookupError(path)
            data = make(*(int(word) for word in words))
        except UNREADABLE:
            self._send(HTTPStatus.NOT_FOUND, b"no such data\n", "text/plain")
            return
        self._send(HTTPStatus.OK, data, "application/octet-stream")

    def _send(
        self, status: HTTPStatus, body: bytes, kind: str, extra: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        told = {"Content-Type": kind, "Content-Length": str(len(body))} | HEADERS | (extra or {})
        told["Content-Security-Policy"] = policy(serve=True) + "; frame-ancestors 'none'"
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are not printed."""


class PageServer(ThreadingHTTPServer):
    """Serves runs on 127.0.0.1; `port` 0 takes a free one. Raises OSError if the port is taken."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, shown: Sequence[Shown], port: int):
        self.following = Following(shown)
        super().__init__((ADDRESS, port), Handler)

    def handle_error(self, *_: object) -> None:
        """A browser that goes away is no error of ours; any other shows its traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(*_)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"
