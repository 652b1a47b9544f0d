"""What a person sees: a live line in a terminal, one line a round elsewhere, and the final table."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from eval.evaluate import EvalResult
from eval.report import before_after_table, eval_json
from rl.checkpoint import RunState
from rl.run_folder import RunFolder

ROWS = {"base": "base", "base-best-prompt": "base, best prompt", "trained": "trained"}


class Progress:
    """Reports phases and rounds of one run."""

    def __init__(self, num_rounds: int):
        self._num_rounds = num_rounds
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            transient=True,
            disable=not sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("start", total=num_rounds)
        self._phase = self._last = ""

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def phase(self, name: str) -> None:
        """Show the phase; outside a terminal only those before and after the rounds."""
        self._bar.update(self._task, description=f"{name:<10} {self._last}")
        if name != self._phase and not name.isalpha():
            self._print(f"{name} ...")
        self._phase = name

    def now(self) -> str:
        """The phase that was shown last."""
        return self._phase

    def round(self, metrics: dict[str, float]) -> None:
        """One line with the reward and the speed."""
        index = int(metrics["round"]) + 1
        sampled, trained = metrics["rollouts/sampled_tokens"], metrics["update/trained_tokens"]
        # What was sampled ahead was hardly waited for.
        sample_s = max(metrics.get("time/sample_s", 0.0), metrics.get("time/engine_s", 0.0))
        speed = f"{sampled / sample_s:5.0f} tok/s" if sample_s else "from file  "
        self._print(
            f"round {index:>4}/{self._num_rounds}  reward {metrics['reward/mean']:.3f}  "
            f"no signal {metrics['reward/no_signal_frac']:.2f}  "
            f"tokens {metrics['rollouts/mean_tokens']:5.1f}  {speed}  "
            f"trained {trained:6.0f}  {metrics['time/round_s']:5.1f} s"
        )
        self._last = f"reward {metrics['reward/mean']:.2f}  {speed.strip()}"
        self._bar.update(self._task, completed=index)

    def _print(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)


def show_result(folder: RunFolder, state: RunState) -> None:
    """Write eval.json, print the table, and say what to type next."""
    stored = {label: folder.read_eval(label) for label in ROWS}
    results = {
        ROWS[label]: EvalResult.from_json(values) for label, values in stored.items() if values
    }
    folder.write_summary(eval_json(results))
    console = Console()
    console.print(before_after_table(results))
    console.print(
        f"{state.updates} updates in {state.round} rounds. The model is in {folder.path}/final: load it "
        "with transformers or `vllm serve`. Every sample is in "
        f"{folder.path}/rollouts, every number in {folder.path}/metrics.jsonl.\n"
        "Next: python -m recipes.r1_zero r1_zero_tiny --help",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
