import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

import rewards.scorer
from rewards.problem import Problem, Response, Score, Verdict
from rewards.scorer import Inline, Scorer, scored_in_order

PROBLEM = Problem(id="p", prompt="?", answer="8", source="s")
RESPONSES = [Response(text=text) for text in "abc"]
ITEMS = [(response.text, PROBLEM, response) for response in RESPONSES]


class Manual:
    """Futures that a test ends by hand."""

    takes_group = False

    def __init__(self):
        self.futures = []

    def submit(self, problem, responses):
        self.futures.append(Future())
        return self.futures[-1]

    def check(self, problem):
        raise AssertionError("not asked for")

    def __call__(self, problem, response):
        raise AssertionError("not asked for")


def score_of(value):
    return [Score(value=value, verdict=Verdict.WRONG)]


def test_scores_come_in_the_order_of_the_items_and_while_more_are_asked_for():
    scorer, events = Manual(), []
    assert isinstance(scorer, Scorer)

    def items():
        for item in ITEMS:
            events.append(f"asked for {item[0]}")
            yield item
            if item[0] == "b":  # b is there before a, and both before c is asked for
                scorer.futures[1].set_result(score_of(0.2))
                scorer.futures[0].set_result(score_of(0.1))
        scorer.futures[2].set_result(score_of(0.3))

    for name, response, score in scored_in_order(scorer, items()):
        assert response.text == name
        events.append(f"{name} is {score.value}")
    # All that is ready is given once the item after it is submitted.
    assert events == [
        "asked for a",
        "asked for b",
        "asked for c",
        "a is 0.1",
        "b is 0.2",
        "c is 0.3",
    ]


def test_only_so_many_are_read_ahead(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rewards.scorer, "MAX_PENDING", 3)
    asked = given = 0

    def items():
        nonlocal asked
        for item in ITEMS * 4:
            asked += 1
            assert asked - given <= 3
            yield item

    def slow() -> list[Score]:
        time.sleep(0.01)
        return score_of(1.0)

    with ThreadPoolExecutor(1) as pool:
        scorer = Manual()
        scorer.submit = lambda problem, responses: pool.submit(slow)
        for _ in scored_in_order(scorer, items()):
            given += 1
    assert given == 12


def test_a_plain_function_is_called_at_once():
    events = []

    def items():
        for item in ITEMS:
            events.append("sampled")
            yield item

    def reward(p, r):
        events.append("scored")
        return score_of(0.5)[0]

    found = [(name, score.value) for name, _, score in scored_in_order(reward, items())]
    assert found == [("a", 0.5), ("b", 0.5), ("c", 0.5)]
    assert events == ["sampled", "scored"] * 3


def test_what_is_not_asked_for_any_more_is_let_go():
    scorer = Manual()

    def items():
        yield from ITEMS
        raise OSError("the engine died")

    with pytest.raises(OSError, match="the engine died"):
        list(scored_in_order(scorer, items()))
    assert all(future.cancelled() for future in scorer.futures)


def test_inline_turns_an_exception_into_a_grader_error(caplog):
    def raising(problem, response):
        raise RuntimeError(f"no grader for {response.text}")

    scorer = Inline(raising)
    failed = Score(value=0.0, verdict=Verdict.GRADER_ERROR)
    assert scorer.submit(PROBLEM, RESPONSES).result() == [failed] * 3
    assert scorer(PROBLEM, RESPONSES[0]) == failed
    assert "a reward failed: RuntimeError: no grader for a" in caplog.text
    assert "in raising" in caplog.text  # the traceback
    assert len(caplog.records) == 1  # once for each message
    with pytest.raises(ValueError, match="raised RuntimeError: no grader for 8 on problem p"):
        scorer.check(PROBLEM)


def test_inline_lets_an_interrupt_through():
    def interrupted(problem, response):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Inline(interrupted)(PROBLEM, RESPONSES[0])


def test_a_verdict_of_ours_does_not_pass_the_trial():
    sandbox = Score(value=0.0, verdict=Verdict.SANDBOX_ERROR)
    with pytest.raises(ValueError, match="the reward gave the verdict sandbox_error on problem p"):
        Inline(lambda problem, response: sandbox).check(PROBLEM)
