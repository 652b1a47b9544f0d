import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from threading import Event

import pytest

from rewards.mathematics import numeric_reward
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Problem, Response, Score, Verdict
from rewards.scorer import Inline
from rollouts.collect import (
    Collector,
    GraderFailureError,
    GraderHealth,
    graded,
    rollout_of,
)
from rollouts.collection_metrics import collection_metrics
from rollouts.rollout import Completion, Group, Request, Rollout, Sampling

SAMPLING = Sampling(temperature=0.8, max_tokens=9)
PROBLEMS = [
    Problem(id=f"sum/{n}", prompt=f"{n} + {n}?", answer=str(2 * n), source=source)
    for n, source in ((3, "sum/small"), (4, "sum/small"), (70, "sum/large"))
]


class ScriptedSampler:
    """Answers request "round/row/sample" with that text, in an order of its own."""

    def __init__(self, order):
        self.order = order
        self.requests = []

    def sample(self, requests):
        self.requests = list(requests)
        shuffled = list(requests)
        self.order(shuffled)
        for request in shuffled:
            yield completion(request)

    def publish(self, weights, version):
        raise AssertionError("collecting does not publish")


def completion(request):
    _, row, sample = map(int, request.id.split("/"))
    return Completion(
        request_id=request.id,
        token_ids=(100 + row, 200 + sample, 2),
        logprobs=(-0.5, -0.25 * (sample + 1), -0.125),
        text=f"{row}/{sample}",
        finish="length" if sample == 3 else "stop",
        versions=((7, 0, 3),),
    )


def keep_order(requests):
    return requests


def scramble(requests):
    Random(5).shuffle(requests)


def right_if_even(_problem, response):
    """Even samples are right."""
    is_right = int(response.text.split("/")[1]) % 2 == 0
    return Score(value=float(is_right), verdict=Verdict.CORRECT if is_right else Verdict.WRONG)


def failing_for(*texts, verdict=Verdict.GRADER_ERROR):
    """Right if even, but the grader fails on these texts."""

    def score(problem, response):
        if response.text in texts:
            return Score(value=0.0, verdict=verdict)
        return right_if_even(problem, response)

    return score


def collector(score=right_if_even, order=scramble, **others):
    settings = {"group_size": 4, "seed": 11, "prefill": "<think>"} | others
    return Collector(
        sampler=ScriptedSampler(order),
        render=lambda problem: (1, int(problem.id.removeprefix("sum/"))),
        score=score if hasattr(score, "submit") else Inline(score),
        **settings,
    )


def collect(made, problems=PROBLEMS):
    return made.collect(problems, SAMPLING, round_index=2, version=6)


def texts(groups):
    return [[rollout.response.text for rollout in group.rollouts] for group in groups]


@pytest.mark.parametrize("order", [keep_order, list.reverse, scramble])
def test_groups_and_members_come_in_the_order_they_were_drawn(order):
    groups = collect(collector(order=order))
    assert [group.problem for group in groups] == PROBLEMS
    assert texts(groups) == [[f"{row}/{sample}" for sample in range(4)] for row in range(3)]


def test_requests_are_told_apart_and_seeded_by_what_they_are():
    made = collector(group_size=2)
    collect(made, PROBLEMS[:2])
    # Seeds: the first 8 bytes of SHA-256 of "11/2/0/sum/3/0" (run seed, round, row,
    # problem, sample) and so on, below 2**62.
    assert [(request.id, request.seed) for request in made.sampler.requests] == [
        ("2/0/0", 3587647888205176022),
        ("2/0/1", 395149600914516960),
        ("2/1/0", 1583160295274948949),
        ("2/1/1", 2184337576664758529),
    ]
    assert [request.token_ids for request in made.sampler.requests] == [(1, 3)] * 2 + [(1, 4)] * 2
    assert {request.sampling for request in made.sampler.requests} == {SAMPLING}
    assert {request.min_version for request in made.sampler.requests} == {6}


def test_a_problem_drawn_twice_in_a_round_is_two_groups_with_seeds_of_their_own():
    made = collector()
    groups = collect(made, [PROBLEMS[0], PROBLEMS[0]])
    assert texts(groups) == [["0/0", "0/1", "0/2", "0/3"], ["1/0", "1/1", "1/2", "1/3"]]
    assert len({request.seed for request in made.sampler.requests}) == 8


