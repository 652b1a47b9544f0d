"""The training step beside its peers, one after another on the same work.

`python -m benchmarks.step --against trl [--case short|long|both] [--folder FOLDER]`; the last line
is JSON. Each part runs in a process of its own and writes its result into the folder, so that a run
cut short goes on where it stopped. benchmarks/step_cases.py has what is measured of each case.

- **short**: 8 prompts x 8 completions of at most 64 tokens, ended by the model.
- **long**: 4 prompts of 256 tokens x 16 completions, lengths log-normal up to 1,024, the same for
  every subject: each request carries its own limit and no end token ends it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.step_cases import long_case, short_case
from benchmarks.step_part import OUT, Part
from benchmarks.step_table import table
from benchmarks.step_work import StepResult, read_result

CASES = {"short": short_case, "long": long_case}


@dataclass(kw_only=True)
class Bench:
    """A folder of work and results, and the seconds that each part took."""

    folder: Path
    spent: dict[str, float] = field(default_factory=dict)

    def run(self, part: Part) -> StepResult:
        """A part's result, from its file if it is there."""
        path = self.folder / f"{part.name}.json"
        self.once(part, path)
        return read_result(path)

    def once(self, part: Part, path: Path) -> Path:
        """Run a part that writes one file, unless that is there."""
        if not path.exists():
            partial = path.with_name(f"running-{path.name}")
            self._timed(part, [str(partial) if one == OUT else str(one) for one in part.arguments])
            partial.replace(path)
        return path

    def made(self, part: Part, last: Path) -> None:
        """Run a part that writes several files, unless the last is there."""
        if not last.exists():
            self._timed(part, [str(one) for one in part.arguments])

    def _timed(self, part: Part, arguments: Sequence[str]) -> None:
        began = time.perf_counter()
        self._call(part.module, arguments)
        self.spent[part.name] = time.perf_counter() - began
        print(
            f"{part.name:24} {self.spent[part.name]:4.0f} s, about {part.expected_s:3.0f} expected; "
            f"{sum(self.spent.values()) / 60:4.1f} min so far",
            flush=True,
        )

    def _call(self, module: str, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
        with (self.folder / "log.txt").open("ab") as log:
            done = subprocess.run(command, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise SystemExit(f"{module} failed, see {self.folder / 'log.txt'}")


def run_all(bench: Bench, cases: Sequence[str]) -> dict[str, Any]:
    """Every subject of every case; the report grows in the folder as they end."""
    found: dict[str, Any] = {}
    tables = []
    for case in cases:
        values = found.setdefault(case, {})

        def keep(values: dict[str, Any] = values, **more: Any) -> None:
            values.update(more)
            (bench.folder / "report.json").write_text(json.dumps(found, indent=1))
            print(json.dumps(more), flush=True)

        tables.append(table(case, CASES[case](bench, keep)))
    print("\n" + "\n\n".join(tables))
    print("memory: highest, without the KV pool; (*) made up from timed micro-batches\n")
    return found | {"seconds": {name: round(s, 1) for name, s in bench.spent.items()}}
