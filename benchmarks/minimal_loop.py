"""A GRPO loop on bare vLLM and transformers: the best that a good engineer writes in a day.

`python -m benchmarks.minimal_loop WORK.json OUT.json`; with `--rollouts FILE` the update alone,
on one fixed batch, and with `--gradients FILE.safetensors` its gradient in float32. Beside OUT
stand the update's profile and its share of matrix products (OUT with .profile.txt).

It shares no prompts, packs no rows and checks nothing: benchmarks/minimal_update.py has the
update. `--eager` leaves the compiler out.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.memory import MemoryWatch
from benchmarks.step_work import (
    FixedRollouts,
    StepResult,
    StepRow,
    StepWork,
    good_enough,
    read_rollouts,
    read_work,
    rewards_of,
)
from rollouts.process import prepare_process

Ids = tuple[int, ...]


class Sampler:
    """vLLM in this process, eager, with a KV pool of a given size."""

    def __init__(self, work: StepWork):
        import torch._dynamo

        torch._dynamo.config.disable = True  # vLLM's small kernels: not worth compiling
        from vllm import LLM

        self.work = work
        self.llm = LLM(
            work.model,
            dtype=work.dtype,
            enforce_eager=True,
            max_model_len=work.longest,
            max_num_seqs=work.problems * work.group,
            max_num_batched_tokens=max(4096, work.longest),
            block_size=32,  # so that a group shares most of its prompt
            kv_cache_memory_bytes=work.kv_gib * 2**30,
            logprobs_mode="processed_logprobs",
            seed=work.seed,
            disable_log_stats=True,
        )

    def sample(self, step: int) -> tuple[list[tuple[Ids, ...]], list[Any]]:
        """Completions [P][G] of a step's prompts and the logprobs of their tokens, all at once."""
        return sample_bare(self.llm, self.work, step)

    def publish(self, weights: dict[str, Any]) -> None:
        """Give the engine new weights; what it computed of prompts is dropped."""
        iterator = iter(weights.items())
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iterator})
        self.llm.reset_prefix_cache()


def sample_bare(llm: Any, work: StepWork, step: int) -> tuple[list[tuple[Ids, ...]], list[Any]]:
    """Bare vLLM without seeds: completions [P][G] of a step's prompts and their tokens' logprobs."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt
    from vllm.sampling_params import RequestOutputKind

    lengths = work.flat_lengths(step)
    params = [
        SamplingParams(
            temperature=work.temperature,
            max_tokens=length or work.max_tokens,
            ignore_eos=length is not None,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        for length in lengths or [None] * (work.problems * work.group)
    ]
    inputs = [
        TokensPrompt(prompt_token_ids=list(ids))
        for ids in work.prompts[step]
        for _ in range(work.group)
    ]
    drawn = [request.outputs[0] for request in llm.generate(inputs, params, use_tqdm=False)]
    groups = [drawn[i : i + work.group] for i in range(0, len(drawn), work.group)]
    ids = [tuple(tuple(one.token_ids) for one in group) for group in groups]
    return ids, [tuple(tuple(one.logprobs.logprobs) for one in group) for group in groups]


class Loop:
    """Sampler, learner and clock."""

    def __init__(self, work: StepWork, learner: Any):
        self.work, self.sampler, self.learner = work, Sampler(work), learner
        self.tokenizer = self.sampler.llm.get_tokenizer()

    def step(self, index: int) -> StepRow:
        """Publish, sample, score, update."""
        began = time.perf_counter()
        self.sampler.publish(self.learner.weights())
        published = time.perf_counter()
        prompts = self.work.prompts[index]
        completions, logprobs = self.sampler.sample(index)
        texts = [
            self.tokenizer.batch_decode(group, skip_special_tokens=True) for group in completions
        ]
        sampled = time.perf_counter()
        rewards = rewards_of(self.work, index, texts)
        scored = time.perf_counter()
        self.rollouts = FixedRollouts(
            prompts=prompts,
            completions=tuple(completions),
            logprobs=tuple(logprobs),
            rewards=tuple(tuple(group) for group in rewards),
        )
        self.learner.update(self.rollouts)
        ended = time.perf_counter()
        return replace(
            described(self.learner, self.rollouts),
            step_s=ended - began,
            publish_s=published - began,
            sample_s=sampled - published,
            score_s=scored - sampled,
            update_s=ended - scored,
            sampled_tokens=self.rollouts.num_tokens,
        )


def described(learner: Any, rollouts: FixedRollouts) -> StepRow:
    """The sizes of an update, without its times."""
    from benchmarks.minimal_update import width_of

    parts = learner.parts(rollouts)
    rewards = [value for group in rollouts.rewards for value in group]
    return StepRow(
        step_s=0.0,
        trained_tokens=sum(len(row.completion) for part in parts for row in part),
        sequence_tokens=sum(len(row) for part in parts for row in part),
        padded_tokens=sum(len(part) * width_of(part) for part in parts),
        reward_mean=sum(rewards) / len(rewards),
        signal_frac=len(rollouts.with_signal) / len(rollouts.rewards),
    )


def run_work(work: StepWork, learner: Any, out: Path, result: StepResult, watch: MemoryWatch):
    """Every step of the work; gives the last step's rollouts."""
    loop = Loop(work, learner)
    result = replace(result, kv_pool_bytes=work.kv_gib * 2**30)
    rows: list[StepRow] = []
    for index in range(len(work.prompts)):
        rows.append(replace(loop.step(index), warm_up=work.warms_up(index)))
        replace(result, steps=tuple(rows), peak_memory_bytes=watch.peak).write(out)
        if good_enough(work, rows):
            break
    return loop.rollouts


