"""TRL's GRPOTrainer on the same work: `python -m benchmarks.trl_step WORK.json OUT.json`.

`--setting best` is what makes it fastest on a CPU: vLLM in the same process, weights and
optimizer in bf16, no gradient checkpointing, no second forward pass; `--micro-batch` is the
caller's to choose. `--setting default` keeps TRL's defaults, its own `generate` among them.
With `--rollouts FILE` the update alone, on one fixed batch; with `--gradients FILE.safetensors`
its gradient in float32.

TRL's code is left as it is but for one method of the colocated engine, which fails on vLLM's
CPU build: the weight update, replaced by what vLLM offers for it (`reload_weights`).
"""

import argparse
import contextlib
import functools
import itertools
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.memory import MemoryWatch
from benchmarks.step_work import (
    FixedRollouts,
    StepResult,
    StepWork,
    good_enough,
    read_rollouts,
    read_work,
)
from benchmarks.trl_timeline import EnoughError, Job, Timeline, measure
from rollouts.process import prepare_process


def config(job: Job, folder: str) -> Any:
    """A GRPOConfig: the work's own sizes, and what the setting asks for."""
    from trl import GRPOConfig

    work, given = job.work, job.given
    micro_batch = given.micro_batch or 8
    if job.batch % micro_batch:
        raise SystemExit(f"--micro-batch {micro_batch} does not divide {job.batch} completions")
    same: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": job.batch // micro_batch,
        "num_generations": job.group,
        "max_completion_length": work.max_tokens,
        "temperature": work.temperature,
        "learning_rate": work.learning_rate,
        "lr_scheduler_type": "constant",
        "max_steps": job.num_steps,
        "shuffle_dataset": False,
        "seed": work.seed,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "torch_compile": given.compile,
        "use_cpu": True,  # or its defaults refuse a machine without a GPU
    }
    if given.gradients:
        same |= {"bf16": False, "gradient_checkpointing": False, "max_grad_norm": 0.0}
    elif given.setting == "best":
        same |= {
            "bf16": False,  # the weights are, so autocast has nothing to do
            "model_init_kwargs": {"dtype": work.dtype},
            "gradient_checkpointing": False,
            "use_vllm": not job.batches,
            "vllm_max_model_length": work.longest,
            "vllm_importance_sampling_correction": False,
        }
        if given.states == "float32":
            same |= {"bf16": True, "model_init_kwargs": {"dtype": "float32"}}
    return GRPOConfig(**same)


def prepare_engine(work: StepWork, *, compiled: bool) -> None:
    """Settings that TRL has no name for: eager, pool and dtype as the other subjects have them."""
    import torch._dynamo
    import trl.generation.vllm_generation as generation

    torch._dynamo.config.disable = not compiled  # vLLM's small kernels: not worth compiling
    engine = functools.partial(
        generation.LLM,
        enforce_eager=True,
        dtype=work.dtype,
        kv_cache_memory_bytes=work.kv_gib * 2**30,
        disable_log_stats=True,
    )
    generation.LLM = lambda *given, **settings: with_lengths(engine(*given, **settings), work)


def with_lengths(llm: Any, work: StepWork) -> Any:
    """The engine, whose n-th call gives each completion the length of the work's n-th step."""
    if work.lengths is None:
        return llm
    generate, steps = llm.generate, itertools.count()

    def generate_lengths(prompts: Any, sampling_params: Any, **options: Any) -> Any:
        each = [sampling_params.clone() for _ in prompts]
        for params, length in zip(each, work.flat_lengths(next(steps)), strict=True):
            params.max_tokens, params.ignore_eos = length, True
        return generate(prompts, sampling_params=each, **options)

    llm.generate = generate_lengths
    return llm


def rows_of(job: Job) -> list[dict[str, str]]:
    """The data set: prompts as text, one row a problem, in the order in which they are due."""
    if job.batches:
        prompts = [str(i) for i in range(len(job.rollouts.prompts))]  # only told apart
        return [{"prompt": text} for _ in range(job.num_steps) for text in prompts]
    return [{"prompt": text} for step in job.work.texts for text in step]


