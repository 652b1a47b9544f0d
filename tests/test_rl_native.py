"""The kernels in C++ against float64 of the same bfloat16 numbers; and machines that have none."""

import pytest
import torch
from torch import nn

import rl.native
from rl.attention import _RowAttention
from rl.dense_attention import Settings
from rl.linear import NativeLinear, use_native_linear, weight_gradient
from rl.logprobs import sampled_logprobs
from rl.native import kernels, usable
from rl.rows import make_row
from tests.packed_models import batch_of, llama

ROUNDING = 2**-8
"""Half the distance of bfloat16 numbers near 1."""
SHORT = [(5, [13, 7, 1]), (1, [6]), (40, [70, 3])]
"""A prompt alone, none at all, and runs of more rows than a block of 128: 70 queries x 3 heads."""
LONG = [(150, [420, 5])]
"""Keys of many blocks of queries."""
needs_kernels = pytest.mark.skipif(kernels() is None, reason="no AMX or no C++ compiler")


def drawn(*shape, scale=1.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=draw)).bfloat16()


def distance(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


def attended(layout, query, key, value, scaling):
    """One query at a time, in the inputs' dtype: [U, Q, D], zeros in the filling."""
    out = torch.zeros_like(query)
    shared = query.shape[1] // key.shape[1]
    for family in layout.families:
        for span in (family.prompt, *family.completions):
            own = span is family.prompt
            for place in range(span.start, span.stop):
                seen = [] if own else list(range(family.prompt.start, family.prompt.stop))
                seen += range(span.start, place + 1)
                keys = key[seen].repeat_interleave(shared, 1)
                values = value[seen].repeat_interleave(shared, 1)
                scores = torch.einsum("qd,kqd->qk", query[place], keys) * scaling
                found = torch.einsum("qk,kqd->qd", scores.softmax(-1), values)
                out = out.index_put((torch.tensor(place),), found)
    return out


@needs_kernels
@pytest.mark.parametrize(
    "num_heads, num_key_heads, size, families",
    [(6, 2, 32, SHORT), (2, 2, 64, SHORT), (5, 1, 96, SHORT), (3, 1, 32, LONG)],
)
def test_attention_equals_one_query_at_a_time(num_heads, num_key_heads, size, families):
    layout = make_row(batch_of(families)).layout
    places = len(layout.positions)
    heads = [
        drawn(places, n, size, scale=2.0, seed=seed)
        for seed, n in enumerate((num_heads, num_key_heads, num_key_heads))
    ]
    grad = drawn(places, num_heads, size, seed=9) * (layout.family >= 0)[:, None, None]
    exact = [x.double().requires_grad_() for x in heads]
    expected = attended(layout, *exact, 0.2)
    expected.backward(grad.double())
    mine = [x.clone().requires_grad_() for x in heads]
    found = _RowAttention.apply(*mine, layout, Settings(scaling=0.2))
    found.backward(grad)
    assert any(plan.native for plan in layout.plans.values())
    real = layout.family >= 0
    assert distance(found[real], expected[real]) < ROUNDING
    for ours, theirs in zip(mine, exact, strict=True):
        assert distance(ours.grad[real], theirs.grad[real]) < ROUNDING


@needs_kernels
@pytest.mark.parametrize("places, rows, columns", [(64, 64, 64), (75, 64, 128), (1100, 320, 640)])
def test_the_weight_gradient_is_the_product(places, rows, columns):
    grad, x = drawn(places, rows), drawn(places, columns, seed=1)
    expected = grad.double().t() @ x.double()
    assert distance(weight_gradient(grad, x), expected) < ROUNDING
    turned = grad.t().contiguous().t()  # the same numbers, columns first
    assert torch.equal(weight_gradient(turned, x), weight_gradient(grad, x))


@needs_kernels
@pytest.mark.parametrize("vocabulary", [96, 91])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_equal_softmax_of_the_same_logits(vocabulary, temperature, monkeypatch):
    """Blocks of 40 columns, the last one shorter; bfloat16 logits are the input of both."""
    tokens, size = 33, 32
    ids = torch.arange(tokens) % vocabulary
    sampled = torch.arange(tokens) > 0
    grads = [torch.randn(tokens, generator=torch.Generator().manual_seed(s)) for s in (3, 4)]

    def run():
        hidden = drawn(tokens, size, scale=2.0).requires_grad_()
        head = drawn(vocabulary, size, seed=1).requires_grad_()
        rows = sampled_logprobs(
            hidden, torch.arange(tokens), head, ids, sampled, temperature=temperature, block=40
        )
        sum((row * grad).sum() for row, grad in zip(rows, grads, strict=True)).backward()
        return *(row.detach() for row in rows), hidden.grad.float(), head.grad.float()

    found = run()
    monkeypatch.setattr(rl.logprobs, "usable", lambda *_: False)
    logprobs, entropy, *expected = run()
    # Nothing is rounded on the way to these two; gradients of logits are.
    torch.testing.assert_close(found[0], logprobs, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(found[1], entropy, rtol=2e-5, atol=2e-5)
    for ours, theirs in zip(found[2:], expected, strict=True):
        assert distance(ours, theirs.double()) < ROUNDING


@needs_kernels
def test_linear_layers_keep_names_and_gradients():
    model = llama().to(torch.bfloat16)
    names = list(model.state_dict())
    plain = nn.Linear(64, 32, bias=True).to(torch.bfloat16)
    mine = nn.Linear(64, 32, bias=True).to(torch.bfloat16)
    mine.load_state_dict(plain.state_dict())
    mine.__class__ = NativeLinear
    x = drawn(2, 64, 64)
    grads = []
    for layer in (plain, mine):
        given = x.clone().requires_grad_()
        layer(given).backward(drawn(2, 64, 32, seed=5))
        grads.append((given.grad, layer.weight.grad, layer.bias.grad))
    for theirs, ours in zip(*grads, strict=True):
        assert distance(ours, theirs.double()) < ROUNDING
    model.model.layers[0].mlp.gate_proj.requires_grad_(False)
    use_native_linear(model)
    assert list(model.state_dict()) == names
    assert type(model.model.layers[0].mlp.gate_proj) is nn.Linear  # nothing to gain when frozen


def test_float32_is_left_to_pytorch():
    assert not usable(torch.zeros(1))
    grad, x = torch.ones(2, 3), torch.ones(2, 4)
    assert torch.equal(weight_gradient(grad, x), torch.full((3, 4), 2.0))


@pytest.mark.parametrize("program", ["false", "groupwise-has-no-such-compiler"])
def test_without_a_working_compiler_there_are_none(program, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("GROUPWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(rl.native, "compiler", lambda: program)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_init_amx", lambda: True)
    assert kernels.__wrapped__() is None
    assert "kernels are not used" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_without_amx_there_are_none(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert kernels.__wrapped__() is None
