"""What each model of a pipeline scored, and how it thinks, read from the folders of its evaluations."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eval.problem_counts import ProblemCount
from recipes.pipeline import Pipeline
from recipes.stage_kinds import RESULTS
from rewards.language import chain_of_thought, share_by_script
from rewards.tags import has_think_answer_format, has_think_summary_format
from rollouts.completions import GRADES, Saved, Texts


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model on one benchmark. Fractions, and tokens on average.

    Attributes:
        name: "Dev2", "Dev2, seed 1".
        trial: The folder of its completions, under the evaluation's.
        format_frac: Of the form that the model's stage asks for.
        thinking_tokens: From `<think>` to `</think>`; by the problem's source too.
        language_frac: Words of the chain in the target language.
    """

    name: str
    stage: str
    benchmark: str
    label: str
    trial: str
    counts: tuple[ProblemCount, ...]
    pass_at_1: float
    pass_at_1_interval: tuple[float, float]
    pass_at_n: float
    maj_at_n: float | None
    num_samples: int
    format_frac: float
    thinking_tokens: float
    thinking_by_source: dict[str, float]
    pass_by_source: dict[str, float]
    language_frac: float
    tokens: float


def read_rows(pipeline: Pipeline) -> Iterator[Row]:
    """Every model that is measured, in the order of the pipeline's rows."""
    for stage, name in pipeline.models.items():
        folder = pipeline.stages.folder(f"measure_{stage}")
        if (folder / RESULTS).exists():
            yield from _rows_of(folder, stage, name)


def _rows_of(folder: Path, stage: str, name: str) -> Iterator[Row]:
    standings = json.loads((folder / RESULTS).read_text())["standings"]
    for benchmark in dict.fromkeys(each["benchmark"] for each in standings):
        best = max(
            (each for each in standings if each["benchmark"] == benchmark),
            key=lambda each: each["pass_at_1"],
        )
        yield _row(folder, stage, name, best)


def _row(folder: Path, stage: str, name: str, standing: dict[str, Any]) -> Row:
    trial = folder / "completions" / standing["trial"]
    saved = list(Texts(trial))
    verdicts = grades(trial)
    prefill = _prefill(folder)
    in_form = _form(standing["label"])
    chains = {each.key: chain_tokens(each, prefill) for each in saved}
    languages = [share_by_script(chain_of_thought(prefill + each.text), "en") for each in saved]
    n = standing["num_samples"]
    return Row(
        name=name,
        stage=stage,
        benchmark=standing["benchmark"],
        label=standing["label"],
        trial=standing["trial"],
        counts=tuple(ProblemCount(**count) for count in standing["counts"]),
        pass_at_1=standing["pass_at_1"],
        pass_at_1_interval=tuple(standing["pass_at_1_interval"]),
        pass_at_n=standing["pass_at"][str(n)],
        maj_at_n=standing["maj_at"].get(str(n)),
        num_samples=n,
        format_frac=_mean([in_form(prefill + each.text) for each in saved]),
        thinking_tokens=_mean(list(chains.values())),
        thinking_by_source=_by_source({key: float(count) for key, count in chains.items()}),
        pass_by_source=_by_source({key: v == "correct" for key, v in verdicts.items()}),
        language_frac=_mean(languages),
        tokens=_mean([each.num_tokens for each in saved]),
    )


def grades(trial: Path) -> dict[tuple[str, int], str]:
    """The verdict of each completion of a trial."""
    lines = (trial / GRADES).read_text().splitlines()
    return {(row["problem"], row["sample"]): row["verdict"] for row in map(json.loads, lines)}


def chain_tokens(saved: Saved, prefill: str) -> float:
    """Sampled tokens of the chain of thought, by its share of the characters; 0 without one."""
    before, closed, _ = saved.text.partition("</think>")
    opened = "<think>" in before or "<think>" in prefill
    if not opened or "</think>" in prefill:
        return 0.0
    return saved.num_tokens * (len(before) / max(len(saved.text), 1) if closed else 1.0)


def _by_source(values: dict[tuple[str, int], float]) -> dict[str, float]:
    """Means by the first two parts of the problems' ids."""
    found: dict[str, list[float]] = {}
    for (problem, _), value in sorted(values.items()):
        found.setdefault(kind_of(problem), []).append(float(value))
    return {source: _mean(each) for source, each in found.items()}


def kind_of(problem: str) -> str:
    """The first two parts of a problem's id: its task and kind."""
    return "/".join(problem.split("/")[:2])


def _form(label: str) -> Callable[[str], bool]:
    return has_think_answer_format if "r1_zero" in label else has_think_summary_format


def _prefill(folder: Path) -> str:
    return yaml.safe_load((folder / "config.yaml").read_text()).get("prefill", "")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
