import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl import logprobs as head_logprobs


def sampled_logprobs(hidden, head, token_ids, sampled, **settings):
    """Of a row in which every token stands at its own place."""
    places = torch.arange(len(token_ids))
    return head_logprobs.sampled_logprobs(hidden, places, head, token_ids, sampled, **settings)


def full_logprobs(hidden, head, token_ids, sampled, temperature, softcap=None):
    """The same with every logit there at once, by autograd; one token after another."""
    logprobs = torch.zeros(len(token_ids))
    entropy = torch.zeros(len(token_ids))
    for place, drawn in enumerate(sampled.tolist()):
        if drawn:
            logits = (head @ hidden[place - 1]).float()
            if softcap is not None:
                logits = softcap * torch.tanh(logits / softcap)
            logits = logits / temperature
            row = torch.log_softmax(logits, dim=-1)
            logprobs[place] = row[token_ids[place]]
            entropy[place] = -(row.exp() * row).sum()
    return logprobs, entropy


def row(num_tokens, size, vocabulary, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(num_tokens, size, generator=draw).to(dtype).requires_grad_()
    head = torch.randn(vocabulary, size, generator=draw).to(dtype).requires_grad_()
    token_ids = torch.randint(vocabulary, (num_tokens,), generator=draw)
    sampled = torch.rand(num_tokens, generator=draw) < 0.6
    sampled[0], sampled[-1] = False, True
    return hidden, head, token_ids, sampled


def gradients(function, hidden, head, *others, **settings):
    """Of a sum of logprobs and entropies in which every number counts differently."""
    logprobs, entropy = function(hidden, head, *others, **settings)
    weights = torch.linspace(-1, 2, len(logprobs))
    total = (logprobs * weights + entropy * weights.flip(0)).sum()
    return torch.autograd.grad(total, (hidden, head))


def test_two_words_by_hand():
    # Hidden 1 at position 0 and head (ln 3, 0): logits (ln 3, 0), chances 3/4 and 1/4.
    hidden, head = torch.tensor([[1.0], [0.0]]), torch.tensor([[math.log(3.0)], [0.0]])
    logprobs, entropy = sampled_logprobs(
        hidden, head, torch.tensor([0, 1]), torch.tensor([False, True]), temperature=1.0
    )
    assert logprobs.tolist() == [0.0, pytest.approx(math.log(0.25))]
    expected = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert entropy.tolist() == [0.0, pytest.approx(expected)]


def test_the_temperature_divides_the_logits():
    # As above at temperature 1/2: logits (2 ln 3, 0), chances 9/10 and 1/10.
    hidden, head = torch.tensor([[1.0], [0.0]]), torch.tensor([[math.log(3.0)], [0.0]])
    logprobs, _ = sampled_logprobs(
        hidden, head, torch.tensor([0, 1]), torch.tensor([False, True]), temperature=0.5
    )
    assert logprobs[1].item() == pytest.approx(math.log(0.1))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("block", [1, 3, 7, 4096])
def test_values_and_gradients_equal_full_logits(block, temperature):
    inputs = row(23, 5, 17)
    logprobs, entropy = sampled_logprobs(*inputs, temperature=temperature, block=block)
    expected = full_logprobs(*inputs, temperature)
    torch.testing.assert_close(logprobs, expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(entropy, expected[1], rtol=1e-5, atol=1e-6)
    found = gradients(sampled_logprobs, *inputs, temperature=temperature, block=block)
    wanted = gradients(full_logprobs, *inputs, temperature=temperature)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=4e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 12), st.integers(1, 6), st.integers(2, 9), st.integers(1, 5),
    st.sampled_from([0.3, 0.7, 1.0, 1.5]), st.integers(0, 99),
)  # fmt: skip
def test_any_shape_equals_full_logits(num_tokens, size, vocabulary, block, temperature, seed):
    inputs = row(num_tokens, size, vocabulary, seed)
    logprobs, entropy = sampled_logprobs(*inputs, temperature=temperature, block=block)
    expected = full_logprobs(*inputs, temperature)
    torch.testing.assert_close(logprobs, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(entropy, expected[1], rtol=1e-4, atol=1e-5)
    found = gradients(sampled_logprobs, *inputs, temperature=temperature, block=block)
    wanted = gradients(full_logprobs, *inputs, temperature=temperature)
    for mine, other in zip(found, wanted, strict=True):
        # Of the largest: what cancels to nearly 0 keeps the rounding of what it is a sum of.
        atol = 1e-5 * max(1.0, other.abs().max().item())
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("block", [2, 4096])
@pytest.mark.parametrize("tile", [1, 7, 2**19])
def test_a_soft_cap_bends_logits_before_the_temperature(block, tile, monkeypatch):
    monkeypatch.setattr(head_logprobs, "TILE", tile)
    inputs, asked = row(13, 5, 17), {"temperature": 0.7, "softcap": 1.5}
    for mine, other in zip(
        (*sampled_logprobs(*inputs, block=block, **asked),
         *gradients(sampled_logprobs, *inputs, block=block, **asked)),
        (*full_logprobs(*inputs, **asked), *gradients(full_logprobs, *inputs, **asked)),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=4e-6)


def test_the_entropy_alone_has_a_gradient_too():
    # Hidden 1 and head (ln 3, 0): p = 3/4, 1/4, H = 0.5623. dH/dlogit = -p (log p + H):
    # -3/4 (-0.2877 + 0.5623) = -0.2060 and 1/4 (1.3863 - 0.5623) = 0.2060.
    hidden = torch.tensor([[1.0], [0.0]])
    head = torch.tensor([[math.log(3.0)], [0.0]], requires_grad=True)
    _, entropy = sampled_logprobs(
        hidden, head, torch.tensor([0, 1]), torch.tensor([False, True]), temperature=1.0
    )
    entropy.sum().backward()
    assert head.grad.flatten().tolist() == pytest.approx([-0.2060, 0.2060], abs=1e-4)


def test_places_say_where_the_state_of_the_token_before_is():
    hidden, head, token_ids, _ = row(6, 3, 5)
    sampled = torch.tensor([False, False, True, False, False, True])
    places = torch.tensor([0, 3, 1, 2, 3, 4])  # tokens 1 and 4, before the sampled ones, share 3
    logprobs, _ = head_logprobs.sampled_logprobs(
        hidden, places, head, token_ids, sampled, temperature=1.0
    )
    expected = (head @ hidden[3]).log_softmax(-1)[token_ids[[2, 5]]]
    torch.testing.assert_close(logprobs[[2, 5]], expected)


def test_a_head_in_float32_meets_states_in_bfloat16():
    hidden, head, token_ids, sampled = row(9, 8, 17)
    rounded = hidden.detach().bfloat16().requires_grad_()
    found = sampled_logprobs(rounded, head, token_ids, sampled, temperature=1.0)
    wanted = full_logprobs(rounded.detach().float(), head, token_ids, sampled, 1.0)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-6)
    found[0].sum().backward()
    assert rounded.grad.dtype == torch.bfloat16 and rounded.grad.abs().sum() > 0


