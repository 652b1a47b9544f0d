"""Nothing starts wrong: engine, trainer and a plain float32 forward of the same bytes must agree.

Each finding is one line that says which of them is wrong; `check` gives all of them, and the
recipe refuses to start if there is any.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from rl.packing import Batch
from rl.policy import Policy

MIN_TOKENS = 512
FLOOR = 1e-4
SURE_MARGIN = 2.0
"""Float32 is sure of its most likely token when it leads by this much in logits."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one side believes about the model and the prompts.

    Example: `Facts(dtype="bfloat16", vocab_size=49152, eos_token_ids=frozenset({2}),
    prompt_ids=((1, 9690, ...),), temperature=1.0)`.
    """

    dtype: str
    vocab_size: int
    eos_token_ids: frozenset[int]
    prompt_ids: tuple[tuple[int, ...], ...]
    template: str
    temperature: float


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Mean and largest |difference| of token logprobs to float32, over so many tokens."""

    mean: float
    largest: float
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """What the gate measured, and what is wrong: no faults means go."""

    engine: Gap
    trainer: Gap
    engine_to_trainer: Gap
    faults: tuple[str, ...]

    def line(self, dtype: str) -> str:
        """The gap in one line, for the dtype in use."""
        return (
            f"gate: |logprob - float32| over {self.engine.num_tokens} tokens in {dtype}: "
            f"engine {self.engine.mean:.2g}, trainer {self.trainer.mean:.2g}; "
            f"engine to trainer {self.engine_to_trainer.mean:.2g} (max {self.engine_to_trainer.largest:.2g})"
        )


def compare_facts(engine: Facts, trainer: Facts) -> list[str]:
    """Faults in what both sides believe, before any logprob is compared."""
    faults = []
    if engine.dtype != trainer.dtype:
        faults.append(
            f"dtype: the engine computes in {engine.dtype}, the trainer in {trainer.dtype}; "
            "set engine.dtype and policy.dtype alike"
        )
    if engine.vocab_size != trainer.vocab_size:
        faults.append(
            f"vocabulary: the engine draws from {engine.vocab_size} ids, the trainer knows "
            f"{trainer.vocab_size}; they were loaded from different checkpoints"
        )
    if engine.eos_token_ids != trainer.eos_token_ids:
        faults.append(
            f"end of sequence: the engine stops at {sorted(engine.eos_token_ids)}, the trainer "
            f"expects {sorted(trainer.eos_token_ids)}; mend generation_config.json"
        )
    if engine.template != trainer.template:
        faults.append("template: engine and trainer have different chat templates for this model")
    for ours, theirs in zip(trainer.prompt_ids, engine.prompt_ids, strict=True):
        if ours != theirs:
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), -1)
            faults.append(
                f"prompt ids: engine and trainer render the same problem differently, first at "
                f"place {at} ({len(theirs)} against {len(ours)} ids)"
            )
            break
    if engine.temperature != trainer.temperature:
        faults.append(
            f"temperature: the engine samples at {engine.temperature}, the trainer computes "
            f"at {trainer.temperature}"
        )
    return faults


def compare_logprobs(
    policy: Policy,
    batch: Batch,
    greedy: Batch,
    temperature: float,
    *,
    least_tokens: int = MIN_TOKENS,
) -> GateReport:
    """Engine and trainer against float32, on sampled sequences with the engine's logprobs.

    `batch` holds what the engine drew at `temperature`, its logprobs in `behaviour_logprobs`;
    `greedy` what it draws at temperature 0. A trainer that packs sequences wrongly (layers that
    mix neighbours) is unpacked first, by name.
    """
    exact, _ = float32_logprobs(policy, batch, temperature)
    mask = batch.sampled
    engine = gap(batch.behaviour_logprobs[mask], exact[mask])
    trainer_logprobs = packed_or_single(policy, batch, temperature, exact)
    trainer = gap(trainer_logprobs[mask], exact[mask])
    between = gap(batch.behaviour_logprobs[mask], trainer_logprobs[mask])
    faults = []
    if engine.num_tokens < least_tokens:
        faults.append(
            f"only {engine.num_tokens} sampled tokens to compare; {least_tokens} are needed"
        )
    limit = max(3 * trainer.mean, FLOOR)
    if not engine.mean <= limit:
        faults.append(_blame(policy, batch, temperature, engine, limit))
    _, refused = float32_logprobs(policy, greedy, 1.0)
    if wrong := int((refused & greedy.sampled).sum()):
        faults.append(
            f"most likely token: drawing greedily, the engine chose another token than float32 "
            f"at {wrong} of {int(greedy.sampled.sum())} places where float32 is sure"
        )
    return GateReport(
        engine=engine, trainer=trainer, engine_to_trainer=between, faults=tuple(faults)
    )


