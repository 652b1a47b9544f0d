"""The protocol with a scripted sampler: seeds, scrambled order, what is left out, JSON."""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence

import pytest

from eval.evaluate import EvalConfig, EvalResult, ProblemCount, evaluate
from rewards.mathematics import numeric_reward
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Problem, Response, Score, Verdict
from rollouts.rollout import Completion, Request, Sampling
from rollouts.seeds import request_seed

SAMPLING = Sampling(temperature=0.7, max_tokens=4)


class ScriptedSampler:
    """Yields the scripted text of each request in an order drawn from `shuffle_seed`."""

    def __init__(self, texts: dict[str, list[str]], shuffle_seed: int = 0) -> None:
        self.texts = texts
        self.shuffle_seed = shuffle_seed
        self.requests: list[Request] = []

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        self.requests = list(requests)
        for request in random.Random(self.shuffle_seed).sample(self.requests, len(requests)):
            yield completion(request, self.text(request))

    def text(self, request: Request) -> str:
        for id_, texts in self.texts.items():
            for i, text in enumerate(texts):
                if request.seed == request_seed(5, id_, i):
                    return text
        raise AssertionError(f"unexpected seed in {request}")

    def publish(self, weights, version) -> None:
        raise AssertionError("an evaluation publishes nothing")


def completion(request: Request, text: str) -> Completion:
    """One token a character; "length" when the limit of 4 is reached."""
    ids = tuple(ord(character) for character in text)
    return Completion(
        request_id=request.id,
        token_ids=ids,
        logprobs=(0.0,) * len(ids),
        text=text,
        finish="length" if len(ids) >= request.sampling.max_tokens else "stop",
        versions=((0, 0, len(ids)),),
    )


def problem(id_: str, answer: str = "8") -> Problem:
    return Problem(id=id_, prompt="?", answer=answer, source="test")


def score(problem: Problem, response: Response) -> Score:
    """Equality with the answer; "!" is a failure of the grader's own."""
    if response.text == "!":
        return Score(value=0.0, verdict=Verdict.GRADER_ERROR)
    if response.text == "-":
        return Score(value=0.0, verdict=Verdict.NO_ANSWER)
    right = response.text.startswith(problem.answer)
    return Score(value=float(right), verdict=Verdict.CORRECT if right else Verdict.WRONG)


def run(texts: dict[str, list[str]], *, shuffle_seed: int = 0, **changes) -> EvalResult:
    arguments = {
        "render": lambda problem: (1, 2, 3),
        "sampling": SAMPLING,
        "num_samples": len(next(iter(texts.values()))),
        "seed": 5,
        "score": score,
        "answer_of": lambda text: None if text == "-" else text,
    }
    sampler = ScriptedSampler(texts, shuffle_seed)
    return evaluate(sampler, [problem(id_) for id_ in texts], **{**arguments, **changes})


TEXTS = {"a/1": ["7", "8", "8", "7"], "a/2": ["7", "7", "-", "8xyz"], "b/1": ["-", "-", "-", "-"]}


def test_every_number_by_hand():
    result = run(TEXTS, label="base", split="test")
    assert result.counts == (
        ProblemCount(id="a/1", num_graded=4, num_correct=2),
        ProblemCount(id="a/2", num_graded=4, num_correct=1),
        ProblemCount(id="b/1", num_graded=4, num_correct=0),
    )
    assert result.pass_at_1 == pytest.approx((2 / 4 + 1 / 4 + 0) / 3)
    assert result.pass_at_k == pytest.approx(2 / 3)  # a/1 and a/2 were solved at least once
    # 7 and 8 share a/1; 7 leads a/2; b/1 has no vote.
    assert result.maj_at_k == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert result.truncated_frac == pytest.approx(1 / 12)  # "8xyz" has the limit of 4 tokens
    assert result.mean_tokens == pytest.approx((11 * 1 + 4) / 12)
    fractions = {verdict: frac for verdict, frac in result.verdict_fracs.items() if frac}
    assert fractions == pytest.approx({"correct": 3 / 12, "wrong": 4 / 12, "no_answer": 5 / 12})
    assert (result.label, result.split, result.k, result.num_ungraded) == ("base", "test", 4, 0)
    low, high = result.pass_at_1_interval
    assert 0.0 <= low < result.pass_at_1 < high <= 1.0


def test_results_do_not_depend_on_the_order_of_finishing():
    results = [run(TEXTS, shuffle_seed=seed) for seed in range(6)]
    assert all(result == results[0] for result in results)


def test_samples_are_scored_as_they_finish():
    events = []

    class Watched(ScriptedSampler):
        def sample(self, requests):
            for finished in super().sample(requests):
                events.append("sampled")
                yield finished

    def watched(problem, response):
        events.append("scored")
        return score(problem, response)

    evaluate(
        Watched({"a": ["8", "7"]}),
        [problem("a")],
        render=lambda problem: (1,),
        sampling=SAMPLING,
        num_samples=2,
        seed=5,
        score=watched,
    )
    assert events == ["sampled", "scored", "sampled", "scored"]


def test_a_request_is_the_rendered_prompt_with_a_seed_of_its_own():
    sampler = ScriptedSampler({"a/1": ["8", "8"], "b": ["8", "8"]})
    prompts = {"a/1": (1, 2), "b": (3,)}
    evaluate(
        sampler,
        [problem("a/1"), problem("b")],
        render=lambda problem: prompts[problem.id],
        sampling=SAMPLING,
        num_samples=2,
        seed=5,
        score=score,
    )
    assert [request.token_ids for request in sampler.requests] == [(1, 2), (1, 2), (3,), (3,)]
    assert len({request.id for request in sampler.requests}) == 4
    assert len({request.seed for request in sampler.requests}) == 4
    assert all(request.sampling == SAMPLING for request in sampler.requests)
    first = hashlib.sha256(b"5/a/1/0").digest()[:8]
    assert sampler.requests[0].seed == int.from_bytes(first, "big") % 2**62


