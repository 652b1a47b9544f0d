"""The update of the minimal loop: padded micro-batches, a fused head and loss, AdamW.

What a good engineer writes on plain transformers in an afternoon: no sharing of prompts, no
packed rows, one process. `benchmarks.minimal_loop` runs and times it.

Shapes: N sampled tokens of a micro-batch, H hidden, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.minimal_ops import (
    ATTENTION,
    HeadLoss,
    Kernels,
    clipped_loss,
    compiler_on,
    softmax_times,
    target_logprobs,
)
from benchmarks.step_work import FixedRollouts

MAX_GRAD_NORM = 1.0
ADVANTAGE_EPSILON = 1e-4
"""Added to the standard deviation, as TRL has it."""
WIDTH_MULTIPLE = 16
"""Few widths occur: oneDNN and the compiler work for every new one."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sequence with what the loss needs of it; logprobs are the sampler's."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    logprobs: tuple[float, ...]
    advantage: float

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


def rows_of(rollouts: FixedRollouts) -> list[Row]:
    """The rows of groups with signal, longest first: A = (r - mean) / (std + epsilon)."""
    rows = []
    for group in rollouts.with_signal:
        rewards = torch.tensor(rollouts.rewards[group], dtype=torch.float64)
        advantages = (rewards - rewards.mean()) / (rewards.std() + ADVANTAGE_EPSILON)
        drawn = zip(rollouts.completions[group], rollouts.logprobs[group], strict=True)
        for (ids, logprobs), advantage in zip(drawn, advantages.tolist(), strict=True):
            rows.append(
                Row(
                    prompt=rollouts.prompts[group],
                    completion=ids,
                    logprobs=logprobs,
                    advantage=advantage,
                )
            )
    return sorted(rows, key=len, reverse=True)


