"""The gate, applied to a run: samples from its engine on its own prompts, before round one."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, cycle, islice
from typing import Any

from recipes.config import RunConfig
from rewards.problem import Problem, Response, Score, Verdict
from rl.gate import (
    MIN_TOKENS,
    Drawn,
    Facts,
    anchor_fault,
    compare_batch,
    compare_facts,
    compare_logprobs,
)
from rl.lora import random_adapter
from rl.packing import Batch, PackingConfig, pack
from rl.rounds import sampling_at
from rl.trainer import Publisher, Trainer
from rollouts.collect import rollout_of
from rollouts.prompts import messages_of
from rollouts.rollout import Completion, Group, Request, Rollout, Sampling

NUM_PROMPTS = 4
"""Prompts whose ids are compared, and that are continued greedily."""
NUM_PROBLEMS = 64
"""Problems that are sampled from at once, spread over the training split."""
MAX_SAMPLES = 1024
NUM_LONG = 2
GREEDY_TOKENS = 16
SAMPLED_TOKENS = 64
"""Most of one completion; it takes as many completions as `MIN_TOKENS` needs."""


def pass_gate(config: RunConfig, run: Trainer, data: Any) -> str:
    """The gap in one line if nothing is wrong; raises ValueError with every fault otherwise."""
    _refuse(compare_facts(engine_facts(config, run, data), trainer_facts(run, data)))
    batches = drawn(config, run, data)
    with asleep(run.engine):
        report = compare_logprobs(run.policy, batches, config.train.temperature)
    loss = config.loss
    unsound = None
    if loss.objective == "clip":  # the others clip no ratio of single tokens
        unsound = anchor_fault(loss.anchor, loss.clip_low, loss.clip_high, report)
    _refuse([*report.faults, *([unsound] if unsound else [])])
    return report.line(config.policy.dtype)


def pass_adapter_gate(config: RunConfig, run: Trainer, data: Any) -> str:
    """As `pass_gate`, under a random adapter: a new one adds nothing that a fault could show in.

    The engine is left with that adapter, as a version that the run does not have.
    """
    with random_adapter(run.policy.model):
        run.engine.publish(run.policy.published(), run.engine.version + 1)
        batch = drawn(config, run, data).sampled
        with asleep(run.engine):
            exact = run.policy.float32_copy()
            report = compare_batch(run.policy, exact, batch, config.train.temperature)
            del exact
    _refuse([f"under a random adapter, {fault}" for fault in report.faults])
    return report.line(config.policy.dtype).replace("gate: ", "gate, random adapter: ", 1)


@contextmanager
def asleep(engine: Publisher) -> Iterator[None]:
    """The GPU's memory is the trainer's inside: a float32 copy takes much. Nothing on a CPU."""
    engine.sleep()
    try:
        yield
    finally:
        engine.wake("weights", "kv_cache")


def engine_facts(config: RunConfig, run: Trainer, data: Any) -> Facts:
    """What the engine believes, asked of the engine and its own tokenizer."""
    engine, prompts = run.engine, config.prompts

    def ids(problem: Problem) -> list[int]:
        if prompts.template == "chat" and not prompts.prefill:
            return engine.render(
                messages_of(problem, config.prompts.system), **prompts.chat_template_kwargs
            )
        special = prompts.template != "chat"
        return engine.tokenizer.encode(data.renderer.text(problem), add_special_tokens=special)

    return Facts(
        dtype=engine.dtype,
        vocab_size=engine.vocab_size,
        eos_token_ids=engine.eos_token_ids,
        prompt_ids=tuple(tuple(ids(p)) for p in data.problems["train"][:NUM_PROMPTS]),
        template=engine.tokenizer.chat_template or "",
    )


def trainer_facts(run: Trainer, data: Any) -> Facts:
    """What the trainer's own model and tokenizer say."""
    tokenizer, model = data.renderer.tokenizer, run.policy.model
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    return Facts(
        dtype=str(run.policy.dtype).removeprefix("torch."),
        vocab_size=run.policy.head.shape[0],
        eos_token_ids=frozenset(ends - {None}),
        prompt_ids=tuple(data.renderer.ids(p) for p in data.problems["train"][:NUM_PROMPTS]),
        template=tokenizer.chat_template or "",
    )


def drawn(config: RunConfig, run: Trainer, data: Any) -> Drawn:
    """What the gate compares, drawn from the engine now; the same each time."""
    problems = data.problems["train"]
    problems = problems[:: -(-len(problems) // NUM_PROBLEMS)]
    prompts = [data.renderer.ids(problem) for problem in problems]
    limit = sampling_at(config.train, 0).max_tokens
    sampling = Sampling(temperature=config.train.temperature, max_tokens=min(SAMPLED_TOKENS, limit))
    greedy = Sampling(temperature=0.0, max_tokens=min(GREEDY_TOKENS, limit))
    sampled: list[Rollout] = []
    while sum(map(_num_sampled, sampled)) < MIN_TOKENS and len(sampled) < MAX_SAMPLES:
        sampled += _continued(run, prompts, sampling, first_seed=len(sampled))
    return Drawn(
        sampled=_packed(problems[0], sampled),
        greedy=_packed(problems[0], _continued(run, prompts[:NUM_PROMPTS], greedy)),
        long=_long(run, problems[0], prompts, sampling),
    )


def sliding_window(config: Any) -> int | None:
    """The model's sliding window in tokens; None where every layer sees everything before it."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return getattr(text, "sliding_window", None) or None


def _long(
    run: Trainer, problem: Problem, prompts: list[tuple[int, ...]], sampling: Sampling
) -> Batch | None:
    """Continuations of many prompts in a row, long enough that the window hides their beginning.

    None without a window, and where the engine's limit (the run's longest sequence) lies within
    it: then no sequence of this run gets there either.
    """
    window = sliding_window(run.policy.model.config)
    if window is None or run.engine.max_tokens < window + 2:
        return None
    longest = min(run.engine.max_tokens, 2 * window)
    # From place `window + 1` on, a token is drawn by one that does not see the first.
    num_sampled = min(sampling.max_tokens, longest - window - 1)
    heads = []
    for first in range(NUM_LONG):
        ids = chain.from_iterable(cycle(prompts[first:] + prompts[:first]))
        heads.append(tuple(islice(ids, longest - num_sampled)))
    sampling = Sampling(temperature=sampling.temperature, max_tokens=num_sampled)
    return _packed(problem, _continued(run, heads, sampling))


def _continued(
    run: Trainer, prompts: list[tuple[int, ...]], sampling: Sampling, first_seed: int = 0
) -> list[Rollout]:
    """One completion of each prompt by the engine, in the order of the prompts."""
    requests = [
        Request(id=f"gate/{seed}", token_ids=ids, sampling=sampling, seed=seed)
        for seed, ids in enumerate(prompts, first_seed)
    ]
    completions = {c.request_id: c for c in run.engine.sample(requests)}
    return [_ungraded(request, completions[request.id]) for request in requests]


def _packed(problem: Problem, rollouts: list[Rollout]) -> Batch:
    group = Group(problem=problem, rollouts=tuple(rollouts))
    return pack([group], PackingConfig(), keep_no_signal=True)


def _ungraded(request: Request, completion: Completion) -> Rollout:
    response = Response(text=completion.text, finish=completion.finish)
    score = Score(value=0.0, verdict=Verdict.WRONG)
    return rollout_of(request, completion, response, score)


def _num_sampled(rollout: Rollout) -> int:
    return sum(rollout.sampled)


def _refuse(faults: list[str]) -> None:
    if faults:
        raise ValueError(f"refused to start: {'; '.join(faults)}")
