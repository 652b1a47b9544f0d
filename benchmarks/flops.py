"""Floating-point operations of one update, counted from the model's shape; nothing is computed.

Model FLOPs, as in "model FLOPs utilisation": what the mathematics needs, forward and backward,
whatever an implementation computes twice (PaLM, appendix B, counts likewise). A product of m x k
with k x n is 2mkn; backward costs twice the forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What a decoder with gated MLPs and grouped queries multiplies.

    Example: hidden 4, 2 layers, 2 heads of size 2, 1 key head, MLP 8, vocabulary 10:
    2 x (4x4 + 2 x 4x2 + 4x4 + 3 x 4x8) = 288 body weights and 40 of the head.
    """

    hidden: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    mlp: int
    vocabulary: int

    @staticmethod
    def of(config: Any) -> "ModelShape":
        """The shape in a transformers config of the Llama or Qwen2 kind."""
        size = getattr(config, "head_dim", None)
        return ModelShape(
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            key_heads=config.num_key_value_heads,
            head_size=size or config.hidden_size // config.num_attention_heads,
            mlp=config.intermediate_size,
            vocabulary=config.vocab_size,
        )

    @property
    def body_weights(self) -> int:
        """Weights of the layers' matrices, N without embeddings and head."""
        queries, keys = self.heads * self.head_size, self.key_heads * self.head_size
        attention = 2 * self.hidden * queries + 2 * self.hidden * keys
        return self.layers * (attention + 3 * self.hidden * self.mlp)


@dataclass(frozen=True, kw_only=True)
class Work:
    """The tokens of an update, by what is done with them.

    Attributes:
        tokens: Through the layers, a shared prompt once.
        head_tokens: Whose logits are needed.
        pairs: (query, key) pairs of causal attention, summed over sequences.
    """

    tokens: int
    head_tokens: int
    pairs: int


def group_work(prompt_tokens: int, completions: Sequence[int]) -> Work:
    """A prompt computed once, and completions that each see it and themselves.

    Example: a prompt of 2 with completions of 2 and 1: 5 tokens, 3 logits, and
    3 + (2x2 + 3) + (1x2 + 1) = 13 pairs.
    """
    pairs = causal_pairs(prompt_tokens)
    pairs += sum(prompt_tokens * n + causal_pairs(n) for n in completions)
    sampled = sum(completions)
    return Work(tokens=prompt_tokens + sampled, head_tokens=sampled, pairs=pairs)


def sequence_work(lengths: Sequence[int]) -> Work:
    """Whole sequences, each by itself and all of it trained, as a supervised step has them."""
    total = sum(lengths)
    return Work(tokens=total, head_tokens=total, pairs=sum(map(causal_pairs, lengths)))


def causal_pairs(length: int) -> int:
    """Token t sees t + 1: n(n + 1) / 2 in all."""
    return length * (length + 1) // 2


def update_flops(shape: ModelShape, works: Sequence[Work]) -> int:
    """Forward and backward: 6 N a token, 6 H V a logit, and 12 x heads x size a pair and layer.

    A pair costs a product with the key and one with the value, 2 x 2 x size a head, and twice
    that backward.
    """
    body = 6 * shape.body_weights * sum(work.tokens for work in works)
    head = 6 * shape.hidden * shape.vocabulary * sum(work.head_tokens for work in works)
    pair = 12 * shape.layers * shape.heads * shape.head_size
    return body + head + pair * sum(work.pairs for work in works)
