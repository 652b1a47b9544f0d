"""The gate on a real engine: an honest start passes, and each planted fault is refused by name."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM

import recipes.gating
from eval.evaluate import EvalConfig
from recipes.config import RunConfig
from recipes.data import load_data
from recipes.gating import drawn, engine_facts, pass_gate, sliding_window, trainer_facts
from rl.gate import compare_facts
from rl.objective import LossConfig
from rl.optimizer import OptimizerConfig
from rl.policy import Policy, PolicyConfig
from rl.trainer import TrainConfig
from rollouts.prompts import PromptConfig
from rollouts.sampler import EngineConfig
from rollouts.tasks.arithmetic import Arithmetic


def make_config(dtype="float32", **changes):
    config = RunConfig(
        task=Arithmetic(add_max=9, subtract_max=9, multiply_max=3),
        engine=EngineConfig(dtype=dtype),
        policy=PolicyConfig(dtype=dtype),
        train=TrainConfig(max_tokens=((0, 24),)),
        test=EvalConfig(split="test", max_tokens=24),
        validation=EvalConfig(max_tokens=24),
    )
    return replace(config, **changes)


def start(engine, model, config):
    """What `pass_gate` asks of a run: its engine, its policy and its data."""
    policy = Policy(model, config.policy, OptimizerConfig())
    return SimpleNamespace(engine=engine, policy=policy), load_data(config, model)


def refusal(engine, model, config):
    run, data = start(engine, model, config)
    with pytest.raises(ValueError, match=r"^refused to start: ") as refused:
        pass_gate(config, run, data)
    message = str(refused.value)
    assert "\n" not in message
    return message.removeprefix("refused to start: ")


class Planted:
    """A real engine with one thing wrong: attributes given here, requests or completions changed."""

    def __init__(self, engine, request=None, completion=None, **attributes):
        self._engine, self._request, self._completion = engine, request, completion
        vars(self).update(attributes)

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def sample(self, requests):
        requests = [self._request(r) if self._request else r for r in requests]
        for completion in self._engine.sample(requests):
            yield self._completion(completion) if self._completion else completion


@pytest.fixture
def altered(tiny_model, tmp_path):
    """A copy of the checkpoint's folder to be changed, for an engine of its own."""
    return shutil.copytree(tiny_model, tmp_path / "altered")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("dtype, name", [("float32", "engine"), ("bfloat16", "bf16_engine")])
def test_an_honest_start_passes_and_says_the_gap(request, tiny_model, dtype, name):
    config = make_config(dtype)
    run, data = start(request.getfixturevalue(name), tiny_model, config)
    line = pass_gate(config, run, data)
    words = line.replace(",", "").replace(";", "").split()
    assert line.startswith("gate: |logprob - float32| over ") and f" tokens in {dtype}: " in line
    assert int(words[words.index("over") + 1]) >= 512
    engine, trainer = (float(words[words.index(side) + 1]) for side in ("engine", "trainer"))
    # 24 bits of a logit of about 2 leave 1e-6, 8 bits a few hundredths.
    low, high = (0, 1e-4) if dtype == "float32" else (1e-3, 0.1)
    assert low <= engine < high and low <= trainer < high
    assert run.policy.packed


