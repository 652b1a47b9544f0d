"""Sampling in one stream: what is asked, what is kept, what a second process asks again."""

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from eval.standings import standing_of
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Problem, Response, Score, Verdict
from rewards.scorer import Inline
from rollouts.collect import GraderFailureError
from rollouts.completions import Store
from rollouts.rollout import Completion, Request, Sampling
from rollouts.seeds import request_seed
from rollouts.trials import Trial, run_trials


class Killed(Exception):
    """The process ends here."""


class ScriptedSampler:
    """Answers with a text that its seed decides; stops after `limit` completions."""

    def __init__(self, limit: int | None = None, shuffle: int = 0):
        self.limit, self.shuffle, self.asked = limit, shuffle, []

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        order = list(requests)
        random.Random(self.shuffle).shuffle(order)
        for number, request in enumerate(order):
            if number == self.limit:
                raise Killed
            self.asked.append(request)
            text = str(request.seed % 3)
            yield Completion(
                request_id=request.id,
                token_ids=tuple(ord(c) for c in text),
                logprobs=(0.0,) * len(text),
                text=text,
                finish="stop" if request.seed % 2 else "length",
                versions=((-1, 0, len(text)),),
            )


def score(problem: Problem, response: Response) -> Score:
    """Equality with the answer; nothing else is looked at."""
    right = response.text == problem.answer
    return Score(value=float(right), verdict=Verdict.CORRECT if right else Verdict.WRONG)


def failing(problem: Problem, response: Response) -> Score:
    raise RuntimeError("the grader is broken")


def trial(name: str, size: int = 3, num_samples: int = 4) -> Trial:
    problems = tuple(
        Problem(id=f"{name}/{i}", prompt="?", answer=str(i % 3), source=name) for i in range(size)
    )
    return Trial(
        name=f"model/{name}",
        benchmark=name,
        problems=problems,
        prompts=tuple((1, 2, 3 + i) for i in range(size)),
        sampling=Sampling(max_tokens=8),
        num_samples=num_samples,
        seed=5,
        answer_of=str,
    )


TRIALS = (trial("a"), trial("b", size=2))


def run(folder: Path, sampler: ScriptedSampler, scorer=None, trials=TRIALS):
    stores = [Store(folder / each.name) for each in trials]
    try:
        for progress in run_trials(sampler, trials, stores, scorer or Inline(score)):
            last = progress
    finally:
        for store in stores:
            store.close()
    return stores, last


def test_every_request_once_with_its_own_seed(tmp_path: Path):
    sampler = ScriptedSampler()
    stores, progress = run(tmp_path, sampler)
    assert len({request.id for request in sampler.asked}) == len(sampler.asked) == 3 * 4 + 2 * 4
    by_id = {request.id: request for request in sampler.asked}
    assert by_id["model/a/a/2/3"].seed == request_seed(5, "a/2", 3)
    assert by_id["model/a/a/2/3"].token_ids == (1, 2, 5)
    assert TRIALS[0].key_of("model/a/a/2/3") == ("a/2", 3)
    assert [len(store.grades) for store in stores] == [12, 8]
    assert (progress.num_requests, progress.num_sampled, progress.num_graded) == (20, 20, 20)
    assert progress.num_tokens == 20  # a digit each


def test_only_the_samples_that_are_named_are_asked(tmp_path: Path):
    only = frozenset({("a/0", 3), ("a/2", 1)})
    sampler = ScriptedSampler()
    (store,), progress = run(tmp_path, sampler, trials=[replace(TRIALS[0], only=only)])
    assert sorted(request.id for request in sampler.asked) == ["model/a/a/0/3", "model/a/a/2/1"]
    assert store.completions.keys() == store.grades.keys() == only
    assert replace(TRIALS[0], only=only).num_requests == progress.num_requests == 2
    # The seed is that of the sample among all.
    assert store.completions["a/2", 1].seed == request_seed(5, "a/2", 1)


@pytest.mark.parametrize("limit", [0, 1, 7, 19])
def test_a_second_process_asks_only_what_is_missing_and_ends_alike(tmp_path: Path, limit: int):
    whole, _ = run(tmp_path / "whole", ScriptedSampler())
    with pytest.raises(Killed):
        run(tmp_path / "cut", ScriptedSampler(limit, shuffle=1))
    second = ScriptedSampler(shuffle=2)
    resumed, progress = run(tmp_path / "cut", second)
    assert len(second.asked) == 20 - limit == progress.num_requests
    for each, a, b in zip(TRIALS, whole, resumed, strict=True):
        assert a.completions == b.completions
        assert a.grades == b.grades
        assert standing_of(each, a, label="m") == standing_of(each, b, label="m")


