"""The files of the step benchmark, its generator of rollouts, and the minimal loop's arithmetic."""

import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import minimal_ops
from benchmarks.minimal_ops import HeadLoss, Kernels, attention, clipped_loss
from benchmarks.minimal_update import micro_batches, rows_of, width_of
from benchmarks.step_rollouts import (
    SHAPES,
    Shape,
    arithmetic_work,
    document_work,
    fixed_rollouts,
    rewards_of_groups,
)
from benchmarks.step_work import (
    FixedRollouts,
    StepResult,
    StepRow,
    StepWork,
    TimeToAccuracy,
    coin_value,
    good_enough,
    read_result,
    read_rollouts,
    read_work,
    rewards_of,
    write,
)
from benchmarks.trl_step import replayed, with_lengths

ROOT = Path(__file__).resolve().parent.parent
STREAM = list(range(5000))


def a_work(**fields) -> StepWork:
    """Three steps of two problems."""
    given = {
        "model": "model",
        "prompts": (((1, 2), (3,)), ((4,), (5, 6)), ((7,), (8, 9, 10))),
        "texts": (("a", "b"), ("c", "d"), ("e", "f")),
        "group": 2,
    }
    return StepWork(**given | fields)


ANSWERS = (("8", "2"), ("3", "4"), ("5", "6"))


def constant(prompts, completions):
    """A scorer that finds every token equally likely."""
    return [[[-2.0] * len(ids) for ids in group] for group in completions]


def made(shape: Shape = SHAPES["short"], silent_frac: float = 0.0, seed: int = 0) -> FixedRollouts:
    return fixed_rollouts(shape, STREAM, silent_frac=silent_frac, seed=seed, score=constant)


def test_batches_of_one_seed_differ_in_their_rewards_only():
    shape = SHAPES["short"]
    half = made(shape, 0.5)
    assert (half.prompts, half.completions) == (made(shape).prompts, made(shape).completions)
    assert half.rewards == rewards_of_groups(shape, 0.5, seed=0) != made(shape).rewards


@pytest.mark.parametrize("goal", [None, TimeToAccuracy(answers=ANSWERS, target=0.5, window=2)])
def test_work_comes_back_as_it_was_written(tmp_path, goal):
    work = a_work(time_to_accuracy=goal)
    write(tmp_path / "work.json", work)
    assert read_work(tmp_path / "work.json") == work
    assert (work.problems, work.longest) == (2, 67)


def test_rollouts_come_back_as_they_were_written(tmp_path):
    rollouts = made(silent_frac=0.5)
    write(tmp_path / "rollouts.json", rollouts)
    assert read_rollouts(tmp_path / "rollouts.json") == rollouts


def test_a_result_comes_back_with_what_follows_from_it(tmp_path):
    row = StepRow(step_s=10.0, sample_s=3.0, score_s=0.5, update_s=6.0, publish_s=0.25)
    result = StepResult(subject="x", steps=(row,), peak_memory_bytes=5, kv_pool_bytes=2)
    result.write(tmp_path / "out.json")
    assert read_result(tmp_path / "out.json") == result
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["peak_memory_without_pool_bytes"] == 3
    assert written["steps"][0]["other_s"] == 0.25  # 10 - 3 - 0.5 - 6 - 0.25
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_the_first_step_warms_up_unless_every_second_counts():
    assert [a_work().warms_up(step) for step in range(3)] == [True, False, False]
    goal = TimeToAccuracy(answers=ANSWERS, target=0.5)
    assert not any(a_work(time_to_accuracy=goal).warms_up(step) for step in range(3))


def test_lengths_are_given_group_after_group_and_must_fit():
    lengths = (((1, 2), (3, 4)), ((5, 6), (7, 8)), ((9, 9), (9, 9)))
    assert a_work(lengths=lengths).flat_lengths(1) == [5, 6, 7, 8]
    assert a_work().flat_lengths(1) is None
    with pytest.raises(ValueError, match="lengths need"):
        a_work(lengths=lengths[:2])
    with pytest.raises(ValueError, match="lengths need"):
        a_work(lengths=(((1,), (3,)), *lengths[1:]))


