"""Supervised fine-tuning beside TRL used bare: `python -m benchmarks.pipeline`; the last line is JSON.

The same worked solutions, model and number of examples an update. Ours is `rl.sft`; TRL is its
SFTTrainer as its documentation has it, padded and packed, in bfloat16 over float32 weights.
Tokens a second count prompts and completions; the first updates, which compile and warm up, are
left out. Each turn is a process of its own, ours and TRL's taking turns. `sft_over_trl` is the
median over turns of ours by the better of TRL's two. The pipeline's own table is `recipes.r1`'s.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from rollouts.process import prepare_process

TRAINERS = ("ours", "trl_padded", "trl_packed")
ROW_TOKENS = 2048
PER_UPDATE = 16
"""Examples an update, padded; a row of `ROW_TOKENS` holds about as many."""
SKIPPED = 3
"""Updates that are not counted."""


def examples(num_examples: int) -> tuple[Any, list[Any]]:
    """The tokenizer, and worked solutions as ids."""
    from transformers import AutoTokenizer

    from rl.sft import Example
    from rollouts.models import DEFAULT_MODEL, resolve_model
    from rollouts.prompts import PromptConfig, Renderer
    from rollouts.tasks.steps import Steps

    tokenizer = AutoTokenizer.from_pretrained(resolve_model(DEFAULT_MODEL))
    renderer, task = Renderer(tokenizer=tokenizer, config=PromptConfig()), Steps()
    problems = task.problems("train")
    Random(0).shuffle(problems)
    found = []
    for problem in problems[:num_examples]:
        ids = tokenizer(task.worked(problem), add_special_tokens=False)["input_ids"]
        found.append(
            Example(prompt_ids=renderer.ids(problem), completion_ids=(*ids, tokenizer.eos_token_id))
        )
    return tokenizer, found


def ours(num_examples: int, folder: Path, tick: Callable[[], None]) -> None:
    """One epoch by rl.sft."""
    from rl.optimizer import OptimizerConfig
    from rl.policy import Policy, PolicyConfig
    from rl.sft import SupervisedConfig, fine_tune
    from rollouts.models import DEFAULT_MODEL, resolve_model

    tokenizer, rows = examples(num_examples)
    optimizer = OptimizerConfig(learning_rate=1e-4, schedule="cosine")
    policy = Policy(resolve_model(DEFAULT_MODEL), PolicyConfig(), optimizer)
    config = SupervisedConfig(epochs=1, max_tokens=ROW_TOKENS, batch_size=1, save_every=0)
    fine_tune(policy, rows, tokenizer, config, folder, lambda line: tick())


def trl(num_examples: int, folder: Path, tick: Callable[[], None], *, packing: bool) -> None:
    """One epoch by TRL's SFTTrainer."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from rollouts.models import DEFAULT_MODEL, resolve_model

    tokenizer, rows = examples(num_examples)
    model = AutoModelForCausalLM.from_pretrained(resolve_model(DEFAULT_MODEL), dtype=torch.float32)
    masks = [[0] * len(e.prompt_ids) + [1] * len(e.completion_ids) for e in rows]
    data = Dataset.from_dict(
        {
            "input_ids": [[*e.prompt_ids, *e.completion_ids] for e in rows],
            "completion_mask": masks,
        }
    )

    class Tick(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            tick()

    shape = {"packing": True, "max_length": ROW_TOKENS, "per_device_train_batch_size": 1}
    if not packing:
        shape = {"packing": False, "per_device_train_batch_size": PER_UPDATE}
    config = SFTConfig(
        output_dir=str(folder),
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        num_train_epochs=1,
        learning_rate=1e-4,
        lr_scheduler_type="cosine",
        completion_only_loss=True,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **shape,
    )
    trainer = SFTTrainer(
        model=model, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[Tick()]
    )
    trainer.train()


def turn(name: str, num_examples: int) -> dict[str, float]:
    """Tokens a second of one trainer after its first updates, and its peak memory."""
    import resource

    ticks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        given = (num_examples, Path(folder), lambda: ticks.append(time.perf_counter()))
        if name == "ours":
            ours(*given)
        else:
            trl(*given, packing=name == "trl_packed")
    tokens = sum(map(len, examples(num_examples)[1])) / len(ticks)  # of a mean update
    counted = len(ticks) - SKIPPED
    seconds = ticks[-1] - ticks[SKIPPED - 1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"tokens_per_s": tokens * counted / seconds, "updates": len(ticks), "peak_bytes": peak}


def main() -> None:
    """Turns of all trainers, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--examples", type=int, default=192)
    parser.add_argument("--only", choices=TRAINERS, help="one turn of one trainer, in this process")
    arguments = parser.parse_args()
    prepare_process()
    if arguments.only:
        print("\n" + json.dumps(turn(arguments.only, arguments.examples)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in TRAINERS}
    for number in range(arguments.turns):
        for name in TRAINERS if number % 2 == 0 else reversed(TRAINERS):
            found[name].append(in_process(name, arguments.examples))
            print(name, json.dumps(found[name][-1]), flush=True)
    speeds = {name: [each["tokens_per_s"] for each in turns] for name, turns in found.items()}
    peers = [max(pair) for pair in zip(speeds["trl_padded"], speeds["trl_packed"], strict=True)]
    ratios = [mine / peer for mine, peer in zip(speeds["ours"], peers, strict=True)]
    told = {
        "sft_over_trl": statistics.median(ratios),
        "sft_over_trl_turns": [round(ratio, 3) for ratio in ratios],
        **{f"{name}_tokens_per_s": statistics.median(each) for name, each in speeds.items()},
        **{f"{n}_peak_bytes": max(each["peak_bytes"] for each in t) for n, t in found.items()},
    }
    print(json.dumps(told))


def in_process(name: str, num_examples: int) -> dict[str, float]:
    """A turn in a process of its own: TRL resets accelerate's state."""
    command = [sys.executable, "-m", "benchmarks.pipeline", "--only", name]
    done = subprocess.run(
        [*command, "--examples", str(num_examples)],
        env={**os.environ, "TRANSFORMERS_VERBOSITY": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