def test_what_was_sampled_but_not_graded_is_graded_and_not_sampled(tmp_path: Path):
    run(tmp_path, ScriptedSampler())
    grades = tmp_path / "model" / "a" / "grades.jsonl"
    grades.write_text("".join(grades.read_text().splitlines(keepends=True)[:5]))
    sampler = ScriptedSampler()
    stores, progress = run(tmp_path, sampler)
    assert sampler.asked == []
    assert (progress.num_sampled, progress.num_graded) == (0, 7)
    assert len(stores[0].grades) == 12


def test_the_numbers_by_hand(tmp_path: Path):
    (store, _), _ = run(tmp_path, ScriptedSampler())
    texts = {
        (f"a/{i}", j): str(request_seed(5, f"a/{i}", j) % 3) for i in range(3) for j in range(4)
    }
    correct = [sum(texts[f"a/{i}", j] == str(i) for j in range(4)) for i in range(3)]
    standing = standing_of(TRIALS[0], store, label="m", ks=(1, 4))
    assert [count.num_correct for count in standing.counts] == correct
    assert standing.pass_at_1 == pytest.approx(sum(correct) / 12)
    assert sorted(standing.pass_at) == [1, 2, 3, 4]
    assert standing.pass_at[1] == pytest.approx(sum(correct) / 12)
    assert standing.pass_at[4] == pytest.approx(sum(map(bool, correct)) / 3)
    rates = standing.rates
    assert rates.verdict_fracs["correct"] == pytest.approx(sum(correct) / 12)
    even = sum(request_seed(5, f"a/{i}", j) % 2 == 0 for i in range(3) for j in range(4))
    assert rates.truncated_frac == pytest.approx(even / 12)
    assert (rates.mean_tokens, rates.num_ungraded, rates.answered_frac) == (1.0, 0, 1.0)


def test_parts_are_means_over_what_was_graded(tmp_path: Path):
    first_text = str(request_seed(5, "b/1", 0) % 3)

    def parted(problem: Problem, response: Response) -> Score:
        if problem.id == "b/1" and response.text == first_text:
            return Score(value=0.0, verdict=Verdict.JUDGE_ERROR, parts={"loose": 1.0})
        return Score(value=0.0, verdict=Verdict.WRONG, parts={"loose": float(problem.id == "a/0")})

    (first, second), _ = run(tmp_path, ScriptedSampler(), Inline(parted))
    # Of a's three problems one has the part 1; of b none that was graded.
    assert standing_of(TRIALS[0], first, label="m").parts == {"loose": pytest.approx(1 / 3)}
    assert standing_of(TRIALS[1], second, label="m").parts == {"loose": 0.0}
    assert any(g.verdict is Verdict.JUDGE_ERROR for g in second.grades.values())


def test_grading_goes_on_while_others_are_sampled(tmp_path: Path):
    """A grader that waits for the last completion to be sampled would hang otherwise."""
    released = threading.Event()

    class Slow(Inline):
        def submit(self, problem, responses):
            from concurrent.futures import Future

            future = Future()

            def work():
                assert released.wait(10)
                future.set_result([score(problem, responses[0])])

            threading.Thread(target=work, daemon=True).start()
            return future

    class Releasing(ScriptedSampler):
        def sample(self, requests):
            yield from super().sample(requests)
            released.set()

    stores, _ = run(tmp_path, Releasing(), Slow(score))
    assert [len(store.grades) for store in stores] == [12, 8]


def test_graders_that_fail_stop_the_stream_and_nothing_sampled_is_lost(tmp_path: Path):
    sampler = ScriptedSampler()
    with pytest.raises(GraderFailureError, match="5 of the last 5 scores failed in the grader"):
        run(tmp_path, sampler, Inline(failing))
    assert len(sampler.asked) == 5
    second = ScriptedSampler()
    run(tmp_path, second)
    assert len(second.asked) == 15


def test_with_processes_the_grades_are_the_same(tmp_path: Path):
    inline, _ = run(tmp_path / "inline", ScriptedSampler())
    with RewardPool(score, ScoringConfig(workers=1)) as pool:
        pooled, progress = run(tmp_path / "pooled", ScriptedSampler(), pool)
    assert [store.grades for store in pooled] == [store.grades for store in inline]
    assert progress.grade_s > 0


def test_the_hash_of_what_is_asked_sees_every_part():
    first = TRIALS[0]
    problem = replace(first.problems[0], answer="9")
    changed = [
        replace(first, prompts=((1, 2, 4), *first.prompts[1:])),
        replace(first, problems=(problem, *first.problems[1:])),
        replace(first, problems=first.problems[:2], prompts=first.prompts[:2]),
    ]
    hashes = {each.prompts_sha256 for each in (first, *changed)}
    assert len(hashes) == 4
    assert first.prompts_sha256 == trial("a").prompts_sha256
