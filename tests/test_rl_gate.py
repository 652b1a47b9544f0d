"""The gate's arithmetic on tiny models, with an engine that is a plain float32 forward and its faults."""

import copy
import gc
import logging
import math
import weakref
from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

import rl.gate
import rl.sharing
from rewards.problem import Problem, Response, Score, Verdict
from rl.attention import NAME
from rl.gate import (
    Drawn,
    Facts,
    Gap,
    GateReport,
    anchor_fault,
    compare_facts,
    compare_logprobs,
    float32_logprobs,
    gap,
)
from rl.optimizer import OptimizerConfig
from rl.packing import PackingConfig, pack
from rl.policy import Policy, PolicyConfig
from rl.rows import Family, RowLayout, Span
from rollouts.rollout import Group, Rollout

TEMPERATURE = 0.8
SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
NUM_SEQUENCES, PROMPT, COMPLETION = 32, 5, 16  # 512 sampled tokens, as many as are needed
FACTS = Facts(
    dtype="float32",
    vocab_size=32,
    eos_token_ids=frozenset({0, 2}),
    prompt_ids=((1, 5, 6), (1, 7)),
    template="{{ messages }}",
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("llama"), LlamaForCausalLM(LlamaConfig(**SIZES)))


@pytest.fixture
def policy(llama):
    return make_policy(llama)


@pytest.fixture(scope="module")
def drawn(llama):
    return draw(make_policy(llama))


def write_model(folder, model):
    """Weights large enough for the context to matter in every layer."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    model.save_pretrained(folder)
    return folder


def make_policy(folder, dtype="float32"):
    return Policy(folder, PolicyConfig(dtype=dtype, micro_batch_tokens=200), OptimizerConfig())


def draw(policy, temperature=TEMPERATURE, num_sequences=NUM_SEQUENCES):
    """What an engine without any fault would give for the policy's weights."""
    model = plain_model(policy)
    draws = torch.Generator().manual_seed(1)
    prompts = torch.randint(3, 32, (num_sequences, PROMPT), generator=draws)
    return Drawn(
        sampled=packed(continued(model, prompts, temperature, draws)),
        greedy=packed(continued(model, prompts[:2], 0.0, draws)),
    )


def plain_model(policy):
    """Transformers' own forward in float32 on the bytes that the policy would publish."""
    model = AutoModelForCausalLM.from_pretrained(policy.model.name_or_path, dtype=torch.float32)
    model.load_state_dict({n: t.float() for n, t in policy.model.state_dict().items()})
    return model.eval()


@torch.no_grad()
def continued(model, ids, temperature, draws):
    """One token after another for all rows, each from a forward of the whole without a cache."""
    logprobs = torch.zeros(ids.shape)
    for _ in range(COMPLETION):
        logits = model(ids, use_cache=False).logits[:, -1]
        scaled = (logits / (temperature or 1.0)).log_softmax(-1)
        greedy = scaled.argmax(-1, keepdim=True)
        token = torch.multinomial(scaled.exp(), 1, generator=draws) if temperature else greedy
        ids = torch.cat([ids, token], dim=1)
        logprobs = torch.cat([logprobs, scaled.gather(1, token)], dim=1)
    return [
        Rollout(
            token_ids=tuple(row),
            sampled=(False,) * PROMPT + (True,) * COMPLETION,
            logprobs=tuple(values),
            response=Response(text="", finish="length"),
            score=Score(value=0.0, verdict=Verdict.WRONG),
            versions=((0, PROMPT, PROMPT + COMPLETION),),
        )
        for row, values in zip(ids.tolist(), logprobs.tolist(), strict=True)
    ]


def packed(rollouts):
    problem = Problem(id="p", prompt="", answer="", source="s")
    group = Group(problem=problem, rollouts=tuple(rollouts))
    return pack([group], PackingConfig(), keep_no_signal=True)


