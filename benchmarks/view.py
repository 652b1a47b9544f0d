"""How large the page of a run is, how long it takes to make, and how long to open.

`python -m benchmarks.view [--rollouts N] [--mean-tokens N] [--repeats N] [--page-mb N]` makes a
synthetic run (100,000 rollouts of 64 tokens on average, with the trainer's logprobs), writes its
page, and opens it in headless Chromium. Opening counts from navigation until the curves, or the
first group's completions, stand; each time in a new context. The last line is JSON.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.view_browser import browser, browser_fault
from benchmarks.view_rounds import Synthetic, write_run
from recipes.page.report import shown_runs, static_page
from recipes.page.run_reader import open_run
from recipes.view import MEGABYTE, PAGE_MB

GROUPS, SIZE = 16, 16
STANDS = {"curves": ".panel svg path", "map": ".map canvas", "rollouts": ".completion .tok"}
"""What must be there for a page to be open."""


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=100_000)
    parser.add_argument("--mean-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--page-mb", type=float, default=PAGE_MB)
    parser.add_argument("--keep", type=Path, help="also write the page here")
    given = parser.parse_args()
    rounds = -(-given.rollouts // (GROUPS * SIZE))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        size = Synthetic(num_rounds=rounds, mean_tokens=given.mean_tokens)
        count = write_run(run, size)
        print(f"{count} rollouts in {rounds} rounds", flush=True)
        began = time.perf_counter()
        shown = shown_runs([open_run(run)])
        page = static_page(shown, int(given.page_mb * MEGABYTE)).encode()
        made = time.perf_counter() - began
        print(f"{len(page) / MEGABYTE:.1f} MB, made in {made:.1f} s", flush=True)
        file = given.keep or Path(folder) / "view.html"
        file.write_bytes(page)
        result: dict[str, Any] = {
            "rollouts": count,
            "mean_tokens": sum(r.num_tokens for r in shown[0].rounds.values()) / count,
            "page_bytes": len(page),
            "made_s": round(made, 2),
        }
        if fault := browser_fault():
            print(fault)
        else:
            result |= opened(file, given.repeats)
    print(json.dumps(result))


def opened(file: Path, repeats: int) -> dict[str, float]:
    """Median seconds until each page stands, and a search through all texts."""
    found = {}
    with browser() as running:
        for page, stands in STANDS.items():
            times = [_open_s(running, f"file://{file}#{page}", stands) for _ in range(repeats)]
            found[f"open_{page}_s"] = round(median(times), 3)
            print(f"{page}: {', '.join(f'{t:.2f}' for t in times)} s", flush=True)
        found["search_s"] = round(_search_s(running, file), 2)
    return found


def _open_s(running: Any, url: str, stands: str) -> float:
    context = running.new_context()
    page = context.new_page()
    began = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_selector(stands, state="attached", timeout=60_000)
    seconds = time.perf_counter() - began
    context.close()
    return seconds


def _search_s(running: Any, file: Path) -> float:
    """A word that is nowhere, so that every text is read."""
    context = running.new_context()
    page = context.new_page()
    page.goto(f"file://{file}#rollouts")
    page.wait_for_selector(".completion .tok")
    began = time.perf_counter()
    page.fill("#filter-text", "0 is nowhere")
    page.wait_for_selector(".count:text-matches('found$')", timeout=120_000)
    seconds = time.perf_counter() - began
    context.close()
    return seconds


if __name__ == "__main__":
    main()
