"""The real vLLM on a tiny random checkpoint: what it samples, and that it keeps its promises."""

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from rollouts.device_memory import kv_pool_bytes
from rollouts.engine import Engine
from rollouts.exchange import EngineError
from rollouts.rollout import Completion, Request, Sampling

EOS = {0, 2}  # <|endoftext|> and <|im_end|>, as the fixture's generation config names them
# (dtype, mean, max) of |difference| of token logprobs to float32. bfloat16 keeps 8 bits, 0.4%
# of a value; a hidden state of length sqrt(128) gives logits of std 2.3: a few hundredths.
TOLERANCES = {"engine": (1e-5, 1e-4), "bf16_engine": (0.04, 0.4)}


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


def make_requests(
    num: int = 16, *, seed: int = 0, max_tokens: int = 32, **sampling
) -> list[Request]:
    """Different prompts of 15 to 16 ids, one byte each."""
    return [
        Request(
            id=f"{seed}/{i}",
            token_ids=tuple(3 + byte for byte in f"What is {i} + 5?".encode()),
            sampling=Sampling(max_tokens=max_tokens, **sampling),
            seed=1000 * seed + i,
        )
        for i in range(num)
    ]


def sample(engine: Engine, requests: list[Request]) -> dict[str, Completion]:
    return {completion.request_id: completion for completion in engine.sample(requests)}


def tokens(completions: dict[str, Completion]) -> list[tuple[int, ...]]:
    return [completions[key].token_ids for key in sorted(completions)]


@torch.no_grad()
def reference_logprobs(
    model: LlamaForCausalLM, prompt: tuple[int, ...], sampled: tuple[int, ...], temperature: float
) -> torch.Tensor:
    """One float32 forward over prompt and completion; position t's token is predicted at t - 1."""
    logits = model(torch.tensor([prompt + sampled])).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1)[range(len(sampled)), list(sampled)]


def test_every_request_gets_one_completion_with_aligned_logprobs(engine: Engine):
    requests = make_requests(40)
    completions = list(engine.sample(requests))
    assert sorted(c.request_id for c in completions) == sorted(r.id for r in requests)
    for completion in completions:
        assert 1 <= len(completion.token_ids) <= 32
        assert len(completion.logprobs) == len(completion.token_ids)
        assert all(logprob <= 0 for logprob in completion.logprobs)
        assert all(0 <= token < 259 for token in completion.token_ids)  # none from the padding
        assert completion.versions == ((engine.version, 0, completion.num_tokens),)


def test_nothing_to_sample_yields_nothing(engine: Engine):
    assert list(engine.sample([])) == []


def test_same_seeds_give_the_same_tokens_and_logprobs(engine: Engine):
    first, second = (sample(engine, make_requests(seed=1)) for _ in range(2))
    assert first == second


def test_other_seeds_give_other_tokens(engine: Engine):
    first, second = (sample(engine, make_requests(seed=seed)) for seed in (1, 2))
    assert all(a != b for a, b in zip(tokens(first), tokens(second), strict=True))


