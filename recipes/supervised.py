"""A supervised stage: rows of prompts and completions to a fine-tuned checkpoint."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipes.config import to_yaml
from recipes.noise import quiet
from recipes.versions import versions
from rewards.problem import Problem
from rl.optimizer import OptimizerConfig
from rl.policy import PolicyConfig
from rl.ranks import find_ranks
from rl.run_folder import AtomicFolder, RunFolder, write_atomically
from rl.sft import Example, SupervisedConfig, fine_tune
from rl.watchdog import Watchdog
from rollouts.model_config import policy_fault, read_model_config
from rollouts.models import DEFAULT_MODEL, resolve_model
from rollouts.process import uses_gpu
from rollouts.prompts import PromptConfig, Renderer


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """A whole supervised stage, as the command line or a file gives it."""

    model: str = DEFAULT_MODEL
    """Where it starts: a folder, a .gguf file, a Hugging Face id, or the default."""
    data: tuple[str, ...] = ()
    """JSONL files of rows {"prompt": text or messages, "completion": text}; more columns are ignored."""
    prompts: PromptConfig = field(default_factory=PromptConfig)
    """The template of the RL before or after it."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """How it computes; its dtype is the precision."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=5e-5, schedule="cosine")
    )
    """AdamW on float32 masters; cosine to a tenth, as DeepSeek-R1."""
    training: SupervisedConfig = field(default_factory=SupervisedConfig)


def run(config: SftConfig, path: Path, *, resume: bool) -> None:
    """Train to the end and write `final/` and `numbers.json`; a finished folder is left as it is."""
    check(config)
    if (path / "numbers.json").exists():
        print(f"{path} is finished")
        return
    ranks = find_ranks()
    if ranks.count != config.training.num_processes:
        raise ValueError(
            f"training.num_processes is {config.training.num_processes}, but {ranks.count} run: "
            f"start it by torchrun --nproc-per-node {config.training.num_processes}"
        )
    model = resolve_model(config.model)
    lora, cuda = config.policy.lora.rank > 0, uses_gpu(os.environ)
    if fault := policy_fault(read_model_config(str(model)), lora=lora, cuda=cuda):
        raise ValueError(f"model {config.model!r}: {fault}")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    examples = list(read_examples(config, tokenizer))
    with Watchdog(ranks, path):
        folder = None
        if ranks.is_first:
            folder = (
                RunFolder(path) if resume else RunFolder.create(path, to_yaml(config), versions())
            )
        ranks.any(False)  # the folder is there for all
        with quiet():
            from rl.policy import Policy

            policy = Policy(
                model, config.policy, config.optimizer, seed=config.training.seed, ranks=ranks
            )

        def tell(line: dict[str, float]) -> None:
            if folder:
                folder.log(line)
                print(f"update {line['update']:5d}  loss {line['sft/loss']:.3f}", flush=True)

        numbers = fine_tune(
            policy, examples, tokenizer, config.training, path / "checkpoints", tell
        )
        _write_result(folder, policy, tokenizer, numbers)


def _write_result(folder: RunFolder | None, policy: Any, tokenizer: Any, numbers: Any) -> None:
    """The plain checkpoint, and last the numbers, by which a finished stage is known."""
    if folder is None:
        policy.save_pretrained(None)
        return
    with AtomicFolder(folder.path / "final") as final, quiet():
        policy.save_pretrained(final)
        tokenizer.save_pretrained(final)
    write_atomically(folder.path / "numbers.json", json.dumps(numbers, indent=1).encode())
    folder.close()
    print(
        f"trained on {numbers['examples']} examples, {numbers['trained_tokens']:.0f} tokens of "
        f"completions in {numbers['updates']} updates; the model is {folder.path / 'final'}"
    )


def check(config: SftConfig) -> None:
    """Raise ValueError for settings that cannot work, before anything is loaded."""
    if not config.data:
        raise ValueError("no data is named: --data rows.jsonl")


def read_examples(config: SftConfig, tokenizer: Any) -> Iterator[Example]:
    """Every row as ids under the config's template, the end token appended."""
    renderer = Renderer(tokenizer=tokenizer, config=config.prompts)
    for problem, completion in read_rows(config.data):
        rest = completion.removeprefix(config.prompts.prefill)
        ids = tokenizer(rest, add_special_tokens=False)["input_ids"]
        yield Example(
            prompt_ids=renderer.ids(problem), completion_ids=(*ids, tokenizer.eos_token_id)
        )


def read_rows(files: Sequence[str]) -> Iterator[tuple[Problem, str]]:
    """Each row's prompt, as a problem named by its place, and its completion.

    Raises:
        ValueError: A row without prompt or completion, with file and line.
    """
    for name in files:
        for place, row in _rows(name):
            prompt, completion = row.get("prompt"), row.get("completion")
            if not isinstance(completion, str) or not isinstance(prompt, str | list) or not prompt:
                raise ValueError(
                    f'{place}: a row is {{"prompt": text or messages, "completion": text}}; it has '
                    f"{', '.join(map(str, row)) or 'nothing'}"
                )
            asked = prompt if isinstance(prompt, str) else tuple(prompt)
            yield Problem(id=place, prompt=asked, answer="", source="sft"), completion


def _rows(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"the data file {name} does not exist")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            place = f"{name}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{place}: no JSON ({error})") from error
            if not isinstance(row, dict):
                raise ValueError(f"{place}: a row is a JSON object, this is a {type(row).__name__}")
            yield place, row