def test_a_rollout_is_one_sequence_aligned_with_its_prompt():
    (group,) = collect(collector(), PROBLEMS[2:])
    rollout = group.rollouts[1]
    assert rollout.token_ids == (1, 70, 100, 201, 2)
    assert rollout.sampled == (False, False, True, True, True)
    assert rollout.logprobs == (0.0, 0.0, -0.5, -0.5, -0.125)
    assert rollout.versions == ((7, 2, 5),)
    response = rollout.response
    assert (response.text, response.prefill, response.full_text) == ("0/1", "<think>", "<think>0/1")
    assert (response.num_tokens, response.max_tokens, response.finish) == (3, 9, "stop")
    assert rollout.score == Score(value=0.0, verdict=Verdict.WRONG)
    assert group.rewards == (1.0, 0.0, 1.0, 0.0)


def test_the_rollout_of_the_docstring():
    request = Request(id="x", token_ids=(1, 5, 6), sampling=SAMPLING, seed=0)
    done = Completion(
        request_id="x",
        token_ids=(40, 2),
        logprobs=(-0.1, -0.02),
        text="8",
        finish="stop",
        versions=((3, 0, 2),),
    )
    scored = right_if_even(None, Response(text="0/0"))
    rollout = rollout_of(request, done, Response(text="8"), scored)
    assert rollout == Rollout(
        token_ids=(1, 5, 6, 40, 2),
        sampled=(False, False, False, True, True),
        logprobs=(0.0, 0.0, 0.0, -0.1, -0.02),
        response=Response(text="8"),
        score=scored,
        versions=((3, 3, 5),),
    )


@pytest.mark.parametrize(
    "verdict", [Verdict.GRADER_ERROR, Verdict.SANDBOX_ERROR, Verdict.JUDGE_ERROR]
)
def test_members_whose_grader_failed_leave(verdict):
    everything = collect(collector(failing_for("0/1", "2/0", verdict=verdict)))
    assert [len(group.rollouts) for group in everything] == [4, 4, 4]
    groups = graded(everything)
    assert texts(groups) == [
        ["0/0", "0/2", "0/3"],
        ["1/0", "1/1", "1/2", "1/3"],
        ["2/1", "2/2", "2/3"],
    ]


def test_the_policys_own_failures_stay():
    groups = collect(collector(failing_for("0/1", verdict=Verdict.TIMEOUT)))
    assert groups[0].rollouts[1].score.verdict is Verdict.TIMEOUT
    assert len(groups[0].rollouts) == 4


def test_a_group_left_with_one_member_is_dropped():
    groups = graded(collect(collector(failing_for("1/0", "1/1", "1/3"))))
    assert [group.problem.id for group in groups] == ["sum/3", "sum/70"]
    # Two members are still a group.
    groups = graded(collect(collector(failing_for("1/0", "1/3"))))
    assert [len(group.rollouts) for group in groups] == [4, 2, 4]


def test_a_round_without_any_group_left_stops_the_run():
    # Four failures of four: too few for the health count, and yet nothing to train on.
    groups = collect(collector(failing_for("0/0", "0/1", "0/2", "0/3")), PROBLEMS[:1])
    with pytest.raises(GraderFailureError, match="a whole round"):
        graded(groups)


def test_too_many_failures_stop_the_run_with_an_example():
    failed = [f"{row}/0" for row in range(3)] + ["0/1", "1/1"]
    with pytest.raises(GraderFailureError, match="problem sum/") as caught:
        collect(collector(failing_for(*failed)))
    assert "response '" in str(caught.value)


def record(health, *verdicts):
    for verdict in verdicts:
        score = Score(value=0.0, verdict=verdict)
        health.record(PROBLEMS[0], Response(text="x" * 999), score)


def test_four_failures_pass_and_the_fifth_stops():
    health = GraderHealth()
    record(health, *[Verdict.GRADER_ERROR] * 4, *[Verdict.WRONG] * 100)
    with pytest.raises(GraderFailureError, match=r"^5 of the last 105 scores") as caught:
        record(health, Verdict.SANDBOX_ERROR)
    assert "(sandbox_error)" in str(caught.value)
    assert str(caught.value).count("x") < 250  # the example's text is cut


@pytest.mark.parametrize(("num_right", "stops"), [(494, True), (495, False)])
def test_above_one_percent_stops(num_right, stops):
    # 5 of 499 are above 1%; 5 of 500 are 1% and pass.
    health = GraderHealth()
    record(health, *[Verdict.CORRECT] * num_right, *[Verdict.GRADER_ERROR] * 4)
    if stops:
        with pytest.raises(GraderFailureError):
            record(health, Verdict.GRADER_ERROR)
    else:
        record(health, Verdict.GRADER_ERROR)


