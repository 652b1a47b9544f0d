"""What a run reads before it starts: its problems by split, their renderer and their reward."""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from eval.evaluate import EvalConfig
from eval.voting import Same, same_answer
from recipes.config import RunConfig
from recipes.decontamination import Contamination, decontaminated
from recipes.fitting import check_memory
from recipes.preflight import check_lengths, check_splits
from recipes.scoring import reward_of
from rewards.problem import Problem
from rewards.scorer import Inline, Scorer
from rollouts.ledger import Ledger
from rollouts.prompts import Renderer, fitting
from rollouts.sampler import Split
from rollouts.tasks.mixture import Mixture, TaskConfig


@dataclass(frozen=True, kw_only=True)
class Data:
    """The problems of a run by split, with their renderer and reward."""

    problems: dict[Split, list[Problem]]
    renderer: Renderer
    score: Scorer
    """The reward, in this process or in others."""
    same: Same = same_answer
    """Whether two answers are one, in this process or in others."""
    max_tokens: int
    """The longest sequence that the engine must hold."""
    contamination: Contamination = field(default_factory=dict)
    """What was left out because a benchmark asks it; empty if none was named."""

    def selected(self, config: EvalConfig) -> list[Problem]:
        """The problems of an evaluation: drawn once from its split, the same in every run."""
        rows = list(self.problems[config.split])
        Random("evaluation").shuffle(rows)
        return rows[: config.num_problems]


def load_data(config: RunConfig, model: Path) -> Data:
    """Problems of all splits, without those whose prompt is too long (counted aloud).

    Raises ValueError if a split has none, or if the longest does not fit into the context or the
    run into the memory.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    renderer = Renderer(tokenizer=tokenizer, config=config.prompts)
    problems: dict[Split, list[Problem]] = {}
    for split in ("train", "validation", "test"):
        rows = config.task.problems(split)
        problems[split], dropped = fitting(rows, renderer.ids, config.prompts.max_prompt_tokens)
        if dropped:
            print(
                f"{split}: {dropped} of {len(rows)} problems left out, their prompt is longer than "
                f"prompts.max_prompt_tokens {config.prompts.max_prompt_tokens}"
            )
    record: Contamination = {}
    if config.drop_contaminated:
        problems["train"], record = decontaminated(problems["train"], config.drop_contaminated)
    check_splits(config, problems, config.task.name)
    longest = max(len(renderer.ids(p)) for rows in problems.values() for p in rows)
    max_tokens = check_lengths(config, model, longest)
    check_memory(config, model, longest_prompt=longest)
    return Data(
        problems=problems,
        renderer=renderer,
        score=Inline(reward_of(config)),
        max_tokens=max_tokens,
        contamination=record,
    )


def make_ledger(config: RunConfig, data: Data) -> Ledger:
    """Draws the training problems, each task by its weight and from its start."""
    tasks: dict[str, list[Problem]] = {}
    for problem in data.problems["train"]:
        tasks.setdefault(problem.source.partition("/")[0], []).append(problem)
    return Ledger(problems=tasks, seed=config.train.seed, **_mixing(config.task))


def _mixing(task: TaskConfig) -> dict[str, Any]:
    """The ledger's weights and starts, by task."""
    if not isinstance(task, Mixture):
        return {}
    names = [part.name for part in task.tasks]
    starts = task.starts or (0,) * len(names)
    return {
        "weights": dict(zip(names, task.weights, strict=True)),
        "starts": dict(zip(names, starts, strict=True)),
    }
