"""Whole updates of a tiny random Llama in float32, against a padded loss written with loops."""

import math
from dataclasses import replace
from random import Random

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rewards.problem import Problem, Response, Score, Verdict
from rl.advantages import group_advantages
from rl.metrics import Totals, round_metrics, sum_totals, token_ages
from rl.objective import LossConfig
from rl.optimizer import NonFiniteGradientError, OptimizerConfig
from rl.packing import PackingConfig, micro_batches, pack
from rl.policy import Policy, PolicyConfig
from rl.update import prepare, update
from rollouts.rollout import Group, Rollout

TEMPERATURE = 0.7
BETA1 = 0.9
ANCHORS = [LossConfig(anchor="sampler"), LossConfig(anchor="trainer", importance_cap=1.1)]


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def folder(request, tmp_path):
    return write_model(tmp_path / "model", tied=request.param)


@pytest.fixture
def untied(tmp_path):
    return write_model(tmp_path / "model", tied=False)


def write_model(folder, *, tied, seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    return folder


def make_policy(folder, *, micro_batch_tokens=10_000, dtype="float32", **optimizer):
    optimizer = {"max_grad_norm": 1e9, "betas": (BETA1, 0.999)} | optimizer
    config = PolicyConfig(dtype=dtype, micro_batch_tokens=micro_batch_tokens)
    return Policy(folder, config, OptimizerConfig(**optimizer))


def rollout(prompt, completion, reward, draw, finish="stop"):
    """Behaviour logprobs are drawn about those of a random model: some ratios leave the clip."""
    num_prompt, num_sampled = len(prompt), len(completion)
    return Rollout(
        token_ids=(*prompt, *completion),
        sampled=(False,) * num_prompt + (True,) * num_sampled,
        logprobs=(0.0,) * num_prompt + tuple(draw.uniform(-5, -2) for _ in completion),
        response=Response(text="", num_tokens=num_sampled, finish=finish),
        score=Score(value=reward, verdict=Verdict.CORRECT if reward else Verdict.WRONG),
        versions=((0, num_prompt, num_prompt + num_sampled),),
    )


def group(prompt_tokens, lengths, rewards, seed):
    draw = Random(seed)
    prompt = [draw.randrange(1, 24) for _ in range(prompt_tokens)]
    members = [
        rollout(prompt, [draw.randrange(1, 24) for _ in range(length)], reward, draw)
        for length, reward in zip(lengths, rewards, strict=True)
    ]
    problem = Problem(id=f"p{seed}", prompt="?", answer="!", source="task")
    return Group(problem=problem, rollouts=tuple(members))


LIVE = group(4, [5, 9, 2], [1.0, 0.0, 0.0], 1)
OTHER = group(7, [3, 6], [0.0, 1.0], 2)
DEAD = group(3, [4, 8], [1.0, 1.0], 3)


def packed(*groups, keep_no_signal=False, **config):
    return pack(groups, PackingConfig(**config), keep_no_signal=keep_no_signal)


def step(policy, batch, config, rate=1e-3):
    """The metrics of a first update, and its gradients, read from AdamW's first moments."""
    metrics = update(policy, batch, config, temperature=TEMPERATURE, rate=rate)
    state = policy.optimizer.state()
    moments = {n.removeprefix("exp_avg/"): t for n, t in state.items() if n.startswith("exp_avg/")}
    return metrics, {name: moment.cpu() / (1 - BETA1) for name, moment in moments.items()}


def parameters(policy):
    return {name: p.detach().cpu().clone() for name, p in policy.model.named_parameters()}


def assert_near(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    scale = math.sqrt(sum(tensor.norm().item() ** 2 for tensor in expected.values()))
    assert scale > 0
    gaps = {name: (found[name] - expected[name]).norm().item() / scale for name in expected}
    assert max(gaps.values()) < tolerance, gaps


def assert_bitwise(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


# The reference: padded to the right, all logits, one token after another.


def padded_logprobs(folder, groups):
    """The model and a function (row, place) -> logprob of the token there, over all rollouts."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rollouts = [r for g in groups for r in g.rollouts]
    width = max(len(r.token_ids) for r in rollouts)
    ids = torch.tensor([[*r.token_ids, *[0] * (width - len(r.token_ids))] for r in rollouts])
    mask = torch.tensor([[int(t < len(r.token_ids)) for t in range(width)] for r in rollouts])
    logprobs = torch.log_softmax(model(ids, attention_mask=mask).logits / TEMPERATURE, dim=-1)
    return model, lambda row, place: logprobs[row, place - 1, ids[row, place]]


def padded_grpo(folder, groups, config, *, by_token=False, old=None, reference=None):
    """GRPO's loss and gradients; `old` and `reference` are folders of other policies."""
    model, logprob = padded_logprobs(folder, groups)
    logprob_old = padded_logprobs(old, groups)[1] if old else logprob
    logprob_reference = padded_logprobs(reference, groups)[1] if reference else None
    num_tokens = sum(sum(r.sampled) for g in groups for r in g.rollouts)
    loss, row = torch.tensor(0.0), 0
    for members in groups:
        advantages = group_advantages(torch.tensor(members.rewards))
        for member, advantage in zip(members.rollouts, advantages.tolist(), strict=True):
            total = torch.tensor(0.0)
            for place in [t for t, drawn in enumerate(member.sampled) if drawn]:
                new, mu = logprob(row, place), member.logprobs[place]
                past = logprob_old(row, place).detach()
                ratio = torch.exp(new - (mu if config.anchor == "sampler" else past))
                low, high = 1 - config.clip_low, 1 + config.clip_high
                kept = torch.min(ratio * advantage, torch.clamp(ratio, low, high) * advantage)
                if config.anchor == "trainer":
                    kept = kept * min(math.exp(past.item() - mu), config.importance_cap)
                total = total - kept
                if reference:
                    gap = logprob_reference(row, place).detach() - new
                    total = total + config.kl_coefficient * (torch.exp(gap) - gap - 1)
            share = num_tokens if by_token else sum(member.sampled) * len(members.rollouts)
            loss = loss + total / (share if by_token else share * len(groups))
            row += 1
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("normalise", ["sequence", "token"])
@pytest.mark.parametrize("config", ANCHORS, ids=lambda config: config.anchor)
def test_an_update_equals_the_padded_loss(folder, config, normalise):
    groups = [LIVE, OTHER, DEAD]
    metrics, found = step(make_policy(folder), packed(*groups, normalise=normalise), config)
    loss, expected = padded_grpo(folder, groups, config, by_token=normalise == "token")
    assert metrics["update/loss"] == pytest.approx(loss, rel=1e-5)
    assert_near(found, expected)
    # The clip and the cap are at work in it: somewhere, and not everywhere.
    if config.anchor == "sampler":
        assert 0 < metrics["update/clipped_frac"] < 1
    else:
        assert 0 < metrics["update/importance"] < 1.1


def test_old_logprobs_are_of_the_policy_before_the_round(untied, tmp_path):
    # Two updates a round: the second's ratio is against the policy before the first.
    config = LossConfig(anchor="trainer", clip_low=0.05, clip_high=0.05)
    policy = make_policy(untied)
    batches = prepare(policy, [packed(OTHER), packed(LIVE)], config, TEMPERATURE)
    step(policy, batches[0], config, rate=0.02)
    policy.save_pretrained(tmp_path / "after")
    policy = make_policy(tmp_path / "after")  # without moments of the first update
    metrics, found = step(policy, batches[1], config)
    loss, expected = padded_grpo(tmp_path / "after", [LIVE], config, old=untied)
    assert metrics["update/loss"] == pytest.approx(loss, rel=1e-5)
    assert_near(found, expected)
    assert 0 < metrics["update/clipped_frac"] < 1


@pytest.mark.parametrize("config", ANCHORS, ids=lambda config: config.anchor)
def test_the_divergence_from_the_reference_is_in_the_loss(untied, tmp_path, config):
    config = replace(config, kl_coefficient=0.3)
    other = write_model(tmp_path / "reference", tied=False, seed=1)
    policy = make_policy(untied)
    policy.read_reference(other)
    before = parameters(policy)
    groups = [LIVE, DEAD]
    (batch,) = prepare(policy, [packed(*groups, keep_no_signal=True)], config, TEMPERATURE)
    assert_bitwise(parameters(policy), before)  # the policy's own weights are back
    metrics, found = step(policy, batch, config)
    loss, expected = padded_grpo(untied, groups, config, reference=other)
    assert metrics["update/loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["update/kl"] > 0.01
    assert_near(found, expected)


def test_the_reference_is_a_copy_and_its_divergence_starts_at_zero(untied):
    config = LossConfig(kl_coefficient=1.0)
    policy = make_policy(untied)
    policy.refresh_reference()
    before = parameters(policy)
    (batch,) = prepare(policy, [packed(LIVE)], config, TEMPERATURE)
    metrics, _ = step(policy, batch, config, rate=0.1)
    assert metrics["update/kl"] == 0.0
    assert_bitwise({name: tensor.cpu() for name, tensor in policy.reference.items()}, before)
    after = parameters(policy)
    assert not any(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("tokens", [1, 20])
@pytest.mark.parametrize("config", ANCHORS, ids=lambda config: config.anchor)
def test_micro_batches_equal_one_batch(folder, config, tokens):
    batch = packed(LIVE, OTHER, DEAD)
    # Prompts of 4 and 7 with completions of 9, 5, 2 and 6, 3: rows of 20 and 16, each whole or
    # cut into its sequences.
    assert batch.lengths == [13, 9, 6, 13, 10]
    assert len(list(micro_batches(batch, tokens))) == {1: 5, 20: 2}[tokens]
    whole, expected = step(make_policy(folder), batch, config)
    metrics, found = step(make_policy(folder, micro_batch_tokens=tokens), batch, config)
    assert_near(found, expected, 1e-6)
    assert metrics == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_unpacked_sequences_equal_packed_ones(untied):
    batch, config = packed(LIVE, OTHER), LossConfig(anchor="sampler")
    _, expected = step(make_policy(untied), batch, config)
    policy = make_policy(untied)
    policy.unpack("a test")
    seen = []
    policy.model.model.register_forward_pre_hook(
        lambda _module, _args, named: seen.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    assert_near(step(policy, batch, config)[1], expected, 1e-6)
    assert seen == batch.lengths


@pytest.mark.parametrize("config", ANCHORS, ids=lambda config: config.anchor)
def test_what_stands_at_tokens_that_are_not_trained_has_no_effect(untied, config):
    batch = packed(LIVE, OTHER)
    # Where nothing was sampled, other logprobs and advantages: the weights there are 0.
    noisy = replace(
        batch,
        behaviour_logprobs=torch.where(batch.sampled, batch.behaviour_logprobs, -1.0),
        advantages=torch.where(batch.sampled, batch.advantages, 3.0),
    )
    metrics, expected = step(make_policy(untied), batch, config)
    noisy_metrics, found = step(make_policy(untied), noisy, config)
    assert_bitwise(found, expected)
    assert noisy_metrics == metrics


def test_masked_completions_have_no_effect_but_in_the_mean(untied):
    def with_cut(seed):
        cut = rollout([1, 2, 3, 4], [seed, 7, 7], 1.0, Random(seed), "length")
        return replace(LIVE, rollouts=(*LIVE.rollouts, cut))

    config = LossConfig(anchor="sampler")
    found = [
        step(make_policy(untied), packed(with_cut(seed), OTHER, truncated="mask"), config)[1]
        for seed in (5, 9)
    ]
    assert_bitwise(*found)


def test_a_group_without_signal_counts_and_is_skipped_at_no_loss(untied):
    config = LossConfig(anchor="trainer")
    kept = packed(LIVE, DEAD, keep_no_signal=True)
    metrics, expected = step(make_policy(untied), kept, config)
    skipped_metrics, found = step(make_policy(untied), packed(LIVE, DEAD), config)
    # The same gradient and loss as if its tokens had been there.
    assert_near(found, expected, 1e-6)
    assert skipped_metrics["update/loss"] == pytest.approx(metrics["update/loss"], rel=1e-5)
    # 16 tokens of LIVE; 12 of DEAD.
    assert (skipped_metrics["update/trained_tokens"], metrics["update/trained_tokens"]) == (16, 28)
    # It is in the denominator: alone, the live group's gradient is twice as large.
    _, alone = step(make_policy(untied), packed(LIVE), config)
    assert_near({name: gradient / 2 for name, gradient in alone.items()}, found, 1e-6)


def test_a_batch_without_signal_steps_and_moves_nothing(untied):
    policy = make_policy(untied, weight_decay=0.0)
    before = parameters(policy)
    metrics, gradients = step(policy, packed(DEAD), LossConfig(), rate=0.1)
    assert_bitwise(parameters(policy), before)
    assert not any(gradient.any() for gradient in gradients.values())
    assert policy.optimizer.state()["step/lm_head.weight"].item() == 1.0
    assert metrics == {
        "update/loss": 0.0,
        "update/trained_tokens": 0.0,
        "update/gap_max": 0.0,
        "update/gradient_norm": 0.0,
        "update/learning_rate": 0.1,
    }


def test_a_batch_without_signal_is_prepared_too(untied):
    policy = make_policy(untied)
    policy.refresh_reference()
    config = LossConfig(anchor="trainer", kl_coefficient=0.1)
    empty, _ = prepare(policy, [packed(DEAD), packed(LIVE)], config, TEMPERATURE)
    assert empty.old_logprobs.tolist() == empty.reference_logprobs.tolist() == []


@pytest.mark.parametrize(
    ("config", "updates", "old"),
    [
        (LossConfig(anchor="trainer"), 1, False),  # pi_old is pi, detached
        (LossConfig(anchor="trainer"), 2, True),
        (LossConfig(anchor="sampler"), 2, False),
    ],
)
def test_old_logprobs_are_computed_only_where_they_are_needed(untied, config, updates, old):
    batches = prepare(make_policy(untied), [packed(LIVE)] * updates, config, TEMPERATURE)
    assert [batch.old_logprobs is not None for batch in batches] == [old] * updates
    assert [batch.reference_logprobs for batch in batches] == [None] * updates


@pytest.mark.parametrize("config", ANCHORS, ids=lambda config: config.anchor)
def test_a_nan_raises_changes_nothing_and_is_forgotten(untied, config):
    batch = packed(LIVE, OTHER)
    last = batch.sampled.nonzero()[-1].item()  # in the last of five micro-batches
    logprobs = batch.behaviour_logprobs.clone()
    logprobs[last] = math.nan
    poisoned = replace(batch, behaviour_logprobs=logprobs)
    policy = make_policy(untied, micro_batch_tokens=1)
    before = parameters(policy)
    with pytest.raises(NonFiniteGradientError, match="the loss is nan"):
        update(policy, poisoned, config, temperature=TEMPERATURE, rate=0.1)
    assert_bitwise(parameters(policy), before)
    masters = {name: master.cpu() for name, master in policy.optimizer.masters.items()}
    assert_bitwise(masters, before)  # in float32 they are equal
    _, expected = step(make_policy(untied, micro_batch_tokens=1), batch, config)
    assert_bitwise(step(policy, batch, config)[1], expected)


@pytest.mark.parametrize("config", ANCHORS, ids=lambda config: config.anchor)
def test_updates_make_the_rewarded_completion_likelier(untied, config):
    policy, batch = make_policy(untied), packed(OTHER)
    behaviour = policy.frozen_logprobs(batch, TEMPERATURE)
    batch = replace(batch, behaviour_logprobs=behaviour)
    update(policy, batch, config, temperature=TEMPERATURE, rate=1e-3)
    rise = policy.frozen_logprobs(batch, TEMPERATURE) - behaviour
    # By sequence, as the loss weighs them: the good one up, the bad one down.
    assert (rise * batch.token_weights)[batch.advantages > 0].sum() > 0
    assert (rise * batch.token_weights)[batch.advantages < 0].sum() < 0


def test_bfloat16_gradients_are_near_the_float32_ones(untied):
    batch, config = packed(LIVE, OTHER), LossConfig(anchor="trainer")
    _, expected = step(make_policy(untied), batch, config)
    _, found = step(make_policy(untied, dtype="bfloat16"), batch, config)
    # 8 bits of mantissa through two layers.
    assert_near(found, expected, 0.05)


def test_metrics_are_means_over_trained_tokens(untied):
    config = LossConfig(anchor="sampler")
    metrics, gradients = step(make_policy(untied, micro_batch_tokens=20), packed(LIVE), config)
    _, logprob = padded_logprobs(untied, [LIVE])
    gaps = [
        logprob(row, place).item() - member.logprobs[place]
        for row, member in enumerate(LIVE.rollouts)
        for place in range(4, len(member.token_ids))
    ]
    assert len(gaps) == metrics["update/trained_tokens"] == 16
    near = {"rel": 1e-4}
    assert metrics["update/gap_abs"] == pytest.approx(sum(map(abs, gaps)) / 16, **near)
    assert metrics["update/gap_max"] == pytest.approx(max(map(abs, gaps)), **near)
    k3 = sum(math.exp(gap) - gap - 1 for gap in gaps) / 16
    assert metrics["update/gap_k3"] == pytest.approx(k3, **near)
    assert metrics["update/ratio"] == pytest.approx(sum(map(math.exp, gaps)) / 16, **near)
    squares = sum(gradient.norm().item() ** 2 for gradient in gradients.values())
    assert metrics["update/gradient_norm"] == pytest.approx(math.sqrt(squares), **near)
    assert metrics["update/learning_rate"] == 1e-3
    assert 0 < metrics["update/entropy"] < math.log(24)


def test_totals_by_hand():
    # Over two micro-batches the trained tokens have log pi - log mu of 1, -2 and 0.
    totals = Totals()
    gap, ratio = torch.tensor([9.0, 1.0, -2.0]), torch.tensor([9.0, 0.5, 0.25])
    totals.add({"gap": gap, "ratio": ratio}, torch.tensor([False, True, True]), 0.5)
    totals.add({"gap": torch.zeros(1), "ratio": torch.ones(1)}, torch.tensor([True]), -2.0)
    assert totals.means() == pytest.approx(
        {
            "update/ratio": 1.75 / 3,
            "update/gap_abs": 1.0,
            "update/gap_k3": ((math.e - 1 - 1) + (math.exp(-2) + 2 - 1)) / 3,
            "update/gap_max": 2.0,
            "update/loss": -1.5,
            "update/trained_tokens": 3.0,
        }
    )


def test_what_is_trained_is_told_by_its_age():
    """Tokens of age 0 have gaps 9 (not trained) and 0, those of age 2 gaps 1 and -2."""
    parts = [Totals(), Totals()]
    gap = torch.tensor([9.0, 1.0, -2.0])
    parts[0].add({"gap": gap}, torch.tensor([False, True, True]), 0.0, torch.tensor([0, 2, 2]))
    parts[1].add({"gap": torch.zeros(1)}, torch.tensor([True]), 0.0, torch.tensor([0]))
    means = sum_totals(parts).means()
    assert {name: value for name, value in means.items() if name.startswith("age/")} == (
        pytest.approx(
            {
                "age/0/tokens_frac": 1 / 3,
                "age/0/ratio": 1.0,
                "age/0/k3": 0.0,
                "age/2/tokens_frac": 2 / 3,
                "age/2/ratio": (math.e + math.exp(-2)) / 2,
                "age/2/k3": ((math.e - 1 - 1) + (math.exp(-2) + 2 - 1)) / 2,
            }
        )
    )


def test_a_token_is_as_old_as_the_rounds_since_it_was_drawn():
    """Sampled by versions 3, then 4, then 8, before round of 8 updates, two a round."""
    draw = Random(0)
    old = replace(
        rollout([1, 2], [3, 4, 5, 6], 1.0, draw), versions=((3, 2, 3), (4, 3, 5), (8, 5, 6))
    )
    young = replace(rollout([1, 2], [3, 4], 0.0, draw), versions=((6, 2, 4),))
    groups = [Group(problem=LIVE.problem, rollouts=(young, old))]
    ages = token_ages(packed(*groups), groups, updates=8, per_round=2)
    assert ages.tolist() == [0, 0, 3, 2, 2, 0, 0, 0, 1, 1]  # the longest comes first


def test_a_round_tells_mismatch_from_drift():
    first = {"update/loss": 1.0, "update/trained_tokens": 10.0, "update/gap_abs": 0.1}
    last = {"update/loss": 3.0, "update/trained_tokens": 30.0, "update/gap_abs": 0.5}
    assert round_metrics([first, last]) == {
        "update/loss": 2.0,
        "update/trained_tokens": 40.0,
        "mismatch/abs": 0.1,
        "drift/abs": 0.5,
    }
    assert "drift/abs" not in round_metrics([first])
