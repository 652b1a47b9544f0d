"""Headless Chromium for the page's benchmark and tests, through Playwright.

Playwright's own browsers are not downloaded: the system's is used, `chromium` of most Linux
distributions, or what $CHROMIUM names.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
"""Nothing is looked up in the network, and it starts as root too."""
NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """The system's browser."""
    found = (shutil.which(name) for name in NAMES)
    return os.environ.get("CHROMIUM") or next((path for path in found if path), None)


def browser_fault() -> str | None:
    """Why no browser can be driven here, and the remedy; None if one can."""
    if find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    if chromium() is None:
        return "there is no chromium: install the system's package, or set CHROMIUM to one"
    return None


@contextmanager
def browser() -> Iterator[Any]:
    """A running browser, Playwright's `Browser`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # An allocator preloaded for the engine (rollouts/process.py) would crash Chromium.
        environ = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        running = driver.chromium.launch(executable_path=chromium(), args=list(FLAGS), env=environ)
        try:
            yield running
        finally:
            running.close()