def shifted(batch, by):
    return replace(batch, behaviour_logprobs=batch.behaviour_logprobs + by)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_honest_engine_passes(llama, dtype):
    policy = make_policy(llama, dtype)
    report = compare_logprobs(policy, draw(policy), TEMPERATURE)
    assert report.faults == ()
    assert policy.packed
    assert report.engine.num_tokens == 512
    assert report.engine.mean < 1e-5 and report.engine.largest < 1e-4
    # bfloat16 keeps 8 bits of logits of about 2: a hundredth; float32 24 of them.
    low, high = {"float32": (0, 1e-5), "bfloat16": (1e-3, 0.1)}[dtype]
    assert low <= report.trainer.mean < high
    assert report.line(dtype).startswith(f"gate: |logprob - float32| over 512 tokens in {dtype}: ")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"dtype": "bfloat16"}, "dtype: the engine computes in bfloat16, the trainer in float32"),
        ({"vocab_size": 40}, "vocabulary: the engine draws from 40 ids, the trainer knows 32"),
        ({"eos_token_ids": frozenset({2})}, "the engine stops at [2], the trainer expects [0, 2]"),
        ({"template": ""}, "template: engine and trainer have different chat templates"),
        ({"prompt_ids": ((1, 5, 9), (1, 7))}, "first at place 2 (3 against 3 ids)"),
        ({"prompt_ids": ((1, 5, 6), (1, 7, 7, 7))}, "first at place 2 (4 against 2 ids)"),
    ],
)
def test_each_fact_has_its_fault(change, words):
    assert compare_facts(FACTS, FACTS) == []
    (fault,) = compare_facts(replace(FACTS, **change), FACTS)
    assert words in fault


def test_facts_that_differ_are_all_named():
    other = replace(FACTS, dtype="bfloat16", vocab_size=40, template="")
    assert [f.split(":")[0] for f in compare_facts(other, FACTS)] == [
        "dtype",
        "vocabulary",
        "template",
    ]


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.5])
def test_another_temperature_is_named(policy, temperature):
    (fault,) = compare_logprobs(policy, draw(policy, temperature), TEMPERATURE).faults
    assert fault == (
        f"temperature: the engine's logprobs are those of {temperature}, the trainer computes at 0.8"
    )


def test_another_temperature_is_named_in_bfloat16(llama):
    policy = make_policy(llama, "bfloat16")
    (fault,) = compare_logprobs(policy, draw(policy, 0.7), 1.0).faults
    assert fault.startswith("temperature: the engine's logprobs are those of 0.7, the trainer")


@pytest.mark.parametrize("by", [2e-4, -2e-4, math.nan])
def test_logprobs_of_something_else_are_refused(policy, drawn, by):
    off = replace(drawn, sampled=shifted(drawn.sampled, by))
    faults = compare_logprobs(policy, off, TEMPERATURE).faults
    assert faults[0].startswith("logprobs: the engine is off float32 by ")
    assert faults[0].endswith("it computes with other weights or wrongly")


def test_the_floor_is_no_fault(policy, drawn):
    """5e-5 is half of what is allowed where the trainer itself is exact."""
    near = replace(drawn, sampled=shifted(drawn.sampled, 5e-5))
    assert compare_logprobs(policy, near, TEMPERATURE).faults == ()


def test_bfloat16_allows_three_times_the_trainers_own_error(llama):
    policy = make_policy(llama, "bfloat16")
    drawn = draw(policy)
    own = compare_logprobs(policy, drawn, TEMPERATURE).trainer.mean
    for times, refused in ((2.5, False), (3.5, True)):
        off = replace(drawn, sampled=shifted(drawn.sampled, times * own))
        assert bool(compare_logprobs(policy, off, TEMPERATURE).faults) == refused


def test_an_engine_with_other_weights_is_refused(llama, drawn, policy):
    with torch.no_grad():
        policy.model.model.layers[0].self_attn.v_proj.weight.mul_(1.1)
    (fault,) = compare_logprobs(policy, drawn, TEMPERATURE).faults
    assert fault.startswith("logprobs: the engine is off float32")


def test_another_most_likely_token_is_refused(policy, drawn):
    likely = drawn.greedy.token_ids
    wrong = replace(drawn.greedy, token_ids=torch.where(drawn.greedy.sampled, 31 - likely, likely))
    (fault,) = compare_logprobs(policy, replace(drawn, greedy=wrong), TEMPERATURE).faults
    assert fault.startswith("most likely token: drawing greedily, the engine chose another")
    assert "of 32 places" in fault


