"""Rule rewards for every problem, and preferences on top for those of general tasks.

R1's last stage: Reward = Reward_reasoning + Reward_general + Reward_language, where Reward_general is
preference + format (DeepSeek-R1, Nature, 2025, Methods). Each part is a scorer of its own, so that a
reward model stays in this process while rules run in others.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Lock

from rewards.problem import Problem, Response, Score, Verdict
from rewards.scorer import Scorer, TimedFuture

Scores = list[Score]


PASSING = 0.5
"""A preference from this value on has the verdict correct: it moves no reward, only what is counted."""


def preferred(value: float) -> Score:
    """A preference between 0 and 1 as a score."""
    return Score(value=value, verdict=Verdict.CORRECT if value >= PASSING else Verdict.WRONG)


class Routed:
    """A scorer: `rules` for every problem, plus the preferences of its task.

    Example: `Routed(pool, {"chat": {"helpfulness": judge}})` scores a problem of the source "chat" by
    both, one of "arithmetic" by `pool` alone. A general problem has no accuracy: its part of that
    name is left out.
    """

    def __init__(self, rules: Scorer, preferences: Mapping[str, Mapping[str, Scorer]]):
        """`preferences`: by the task's name, then by the part's."""
        self.rules, self.preferences = rules, preferences
        parts = [scorer for named in preferences.values() for scorer in named.values()]
        self.takes_group = any(scorer.takes_group for scorer in (rules, *parts))

    def submit(self, problem: Problem, responses: Sequence[Response]) -> Future[Scores]:
        """One Score a response, once every part of it is known."""
        rules = self._by_rules(problem, responses)
        parts = self._parts(problem)
        if not parts:
            return rules
        # A reward model works here and now: whatever works elsewhere is asked before it.
        first = sorted(parts, key=lambda name: parts[name].takes_group)
        asked = {name: parts[name].submit(problem, responses) for name in first}
        return joined([rules, *(asked[name] for name in parts)], partial(_summed, list(parts)))

    def check(self, problem: Problem) -> None:
        """Raise ValueError if a part does not work on a problem."""
        for scorer in (self.rules, *self._parts(problem).values()):
            scorer.check(problem)

    def __call__(self, problem: Problem, response: Response) -> Score:
        return self.submit(problem, [response]).result()[0]

    def _parts(self, problem: Problem) -> Mapping[str, Scorer]:
        return self.preferences.get(problem.source.partition("/")[0], {})

    def _by_rules(self, problem: Problem, responses: Sequence[Response]) -> Future[Scores]:
        if self.rules.takes_group or len(responses) == 1:
            return self.rules.submit(problem, responses)
        # A preference wants the group together; rules still share it out among their processes.
        futures = [self.rules.submit(problem, [response]) for response in responses]
        return joined(futures, lambda each: [score for scores in each for score in scores])


def joined(
    futures: Sequence[Future[Scores]], combine: Callable[[list[Scores]], Scores]
) -> TimedFuture:
    """`combine` of all results, when the last one is there; the first failure if there is one."""
    whole = TimedFuture()
    whole.set_running_or_notify_cancel()  # from here on it cannot be cancelled
    left, lock = len(futures), Lock()

    def one_done(_: Future[Scores]) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left:
                return
        began = [each.began for each in futures if isinstance(each, TimedFuture) and each.began]
        whole.began = min(began, default=None)
        try:
            whole.set_result(combine([each.result() for each in futures]))
        except BaseException as error:  # noqa: BLE001  handed on to whoever waits
            whole.set_exception(error)

    for each in futures:
        each.add_done_callback(one_done)
    return whole


def _summed(names: Sequence[str], results: Sequence[Scores]) -> Scores:
    return [_sum(names, scores) for scores in zip(*results, strict=True)]


def _sum(names: Sequence[str], scores: Sequence[Score]) -> Score:
    """Rules first, then the preferences; a verdict that is ours counts, then one that is not correct."""
    rules, *preferences = scores
    parts = {name: value for name, value in rules.parts.items() if name != "accuracy"}
    parts |= {name: score.value for name, score in zip(names, preferences, strict=True)}
    if failed := [score.verdict for score in scores if score.verdict.is_ours]:
        return Score(value=0.0, verdict=failed[0], parts=parts)
    verdicts = [score.verdict for score in preferences]
    verdict = next((each for each in verdicts if each is not Verdict.CORRECT), Verdict.CORRECT)
    return Score(value=math.fsum(score.value for score in scores), verdict=verdict, parts=parts)
