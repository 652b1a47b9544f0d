"""Rules for all, preferences on top for some: who is asked, what is added, and when it is there."""

from concurrent.futures import CancelledError, Future

import pytest

from rewards.compose import weighted
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Problem, Response, Score, Verdict
from rewards.routing import Routed, joined
from rewards.scorer import Inline, Scorer, TimedFuture
from rollouts.tasks.general import General
from tests.routing_rules import accuracy, form, slow_accuracy

SUM = Problem(id="arithmetic/1", prompt="3 + 5?", answer="8", source="arithmetic/add")
CHAT = Problem(id="chat/1", prompt="Hello?", answer="Hi.", source="chat")
TEXTS = ("8", "<ok>8", "<ok>9")
RESPONSES = [Response(text=text) for text in TEXTS]
RULES = weighted({"accuracy": (accuracy, 1.0), "format": (form, 1.0)})


class Preferring:
    """A group scorer in this process that remembers what it was asked."""

    def __init__(self, value=0.25, verdict=Verdict.WRONG):
        self.asked, self.value, self.verdict = [], value, verdict

    def __call__(self, problem, responses):
        self.asked.append((problem.id, [response.text for response in responses]))
        return [Score(value=self.value, verdict=self.verdict)] * len(responses)


def values(scores):
    return [(score.value, score.verdict, score.parts) for score in scores]


def test_reasoning_keeps_its_rules():
    preferring = Preferring()
    routed = Routed(Inline(RULES), {"chat": {"helpfulness": Inline(preferring)}})
    assert isinstance(routed, Scorer) and routed.takes_group
    # arithmetic: accuracy of "8" in the text, plus format.
    assert [score.value for score in routed.submit(SUM, RESPONSES).result()] == [1.0, 2.0, 1.0]
    assert preferring.asked == []


def test_general_prompts_get_preference_and_format_and_no_accuracy():
    helpful, safe = Preferring(0.25), Preferring(0.5, Verdict.CORRECT)
    rules = weighted({"accuracy": (General(path="chat.jsonl").score, 1.0), "format": (form, 1.0)})
    routed = Routed(
        Inline(rules), {"chat": {"helpfulness": Inline(helpful), "safety": Inline(safe)}}
    )
    assert values(routed.submit(CHAT, RESPONSES).result()) == [
        (0.75, Verdict.WRONG, {"format": 0.0, "helpfulness": 0.25, "safety": 0.5}),
        (1.75, Verdict.WRONG, {"format": 1.0, "helpfulness": 0.25, "safety": 0.5}),
        (1.75, Verdict.WRONG, {"format": 1.0, "helpfulness": 0.25, "safety": 0.5}),
    ]
    assert helpful.asked == safe.asked == [("chat/1", list(TEXTS))]
    assert routed(CHAT, RESPONSES[1]).value == 1.75


@pytest.mark.parametrize("verdict", [Verdict.JUDGE_ERROR, Verdict.GRADER_ERROR])
def test_a_part_that_failed_on_our_side_fails_the_score(verdict):
    good, bad = Preferring(1.0, Verdict.CORRECT), Preferring(0.0, verdict)
    routed = Routed(Inline(RULES), {"chat": {"helpfulness": Inline(good), "safety": Inline(bad)}})
    score = routed(CHAT, Response(text="8"))
    assert (score.value, score.verdict) == (0.0, verdict)


def test_the_verdict_is_the_first_that_is_not_correct():
    first, second = Preferring(0.9, Verdict.CORRECT), Preferring(0.0, Verdict.TOO_LARGE)
    routed = Routed(Inline(RULES), {"chat": {"a": Inline(first), "b": Inline(second)}})
    assert routed(CHAT, Response(text="8")).verdict is Verdict.TOO_LARGE
    second.verdict = Verdict.CORRECT
    assert routed(CHAT, Response(text="9")).verdict is Verdict.CORRECT  # rules know no right here


def test_rules_in_processes_share_out_a_group_and_the_preference_stays_here():
    preferring = Preferring()
    preferring.unpicklable = lambda: None  # it could not be sent to a scoring process
    with RewardPool(slow_accuracy, ScoringConfig(workers=2)) as pool:
        routed = Routed(pool, {"chat": {"helpfulness": Inline(preferring)}})
        routed.check(CHAT)
        scores = routed.submit(SUM, [Response(text=f"{i}") for i in range(4)]).result()
        assert len({score.parts["process"] for score in scores}) == 2
        assert [score.value for score in scores] == [0.0] * 4
        assert routed(CHAT, Response(text="8")).value == 1.25


def test_a_check_names_the_part_that_does_not_work():
    def broken(problem, responses):
        raise RuntimeError("no reward model here")

    routed = Routed(Inline(RULES), {"chat": {"helpfulness": Inline(broken)}})
    routed.check(SUM)
    with pytest.raises(ValueError, match="raised RuntimeError: no reward model here on problem ch"):
        routed.check(CHAT)


def test_joined_waits_for_the_last_and_tells_when_work_began():
    first, second = TimedFuture(), Future()
    whole = joined([first, second], lambda each: each[1] + each[0])
    second.set_result(["b"])
    assert not whole.done()
    first.set_running_or_notify_cancel()
    first.set_result(["a"])
    assert whole.result(timeout=1) == ["b", "a"]
    assert whole.began == first.began


def test_joined_hands_on_a_failure_and_a_cancellation():
    first, second = Future(), Future()
    whole = joined([first, second], lambda each: each[0])
    first.cancel()
    second.set_exception(RuntimeError("later"))
    with pytest.raises(CancelledError):
        whole.result(timeout=1)
    third = Future()
    whole = joined([third], lambda each: each[0])
    third.set_exception(RuntimeError("died"))
    with pytest.raises(RuntimeError, match="died"):
        whole.result(timeout=1)
    assert not whole.cancel()


def test_what_works_elsewhere_is_asked_before_what_works_here():
    asked = []

    class Elsewhere(Inline):
        takes_group = False

        def submit(self, problem, responses):
            asked.append("elsewhere")
            return super().submit(problem, responses)

    class Here(Preferring):
        def __call__(self, problem, responses):
            asked.append("here")
            return super().__call__(problem, responses)

    parts = {"helpfulness": Inline(Here(0.25)), "safety": Elsewhere(Preferring(0.5))}
    score = Routed(Inline(RULES), {"chat": parts})(CHAT, Response(text="9"))
    assert asked == ["elsewhere", "here"]
    assert score.parts == {"format": 0.0, "helpfulness": 0.25, "safety": 0.5}
