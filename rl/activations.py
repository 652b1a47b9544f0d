"""Bytes that a forward pass keeps for backward, counted from what each layer saves.

Plain arithmetic. What is saved was read off autograd's hooks; tests compare the two.

Names: U places of a row, H hidden size, I intermediate size; a norm keeps one float32 a place.
"""

from dataclasses import dataclass

from rl.architecture import Architecture
from rl.attention import DENSE_PROMPT, DENSE_TOKENS
from rl.dense_attention import WIDTH_MULTIPLE
from rl.logprobs import BLOCK
from rl.native_attention import MULTIPLE
from rl.rows import ROW_MULTIPLE


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Tokens of the longest prompt, of the longest completion, and of a completion on average."""

    prompt: int
    longest: int
    mean: int

    @property
    def sequence(self) -> int:
        """The longest prompt with the longest completion."""
        return self.prompt + self.longest


def row_places(max_tokens: int) -> int:
    """Places of a row that holds so many tokens; at least one is filling."""
    return (max_tokens // ROW_MULTIPLE + 1) * ROW_MULTIPLE


def layer_bytes(arch: Architecture, itemsize: int, *, compiled: bool, sparse: bool) -> int:
    """Kept for one place by one layer, attention's probabilities not counted.

    Example: Llama in bfloat16, compiled: 4 H of norms and residuals, 3 I, and queries, keys, values
    and output twice over, 2 bytes each: 16,904 for SmolLM2-135M with its norms' 8.
    """
    total = _norm_bytes(arch, itemsize, compiled) + _attention_bytes(arch, itemsize, compiled)
    product = 3 if compiled else 4  # gate, up, their product; without fusion the activation too
    if not sparse or not arch.experts:
        return total + product * arch.intermediate_size * itemsize
    experts = arch.experts
    routed = experts.per_token * (2 * arch.hidden_size + product * experts.size)
    router = 4 * arch.hidden_size if experts.router_float32 else 0
    return total + (routed + product * experts.shared_size) * itemsize + router


def probability_bytes(
    arch: Architecture, itemsize: int, lengths: Lengths, *, native: bool = False
) -> int:
    """Kept for one place by one layer on a CPU, where completions are short; see rl/attention.py.

    With `native` the kernel in C++ keeps none, of heads that it takes.
    """
    gemma = arch.norms_per_layer > 2  # has windows or soft-caps
    native = native and not (gemma or arch.latent or arch.head_dim % MULTIPLE)
    if native or arch.softcap or lengths.mean > DENSE_TOKENS or lengths.prompt > DENSE_PROMPT:
        return 4 * arch.num_attention_heads  # the normalisers
    seen = _widened(min(lengths.longest, DENSE_TOKENS)) + _widened(lengths.prompt)
    return arch.num_attention_heads * seen * itemsize


def activation_bytes(
    arch: Architecture,
    itemsize: int,
    places: int,
    *,
    compiled: bool,
    checkpointing: bool,
    beside: int,
    trained: bool,
) -> int:
    """Kept by all layers for a row of so many places, and what backward adds in one of them.

    With gradient checkpointing only the layers' inputs are kept, and one layer is computed again.

    Args:
        beside: Kept for one place by one layer beyond `layer_bytes`: probabilities, adapters.
        trained: Whether the layers' own weights have gradients.
    """
    dense = layer_bytes(arch, itemsize, compiled=compiled, sparse=False) + beside
    sparse = layer_bytes(arch, itemsize, compiled=False, sparse=True) + beside  # never fused
    largest = max(dense, sparse) if arch.sparse_layers else dense
    # Gradients of one layer: of its activations, about as much as it kept, and of its weights.
    layer = largest * places + trained * arch.largest_layer * itemsize
    final = (itemsize + 4) * arch.hidden_size * places
    if checkpointing:
        inputs = arch.num_hidden_layers * arch.hidden_size * itemsize * places
        return inputs + final + largest * places + layer
    kept = (arch.num_hidden_layers - arch.sparse_layers) * dense + arch.sparse_layers * sparse
    return kept * places + final + layer


def head_bytes(
    arch: Architecture, itemsize: int, num_sampled: int, *, float32_head: bool, trained: bool
) -> int:
    """What the head takes for so many sampled tokens in backward: above all its gradient, if trained."""
    wide = 4 if float32_head else itemsize
    copied = 4 * arch.embedding if float32_head else 0
    hidden = num_sampled * arch.hidden_size * (itemsize + wide + 4)
    return copied + trained * arch.embedding * wide + hidden + num_sampled * BLOCK * wide


def _norm_bytes(arch: Architecture, itemsize: int, compiled: bool) -> int:
    """Residuals and norms: where the norm is fused only what matrices meet, and the residual."""
    count, stats = arch.norms_per_layer, 4 * arch.norms_per_layer
    if compiled:
        return (count + 2 if count == 2 else count + 1) * arch.hidden_size * itemsize + stats
    if count == 2:  # in float32, then as an item before and after its weight
        return count * arch.hidden_size * (4 + 2 * itemsize) + stats
    # Gemma's stay in float32 until their weight is applied; two of four feed matrices.
    return arch.hidden_size * (count * 8 + 2 * itemsize) + stats


def _attention_bytes(arch: Architecture, itemsize: int, compiled: bool) -> int:
    query, key, value = arch.widths
    total = (query + key + value + arch.out_width) * itemsize
    if arch.query_key_norm:
        wide = 8 if arch.norms_per_layer > 2 else 4 + itemsize
        total += (query + key) * (itemsize if compiled else wide)
        total += 4 * (arch.num_attention_heads + arch.num_key_value_heads)
    if arch.latent:
        ranks = arch.latent.key_value_rank + (arch.latent.query_rank or 0)
        total += ranks * (2 * itemsize if compiled else 4 + 2 * itemsize) + 8
        total += arch.latent.rope * itemsize if compiled else 0
    return total


def _widened(size: int) -> int:
    return -(-size // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