def test_a_close_second_is_no_fault(policy, drawn):
    """In bfloat16 two tokens that float32 has 2 nats apart may change places, others may not."""
    logits = [rows for rows, _ in rl.gate.float32_logits(plain_model(policy), drawn.greedy)]
    top = torch.cat(logits).topk(2)
    lead = top.values[:, 0] - top.values[:, 1]
    place = int(lead.argmin())
    assert lead[place] < rl.gate.SURE_MARGIN
    # Of the last token only: what follows an exchanged one would have another context.
    last = replace(drawn.greedy, sampled=torch.zeros_like(drawn.greedy.sampled))
    last.sampled[drawn.greedy.sampled.nonzero()[place]] = True
    last.token_ids[last.sampled] = top.indices[place, 1]
    assert rl.gate.greedy_faults(plain_model(policy), last) == []


def test_too_few_tokens_are_refused(policy):
    few = draw(policy, num_sequences=31)
    (fault,) = compare_logprobs(policy, few, TEMPERATURE).faults
    assert fault == "tokens: only 496 sampled to compare, 512 are needed"


def test_long_sequences_are_judged_by_themselves(policy, drawn):
    """A mistake in a few of many tokens would drown in the mean of all."""
    long = draw(policy, num_sequences=2).sampled
    report = compare_logprobs(policy, replace(drawn, long=long), TEMPERATURE)
    assert report.faults == ()
    long = shifted(long, 2e-4)
    (fault,) = compare_logprobs(policy, replace(drawn, long=long), TEMPERATURE).faults
    assert fault.startswith("beyond the sliding window, logprobs: the engine is off float32")


def test_a_few_long_tokens_may_be_exact_by_chance(llama):
    """One token on which trainer and float32 agree to the last bit is no measure of rounding."""
    policy = make_policy(llama, "bfloat16")
    drawn = draw(policy)
    one = replace(drawn.sampled, sampled=torch.zeros_like(drawn.sampled.sampled))
    trainer = policy.frozen_logprobs(drawn.sampled, TEMPERATURE)
    error = (trainer - drawn.sampled.behaviour_logprobs).abs()
    error[~drawn.sampled.sampled] = math.inf
    one.sampled[error.argmin()] = True
    long = shifted(
        one.cut(*bounds(one, int(error.argmin()))), 2 * float(error[error < math.inf].mean())
    )
    assert compare_logprobs(policy, replace(drawn, long=long), TEMPERATURE).faults == ()


def bounds(batch, place):
    """Where the sequence that holds a place starts and stops."""
    stops = list(accumulate(batch.lengths))
    stop = min(stop for stop in stops if stop > place)
    return max([0, *(s for s in stops if s < stop)]), stop


def test_every_fault_is_found_at_once(policy, drawn):
    few = draw(policy, num_sequences=31)
    bad = replace(few, sampled=shifted(few.sampled, 1.0), greedy=drawn.sampled)
    faults = compare_logprobs(policy, bad, TEMPERATURE).faults
    assert [fault.split(":")[0] for fault in faults] == ["logprobs", "tokens", "most likely token"]


def test_a_trainer_that_computes_the_model_wrongly_is_refused(tmp_path):
    """Granite divides its logits, which the trainer's own head does not: no engine makes that good."""
    model = GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=4.0))
    policy = make_policy(write_model(tmp_path, model))
    (fault,) = compare_logprobs(policy, draw(policy), TEMPERATURE).faults
    assert fault.startswith("logprobs: the trainer is off float32 by ")


@pytest.fixture
def leaking_packing(monkeypatch):
    """Rows laid out as if all of it were one completion: each sees those before it."""

    honest = RowLayout.of

    def leaking(families, size):
        last = max(span.stop for family in families for span in family.completions)
        layout = honest([Family(Span(0, 0, 0), (Span(0, last, 0),))], size)
        return replace(layout, positions=honest(families, size).positions)

    monkeypatch.setattr(RowLayout, "of", staticmethod(leaking))