def test_what_is_not_sampled_is_zero_and_moves_nothing():
    hidden, head, token_ids, _ = row(6, 3, 5)
    sampled = torch.tensor([False, False, True, False, False, False])
    logprobs, entropy = sampled_logprobs(hidden, head, token_ids, sampled, temperature=1.0)
    assert (logprobs != 0).tolist() == (entropy != 0).tolist() == sampled.tolist()
    logprobs.sum().backward()
    # Only the hidden state before the sampled token speaks of it.
    assert (hidden.grad.abs().sum(-1) > 0).tolist() == [False, True] + [False] * 4


@pytest.mark.parametrize("block", [2, 512])
def test_a_row_without_sampled_tokens_gives_zeros_and_zero_gradients(block):
    hidden, head, token_ids, sampled = row(4, 3, 5)
    nothing = torch.zeros_like(sampled)
    logprobs, entropy = sampled_logprobs(
        hidden, head, token_ids, nothing, temperature=1.0, block=block
    )
    assert logprobs.tolist() == entropy.tolist() == [0.0] * 4
    logprobs.sum().backward()
    assert hidden.grad.tolist() == torch.zeros(4, 3).tolist()
    assert head.grad.tolist() == torch.zeros(5, 3).tolist()


@pytest.mark.parametrize("block", [2, 512])
def test_bfloat16_gradients_are_near_the_float32_ones(block):
    inputs = row(23, 8, 17, dtype=torch.bfloat16)
    exact = [x.detach().float().requires_grad_() for x in inputs[:2]]
    found = gradients(sampled_logprobs, *inputs, temperature=0.7, block=block)
    wanted = gradients(full_logprobs, *exact, *inputs[2:], temperature=0.7)
    for mine, other in zip(found, wanted, strict=True):
        assert mine.dtype == torch.bfloat16
        # 8 bits of mantissa: 2**-8 a rounding, of which two or three add up.
        assert (mine.float() - other).norm() < 0.01 * other.norm()


def test_blocks_of_bfloat16_add_up_in_float32():
    # A hidden state's gradient is the sum over words of (p - one hot) times the word's embedding.
    # 600 words of embedding 1 and chance 1/600 each, one a block, but the target's embedding is 0:
    # 599/600. Added in bfloat16, 1/600 stops counting from 1/2 on, where numbers are 1/256 apart.
    head = torch.ones(600, 1, dtype=torch.bfloat16)
    head[0] = 0.0
    hidden = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    logprobs, _ = sampled_logprobs(
        hidden, head, torch.tensor([0, 0]), torch.tensor([False, True]), temperature=1.0, block=1
    )
    logprobs.sum().backward()
    assert hidden.grad[0].item() == pytest.approx(-599 / 600, abs=2**-8)


def test_logits_of_the_whole_row_never_exist():
    # A vocabulary of 1000 and 64 tokens in blocks of 4: no kept tensor is near 64 x 1000.
    inputs = row(64, 2, 1000)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        sampled_logprobs(*inputs, temperature=1.0, block=4)
    assert kept
    assert max(tensor.numel() for tensor in kept) == 1000 * 2