def test_company_does_not_change_the_tokens(engine: Engine):
    """In float32; the logprobs may differ in their last bits (1e-5 here)."""
    requests = make_requests(8)
    together, alone = sample(engine, requests), {}
    for request in requests:
        alone |= sample(engine, [request])
    assert tokens(together) == tokens(alone)
    for key, completion in together.items():
        assert completion.logprobs == pytest.approx(alone[key].logprobs, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", TOLERANCES)
def test_logprobs_are_those_of_a_float32_forward(request, reference, name: str, temperature: float):
    engine = request.getfixturevalue(name)
    requests = make_requests(32, temperature=temperature)
    completions = sample(engine, requests)
    differences, entropies = [], []
    for item in requests:
        drawn = completions[item.id]
        wanted = reference_logprobs(reference, item.token_ids, drawn.token_ids, temperature)
        differences.append((torch.tensor(drawn.logprobs) - wanted).abs())
        entropies.append(-wanted)
    mean, largest = TOLERANCES[name]
    assert torch.cat(differences).mean() < mean
    assert torch.cat(differences).max() < largest
    # far from uniform, where any mistake would pass: log(259) is 5.6 nats a token
    assert torch.cat(entropies).mean() < 4


def test_temperature_is_applied(engine: Engine):
    """Colder is likelier: at 0.1 nearly every token is the most likely one."""
    warm, cold = (sample(engine, make_requests(temperature=t)) for t in (1.0, 0.1))
    mean = {name: np.mean([lp for c in cs.values() for lp in c.logprobs]) for name, cs in
            (("warm", warm), ("cold", cold))}  # fmt: skip
    assert mean["warm"] < -2 and mean["cold"] > -0.5


def test_end_tokens_and_finish_reasons(engine: Engine, tiny_model: Path):
    assert engine.eos_token_ids == EOS
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    completions = list(engine.sample(make_requests(64, max_tokens=200)))
    finished = {"stop": 0, "length": 0}
    ends = set()
    for completion in completions:
        *before, last = completion.token_ids
        finished[completion.finish] += 1
        assert not EOS & set(before)
        assert (last in EOS) == (completion.finish == "stop")
        assert completion.finish == "stop" or len(completion.token_ids) == 200
        assert completion.text == tokenizer.decode(completion.token_ids, skip_special_tokens=True)
        ends |= {last} & EOS
    assert min(finished.values()) > 0, finished  # both happened
    assert ends == EOS  # and both end tokens ended one


def test_an_end_token_at_the_limit_is_a_stop(engine: Engine):
    """The last allowed token is the end token: it ended by itself."""
    requests = make_requests(64, max_tokens=200)
    stopped = next(c for c in engine.sample(requests) if c.finish == "stop")
    source = next(r for r in requests if r.id == stopped.request_id)
    num = len(stopped.token_ids)
    (again,) = engine.sample(
        [Request(id="limit", token_ids=source.token_ids, seed=source.seed,
                 sampling=Sampling(max_tokens=num))]
    )  # fmt: skip
    assert (again.token_ids, again.finish) == (stopped.token_ids, "stop")


def test_an_abandoned_iterator_leaves_nothing_behind(engine: Engine):
    requests = make_requests(40)
    wanted = sample(engine, requests[:8])
    iterator = engine.sample(make_requests(40, seed=3))
    next(iterator)
    iterator.close()
    assert sample(engine, requests[:8]) == wanted


def test_a_running_sample_forbids_another_and_a_publish(engine: Engine, weights):
    short, long = make_requests(1, max_tokens=2), make_requests(7, seed=6)
    iterator = engine.sample(short + long)
    assert next(iterator).request_id == short[0].id
    with pytest.raises(AssertionError, match="still being sampled"):
        list(engine.sample(make_requests(2, seed=4)))
    with pytest.raises(AssertionError, match="still being sampled"):
        engine.publish(weights.items(), engine.version + 1)
    assert len(list(iterator)) == 7  # and it goes on unharmed


def test_what_finished_before_a_publish_carries_the_version_that_drew_it(engine: Engine, weights):
    """Eight completions of the same length end in the same step; only one was taken."""
    version = engine.version
    iterator = engine.sample(make_requests(8, max_tokens=1))
    next(iterator)
    engine.publish(weights.items(), version + 1)
    assert [completion.versions[0][0] for completion in iterator] == [version] * 7


def test_duplicate_ids(engine: Engine):
    with pytest.raises(AssertionError, match="unique"):
        list(engine.sample(make_requests(2) + make_requests(1)))


def test_a_version_the_engine_does_not_have_yet(engine: Engine):
    late = Request(
        id="late", token_ids=(3, 4), sampling=Sampling(), seed=0, min_version=engine.version + 1
    )
    with pytest.raises(AssertionError, match="needs a newer version"):
        list(engine.sample([*make_requests(4), late]))
    assert len(sample(engine, make_requests(4))) == 4  # those before it were aborted


def test_a_request_that_does_not_fit(engine: Engine):
    """256 is the engine's longest sequence: 240 and 16 fit, 241 and 16 do not."""
    prompt = tuple(3 + i % 200 for i in range(241))
    fits, exceeds = (
        Request(id=f"{num}", token_ids=prompt[:num], sampling=Sampling(max_tokens=16), seed=5)
        for num in (240, 241)
    )
    (completion,) = engine.sample([fits])
    assert len(completion.token_ids) == 16 or completion.finish == "stop"
    with pytest.raises(
        ValueError, match="241 prompt tokens and max_tokens 16 exceed the engine's 256"
    ):
        list(engine.sample([*make_requests(4), exceeds]))
    assert len(sample(engine, make_requests(4))) == 4


def test_the_engine_echoes_the_prompt_it_was_given(engine: Engine, monkeypatch):
    """Special ids inside a prompt, and bytes that are no text, arrive as they are; else it says so."""
    prompt = (1, 2, 0, 258, 130, 3)
    requests = [Request(id="odd", token_ids=prompt, sampling=Sampling(max_tokens=4), seed=0)]
    seen = []
    step = engine._core.step
    monkeypatch.setattr(engine._core, "step", lambda: seen.extend(out := step()) or out)
    list(engine.sample(requests))
    assert [tuple(output.prompt_token_ids) for output in seen] == [prompt]

    def changed():
        outputs = step()
        for output in outputs:
            output.prompt_token_ids = [1, *output.prompt_token_ids]
        return outputs

    monkeypatch.setattr(engine._core, "step", changed)
    with pytest.raises(EngineError, match="other prompt ids"):
        list(engine.sample(requests))


def test_a_dying_engine_is_named(engine: Engine, monkeypatch):
    def die(*args, **kwargs):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(engine._core, "step", die)
        with pytest.raises(EngineError, match="died: MemoryError: no room"):
            list(engine.sample(make_requests(2)))
    with monkeypatch.context() as patch:
        patch.setattr(engine._llm, "collective_rpc", die)
        with pytest.raises(EngineError, match="MemoryError: no room"):
            engine.publish([], engine.version + 1)
    assert len(sample(engine, make_requests(2))) == 2


def test_publish_changes_what_is_sampled_and_stamps_the_version(engine: Engine, weights, reference):
    """Other weights draw other tokens, with their own logprobs; the first ones draw the first again."""
    requests = make_requests(8)
    version = engine.version
    before = sample(engine, requests)
    norm = "model.norm.weight"
    doubled = weights | {norm: 2 * weights[norm]}  # twice the logits: temperature 1/2
    engine.publish(doubled.items(), version + 3)
    after = sample(engine, requests)
    engine.publish(weights.items(), version + 4)
    restored = sample(engine, requests)

    assert {c.versions[0][0] for c in before.values()} == {version}
    assert {c.versions[0][0] for c in after.values()} == {version + 3}
    assert {c.versions[0][0] for c in restored.values()} == {version + 4}
    assert tokens(before) == tokens(restored) != tokens(after)
    for item in requests:
        drawn = after[item.id]
        wanted = reference_logprobs(reference, item.token_ids, drawn.token_ids, 0.5)
        assert drawn.logprobs == pytest.approx(wanted.tolist(), abs=1e-4)


def test_the_prefix_cache_does_not_outlive_a_publish(engine: Engine, weights):
    """A prompt of one whole block and more, sampled before the publish, is computed anew after it."""
    prompt = tuple(3 + i % 200 for i in range(200))

    def once(name: str) -> Completion:
        (completion,) = engine.sample(
            [Request(id=name, token_ids=prompt, sampling=Sampling(max_tokens=8), seed=1)]
        )
        return completion

    name = "model.layers.0.self_attn.v_proj.weight"  # what a cached prompt holds
    changed = weights | {name: weights[name].flip(0)}
    once("fill")
    engine.publish(changed.items(), engine.version + 1)
    published = once("cached?")
    engine.reset_prefix_cache()
    computed = once("computed")
    engine.publish(weights.items(), engine.version + 1)
    assert published.token_ids == computed.token_ids
    assert published.logprobs == pytest.approx(computed.logprobs, abs=1e-5)
    assert once("first").logprobs != pytest.approx(computed.logprobs, abs=1e-2)


def test_render_is_the_checkpoints_own_template(engine: Engine, tiny_model: Path):
    messages = [{"role": "user", "content": "3 + 5"}]
    rendered = engine.render(messages)
    text = "<|im_start|>user\n3 + 5<|im_end|>\n<|im_start|>assistant\n"
    assert rendered == AutoTokenizer.from_pretrained(tiny_model).encode(text)
    assert rendered[0] == 1 and rendered.count(2) == 1


def test_what_it_computes_in(engine: Engine, bf16_engine: Engine):
    assert (engine.dtype, bf16_engine.dtype) == ("float32", "bfloat16")
    assert engine.vocab_size == 259


def caller_state() -> tuple:
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        str(np.random.get_state()),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
    )