def test_medians_leave_out_warm_ups_and_other_batches():
    seconds = [(9.0, True, 0), (1.0, False, 0), (3.0, False, 0), (7.0, True, 1), (5.0, False, 1)]
    rows = tuple(StepRow(step_s=s, warm_up=warm, batch=batch) for s, warm, batch in seconds)
    result = StepResult(subject="x", steps=rows)
    assert (result.median(), result.median(batch=1)) == (2.0, 5.0)


def test_work_that_does_not_fit_together_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one shape"):
        a_work(texts=(("a", "b"), ("c", "d"), ("e",)))
    with pytest.raises(ValueError, match="at least 2"):
        a_work(prompts=(((1,),),), texts=(("a",),))
    (tmp_path / "work.json").write_text('{"model": "x", "steps": 3}')
    with pytest.raises(ValueError, match="no StepWork"):
        read_work(tmp_path / "work.json")


def test_rollouts_that_do_not_fit_together_are_refused():
    fields = {"prompts": ((1,),), "completions": (((2, 3), (4,)),), "rewards": ((0.0, 1.0),)}
    assert FixedRollouts(**fields, logprobs=(((-1.0, -1.0), (-1.0,)),)).num_tokens == 3
    with pytest.raises(ValueError, match="one logprob"):
        FixedRollouts(**fields, logprobs=(((-1.0,), (-1.0,)),))


def test_the_coin_falls_on_both_sides():
    values = [coin_value(str(i)) for i in range(1000)]
    assert set(values) == {0.0, 1.0}
    assert 0.45 < sum(values) / 1000 < 0.55  # 3 sigma of 1,000 fair coins is 0.047


def test_rewards_follow_the_coin_or_the_answers():
    texts = [["8", "9"], ["2", "two"]]
    assert rewards_of(a_work(), 0, texts) == [[coin_value(t) for t in group] for group in texts]
    first = rewards_of(a_work(signal_groups=(2, 1, 2)), 1, texts)
    assert first == [[coin_value(text) for text in texts[0]], [0.0, 0.0]]
    goal = TimeToAccuracy(answers=ANSWERS, target=0.5)
    assert rewards_of(a_work(time_to_accuracy=goal), 0, texts)[0] == [1.0, 0.0]


def test_good_enough_looks_at_the_last_steps_only():
    work = a_work(time_to_accuracy=TimeToAccuracy(answers=ANSWERS, target=0.5, window=2))
    rows = [StepRow(step_s=1.0, reward_mean=mean) for mean in (0.9, 0.2, 0.4, 0.6)]
    assert [good_enough(work, rows[:n]) for n in range(5)] == [False, False, True, False, True]
    assert not good_enough(a_work(), rows)


@pytest.mark.parametrize("name", ["short", "long"])
@pytest.mark.parametrize(("silent_frac", "num_silent"), [(0.0, 0), (0.5, 0.5), (0.8, 0.8)])
def test_generated_rollouts_have_the_sizes_that_were_asked_for(name, silent_frac, num_silent):
    shape = SHAPES[name]
    rollouts = made(shape, silent_frac)
    assert len(rollouts.prompts) == shape.problems
    assert {len(ids) for ids in rollouts.prompts} == {shape.prompt_tokens}
    assert rollouts.group == shape.group
    lengths = [len(ids) for group in rollouts.completions for ids in group]
    assert 1 <= min(lengths) < max(lengths) <= shape.max_tokens
    silent = shape.problems - len(rollouts.with_signal)
    assert silent == round(shape.problems * num_silent)


def test_lengths_are_uniform_or_log_normal():
    rng = random.Random(0)
    short = sorted(SHAPES["short"].length(rng) for _ in range(4000))
    assert (short[0], short[-1]) == (6, 64)
    assert abs(sum(short) / 4000 - 35) < 1  # the mean of 6 to 64; sigma of the mean 0.27
    long = sorted(SHAPES["long"].length(rng) for _ in range(4000))
    assert abs(long[2000] / 256 - 1) < 0.1
    assert long[-1] == 1024  # of 4,000, 4% lie above: exp(0.8 x 1.73) = 4


