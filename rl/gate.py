"""Nothing starts wrong: engine, trainer and a plain float32 forward of the same bytes must agree.

Each fault is one clause that says which of them is wrong; the recipe refuses to start if there
is any. Leaves out, on purpose, where prompts and samples come from (`recipes/gating.py`).

Shapes: T tokens of a batch, N of them sampled, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rl.packing import Batch
from rl.policy import Policy
from rl.sharing import layers_fault

MIN_TOKENS = 512
FLOOR = 1e-4
CEILING = 0.2
"""Rounding to bfloat16 does not move logprobs by this much on average; a mistake does."""
SURE_MARGIN = 2.0
"""Float32 is sure of its most likely token when it leads by this much in logits."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one side believes about the model and the prompts.

    Example: `Facts(dtype="bfloat16", vocab_size=49152, eos_token_ids=frozenset({2}),
    prompt_ids=((1, 9690, ...),), template="{% for ...")`. The temperature is no fact to be told:
    the logprobs show which one it is.
    """

    dtype: str
    vocab_size: int
    eos_token_ids: frozenset[int]
    prompt_ids: tuple[tuple[int, ...], ...]
    template: str


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What the engine drew for the gate, its logprobs in `behaviour_logprobs`.

    Attributes:
        sampled: At the run's temperature, on real prompts.
        greedy: At temperature 0.
        long: As `sampled`, beyond the sliding window; None where no sequence gets there.
    """

    sampled: Batch
    greedy: Batch
    long: Batch | None = None


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Mean and largest |difference| of token logprobs, over so many tokens."""

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
            same = [a == b for a, b in zip(ours, theirs, strict=False)]
            faults.append(
                f"prompt ids: engine and trainer encode the same problem differently, first at place "
                f"{[*same, False].index(False)} ({len(theirs)} against {len(ours)} ids)"
            )
            break
    return faults


def compare_logprobs(
    policy: Policy, drawn: Drawn, temperature: float, *, least_tokens: int = MIN_TOKENS
) -> GateReport:
    """Engine and trainer against one float32 copy of the model, which is gone on return.

    A policy whose layers cannot share a row is unpacked first, with their name.
    """
    exact = policy.float32_copy()
    for batch in filter(None, (drawn.sampled, drawn.long)):
        reason = layers_fault(*policy.few_layers(exact), batch) if policy.packed else None
        if reason:
            policy.unpack(reason)
    report = compare_batch(policy, exact, drawn.sampled, temperature)
    faults = list(report.faults)
    if report.engine.num_tokens < least_tokens:
        faults.append(
            f"tokens: only {report.engine.num_tokens} sampled to compare, {least_tokens} are needed"
        )
    if drawn.long is not None:
        floor = max(FLOOR, 3 * report.trainer.mean)  # few tokens may be exact by chance
        beyond = compare_batch(policy, exact, drawn.long, temperature, floor)
        faults += [f"beyond the sliding window, {fault}" for fault in beyond.faults]
    return replace(report, faults=(*faults, *greedy_faults(exact, drawn.greedy)))


def compare_batch(
    policy: Policy, exact: nn.Module, batch: Batch, temperature: float, floor: float = FLOOR
) -> GateReport:
    """The gaps on one batch, and whether engine or trainer is too far from float32."""
    engine_logprobs = batch.behaviour_logprobs[batch.sampled]
    exact_logprobs = float32_logprobs(exact, batch, [temperature])[0]
    trainer_logprobs = policy.frozen_logprobs(batch, temperature)[batch.sampled]
    engine, trainer = gap(engine_logprobs, exact_logprobs), gap(trainer_logprobs, exact_logprobs)
    faults = []
    limit = max(floor, 3 * trainer.mean)
    if not engine.mean <= limit:
        faults.append(_blame(exact, batch, temperature, engine, limit))
    # A trainer that is itself wrong would excuse any engine.
    limit = FLOOR if policy.dtype == torch.float32 else CEILING
    if not trainer.mean <= limit:
        faults.append(
            f"logprobs: the trainer is off float32 by {trainer.mean:.2g} on average, more than "
            f"{limit:.2g}; it computes this model wrongly"
        )
    return GateReport(
        engine=engine,
        trainer=trainer,
        engine_to_trainer=gap(engine_logprobs, trainer_logprobs),
        faults=tuple(faults),
    )


def greedy_faults(exact: nn.Module, greedy: Batch) -> list[str]:
    """Where the engine, drawing greedily, took a token that float32 surely would not."""
    wrong = 0
    for logits, ids in float32_logits(exact, greedy):
        behind = logits.max(-1).values - logits.gather(1, ids[:, None])[:, 0]
        wrong += int((behind > SURE_MARGIN).sum())
    fault = (
        f"most likely token: drawing greedily, the engine chose another than float32 at {wrong} of "
        f"{int(greedy.sampled.sum())} places, where float32 is sure"
    )
    return [fault] if wrong else []


@torch.no_grad()
def float32_logits(exact: nn.Module, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """For one sequence after another: logits [n, V] at its n sampled tokens, and their ids [n].

    The model's whole forward, so that all it does to logits (scaling, caps) is in them.
    """
    parts = [array.split(batch.lengths) for array in (batch.token_ids, batch.sampled)]
    for ids, sampled in zip(*parts, strict=True):
        ids, places = ids.to(exact.device), sampled.nonzero()[:, 0].to(exact.device)
        out = exact(ids[None], use_cache=False, logits_to_keep=places - 1)
        yield out.logits[0].float(), ids[places]


def float32_logprobs(exact: nn.Module, batch: Batch, temperatures: Sequence[float]) -> Tensor:
    """Logprobs of the sampled tokens at each temperature, [len(temperatures), N] on the CPU."""
    rows: list[list[Tensor]] = [[] for _ in temperatures]
    for logits, ids in float32_logits(exact, batch):
        for row, temperature in zip(rows, temperatures, strict=True):
            logprobs = (logits / temperature).log_softmax(-1)
            row.append(logprobs.gather(1, ids[:, None])[:, 0].cpu())
    return torch.stack([torch.cat(row) for row in rows])


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


def _blame(exact: nn.Module, batch: Batch, temperature: float, engine: Gap, limit: float) -> str:
    """What explains the engine's logprobs: another temperature (in tenths, to 2), or other weights."""
    others = [tenths / 10 for tenths in range(1, 21) if tenths / 10 != temperature]
    drawn = batch.behaviour_logprobs[batch.sampled]
    rows = zip(float32_logprobs(exact, batch, others), others, strict=True)
    distance, nearest = min((gap(drawn, row).mean, other) for row, other in rows)
    if distance <= limit * max(1.0, temperature / nearest):  # colder logits, larger errors
        return (
            f"temperature: the engine's logprobs are those of {nearest}, the trainer computes at "
            f"{temperature}"
        )
    return (
        f"logprobs: the engine is off float32 by {engine.mean:.2g} on average, more than "
        f"{limit:.2g}; it computes with other weights or wrongly"
    )
