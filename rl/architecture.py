"""What a model is made of, from the fields of its config.json: parameters, exact to the last one.

Families: Llama, Mistral, Qwen2, Qwen3 (dense and experts), Gemma 2, Gemma 3 (text) and DeepSeek-V3.
Plain arithmetic: no weights are read and nothing heavy is imported.

Names: H hidden size, I intermediate size, V vocabulary, Q query heads, K key heads, D head size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"head_dim": 128, "query_key_norm": True},
    "qwen3_moe": {"query_key_norm": True, "decoder_sparse_step": 1},
    "gemma2": {
        "head_dim": 256,
        "tie_word_embeddings": True,
        "norms_per_layer": 4,
        "attn_logit_softcapping": 50.0,
    },
    "gemma3_text": {
        "head_dim": 256,
        "tie_word_embeddings": True,
        "norms_per_layer": 4,
        "query_key_norm": True,
    },
    "deepseek_v3": {"decoder_sparse_step": 1, "router_float32": True},
}
"""By model_type, what the code of a family fixes and what a config.json of it may leave out."""


@dataclass(frozen=True, kw_only=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2, section 2.1): ranks, and sizes of a head's parts."""

    query_rank: int | None
    key_value_rank: int
    rope: int
    nope: int
    value: int


@dataclass(frozen=True, kw_only=True)
class Experts:
    """The layers whose MLP is a mixture of experts.

    Attributes:
        layers: So many of the model's layers.
        count: Routed experts of a layer, of which a token visits `per_token`.
        size, shared_size: Intermediate size of a routed expert, and of the shared one (0: none).
        router_float32: Whether the router computes in float32.
    """

    layers: int
    count: int
    per_token: int
    size: int
    shared_size: int
    router_float32: bool


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder; fields with transformers' names mean what they mean there.

    Example: SmolLM2-135M has 30 layers, H 576, I 1,536, 9 query heads, 3 key heads, V 49,152 and a
    tied head: 134,515,008 parameters, of which 28,311,552 are the embedding.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    tied: bool
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    query_key_norm: bool
    norms_per_layer: int
    softcap: bool
    latent: Latent | None
    experts: Experts | None

    @property
    def kv_lora_rank(self) -> int | None:
        """What latent attention caches, beside `qk_rope_head_dim`."""
        return self.latent.key_value_rank if self.latent else None

    @property
    def qk_rope_head_dim(self) -> int:
        """0 without latent attention."""
        return self.latent.rope if self.latent else 0

    @property
    def widths(self) -> tuple[int, int, int]:
        """Of a token's queries, keys and values over all heads; the output is as wide as Q values."""
        if self.latent:
            heads, key = self.num_attention_heads, self.latent.rope + self.latent.nope
            return heads * key, heads * key, heads * self.latent.value
        keys = self.num_key_value_heads * self.head_dim
        return self.num_attention_heads * self.head_dim, keys, keys

    @property
    def out_width(self) -> int:
        """Of a token's attention output over all heads."""
        value = self.latent.value if self.latent else self.head_dim
        return self.num_attention_heads * value

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the head."""
        return self.vocab_size * self.hidden_size

    @property
    def sparse_layers(self) -> int:
        """Layers with experts."""
        return self.experts.layers if self.experts else 0

    @property
    def parameters(self) -> int:
        """All of them, a tied head once."""
        dense = self.num_hidden_layers - self.sparse_layers
        layers = dense * self.layer(sparse=False) + self.sparse_layers * self.layer(sparse=True)
        return self.embedding * (1 if self.tied else 2) + layers + self.hidden_size

    @property
    def largest_layer(self) -> int:
        """Parameters of the largest layer."""
        return self.layer(sparse=self.sparse_layers > 0)

    @property
    def computed(self) -> int:
        """Parameters of the layers' matrices that one token is multiplied with."""
        dense = self.num_hidden_layers - self.sparse_layers
        total = self.num_hidden_layers * self._attention_matrices()
        total += dense * 3 * self.hidden_size * self.intermediate_size
        if self.experts:
            met = self.experts.per_token * self.experts.size + self.experts.shared_size
            total += self.sparse_layers * self.hidden_size * (3 * met + self.experts.count)
        return total

    def layer(self, *, sparse: bool) -> int:
        """Parameters of one layer."""
        norms = self.norms_per_layer * self.hidden_size
        return norms + self._attention() + (self._experts() if sparse else self._mlp())

    def _mlp(self) -> int:
        biases = 2 * self.intermediate_size + self.hidden_size if self.mlp_bias else 0
        return 3 * self.hidden_size * self.intermediate_size + biases

    def _experts(self) -> int:
        if not self.experts:
            return 0
        met = self.experts.count * self.experts.size + self.experts.shared_size
        return self.hidden_size * (3 * met + self.experts.count)

    def _attention(self) -> int:
        """Matrices, biases and norms inside attention."""
        total = self._attention_matrices() + (self.hidden_size if self.out_bias else 0)
        if self.latent:
            ranks = self.latent.query_rank or 0
            if self.qkv_bias:
                total += ranks + self.latent.key_value_rank + self.latent.rope
            return total + ranks + self.latent.key_value_rank
        total += sum(self.widths) if self.qkv_bias else 0
        return total + (2 * self.head_dim if self.query_key_norm else 0)

    def _attention_matrices(self) -> int:
        out = self.out_width * self.hidden_size
        if not self.latent:
            return self.hidden_size * sum(self.widths) + out
        part = self.latent
        queries = self.widths[0] * self.hidden_size
        if part.query_rank:
            queries = part.query_rank * (self.hidden_size + self.widths[0])
        down = self.hidden_size * (part.key_value_rank + part.rope)
        up = part.key_value_rank * self.num_attention_heads * (part.nope + part.value)
        return queries + down + up + out


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """The architecture that a config.json describes.

    Raises:
        ValueError: Another family, or a field that is missing.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(
            f"its architecture ({family or 'no model_type'}) cannot be planned: known are "
            f"{', '.join(FAMILIES)}"
        )
    given = {name: value for name, value in config.items() if value is not None}
    values = {**FAMILIES[family], **given}
    try:
        return _architecture(family, values)
    except KeyError as error:
        raise ValueError(f"its config.json has no {error.args[0]}") from error


def _architecture(family: str, values: Mapping[str, Any]) -> Architecture:
    heads, biased = values["num_attention_heads"], bool(values.get("attention_bias"))
    return Architecture(
        family=family,
        vocab_size=values["vocab_size"],
        hidden_size=values["hidden_size"],
        intermediate_size=values["intermediate_size"],
        num_hidden_layers=values["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=values.get("num_key_value_heads", heads),
        head_dim=values.get("head_dim", values["hidden_size"] // heads),
        tied=values.get("tie_word_embeddings", False),
        qkv_bias=values.get("qkv_bias", biased),
        out_bias=biased,
        mlp_bias=bool(values.get("mlp_bias")),
        query_key_norm=values.get("query_key_norm", False),
        norms_per_layer=values.get("norms_per_layer", 2),
        softcap=bool(values.get("attn_logit_softcapping")),
        latent=_latent(values) if "kv_lora_rank" in values else None,
        experts=_experts(values),
    )


def _latent(values: Mapping[str, Any]) -> Latent:
    return Latent(
        query_rank=values.get("q_lora_rank"),
        key_value_rank=values["kv_lora_rank"],
        rope=values["qk_rope_head_dim"],
        nope=values["qk_nope_head_dim"],
        value=values["v_head_dim"],
    )


def _experts(values: Mapping[str, Any]) -> Experts | None:
    names = ("n_routed_experts", "num_experts", "num_local_experts")
    count = next((values[name] for name in names if name in values), 0)
    if not count:
        return None
    dense = set(values.get("mlp_only_layers", ())) | set(
        range(values.get("first_k_dense_replace", 0))
    )
    step = values["decoder_sparse_step"]
    sparse = [
        layer
        for layer in range(values["num_hidden_layers"])
        if layer not in dense and (layer + 1) % step == 0
    ]
    size = values["moe_intermediate_size"]
    return Experts(
        layers=len(sparse),
        count=count,
        per_token=values["num_experts_per_tok"],
        size=size,
        shared_size=size * values.get("n_shared_experts", 0),
        router_float32=values.get("router_float32", False),
    )