@pytest.fixture(scope="module")
def misreading_engine(make_engine, tiny_model, tmp_path_factory):
    """An engine whose tokenizer reads "." as "!", and the other way round."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("misreading") / "model")
    core = json.loads((folder / "tokenizer.json").read_text())["model"]
    core["vocab"] |= {".": core["vocab"]["!"], "!": core["vocab"]["."]}
    edit(folder / "tokenizer.json", model=core)
    return make_engine(folder)


@pytest.mark.parametrize(
    "prompts",
    [
        PromptConfig(system="Be brief."),
        PromptConfig(prefill="<think>"),
        PromptConfig(template="plain"),
        PromptConfig(template="r1_zero", prefill="<think>"),
    ],
    ids=["chat", "prefill", "plain", "r1_zero"],
)
def test_prompt_ids_are_those_of_the_engines_tokenizer(
    engine, misreading_engine, tiny_model, prompts
):
    config = make_config(prompts=prompts)
    run, data = start(engine, tiny_model, config)
    assert compare_facts(engine_facts(config, run, data), trainer_facts(run, data)) == []
    ids = data.renderer.ids(data.problems["train"][0])
    place = ids.index(data.renderer.tokenizer.convert_tokens_to_ids("."))
    message = refusal(misreading_engine, tiny_model, config)
    assert message == (
        "prompt ids: engine and trainer encode the same problem differently, first at place "
        f"{place} ({len(ids)} against {len(ids)} ids)"
    )


def test_another_chat_template_is_refused(make_engine, tiny_model, altered):
    tokenizer = AutoTokenizer.from_pretrained(altered)
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant", "Assistant")
    tokenizer.save_pretrained(altered)
    message = refusal(make_engine(altered), tiny_model, make_config())
    template, ids = message.split("; ")
    assert template == "template: engine and trainer have different chat templates for this model"
    assert ids.startswith("prompt ids: ")


def test_another_end_of_sequence_set_is_refused(make_engine, tiny_model, altered):
    edit(altered / "generation_config.json", eos_token_id=[2])
    message = refusal(make_engine(altered), tiny_model, make_config())
    assert message.startswith(
        "end of sequence: the engine stops at [2], the trainer expects [0, 2]"
    )


def test_another_vocabulary_is_refused(make_engine, tiny_model, altered):
    model = AutoModelForCausalLM.from_pretrained(altered, dtype=torch.bfloat16)
    model.resize_token_embeddings(262)
    model.save_pretrained(altered)
    message = refusal(make_engine(altered), tiny_model, make_config())
    assert message.startswith("vocabulary: the engine draws from 262 ids, the trainer knows 259")


def test_another_dtype_is_refused(bf16_engine, tiny_model):
    message = refusal(bf16_engine, tiny_model, make_config("float32"))
    assert message.startswith("dtype: the engine computes in bfloat16, the trainer in float32")


@pytest.mark.parametrize("dtype, name", [("float32", "engine"), ("bfloat16", "bf16_engine")])
def test_another_temperature_is_refused(request, tiny_model, dtype, name):
    def cold(request):
        temperature = min(0.7, request.sampling.temperature)  # greedy requests stay so
        return replace(request, sampling=replace(request.sampling, temperature=temperature))

    engine = Planted(request.getfixturevalue(name), request=cold)
    message = refusal(engine, tiny_model, make_config(dtype))
    assert message == (
        "temperature: the engine's logprobs are those of 0.7, the trainer computes at 1.0"
    )


def test_an_engine_with_other_weights_is_refused(make_engine, tiny_model, read_weights):
    weights = read_weights(tiny_model)
    name = "model.layers.1.mlp.down_proj.weight"
    engine = make_engine(tiny_model)
    engine.publish((weights | {name: weights[name].flip(0)}).items(), 0)
    message = refusal(engine, tiny_model, make_config())
    assert message.startswith("logprobs: the engine is off float32 by ")
    assert "it computes with other weights or wrongly" in message


def test_shifted_logprobs_are_refused(engine, tiny_model):
    def shifted(completion):
        return replace(completion, logprobs=tuple(x - 1e-3 for x in completion.logprobs))

    message = refusal(Planted(engine, completion=shifted), tiny_model, make_config())
    assert message.startswith("logprobs: the engine is off float32 by 0.001 on average")


def test_another_most_likely_token_is_refused(engine, tiny_model):
    def hot(request):
        temperature = request.sampling.temperature or 1.0  # what is greedy is not
        return replace(request, sampling=replace(request.sampling, temperature=temperature))

    message = refusal(Planted(engine, request=hot), tiny_model, make_config())
    assert message.startswith("most likely token: drawing greedily, the engine chose another")


def test_too_few_tokens_are_refused(engine, tiny_model, monkeypatch):
    monkeypatch.setattr(recipes.gating, "MAX_SAMPLES", 1)
    config = make_config(train=TrainConfig(max_tokens=((0, 2),)))
    message = refusal(engine, tiny_model, config)
    assert message.startswith("tokens: only ") and message.endswith(" 512 are needed")


def test_a_clip_of_the_samplers_ratio_within_rounding_is_refused(bf16_engine, engine, tiny_model):
    loss = LossConfig(anchor="sampler", clip_low=0.2, clip_high=0.01)
    message = refusal(bf16_engine, tiny_model, make_config("bfloat16", loss=loss))
    assert message.startswith("anchor: with anchor sampler a clip bound of 0.01 lies within ten")
    config = make_config("float32", loss=loss)
    assert pass_gate(config, *start(engine, tiny_model, config)).startswith("gate: ")


def test_every_fault_is_in_one_line(engine, tiny_model):
    facts = Planted(engine, dtype="float16", vocab_size=7, eos_token_ids=frozenset({5}))
    words = refusal(facts, tiny_model, make_config())
    for name in ("dtype: ", "; vocabulary: ", "; end of sequence: "):
        assert name in words


def test_a_short_answer_is_asked_for_until_there_are_enough(engine, tiny_model):
    config = make_config(train=TrainConfig(max_tokens=((0, 1),)))
    run, data = start(engine, tiny_model, config)
    batch = drawn(config, run, data).sampled
    assert int(batch.sampled.sum()) >= 512
    sequences = {tuple(ids.tolist()) for ids in batch.token_ids.split(batch.lengths)}
    assert len(sequences) > len(data.problems["train"])  # other seeds, other answers


def test_what_is_drawn_does_not_depend_on_what_finishes_first(engine, tiny_model):
    class LastFirst(Planted):
        def sample(self, requests):
            return reversed(list(super().sample(requests)))

    config = make_config()
    run, data = start(engine, tiny_model, config)
    batches = []
    for sampler in (engine, LastFirst(engine)):
        engine.reset_prefix_cache()
        run.engine = sampler
        batches.append(drawn(config, run, data).sampled)
    assert torch.equal(batches[0].token_ids, batches[1].token_ids)
    assert torch.equal(batches[0].behaviour_logprobs, batches[1].behaviour_logprobs)


WINDOW = 96


@pytest.fixture(scope="module")
def windowed_model(tiny_model, tmp_path_factory):
    """The tiny model as a Mistral that sees 96 tokens; its prompts have 68 to 70."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("windowed") / "model")
    settings = json.loads((folder / "config.json").read_text())
    kept = {k: v for k, v in settings.items() if k not in ("model_type", "architectures")}
    model = MistralForCausalLM(MistralConfig(**kept, sliding_window=WINDOW))
    source = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.to(torch.bfloat16).load_state_dict(source.state_dict())
    model.save_pretrained(folder)
    return folder


