"""What the minimal loop's update could not do without: its matrix products and its attention.

Both are timed alone, at the padded shapes of the update's own micro-batches, in turn with
whole updates, so that the ratio does not depend on how busy the machine is.

Shapes: L width, N sampled tokens of a micro-batch.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.minimal_ops import HEAD_CHUNK, attention, compiler_on
from benchmarks.minimal_update import Learner, Row, width_of
from benchmarks.step_work import FixedRollouts, read_result

PAIRS = 3


def add_floor(learner: Learner, rollouts: FixedRollouts, out: Path) -> None:
    """Put the ratio into the result's `extra`, and the profile into a text file beside it."""
    kernel = torch.compile(attention, dynamic=True) if learner.compiled else attention
    parts = learner.parts(rollouts)
    attention_seconds(learner, parts, kernel)  # compiles
    products, attended, updates = [], [], []
    for _ in range(PAIRS):
        products.append(product_seconds(learner, parts))
        attended.append(attention_seconds(learner, parts, kernel))
        updates.append(_seconds(lambda: learner.update(rollouts)))
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        learner.update(rollouts)
    pairs = zip(products, attended, updates, strict=True)
    extra = {
        "products_s": statistics.median(products),
        "attention_s": statistics.median(attended),
        "update_s_beside_them": statistics.median(updates),
        "update_over_floor": statistics.median(u / (p + a) for p, a, u in pairs),
    }
    result = read_result(out)
    replace(result, extra=result.extra | extra).write(out)
    table = seen.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=60
    )
    lines = [f"{name} {value:.3f}" for name, value in extra.items()]
    text = "\n".join([*lines, table])
    out.with_suffix(".profile.txt").write_text(text)
    print("\n".join(text.splitlines()[: len(lines) + 14]))


def product_seconds(learner: Learner, parts: Sequence[Sequence[Row]]) -> float:
    """Every linear layer, and the head on the sampled tokens: forward and both backward products."""
    layers = [
        module.weight
        for module in learner.model.get_decoder().modules()
        if isinstance(module, torch.nn.Linear)
    ]
    total = 0.0
    for part in parts:
        padded = len(part) * width_of(part)
        shapes = [(padded, weight) for weight in layers]
        sampled = sum(len(row.completion) for row in part)
        num_chunks = -(-sampled // HEAD_CHUNK)
        shapes += [(-(-sampled // num_chunks), learner.head)] * num_chunks
        total += sum(_three_products(tokens, weight) for tokens, weight in shapes)
    return total


@torch.no_grad()
def _three_products(tokens: int, weight: Tensor) -> float:
    x = torch.randn(tokens, weight.shape[1], dtype=weight.dtype)
    grad = torch.randn(tokens, weight.shape[0], dtype=weight.dtype)
    return _seconds(lambda: (x @ weight.t(), grad @ weight, grad.t() @ x))


def attention_seconds(learner: Learner, parts: Sequence[Sequence[Row]], kernel: Any) -> float:
    """Attention of every layer, forward and backward."""
    config = learner.model.config
    heads, keys = config.num_attention_heads, config.num_key_value_heads
    total = 0.0
    for part in parts:
        query, key, value = (
            torch.randn(
                len(part), num, width_of(part), config.head_dim, dtype=learner.head.dtype
            ).requires_grad_()
            for num in (heads, keys, keys)
        )

        def once(query: Tensor = query, key: Tensor = key, value: Tensor = value) -> None:
            out, _ = kernel(None, query, key, value, None, scaling=config.head_dim**-0.5)
            torch.autograd.grad(out, (query, key, value), out.detach())

        with compiler_on():
            total += sum(_seconds(once) for _ in range(config.num_hidden_layers))
    return total


def _seconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
