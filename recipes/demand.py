"""From a config to what its memory and time depend on: token counts, requests, the model's shape."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from recipes.apart import apart
from recipes.baseline import ROOM_TOKENS
from recipes.config import RunConfig
from recipes.devices import cpu_flags
from rewards.pool import num_workers
from rl.activations import Lengths
from rl.architecture import read_architecture
from rl.lora import target_widths
from rl.pace import Round
from rl.workload import Demand
from rollouts.model_config import sharing_fault
from rollouts.placement import Inline
from rollouts.process import cpu_compiler
from rollouts.prompts import Renderer
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.countdown import Countdown

PROMPT_TOKENS = 256
"""Assumed of the longest prompt, where the task's problems are not at hand."""
CHARACTERS_PER_TOKEN = 3
CHAT_TOKENS = 40
"""Of a chat template with its system message."""
FEW_PROBLEMS = 64


def most_requests(config: RunConfig) -> int:
    """Most requests that the engine is given at once."""
    return max(
        config.train.problems_per_round * config.train.group_size,
        config.test.num_problems * config.test.num_samples,
    )


def longest_sequence(config: RunConfig, longest_prompt: int) -> int:
    """Tokens of the longest sequence, prompt and completion together, of training and evaluation."""
    limits = [limit for _, limit in config.train.max_tokens]
    return longest_prompt + max(*limits, config.test.max_tokens, config.validation.max_tokens)


def engine_tokens(config: RunConfig, longest_prompt: int, context: int | None) -> int:
    """What the engine is built for: with `best_prompt` other ways to ask have more room."""
    room = longest_sequence(config, longest_prompt) + ROOM_TOKENS * config.best_prompt
    return min(context, room) if context else room


def assumed_lengths(config: RunConfig, prompt: int | None, mean: int | None) -> Lengths:
    """Token counts where nothing was tokenised: given, or guessed from the task and the limits.

    A prompt has a token in three characters; a completion takes half its limit on average.
    """
    longest = max(limit for _, limit in config.train.max_tokens)
    guessed = min(_prompt_tokens(config), config.prompts.max_prompt_tokens)
    return Lengths(
        prompt=prompt or guessed, longest=longest, mean=min(mean or max(1, longest // 2), longest)
    )


def demand_of(
    config: RunConfig,
    values: Mapping[str, Any],
    lengths: Lengths,
    *,
    engine_tokens: int,
    gpu_bytes: int | None,
    processes: int = 1,
) -> Demand:
    """What a run asks of each of its devices; `values` are the fields of the model's config.json.

    `processes` train, a device each; with engines in workers of their own it is an `Apart`.

    Raises:
        ValueError: The architecture is unknown, or has none of the layers that LoRA would adapt; or
            so many processes cannot share an engine of it.
    """
    train, policy = config.train, config.policy
    several = config.engine.tensor_parallel
    inline = isinstance(config.rollouts, Inline)
    if inline and processes % several:
        raise ValueError(
            f"engine.tensor_parallel {several} does not divide {processes}, the number of processes"
        )
    if several > 1 and (fault := sharing_fault(values, several)):
        raise ValueError(fault)
    engines = processes // several if inline else config.rollouts.num_workers
    shards = processes if policy.fsdp else 1
    compiler = bool(gpu_bytes) or bool(cpu_compiler(os.environ))
    demand = Demand(
        arch=read_architecture(values),
        adapted=_adapted(config, values),
        policy=policy,
        optimizer=config.optimizer,
        engine=config.engine,
        lengths=lengths,
        groups=_share(-(-train.problems_per_round // train.updates_per_round), processes),
        group_size=train.group_size,
        reference=config.loss.kl_coefficient > 0,
        engine_tokens=engine_tokens,
        requests=_share(most_requests(config), engines),
        compiled=policy.compile and shards == 1 and compiler,
        native=gpu_bytes is None
        and policy.dtype == "bfloat16"
        and "amx_bf16" in cpu_flags()
        and bool(cpu_compiler(os.environ)),
        scorers=num_workers(config.scoring) if config.scoring.workers != 0 else 0,
        gpu_bytes=gpu_bytes,
        shards=shards,
    )
    return demand if inline else apart(demand, config.rollouts, trainers=processes)


def round_of(config: RunConfig, processes: int = 1) -> Round:
    """What a round of this run computes, or one of several processes of it."""
    train, loss = config.train, config.loss
    old = loss.anchor == "trainer" and train.updates_per_round > 1
    return Round(
        groups=_share(train.problems_per_round, processes),
        updates=train.updates_per_round,
        frozen_passes=old + (loss.kl_coefficient > 0),
    )


def _share(count: int, processes: int) -> int:
    return -(-count // processes)


def _adapted(config: RunConfig, values: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    if not config.policy.lora.rank:
        return ()
    from transformers import AutoConfig

    return tuple(target_widths(AutoConfig.for_model(**values), config.policy.lora))


def _prompt_tokens(config: RunConfig) -> int:
    """Of the longest prompt, by its characters where the task makes its own problems."""
    task, prompts = config.task, config.prompts
    if isinstance(task, Countdown):
        task = replace(task, num_problems=min(task.num_problems, FEW_PROBLEMS))
    if not isinstance(task, Arithmetic | Countdown):
        return PROMPT_TOKENS
    plain = replace(prompts, template="plain" if prompts.template == "chat" else prompts.template)
    renderer = Renderer(tokenizer=None, config=plain)
    texts = (renderer.text(problem) for problem in task.problems("train"))
    extra = CHAT_TOKENS if prompts.template == "chat" else 0
    return max(map(len, texts), default=0) // CHARACTERS_PER_TOKEN + extra