def test_a_window_is_looked_beyond(make_engine, windowed_model, read_weights, tmp_path):
    config = make_config()
    engine = make_engine(windowed_model)
    engine.publish(read_weights(windowed_model).items(), 0)
    run, data = start(engine, windowed_model, config)
    long = drawn(config, run, data).long
    assert long.lengths == sorted(long.lengths, reverse=True) and len(long.lengths) == 2
    # At place 97 a token is drawn by place 96, which sees 1 to 96 and not 0.
    assert int(long.positions[long.sampled].min()) >= WINDOW + 1
    assert max(long.lengths) <= 2 * WINDOW
    assert pass_gate(config, run, data).startswith("gate: ")
    blind = shutil.copytree(windowed_model, tmp_path / "blind")
    edit(blind / "config.json", sliding_window=None)
    engine = make_engine(blind)
    engine.publish(read_weights(blind).items(), 0)
    message = refusal(engine, windowed_model, config)
    assert message.startswith("beyond the sliding window, logprobs: the engine is off float32 by ")
    assert "; " not in message.replace("; it computes", "")  # nowhere else


def test_a_window_that_the_run_never_reaches_is_left_alone(engine, windowed_model):
    config = make_config()
    run, data = start(Planted(engine, max_tokens=WINDOW + 1), windowed_model, config)
    assert drawn(config, run, data).long is None
    run.engine.max_tokens = WINDOW + 2
    long = drawn(config, run, data).long
    assert long.lengths == [WINDOW + 2] * 2 and int(long.sampled.sum()) == 2


def test_sliding_window_is_read_as_transformers_writes_it():
    def config(**text):
        return SimpleNamespace(get_text_config=lambda: SimpleNamespace(**text))

    mixed = ["sliding_attention", "full_attention"]
    assert sliding_window(config()) is None
    assert sliding_window(config(sliding_window=None)) is None
    assert sliding_window(config(sliding_window=0)) is None
    assert sliding_window(config(sliding_window=512)) == 512
    assert sliding_window(config(sliding_window=512, layer_types=mixed)) == 512
    assert sliding_window(config(sliding_window=512, layer_types=mixed[1:])) is None


def test_the_engine_sleeps_while_a_float32_copy_is_there(engine, tiny_model, monkeypatch):
    calls = []
    planted = Planted(
        engine,
        sleep=lambda: calls.append("sleep"),
        wake=lambda *parts: calls.append(("wake", *parts)),
    )
    compare = recipes.gating.compare_logprobs
    monkeypatch.setattr(
        recipes.gating, "compare_logprobs", lambda *a: (calls.append("compare"), compare(*a))[1]
    )
    config = make_config("float32")
    pass_gate(config, *start(planted, tiny_model, config))
    assert calls == ["sleep", "compare", ("wake", "weights", "kv_cache")]