def test_failures_are_forgotten_after_a_thousand_scores():
    # Ten of 1,000 pass, spread wide; the eleventh stops, unless the first has left by then.
    spread = ([Verdict.CORRECT] * 99 + [Verdict.JUDGE_ERROR]) * 10
    health = GraderHealth()
    record(health, *[Verdict.CORRECT] * 1000, *spread)
    assert (len(health.recent), sum(health.recent)) == (1000, 10)
    record(health, *spread)  # each new one comes as an old one leaves
    with pytest.raises(GraderFailureError, match=r"^11 of the last 1000 scores"):
        record(health, Verdict.JUDGE_ERROR)


def test_health_outlives_a_round():
    # Three failures of 12 in each round: the second round's second one is the fifth.
    made = collector(failing_for("0/0", "1/0", "2/0"))
    collect(made)
    with pytest.raises(GraderFailureError, match=r"^5 of the last"):
        collect(made)


def scored(source, *members):
    """A group of (value, verdict, tokens, finish, parts)."""
    rollouts = []
    for value, verdict, num_tokens, finish, parts in members:
        rollouts.append(
            Rollout(
                token_ids=(1,) * num_tokens,
                sampled=(True,) * num_tokens,
                logprobs=(0.0,) * num_tokens,
                response=Response(text="", num_tokens=num_tokens, finish=finish),
                score=Score(value=value, verdict=verdict, parts=parts),
                versions=(),
            )
        )
    problem = Problem(id="p", prompt="?", answer="!", source=source)
    return Group(problem=problem, rollouts=tuple(rollouts))


def test_metrics_by_hand():
    groups = [
        scored(
            "sum",
            (1.0, Verdict.CORRECT, 4, "stop", {"accuracy": 1.0, "format": 0.0}),
            (0.0, Verdict.WRONG, 10, "length", {"accuracy": 0.0, "format": 0.5}),
        ),
        scored(
            "product",
            (0.5, Verdict.WRONG, 3, "stop", {"accuracy": 0.5}),
            (0.5, Verdict.NO_ANSWER, 2, "stop", {}),
            (0.5, Verdict.WRONG, 1, "stop", {}),
        ),
    ]
    found = collection_metrics(groups)
    expected = {
        "reward/mean": 2.5 / 5,
        "reward/no_signal_frac": 1 / 2,
        "rollouts/count": 5,
        "rollouts/dropped_groups": 0,
        "rollouts/sampled_tokens": 20,
        "rollouts/mean_tokens": 4,
        "rollouts/truncated_frac": 1 / 5,
        "reward/part/accuracy": 1.5 / 3,  # over those that have the part
        "reward/part/format": 0.5 / 2,
        "reward/source/sum": 0.5,
        "reward/source/product": 0.5,
    }
    verdicts = {f"verdict/{verdict}": 0.0 for verdict in Verdict}
    verdicts |= {"verdict/correct": 1 / 5, "verdict/wrong": 3 / 5, "verdict/no_answer": 1 / 5}
    assert found == pytest.approx(expected | verdicts)


def test_failures_of_ours_are_counted_beside_what_was_graded():
    right, wrong = (1.0, Verdict.CORRECT, 4, "stop", {}), (0.0, Verdict.WRONG, 4, "stop", {})
    broken = (0.0, Verdict.GRADER_ERROR, 4, "stop", {})
    groups = [scored("sum", right, wrong, broken), scored("sum", right, broken, broken)]
    found = collection_metrics(groups)
    assert found["verdict/grader_error"] == 3 / 6
    assert found["rollouts/dropped_groups"] == 1  # one member is no group
    assert found["reward/mean"] == 1 / 2  # of the two graded in the group that stays
    assert found["reward/no_signal_frac"] == 0


def test_a_sampler_that_forgets_a_request_is_our_bug():
    def lose_one(requests):
        requests.pop()

    with pytest.raises(AssertionError, match="left 1 requests without a completion"):
        collect(collector(order=lose_one))


class ThreadedScorer:
    """Scores in threads, the first submitted last; remembers what it was given."""

    def __init__(self, score, takes_group=False, num_threads=32):
        self.score = score
        self.takes_group = takes_group
        self.threads = ThreadPoolExecutor(num_threads)
        self.submitted = []
        self.finished = Event()
        self.futures = []

    def submit(self, problem, responses):
        self.submitted.append([response.text for response in responses])
        delay = 0.02 / len(self.submitted)
        self.futures.append(self.threads.submit(self.work, problem, responses, delay))
        return self.futures[-1]

    def work(self, problem, responses, delay):
        time.sleep(delay)
        scores = [self.score(problem, response) for response in responses]
        self.finished.set()
        return scores