def test_the_caller_keeps_its_random_state_and_dtype(bf16_engine: Engine, weights):
    """All through: between completions, after a publish, and after an error."""
    torch.manual_seed(1234)
    random.seed(1234)
    np.random.seed(1234)
    torch.set_default_dtype(torch.float64)
    try:
        before = caller_state()
        for _ in bf16_engine.sample(make_requests(8)):
            assert caller_state() == before
        assert caller_state() == before
        bf16_engine.publish(weights.items(), bf16_engine.version + 1)
        assert caller_state() == before
        with pytest.raises(ValueError, match="exceed"):
            list(bf16_engine.sample(make_requests(1, max_tokens=999)))
        assert caller_state() == before
    finally:
        torch.set_default_dtype(torch.float32)


def test_building_an_engine_keeps_the_callers_random_state(make_engine, untied_model: Path):
    """vLLM seeds torch, NumPy and Python's random when it starts."""
    before = caller_state()
    make_engine(untied_model, "bfloat16")
    assert caller_state() == before


def test_kv_pool_bytes():
    """SmolLM2-135M: 30 layers x keys and values x 3 heads x 64 x 2 bytes = 23,040 bytes a token.

    64 sequences of at most 128 tokens are 256 blocks of 32; with the engine's own block 257:
    257 x 32 x 23,040 = 189,480,960. One token more takes another block each: 321 blocks.
    """
    smollm2 = SimpleNamespace(
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        hidden_size=576,
        head_dim=None,
    )
    assert kv_pool_bytes(smollm2, 2, max_tokens=128, concurrent=64) == 189_480_960
    assert kv_pool_bytes(smollm2, 2, max_tokens=129, concurrent=64) == 321 * 32 * 23_040
    assert kv_pool_bytes(smollm2, 4, max_tokens=128, concurrent=64) == 2 * 189_480_960


def test_kv_pool_bytes_of_latent_attention():
    """DeepSeek-V3 keeps 512 + 64 numbers a token and layer: 2 x 576 x 2 bytes = 2,304 a token."""
    latent = SimpleNamespace(num_hidden_layers=2, kv_lora_rank=512, qk_rope_head_dim=64)
    assert kv_pool_bytes(latent, 2, max_tokens=1, concurrent=1) == 2 * 32 * 2_304


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's pool is a share of its memory")
def test_the_pool_holds_every_sequence_at_its_longest(engine: Engine):
    """64 sequences of 256 tokens: eight blocks of 32 each, and the one vLLM keeps to itself."""
    cache = engine._core.vllm_config.cache_config
    assert (cache.block_size, cache.num_gpu_blocks) == (32, 513)