def replayed(batch_of: Callable[[int], FixedRollouts]) -> Callable[..., dict[str, Any]]:
    """A `rollout_func` of TRL's: the stored completions of a step instead of generated ones."""

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        rollouts = batch_of(trainer.state.global_step)
        assert len(prompts) == len(rollouts.prompts) * rollouts.group
        return {
            "prompt_ids": [list(ids) for ids in rollouts.prompts for _ in range(rollouts.group)],
            "completion_ids": [list(ids) for group in rollouts.completions for ids in group],
            "logprobs": [list(row) for group in rollouts.logprobs for row in group],
        }

    return rollout


def build(job: Job, folder: str) -> Any:
    """The trainer, with its engine where the setting has one."""
    from datasets import Dataset
    from trl import GRPOTrainer

    def reward(completions: list[str], trainer_state: Any, **_: Any) -> list[float]:
        return job.rewards(trainer_state.global_step, completions)

    trainer = GRPOTrainer(
        model=job.work.model,
        reward_funcs=reward,
        args=config(job, folder),
        train_dataset=Dataset.from_list(rows_of(job)),
        rollout_func=replayed(lambda step: job.batches[job.batch_of(step)])
        if job.batches
        else None,
    )
    if not job.batches:
        check_prompts(job.work, trainer._tokenizer)
    return trainer


def check_prompts(work: StepWork, tokenizer: Any) -> None:
    """TRL tokenizes texts: it must come to the ids that the others are given."""
    for texts, prompts in zip(work.texts, work.prompts, strict=True):
        found = tokenizer(text=list(texts))["input_ids"]
        if [tuple(ids) for ids in found] != list(prompts):
            raise ValueError("TRL's ids of the prompts differ from the work's")


def follow(trainer: Any, timeline: Timeline) -> None:
    """Let the trainer's own events start and end steps, and write the gradient if asked for."""
    from transformers import TrainerCallback

    job = timeline.job

    class Follower(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            timeline.start()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if job.given.gradients:
                write_gradients(trainer, job.given.gradients)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            timeline.end()
            spent = sum(row.step_s for row in timeline.rows) >= job.given.at_most_s
            if spent or len(timeline.rows) == job.num_steps or good_enough(job.work, timeline.rows):
                control.should_training_stop = True
            else:
                timeline.start()

    trainer.add_callback(Follower())


def write_gradients(trainer: Any, path: Path) -> None:
    """Gradients by parameter name; nothing has clipped them."""
    from safetensors.torch import save_file

    named = trainer.accelerator.unwrap_model(trainer.model).named_parameters()
    save_file({name: p.grad.float().clone() for name, p in named if p.grad is not None}, path)


def main() -> None:
    """Run one work file, or updates of one batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--setting", choices=("best", "default"), default="best")
    parser.add_argument(
        "--states",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="of best: its weights, gradients and moments; float32 computes under autocast",
    )
    parser.add_argument("--micro-batch", type=int, help="sequences at once; TRL's default is 8")
    parser.add_argument("--compile", action="store_true", help="TRL's torch_compile")
    parser.add_argument("--steps", type=int, help="of the work, the first to warm up; all of them")
    parser.add_argument("--rollouts", type=Path, nargs="+", help="updates alone, on these batches")
    parser.add_argument("--updates", type=int, default=3, help="timed of each, with --rollouts")
    parser.add_argument("--micro-batches", type=int, help="time so many of the first step's only")
    parser.add_argument("--at-most-s", type=float, default=math.inf, help="stop after these steps")
    parser.add_argument("--gradients", type=Path, help="write the batch's gradient and stop")
    given = parser.parse_args()
    prepare_process()
    os.environ["HF_HUB_OFFLINE"] = "1"
    from recipes.versions import versions

    with MemoryWatch() as watch:
        job = Job(
            work=read_work(given.work),
            given=given,
            batches=[read_rollouts(path) for path in given.rollouts or ()],
        )
        with_engine = given.setting == "best" and not job.batches
        result = StepResult(
            subject=f"trl_{given.setting}",
            kv_pool_bytes=job.work.kv_gib * 2**30 if with_engine else 0,
            settings={name: str(value) for name, value in vars(given).items()},
            versions=versions(),
        )
        if with_engine:
            prepare_engine(job.work, compiled=given.compile)
        with tempfile.TemporaryDirectory() as folder:
            trainer = build(job, folder)
            timeline = Timeline(job=job, out=given.out, result=result, watch=watch)
            measure(trainer, timeline)
            follow(trainer, timeline)
            with contextlib.suppress(EnoughError):
                trainer.train()


if __name__ == "__main__":
    main()
