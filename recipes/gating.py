"""The gate, applied to a run: samples from its engine on its own prompts, before round one."""

from typing import Any

from recipes.config import RunConfig
from rewards.problem import Problem, Response, Score, Verdict
from rl.gate import Facts, anchor_fault, compare_facts, compare_logprobs
from rl.packing import Batch, PackingConfig, pack
from rl.train import Trainer, sampling_at
from rollouts.collect import rollout_of
from rollouts.rollout import Group, Request, Rollout, Sampling

NUM_PROMPTS = 4
NUM_GREEDY = 4
MAX_SAMPLES = 256


def pass_gate(config: RunConfig, run: Trainer, data: Any) -> str:
    """The gap in one line if nothing is wrong; raises ValueError with every fault otherwise."""
    faults = compare_facts(engine_facts(config, run, data), trainer_facts(config, run, data))
    if faults:
        raise ValueError(f"refused to start. {'; '.join(faults)}")
    problems = data.problems["train"][:: max(1, len(data.problems["train"]) // 64)]
    sampling = sampling_at(config.train, 0)
    batch = drawn(run, data, problems, sampling)
    greedy = Sampling(temperature=0.0, max_tokens=min(16, sampling.max_tokens))
    report = compare_logprobs(
        run.policy,
        batch,
        drawn(run, data, problems[:NUM_GREEDY], greedy, least_tokens=1),
        config.train.temperature,
    )
    loss = config.loss
    unsound = anchor_fault(loss.anchor, loss.clip_low, loss.clip_high, report)
    faults = [*report.faults, *([unsound] if unsound else [])]
    if faults:
        raise ValueError(f"refused to start. {'; '.join(faults)}")
    return report.line(config.policy.dtype)


def engine_facts(config: RunConfig, run: Trainer, data: Any) -> Facts:
    """What the engine believes, asked of the engine."""
    engine = run.engine
    chat = config.prompts.template == "chat" and not config.prompts.prefill
    return Facts(
        dtype=engine.dtype,
        vocab_size=engine.vocab_size,
        eos_token_ids=engine.eos_token_ids,
        prompt_ids=tuple(
            tuple(engine.render(_messages(p, config), **config.prompts.chat_template_kwargs))
            if chat
            else data.renderer.ids(p)
            for p in data.problems["train"][:NUM_PROMPTS]
        ),
        template=engine.chat_template,
        temperature=sampling_at(config.train, 0).temperature,
    )


def trainer_facts(config: RunConfig, run: Trainer, data: Any) -> Facts:
    """What the trainer's own config, model and tokenizer say."""
    tokenizer, model = data.renderer.tokenizer, run.policy.model
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    return Facts(
        dtype=config.policy.dtype,
        vocab_size=run.policy.head.shape[0],
        eos_token_ids=frozenset(ends - {None}),
        prompt_ids=tuple(data.renderer.ids(p) for p in data.problems["train"][:NUM_PROMPTS]),
        template=tokenizer.chat_template or "",
        temperature=config.train.temperature,
    )


def drawn(
    run: Trainer, data: Any, problems: list[Problem], sampling: Sampling, least_tokens: int = 512
) -> Batch:
    """Sequences that the engine draws now, packed with its logprobs, at least so many tokens."""
    rollouts: list[Rollout] = []
    total = 0
    while total < least_tokens and len(rollouts) < MAX_SAMPLES:
        requests = [
            Request(
                id=f"gate/{len(rollouts)}/{i}",
                token_ids=data.renderer.ids(problem),
                sampling=sampling,
                seed=len(rollouts) + i,
            )
            for i, problem in enumerate(problems)
        ]
        by_id = {request.id: request for request in requests}
        for completion in run.engine.sample(requests):
            total += len(completion.token_ids)
            rollouts.append(_ungraded(by_id[completion.request_id], completion))
    group = Group(problem=problems[0], rollouts=tuple(rollouts))
    return pack([group], PackingConfig(), keep_no_signal=True)


def _ungraded(request: Request, completion: Any) -> Rollout:
    response = Response(text=completion.text, finish=completion.finish)
    score = Score(value=0.0, verdict=Verdict.WRONG)
    return rollout_of(request, completion, response, score)


def _messages(problem: Problem, config: RunConfig) -> list[dict[str, str]]:
    system = config.prompts.system
    head = [] if system is None else [{"role": "system", "content": system}]
    if isinstance(problem.prompt, str):
        return [*head, {"role": "user", "content": problem.prompt}]
    return [*head, *problem.prompt]
