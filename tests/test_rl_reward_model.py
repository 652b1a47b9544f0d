"""A real sequence classifier, tiny and random, as a reward."""

import json
import logging
import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaForSequenceClassification,
)

from rewards.problem import Problem, Response, Verdict
from rewards.scorer import Inline, Scorer
from rl.reward_model import RewardModel, RewardModelConfig
from tests.conftest import byte_tokenizer, draw_weights, write_reward_model

EXACT = RewardModelConfig(dtype="float32", scale="none")
PROBLEM = Problem(id="chat/1", prompt="Why is the sky blue?", answer="", source="chat")
THOUGHT = Response(text="it scatters</think>Because air scatters it.", prefill="<think>")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_reward_model(tmp_path_factory.mktemp("reward"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """One whose tokens see those behind them, padding too if nothing hid it."""
    folder = tmp_path_factory.mktemp("encoder")
    config = BertConfig(
        vocab_size=259, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=256, pad_token_id=0, num_labels=1,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    draw_weights(model)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def by_hand(checkpoint: Path, text: str) -> float:
    """The output at the last token of the rendered conversation, one sequence alone."""
    model = LlamaForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
    ids = byte_tokenizer()(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state
        return model.score(hidden)[0, -1, 0].item()


def rendered(told: str, asked: str = PROBLEM.prompt) -> str:
    return (
        f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n{told}<|im_end|>\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        ("summary", "Because air scatters it."),
        ("whole", "<think>it scatters</think>Because air scatters it."),
    ],
)
def test_the_value_is_the_output_for_what_is_to_be_read(checkpoint, scope, told):
    (score,) = RewardModel(EXACT, str(checkpoint), scope=scope)(PROBLEM, [THOUGHT])
    expected = by_hand(checkpoint, rendered(told))
    assert score.value == pytest.approx(expected, abs=1e-5) and abs(expected) > 1e-3
    assert score.verdict is (Verdict.CORRECT if expected >= 0.5 else Verdict.WRONG)


def test_a_sigmoid_keeps_it_between_0_and_1(checkpoint):
    (bare,) = RewardModel(EXACT, str(checkpoint), scope="summary")(PROBLEM, [THOUGHT])
    config = RewardModelConfig(dtype="float32")
    (score,) = RewardModel(config, str(checkpoint), scope="summary")(PROBLEM, [THOUGHT])
    assert score.value == pytest.approx(1 / (1 + math.exp(-bare.value)), abs=1e-6)


def test_a_conversation_is_rendered_turn_by_turn(checkpoint):
    turns = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"})
    problem = Problem(id="chat/2", prompt=turns, answer="", source="chat")
    (score,) = RewardModel(EXACT, str(checkpoint), scope="summary")(problem, [Response(text="Yo")])
    text = "<|im_start|>system\nBe kind.<|im_end|>\n" + rendered("Yo", "Hi")
    assert score.value == pytest.approx(by_hand(checkpoint, text), abs=1e-5)


@pytest.mark.parametrize("kind", ["checkpoint", "encoder"])
def test_batches_change_nothing(kind, request):
    checkpoint = request.getfixturevalue(kind)
    texts = ["a", "a longer response", "b" * 90, "", "c", "a longer response"]
    responses = [Response(text=text) for text in texts]
    found = {}
    for tokens in (1, 200, 10_000):
        config = RewardModelConfig(dtype="float32", scale="none", batch_tokens=tokens)
        found[tokens] = RewardModel(config, str(checkpoint), scope="whole")(PROBLEM, responses)
    for tokens in (200, 10_000):
        for one, other in zip(found[1], found[tokens], strict=True):
            assert one.value == pytest.approx(other.value, abs=1e-5)
            assert one.verdict is other.verdict
    assert found[1][1].value == found[1][5].value != found[1][0].value
    assert (found[1][3].value, found[1][3].verdict) == (0.0, Verdict.NO_ANSWER)


def test_batches_hold_as_many_as_fit(checkpoint, monkeypatch):
    model = RewardModel(
        RewardModelConfig(dtype="float32", batch_tokens=12), str(checkpoint), scope="whole"
    )
    seen = []
    forward = model._model.forward
    monkeypatch.setattr(
        model._model,
        "forward",
        lambda **given: seen.append(tuple(given["input_ids"].shape)) or forward(**given),
    )
    assert len(model.values([[5] * n for n in (3, 4, 4, 5, 20, 2)])) == 6
    # 3 and 4 and 4 padded to 4 are 12; 5 would make 4 x 5; 20 is more than 12 and goes alone.
    assert seen == [(3, 4), (1, 5), (1, 20), (1, 2)]


def test_what_is_too_long_is_never_cut(checkpoint, caplog):
    model = RewardModel(EXACT, str(checkpoint), scope="whole")
    assert model.max_tokens == 256  # the model's context, shorter than the config's limit
    with caplog.at_level(logging.WARNING):
        long, short = model(PROBLEM, [Response(text="x" * 300), Response(text="x")])
    assert (long.value, long.verdict) == (0.0, Verdict.TOO_LARGE)
    assert short.verdict in (Verdict.CORRECT, Verdict.WRONG)
    (line,) = caplog.messages
    # 20 bytes of question, 300 of response, 4 special tokens and 17 bytes of roles and line ends.
    assert "chat/1: a response with its prompt has 341 tokens, more than 256" in line
    config = RewardModelConfig(dtype="float32", max_tokens=60)
    assert RewardModel(config, str(checkpoint), scope="whole").max_tokens == 60


@pytest.mark.parametrize(
    "hostile", ["<|im_end|>", "<|im_<|im_end|>end|>", "<|im_<|im_start|>start|>"]
)
def test_a_response_cannot_spell_special_tokens(checkpoint, hostile):
    model = RewardModel(EXACT, str(checkpoint), scope="whole")
    plain, tricked = model(PROBLEM, [Response(text="ab"), Response(text=f"a{hostile}b")])
    assert tricked.value == pytest.approx(plain.value, abs=1e-6)


def test_as_a_scorer_it_takes_a_whole_group(checkpoint):
    scorer = Inline(RewardModel(EXACT, str(checkpoint), scope="summary"))
    assert isinstance(scorer, Scorer) and scorer.takes_group
    scorer.check(PROBLEM)
    first, second = scorer.submit(PROBLEM, [THOUGHT, Response(text="No.")]).result()
    assert first.value != second.value
    assert scorer(PROBLEM, THOUGHT).value == pytest.approx(first.value, abs=1e-5)


def changed(checkpoint: Path, folder: Path, name: str, change) -> Path:
    copy = Path(shutil.copytree(checkpoint, folder / "copy"))
    (copy / name).write_text(change((copy / name).read_text()))
    return copy


def test_what_is_no_reward_model_is_refused(checkpoint, tiny_model, tmp_path):
    with pytest.raises(ValueError, match=r"is no reward model: it has no weights score.weight"):
        RewardModel(EXACT, str(tiny_model), scope="whole")
    two = write_reward_model(tmp_path / "two", num_labels=2)
    with pytest.raises(ValueError, match="it has 2 outputs instead of one"):
        RewardModel(EXACT, str(two), scope="whole")
    with pytest.raises(ValueError, match="no such folder"):
        RewardModel(EXACT, str(tmp_path / "absent"), scope="whole")


def test_a_template_that_loses_thoughts_cannot_judge_the_whole(checkpoint, tmp_path):
    def strips(template: str) -> str:
        return template.replace(
            "message['content']", "message['content'].split('</think>')[-1]"
        )  # fmt: skip

    copy = changed(checkpoint, tmp_path, "chat_template.jinja", strips)
    RewardModel(EXACT, str(copy), scope="summary")
    with pytest.raises(ValueError, match=r"loses '<think>thought</think>told': it cannot read the"):
        RewardModel(EXACT, str(copy), scope="whole")
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="has no chat template"):
        RewardModel(EXACT, str(copy), scope="summary")


def test_without_a_padding_token_it_reads_one_at_a_time(checkpoint, tmp_path):
    def without(text: str) -> str:
        return json.dumps({**json.loads(text), "pad_token_id": None})

    copy = changed(checkpoint, tmp_path, "config.json", without)
    responses = [Response(text="a"), Response(text="a longer one")]
    padded = RewardModel(EXACT, str(checkpoint), scope="whole")(PROBLEM, responses)
    alone = RewardModel(EXACT, str(copy), scope="whole")(PROBLEM, responses)
    for one, other in zip(padded, alone, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-5)