def test_packing_that_leaks_is_given_up_by_name(policy, drawn, leaking_packing, caplog):
    with caplog.at_level(logging.WARNING):
        report = compare_logprobs(policy, drawn, TEMPERATURE)
    assert report.faults == ()
    assert report.trainer.mean < 1e-5
    assert is_unpacked(policy)
    assert warning(caplog).startswith(
        "sequences are not packed: layers.0.self_attn mixes neighbours, whose company moves its output by "
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_convolution_that_mixes_neighbours_is_named(tmp_path, caplog, dtype):
    """LFM2's short convolution runs over the whole row, whoever it belongs to.

    In the last layer it moves the first two tokens of a prompt only: no sampled token shows it.
    """
    kinds = ["full_attention", "conv"]
    model = Lfm2ForCausalLM(Lfm2Config(**SIZES, layer_types=kinds, conv_L_cache=3))
    policy = make_policy(write_model(tmp_path, model), dtype)
    with caplog.at_level(logging.WARNING, logger="rl"):
        report = compare_logprobs(policy, draw(policy), TEMPERATURE)
    assert report.faults == ()
    assert is_unpacked(policy)
    assert "layers.1.conv mixes neighbours" in warning(caplog)


def test_layers_that_know_no_packed_rows_are_unpacked(policy, drawn, monkeypatch, caplog):
    def refuses(*_, **__):
        raise ValueError("packed attention does not know ['softcap']")

    monkeypatch.setattr(rl.sharing, "row_hidden", refuses)
    with caplog.at_level(logging.WARNING):
        assert compare_logprobs(policy, drawn, TEMPERATURE).faults == ()
    assert is_unpacked(policy)
    assert "ValueError: packed attention does not know ['softcap']" in warning(caplog)


def test_an_unpacked_policy_stays_so(policy, drawn, leaking_packing, caplog):
    policy.unpack("a test")
    caplog.clear()
    assert compare_logprobs(policy, drawn, TEMPERATURE).faults == ()
    assert is_unpacked(policy)
    assert caplog.records == []


def is_unpacked(policy):
    return not policy.packed and policy.model.config._attn_implementation == "sdpa"


def warning(caplog):
    (record,) = [record for record in caplog.records if record.name.startswith("rl.")]
    return record.getMessage()


def test_one_float32_copy_is_made_and_freed(policy, drawn, monkeypatch):
    copies = []

    def watched(policy):
        exact = float32_copy(policy)
        copies.append(weakref.ref(exact.lm_head.weight))
        return exact

    float32_copy = Policy.float32_copy
    monkeypatch.setattr(Policy, "float32_copy", watched)
    gc.disable()
    try:
        off = replace(drawn, sampled=shifted(drawn.sampled, 1.0), long=drawn.sampled)
        compare_logprobs(policy, off, TEMPERATURE)
        assert len(copies) == 1
        assert copies[0]() is None
    finally:
        gc.enable()


def test_the_copy_leaves_the_policy_as_it_was(llama):
    policy = make_policy(llama, "bfloat16")
    before = copy.deepcopy(policy.model.state_dict())
    compare_logprobs(policy, draw(policy), TEMPERATURE)
    assert policy.model.training
    assert policy.model.config._attn_implementation == NAME
    after = policy.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_float32_logprobs_are_those_of_a_plain_forward(policy, drawn):
    found = float32_logprobs(plain_model(policy), drawn.sampled, [TEMPERATURE, 2.0])
    assert found.shape == (2, 512)
    drawn_at = drawn.sampled.behaviour_logprobs[drawn.sampled.sampled]
    assert gap(found[0], drawn_at).largest < 1e-5
    assert gap(found[1], drawn_at).mean > 0.1


def test_gap_by_hand():
    found = gap(torch.tensor([0.0, 1.0, -2.0]), torch.tensor([0.5, 1.0, -1.0]))
    assert found == Gap(mean=0.5, largest=1.0, num_tokens=3)
    assert gap(torch.zeros(0), torch.zeros(0)).mean == math.inf


@pytest.mark.parametrize(
    "anchor, low, high, refused",
    [
        ("sampler", 0.2, 0.2, True),  # ten times 0.028 is 0.28
        ("sampler", 0.3, 0.2, True),
        ("sampler", 0.2, 0.3, True),
        ("sampler", 0.3, 0.3, False),
        ("trainer", 0.2, 0.2, False),
    ],
)
def test_a_clip_within_ten_times_the_gap_of_the_sampler(anchor, low, high, refused):
    nothing = Gap(mean=0.0, largest=0.0, num_tokens=512)
    between = Gap(mean=0.028, largest=0.3, num_tokens=512)
    report = GateReport(engine=nothing, trainer=nothing, engine_to_trainer=between, faults=())
    fault = anchor_fault(anchor, low, high, report)
    assert (fault is not None) == refused
    if refused:
        assert "clip bound of 0.2 lies within ten times the measured gap 0.028" in fault