def run_updates(
    batches: list[FixedRollouts], learner: Any, given: Any, result: StepResult, watch: MemoryWatch
) -> None:
    """Timed updates on each batch, after some for warming up."""
    rows: list[StepRow] = []
    for batch, rollouts in enumerate(batches):
        warm_ups = 1 if batch else given.warm_ups
        for index in range(warm_ups + given.updates):
            began = time.perf_counter()
            learner.update(rollouts)
            spent = time.perf_counter() - began
            row = replace(described(learner, rollouts), warm_up=index < warm_ups, batch=batch)
            rows.append(replace(row, step_s=spent, update_s=spent))
            replace(result, steps=tuple(rows), peak_memory_bytes=watch.peak).write(given.out)


def main() -> None:
    """Run one work file, or updates of one batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--states", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--micro-batch-tokens", type=int, default=2560, help="padding included")
    parser.add_argument("--eager", action="store_true", help="leave the compiler out")
    parser.add_argument("--rollouts", type=Path, nargs="+", help="updates alone, on these batches")
    parser.add_argument(
        "--warm-ups", type=int, default=3, help="updates of the first that do not count"
    )
    parser.add_argument("--updates", type=int, default=3, help="timed of each, with --rollouts")
    parser.add_argument("--gradients", type=Path, help="write the batch's gradient and stop")
    parser.add_argument("--no-floor", action="store_true", help="no profile, no matrix products")
    given = parser.parse_args()
    prepare_process()
    with MemoryWatch() as watch:
        run(given, watch)


def run(given: argparse.Namespace, watch: MemoryWatch) -> None:
    """What the command line asks for."""
    import torch

    from benchmarks.minimal_update import Learner
    from recipes.versions import versions

    work = read_work(given.work)
    learner = Learner(
        Path(work.model),
        dtype=torch.float32 if given.gradients else getattr(torch, work.dtype),
        states="float32" if given.gradients else given.states,
        learning_rate=work.learning_rate,
        temperature=work.temperature,
        micro_batch_tokens=given.micro_batch_tokens,
        compiled=not given.eager,
    )
    batches = [read_rollouts(path) for path in given.rollouts or ()]
    if given.gradients:
        return write_gradients(learner, batches[0], given.gradients)
    settings = {name: str(value) for name, value in vars(given).items()}
    result = StepResult(subject="minimal_loop", settings=settings, versions=versions())
    if batches:
        run_updates(batches, learner, given, result, watch)
    else:
        batches = [run_work(work, learner, given.out, result, watch)]
    if not given.no_floor:
        from benchmarks.minimal_floor import add_floor

        add_floor(learner, batches[0], given.out)


def write_gradients(learner: Any, rollouts: FixedRollouts, path: Path) -> None:
    """The gradient of one update before clipping, float32, by parameter name."""
    from safetensors.torch import save_file

    learner.accumulate(rollouts)
    save_file({name: master.grad for name, master in learner.masters.items()}, path)


if __name__ == "__main__":
    main()
