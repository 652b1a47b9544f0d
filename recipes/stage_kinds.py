"""The four kinds of stages: RL, supervised, rejection sampling, measuring. Their settings are filled in here.

What each leaves for the next is `FINAL`, a checkpoint, or `KEPT`, rows; an evaluation leaves `RESULTS`.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipes.config import RunConfig, to_yaml
from recipes.evaluation import EvaluateConfig
from recipes.rejection_config import RejectionConfig
from recipes.stages import Stage
from recipes.supervised import SftConfig
from rollouts.models import resolve_model
from rollouts.prompts import PromptConfig

FINAL, KEPT, RESULTS = "final", "kept.jsonl", "results.json"
LOGGED = ("reward/mean", "rollouts/mean_tokens", "rollouts/truncated_frac")


def rl_stage(name: str, config: RunConfig, model: Path | str, *, num_processes: int = 1) -> Stage:
    """RL from a model."""
    return Stage(
        name=name,
        recipe="r1_zero",
        config=to_yaml(replace(config, model=str(model))),
        inputs={"model": folder_of(model)},
        outputs=(FINAL,),
        numbers=run_numbers,
        num_processes=num_processes,
    )


def sft_stage(
    name: str,
    config: SftConfig,
    model: Path | str,
    data: Mapping[str, Path],
    *,
    num_processes: int = 1,
) -> Stage:
    """A model fine-tuned on rows, named by where they are from."""
    paths = tuple(str(path) for path in data.values())
    return Stage(
        name=name,
        recipe="sft",
        config=to_yaml(replace(config, model=str(model), data=paths)),
        inputs={"model": folder_of(model), **data},
        outputs=(FINAL,),
        numbers=lambda folder: _json(folder / "numbers.json"),
        num_processes=num_processes,
    )


def rejection_stage(name: str, config: RejectionConfig, model: Path | str) -> Stage:
    """Samples of a model, or of the endpoint that the settings name."""
    return Stage(
        name=name,
        recipe="rejection",
        config=to_yaml(replace(config, model=str(model))),
        inputs={"model": folder_of(model)} if model else {},
        outputs=(KEPT,),
        numbers=lambda folder: _json(folder / "counts.json"),
    )


def measure_stage(
    name: str,
    config: EvaluateConfig,
    model: Path | str,
    prompts: PromptConfig,
    **changed: Any,
) -> Stage:
    """A model on benchmarks, asked as `prompts` say."""
    asked = replace(
        config,
        models=(str(model),),
        template=prompts.template,
        prefill=prompts.prefill,
        system=prompts.system,
        chat_template_kwargs=prompts.chat_template_kwargs,
        **changed,
    )
    return Stage(
        name=f"measure_{name}",
        recipe="evaluate",
        config=to_yaml(asked),
        inputs={"model": folder_of(model)},
        outputs=(RESULTS,),
        numbers=evaluation_numbers,
    )


def run_numbers(folder: Path) -> dict[str, Any]:
    """Of a run of RL: its rounds, tokens and seconds, and its first and last round."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    ends = {"first": lines[0], "last": lines[-1]}
    return {
        "rounds": len(lines),
        "sampled_tokens": sum(line["rollouts/sampled_tokens"] for line in lines),
        "trained_tokens": sum(line["update/trained_tokens"] for line in lines),
        "round_s": sum(line["time/round_s"] for line in lines),
        **{f"{end}/{name}": line[name] for end, line in ends.items() for name in LOGGED},
    }


def evaluation_numbers(folder: Path) -> dict[str, Any]:
    """Of an evaluation: pass@1 with its interval, by row."""
    standings = _json(folder / RESULTS)["standings"]
    wanted = ("pass_at_1", "pass_at_1_interval")
    return {f"{s['benchmark']}, {s['label']}": {k: s[k] for k in wanted} for s in standings}


def folder_of(model: Path | str) -> Path:
    """Where a model's files are: a stage's folder, which may not be there yet, or what a name means."""
    path = Path(model)
    return path if path.name == FINAL else resolve_model(str(model))


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
