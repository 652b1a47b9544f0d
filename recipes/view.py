"""See what a run did: curves, a pass-rate map, and what the model wrote, in one file or served.

`python -m recipes.view RUN [OTHER ...] [--out FILE] [--page-mb N] [--serve] [--port N]`. The file
works offline and holds everything it shows; with --serve the page follows a run that is training,
on this machine only. Neither a model nor torch is loaded.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from recipes.cli import guarded
from recipes.page.report import Shown, check_not_empty, shown_runs, static_page
from recipes.page.run_reader import open_run
from recipes.page.serving import PageServer
from rl.run_folder import write_atomically

PAGE_MB = 48
PORT = 8642
MEGABYTE = 1_000_000


def main(argv: Sequence[str]) -> None:
    """Read runs, then write the page or serve it. Raises ValueError for a person's mistake."""
    parser = argparse.ArgumentParser(prog="python -m recipes.view", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--out", type=Path, help="the file to write; RUN/view.html if left out")
    parser.add_argument(
        "--page-mb", type=float, default=PAGE_MB, help=f"size of the page at most; {PAGE_MB}"
    )
    parser.add_argument("--serve", action="store_true", help="serve the page and follow the runs")
    parser.add_argument("--port", type=int, default=PORT, help=f"{PORT}; 0 takes a free one")
    given = parser.parse_args(argv)
    paths = list(dict.fromkeys(given.runs))
    shown = shown_runs([open_run(path) for path in paths])
    if given.serve:
        serve(shown, given.port)
    else:
        write(shown, paths, given.out or paths[0] / "view.html", given.page_mb)


def write(shown: Sequence[Shown], paths: Sequence[Path], out: Path, page_mb: float) -> None:
    """Write the page, whole or not at all, and say what it holds."""
    if page_mb < 1:
        raise ValueError(
            f"--page-mb is {page_mb:g}: a page of curves alone takes 1; give 2 or more"
        )
    if out.is_dir() or not out.parent.is_dir():
        reason = "is a folder" if out.is_dir() else "lies in no folder that exists"
        raise ValueError(f"--out {out} {reason}: name a file to write")
    began = time.perf_counter()
    page = static_page(shown, int(page_mb * MEGABYTE)).encode()
    check_not_empty(shown, paths)
    try:
        write_atomically(out, page)
    except OSError as error:
        raise ValueError(
            f"{out} cannot be written ({error.strerror}): name another --out"
        ) from error
    for one in shown:
        tell_left_out(one)
    count = sum(summary.num_rollouts for one in shown for summary in one.rounds.values())
    seconds = time.perf_counter() - began
    print(f"{out}: {len(page) / MEGABYTE:.1f} MB, {count} rollouts read, {seconds:.1f} s")


def tell_left_out(one: Shown) -> None:
    """One line for each thing of a run that could not be read."""
    for index, reason in one.broken.items():
        print(f"{one.name}: round {index} is left out ({reason})", file=sys.stderr)
    metrics = one.run.metrics()
    if metrics.num_unreadable:
        count = metrics.num_unreadable
        print(f"{one.name}: metrics.jsonl: {count} broken line(s) left out", file=sys.stderr)
    if metrics.ends_half:
        reason = "half-written: the run is writing it, or was killed"
        print(f"{one.name}: metrics.jsonl: its last line is left out ({reason})", file=sys.stderr)


def serve(shown: Sequence[Shown], port: int) -> None:
    """Serve until Ctrl-C."""
    try:
        server = PageServer(shown, port)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"--port {port} cannot be had ({error}): --port 0 takes a free one"
        ) from error
    print(f"{server.url}  (Ctrl-C ends it)", flush=True)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped serving")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