def width_of(rows: Sequence[Row]) -> int:
    """Columns of a micro-batch whose longest row comes first."""
    return -(-len(rows[0]) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE


def micro_batches(rows: Sequence[Row], max_tokens: int) -> list[list[Row]]:
    """Cut sorted rows into as few padded batches of at most `max_tokens` as there can be.

    The limit is then lowered as long as their number stays, so that none is left small.
    """
    parts = _cut(rows, max_tokens)
    while len(parts) > 1 and max_tokens > width_of(rows):  # or every row stands alone for ever
        max_tokens = int(max_tokens * 0.97)
        lower = _cut(rows, max_tokens)
        if len(lower) > len(parts):
            break
        parts = lower
    return parts


def _cut(rows: Sequence[Row], max_tokens: int) -> list[list[Row]]:
    parts: list[list[Row]] = []
    for row in rows:
        if not parts or (len(parts[-1]) + 1) * width_of(parts[-1]) > max_tokens:
            parts.append([])
        parts[-1].append(row)
    return parts


class Learner:
    """The model that is trained, its masters and its optimizer."""

    def __init__(
        self,
        folder: Path,
        *,
        dtype: torch.dtype,
        states: Literal["float32", "bf16"],
        learning_rate: float,
        temperature: float = 1.0,
        micro_batch_tokens: int = 2560,
        compiled: bool = True,
    ):
        """Load a checkpoint folder.

        Args:
            dtype: Of the forward and backward pass.
            states: float32: masters, gradients and moments; bf16: the weights themselves are
                trained in bf16, and so are gradients and moments.
            compiled: Fuse what is not a matrix product, with a C++ compiler.
        """
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model.set_attn_implementation(ATTENTION)
        self.model = model.train()
        self.temperature, self.micro_batch_tokens = temperature, micro_batch_tokens
        self.compiled = compiled
        self.params = dict(model.named_parameters())
        self.masters = self.params
        if states == "float32":
            self.masters = {name: p.detach().clone() for name, p in self.params.items()}
            for name, param in self.params.items():
                param.register_post_accumulate_grad_hook(_moves_gradient_to(self.masters[name]))
        for param in self.params.values():
            param.data = param.data.to(torch.bfloat16 if states == "bf16" else dtype)
        self.optimizer = torch.optim.AdamW(
            self.masters.values(), lr=learning_rate, weight_decay=0.0, fused=True
        )
        self.kernels = Kernels()
        if compiled:
            self.kernels = Kernels(
                logprobs=torch.compile(target_logprobs, dynamic=True),
                softmax=torch.compile(softmax_times, dynamic=True),
            )
            for layer in [*model.get_decoder().layers, model.get_decoder().norm]:
                layer.compile(dynamic=True)

    @property
    def head(self) -> Tensor:
        """The output embedding, [V, H]."""
        return self.model.get_output_embeddings().weight

    def parts(self, rollouts: FixedRollouts) -> list[list[Row]]:
        """The micro-batches of an update."""
        return micro_batches(rows_of(rollouts), self.micro_batch_tokens)

    def update(self, rollouts: FixedRollouts) -> None:
        """One optimizer step on one batch."""
        self.accumulate(rollouts)
        gradients = [m.grad for m in self.masters.values() if m.grad is not None]
        if not gradients:  # no group had signal
            return
        norm = torch.nn.utils.get_total_norm(gradients).float()
        # The fused step divides by it: clipping without a pass over the gradients.
        self.optimizer.grad_scale = (norm / MAX_GRAD_NORM).clamp(min=1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.masters is not self.params:
            for name, param in self.params.items():
                param.data.copy_(self.masters[name])

    def accumulate(self, rollouts: FixedRollouts) -> None:
        """Sum the gradient of one batch; its denominator is every sampled token of the batch."""
        with compiler_on():
            for part in self.parts(rollouts):
                self._loss(part, 1.0 / rollouts.num_tokens).backward()

    def weights(self) -> dict[str, Tensor]:
        """What the engine is given: names of a checkpoint, and the tied head."""
        return {n: p.detach() for n, p in self.params.items()} | {"lm_head.weight": self.head.data}

    def hidden(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Hidden states that speak of the sampled tokens, [N, H], and these tokens, [N]."""
        width = width_of(rows)
        ids = torch.zeros(len(rows), width, dtype=torch.int64)
        places = []
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row.prompt + row.completion)
            places.append(torch.arange(len(row.prompt), len(row)) + index * width)
        sampled = torch.cat(places)
        out = self.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        return out.flatten(0, 1).index_select(0, sampled - 1), ids.flatten()[sampled]

    def _loss(self, rows: Sequence[Row], weight: float) -> Tensor:
        hidden, targets = self.hidden(rows)
        drawn = torch.tensor([value for row in rows for value in row.logprobs])
        advantages = torch.tensor([row.advantage for row in rows for _ in row.completion])

        def loss(logprobs: Tensor, part: slice) -> Tensor:
            return weight * clipped_loss(logprobs, drawn[part], advantages[part]).sum()

        return HeadLoss.apply(hidden, self.head, targets, self.temperature, loss, self.kernels)


def _moves_gradient_to(master: Tensor) -> Callable[[Tensor], None]:
    def move(param: Tensor) -> None:
        if master.grad is None:
            master.grad = param.grad.to(master.dtype)
        else:
            master.grad.add_(param.grad)
        param.grad = None

    return move


def float32_scorer(folder: Path) -> Callable[..., list[list[list[float]]]]:
    """Logprobs of completions [P][G] behind prompts [P], by a float32 forward of a checkpoint."""
    learner = Learner(
        folder, dtype=torch.float32, states="float32", learning_rate=0.0, compiled=False
    )

    @torch.no_grad()
    def one(prompt: tuple[int, ...], completion: tuple[int, ...]) -> list[float]:
        row = Row(prompt=prompt, completion=completion, logprobs=(), advantage=0.0)
        hidden, targets = learner.hidden([row])
        logprobs = torch.log_softmax(hidden @ learner.head.t(), dim=-1)
        return logprobs.gather(1, targets[:, None]).squeeze(1).tolist()

    def score(prompts: Any, completions: Any) -> list[list[list[float]]]:
        pairs = zip(prompts, completions, strict=True)
        return [[one(prompt, completion) for completion in group] for prompt, group in pairs]

    return score