def test_the_generator_repeats_itself_and_refuses_a_short_stream():
    assert made(seed=1) == made(seed=1) != made(seed=2)
    with pytest.raises(ValueError, match="stream has 100 ids"):
        fixed_rollouts(SHAPES["long"], STREAM[:100], silent_frac=0, seed=0, score=constant)


def test_trl_is_handed_the_stored_tokens_group_after_group():
    small = Shape(problems=2, group=3, prompt_tokens=2, max_tokens=4)
    batches = [made(small), made(small, seed=1)]
    trainer = SimpleNamespace(state=SimpleNamespace(global_step=1))
    given = replayed(lambda step: batches[step])(["0"] * 3 + ["1"] * 3, trainer)
    assert [tuple(ids) for ids in given["prompt_ids"]] == [
        *[batches[1].prompts[0]] * 3,
        *[batches[1].prompts[1]] * 3,
    ]
    assert tuple(given["completion_ids"][4]) == batches[1].completions[1][1]


def test_trls_engine_is_given_the_lengths_of_each_step():
    """One call a step; every prompt its own limit, which no end token cuts short."""

    class Params(SimpleNamespace):
        def clone(self):
            return Params(**vars(self))

    class Engine:
        def generate(self, prompts, sampling_params, use_tqdm):
            return [(p.max_tokens, p.ignore_eos, p.top_k) for p in sampling_params]

    work = a_work(lengths=(((1, 2), (3, 4)), ((5, 6), (7, 8)), ((9, 9), (9, 9))))
    engine, one = with_lengths(Engine(), work), Params(max_tokens=64, ignore_eos=False, top_k=-1)
    prompts = [None] * 4
    assert engine.generate(prompts, sampling_params=one, use_tqdm=False)[2] == (3, True, -1)
    assert engine.generate(prompts, sampling_params=one, use_tqdm=False)[2] == (7, True, -1)
    assert one.max_tokens == 64


def test_the_schema_and_the_generator_load_no_torch():
    code = (
        "import sys, benchmarks.step_work, benchmarks.step_rollouts, benchmarks.memory, "
        "benchmarks.minimal_loop, benchmarks.trl_step\nprint('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_head_in_chunks_is_log_softmax_with_its_gradient(monkeypatch, temperature):
    monkeypatch.setattr(minimal_ops, "HEAD_CHUNK", 3)
    torch.manual_seed(0)
    hidden, head = torch.randn(8, 5), torch.randn(11, 5)
    targets, weights = torch.randint(11, (8,)), torch.randn(8)

    def run(fused: bool) -> tuple[torch.Tensor, ...]:
        h, w = hidden.clone().requires_grad_(), head.clone().requires_grad_()
        if fused:

            def loss(logprobs, part):
                return (logprobs.exp() * weights[part]).sum()

            total = HeadLoss.apply(h, w, targets, temperature, loss, Kernels())
        else:
            logprobs = torch.log_softmax(h @ w.t() / temperature, dim=-1)
            total = (logprobs.gather(1, targets[:, None]).squeeze(1).exp() * weights).sum()
        total.backward()
        return total.detach(), h.grad, w.grad

    for ours, plain in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(ours, plain)


def test_the_loss_against_values_by_hand():
    # rho = 1.5, 1.5, 0.5, 0.5 with A = 1, -1, 1, -1 and the clip at 0.8 and 1.28:
    # -min(1.5, 1.28), -min(-1.5, -1.28), -min(0.5, 0.8), -min(-0.5, -0.8)
    logprobs = torch.log(torch.tensor([1.5, 1.5, 0.5, 0.5])).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    loss = clipped_loss(logprobs, torch.zeros(4), advantages)
    torch.testing.assert_close(loss, torch.tensor([-1.28, 1.5, -0.5, 0.8]))
    loss.sum().backward()
    # d rho / d logprob = rho where the clip does not hold
    torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, 1.5, -0.5, 0.0]))