def test_scores_that_come_late_change_nothing():
    late = collect(collector(ThreadedScorer(right_if_even)))
    assert late == collect(collector())


def test_a_completion_is_scored_while_others_are_still_being_sampled():
    scorer = ThreadedScorer(right_if_even)
    made = collector(scorer, order=keep_order)

    class Waiting(ScriptedSampler):
        def sample(self, requests):
            first, *rest = super().sample(requests)
            yield first
            assert scorer.finished.wait(timeout=10), "nothing was scored meanwhile"
            yield from rest

    groups = collect(replace(made, sampler=Waiting(keep_order)))
    assert [len(group.rollouts) for group in groups] == [4, 4, 4]


def test_a_group_reward_gets_a_whole_group_in_order_as_soon_as_it_is_there():
    scorer = ThreadedScorer(right_if_even, takes_group=True)
    groups = collect(collector(scorer))
    assert groups == collect(collector())
    assert sorted(scorer.submitted) == [
        [f"{row}/{sample}" for sample in range(4)] for row in range(3)
    ]


def test_what_is_not_scored_yet_is_let_go_if_the_round_fails():
    def fail(problem, response):
        return Score(value=0.0, verdict=Verdict.GRADER_ERROR)

    scorer = ThreadedScorer(fail, num_threads=1)
    with pytest.raises(GraderFailureError, match=r"^5 of the last 5 scores"):
        collect(collector(scorer))
    assert any(future.cancelled() for future in scorer.futures)
    assert len(scorer.submitted) == 12


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pool_gives_the_scores_of_the_reward_itself(workers):
    def answers(requests):
        requests[:] = requests[::-1]

    with RewardPool(numeric_reward, ScoringConfig(workers=workers, memory_gib=1.0)) as pool:
        pooled = collect(collector(pool, order=answers))
    assert pooled == collect(collector(numeric_reward))


def test_rollouts_are_made_into_arrays_while_others_are_still_being_sampled():
    made = collector(order=keep_order)
    flattened = []

    class Slow(ScriptedSampler):
        def sample(self, requests):
            for number, one in enumerate(super().sample(requests)):
                if number == 8:
                    deadline = time.monotonic() + 10
                    # The eighth is given to the thread when the ninth is there.
                    while len(made.timeline.spans.get("flatten", ())) < 7:
                        assert time.monotonic() < deadline, "nothing was flattened meanwhile"
                        time.sleep(0.001)
                    flattened.append(len(made.timeline.spans["flatten"]))
                yield one

    groups = collect(replace(made, sampler=Slow(keep_order)))
    assert flattened[0] >= 7
    for rollout in (rollout for group in groups for rollout in group.rollouts):
        arrays = vars(rollout)["arrays"]  # made already
        assert arrays.token_ids.tolist() == list(rollout.token_ids)
        assert arrays.sampled.tolist() == list(rollout.sampled)
        assert arrays.logprobs.tolist() == list(rollout.logprobs)  # eighths: exact in float32
        assert arrays.num_sampled == 3


def test_the_time_line_says_what_was_sampled_scored_and_waited_for():
    def slow(problem, response):
        time.sleep(0.01)
        return right_if_even(problem, response)

    with RewardPool(right_if_even, ScoringConfig(workers=1, memory_gib=1.0)) as pool:
        made = collector(pool)
        collect(made)
        spans = made.timeline.spans
        # One engine span a completion and one that finds the end; twelve scores and flattenings.
        found = {name: len(spans[name]) for name in ("engine", "score", "flatten", "flatten_wait")}
        assert found == {"engine": 13, "score": 12, "flatten": 12, "flatten_wait": 1}
        assert all(began <= ended for times in spans.values() for began, ended in times)
    # Scored in this thread: nothing of it can run beside the engine, and all of it is waited for.
    made = collector(slow)
    collect(made)
    assert made.timeline.seconds("score") >= 0.12
    assert made.timeline.beside("score", "engine") == 0.0
    assert made.timeline.seconds("score_wait") >= made.timeline.seconds("score")


def test_a_scorer_that_tells_no_times_leaves_them_out():
    made = collector(ThreadedScorer(right_if_even))
    collect(made)
    assert "score" not in made.timeline.spans
    assert len(made.timeline.spans["flatten"]) == 12