def packed_or_single(policy: Policy, batch: Batch, temperature: float, exact: Tensor) -> Tensor:
    """The trainer's logprobs; if packing makes them much worse, one sequence at a time from now on."""
    logprobs = policy.frozen_logprobs(batch, temperature)
    if not policy.packed:
        return logprobs
    mask = batch.sampled
    with policy.unpacked():
        single = policy.frozen_logprobs(batch, temperature)
    packed_gap, single_gap = gap(logprobs[mask], exact[mask]), gap(single[mask], exact[mask])
    if packed_gap.mean <= max(2 * single_gap.mean, FLOOR):
        return logprobs
    policy.unpack(f"packing moves logprobs by {packed_gap.mean:.2g} on average")
    return policy.frozen_logprobs(batch, temperature)


@torch.no_grad()
def float32_logprobs(policy: Policy, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    """Logprobs [T] by a float32 copy of the same bytes, one sequence at a time, full logits.

    Also [T] bool: where another token leads the given one by a sure margin.
    """
    model = copy.deepcopy(policy.model).float().eval()
    model.set_attn_implementation("sdpa")
    logprobs, refused = [], []
    for ids in batch.token_ids.split(batch.lengths):
        logits = model(ids[None].to(policy.device), use_cache=False).logits[0, :-1]
        logits = logits.float() / temperature
        drawn = logits.log_softmax(-1).gather(1, ids[1:, None].to(policy.device))[:, 0]
        behind = logits.max(-1).values - logits.gather(1, ids[1:, None].to(policy.device))[:, 0]
        logprobs.append(torch.cat([torch.zeros(1), drawn.cpu()]))
        refused.append(torch.cat([torch.zeros(1), behind.cpu()]) > SURE_MARGIN)
    return torch.cat(logprobs), torch.cat(refused)


def gap(left: Tensor, right: Tensor) -> Gap:
    """Mean and largest absolute difference."""
    if not len(left):
        return Gap(mean=float("inf"), largest=float("inf"), num_tokens=0)
    difference = (left.double() - right.double()).abs()
    return Gap(mean=difference.mean().item(), largest=difference.max().item(), num_tokens=len(left))


def anchor_fault(anchor: str, clip_low: float, clip_high: float, report: GateReport) -> str | None:
    """The sampler's ratio may not be clipped within ten times the gap that is no policy change."""
    measured = report.engine_to_trainer.mean
    if anchor != "sampler" or min(clip_low, clip_high) > 10 * measured:
        return None
    return (
        f"anchor: with anchor sampler a clip bound of {min(clip_low, clip_high)} lies within ten "
        f"times the measured gap {measured:.2g} between engine and trainer; use --loss.anchor "
        "trainer, wider bounds, or float32"
    )


def _blame(policy: Policy, batch: Batch, temperature: float, engine: Gap, limit: float) -> str:
    """Say what explains the engine's logprobs better: another temperature, or other weights."""
    for other in (1.0, 0.6, 0.7, 0.8, 1.2):
        if other != temperature:
            exact, _ = float32_logprobs(policy, batch, other)
            mask = batch.sampled
            if gap(batch.behaviour_logprobs[mask], exact[mask]).mean <= limit:
                return f"temperature: the engine's logprobs are those of {other}, not {temperature}"
    return (
        f"logprobs: the engine is off float32 by {engine.mean:.2g} on average, more than "
        f"{limit:.2g}; it computes with other weights or wrongly"
    )