def test_request_seed_is_a_golden_number_below_two_to_the_62():
    # printf '0/arithmetic/add/3+5/1' | sha256sum, its first 16 digits, modulo 2**62.
    assert request_seed(0, "arithmetic/add/3+5", 1) == 0xDC4F677F9DDAC832 % 2**62
    assert max(request_seed(i) for i in range(200)) < 2**62


def test_a_failure_of_ours_is_left_out_and_counted_apart():
    texts = {"a": ["8", "!", "8", "7"], "b": ["7", "7", "8", "7"], "c": ["!", "!", "!", "!"]}
    result = run(texts)
    assert [(c.num_graded, c.num_correct) for c in result.counts] == [(3, 2), (4, 1), (0, 0)]
    assert result.pass_at_1 == pytest.approx((2 / 3 + 1 / 4) / 2)  # c says nothing
    assert result.pass_at_k == 1.0  # of b alone, the only one with 4 graded samples
    assert result.maj_at_k == 0.0
    assert result.num_ungraded == 5
    assert result.verdict_fracs["grader_error"] == pytest.approx(5 / 12)


def test_only_the_verdict_makes_a_sample_correct():
    partial = run({"a": ["8"]}, score=lambda p, r: Score(value=1.0, verdict=Verdict.WRONG))
    assert partial.pass_at_1 == 0.0
    shaped = run({"a": ["8"]}, score=lambda p, r: Score(value=-0.5, verdict=Verdict.CORRECT))
    assert shaped.pass_at_1 == 1.0


def test_smaller_k_is_estimated_and_no_longer_a_single_draw():
    texts = {"a": ["8", "7", "7", "7", "8", "8", "7", "7"]}
    result = run(texts, k=2)
    assert result.pass_at_k == pytest.approx(1 - (5 * 4) / (8 * 7))
    # Of 28 pairs 3 are (8, 8) and 15 are tied: (3 + 15 / 2) / 28.
    assert result.maj_at_k == pytest.approx(10.5 / 28)
    assert not result.is_single_draw  # 8 = 4 * 2
    assert run(texts, k=3).is_single_draw
    assert run(texts).is_single_draw


def test_a_text_in_which_the_grader_found_no_answer_does_not_vote():
    result = run({"a": ["-", "-", "8"]}, answer_of=lambda text: text)
    assert result.maj_at_k == 1.0


def test_answers_vote_by_their_number_unless_told_otherwise():
    texts = {"a": ["7", "8", "8.0"]}
    letters = {"7": "a", "8": "b", "8.0": "c"}
    assert run(texts, answer_of=letters.get).maj_at_k == pytest.approx(2 / 3)  # all three tie
    numbers = {"render": lambda p: (1,), "sampling": SAMPLING, "num_samples": 3, "seed": 5}
    by_default = evaluate(ScriptedSampler(texts), [problem("a")], score=score, **numbers)
    assert by_default.maj_at_k == 1.0
    assert run(texts, answer_of=None).maj_at_k is None


def test_graders_and_votes_see_the_prefill():
    seen = []

    def watched(problem, response):
        seen.append((response.full_text, response.num_tokens, response.max_tokens))
        return Score(value=1.0, verdict=Verdict.CORRECT)

    result = run({"a": ["8"]}, score=watched, prefill="<think>", answer_of=seen.append)
    assert seen == [("<think>8", 1, 4), "<think>8"]
    assert result.pass_at_1 == 1.0


def test_json_and_back():
    result = run(TEXTS, label="base", split="test")
    written = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert EvalResult.from_json(written) == result
    assert EvalResult.from_json(result.to_json()) == result
    assert written["is_single_draw"] is True


def test_config_gives_the_sampling_it_names():
    config = EvalConfig(temperature=0.6, max_tokens=99, top_p=0.95, top_k=20)
    assert config.sampling == Sampling(temperature=0.6, max_tokens=99, top_p=0.95, top_k=20)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda completions: completions[1:], "left 1 of 2 requests unanswered"),
        (lambda completions: [*completions, completions[0]], "answered before"),
    ],
)
def test_a_sampler_that_loses_or_repeats_is_caught(spoil, message):
    class Faulty(ScriptedSampler):
        def sample(self, requests):
            yield from spoil(list(super().sample(requests)))

    with pytest.raises(RuntimeError, match=message):
        evaluate(
            Faulty({"a": ["8", "7"]}),
            [problem("a")],
            render=lambda problem: (1,),
            sampling=SAMPLING,
            num_samples=2,
            seed=5,
            score=score,
        )


def test_mistakes_are_named():
    with pytest.raises(RuntimeError, match="no sample could be graded"):
        run({"a": ["!", "!"]})
    with pytest.raises(ValueError, match="k=3 must be from 1 to num_samples=2"):
        run({"a": ["8", "8"]}, k=3)
    arguments = {"render": lambda p: (1,), "sampling": SAMPLING, "num_samples": 1, "seed": 5}
    with pytest.raises(ValueError, match="no problem"):
        evaluate(ScriptedSampler({}), [], score=score, **arguments)
    with pytest.raises(ValueError, match="'a' is given 2 times"):
        evaluate(ScriptedSampler({}), [problem("a")] * 2, score=score, **arguments)


def test_a_pool_gives_the_result_of_the_reward_itself():
    with RewardPool(numeric_reward, ScoringConfig(workers=2, memory_gib=1.0)) as pool:
        assert run(TEXTS, score=pool) == run(TEXTS, score=numeric_reward)