@pytest.mark.parametrize("short", [0, 512])
def test_attention_is_causal_attention_of_each_row(monkeypatch, short):
    monkeypatch.setattr(minimal_ops, "SHORT", short)
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 6, 7, 4), torch.randn(2, 2, 7, 4), torch.randn(2, 2, 7, 4)
    out, _ = attention(None, query, key, value, None, scaling=0.5)
    keys, values = key.repeat_interleave(3, dim=1), value.repeat_interleave(3, dim=1)
    expected = scaled_dot_product_attention(query, keys, values, is_causal=True, scale=0.5)
    torch.testing.assert_close(out, expected.transpose(1, 2))


def test_groups_without_signal_are_left_out_and_the_others_are_centred():
    rollouts = FixedRollouts(
        prompts=((1,), (2, 3)),
        completions=(((4,), (5,)), ((6,), (7, 8))),
        logprobs=(((-1.0,), (-1.0,)), ((-1.0,), (-1.0, -2.0))),
        rewards=((1.0, 1.0), (0.0, 1.0)),
    )
    rows = rows_of(rollouts)
    assert [row.prompt + row.completion for row in rows] == [(2, 3, 7, 8), (2, 3, 6)]
    # mean 0.5, std sqrt(0.5): 0.5 / (0.7071 + 1e-4) = 0.70701
    assert [row.advantage for row in rows] == pytest.approx([0.70701, -0.70701], abs=1e-5)


@pytest.mark.parametrize("limit", [64, 200, 333, 512, 100_000])
def test_micro_batches_hold_every_row_once_within_the_limit(limit):
    rows = rows_of(made(silent_frac=0.5))
    parts = micro_batches(rows, limit)
    assert [row for part in parts for row in part] == rows
    for part in parts:
        assert len(part) == 1 or len(part) * width_of(part) <= limit
        assert width_of(part) >= max(len(row) for row in part)
    assert len(parts) == {100_000: 1}.get(limit, len(parts))


class Letters:
    """A tokenizer whose ids are letters; "é" is written as two ids and read back as one."""

    chat_template = "template"

    def apply_chat_template(self, messages, **_):
        return messages[-1]["content"]

    def __call__(self, text, **_):
        return {"input_ids": [ord(letter) for letter in text]}

    def decode(self, ids):
        return "".join(map(chr, ids)).replace("e\u0301", "é")


def test_documents_become_prompts_that_read_back_and_lengths_that_warm_up_short(monkeypatch):
    text = "plain words and the cafe\u0301, again and again. " * 30
    monkeypatch.setattr("benchmarks.step_rollouts.document_ids", lambda _: [*map(ord, text)])
    shape = Shape(problems=3, group=2, prompt_tokens=20, max_tokens=80, median_tokens=40)
    work = document_work(Letters(), Path("model"), shape, steps=2, seed=0, learning_rate=1e-5)
    prompts = [ids for step in work.prompts for ids in step]
    texts = [text for step in work.texts for text in step]
    assert [len(ids) for ids in prompts] == [20] * 6
    assert [tuple(map(ord, text)) for text in texts] == prompts
    assert max(work.flat_lengths(0)) <= 10 < max(work.flat_lengths(1)) <= 80


def test_a_group_of_fixed_lengths():
    shape = Shape(problems=2, group=2, prompt_tokens=3, max_tokens=9, fixed_tokens=(9, 4))
    assert [[len(ids) for ids in group] for group in made(shape).completions] == [[9, 4], [9, 4]]


def test_arithmetic_work_never_asks_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda _: Letters())
    work = arithmetic_work(tmp_path, steps=5, problems=8, seed=0, target=0.5, group=4)
    texts = [text for step in work.texts for text in step]
    assert len(texts) == len(set(texts)) == 40
    answers = [answer for step in work.time_to_accuracy.answers for answer in step]
    for text, answer in zip(texts, answers, strict=True):
        assert eval(text.split("What is ")[1].split("?")[0]) == int(answer)
