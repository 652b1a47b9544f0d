"""A dump's completions graded again by one of our rewards, in processes beside the reading.

Which reward that is, which reference a completion is held to, and no more of them in memory than
a few a process. Leaves out what is made of the grades (eval/audit.py).
"""

import json
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from eval.judged import Judged, Sample
from eval.references import References
from rewards.adapters import AdaptedReward, Form, adapted, load_reward
from rewards.answers import stated_answer
from rewards.compose import weighted
from rewards.language import language_reward
from rewards.mathematics import math_reward
from rewards.pool import RewardPool
from rewards.problem import Messages, Problem, Response, RewardFn, Score, Verdict
from rewards.programs import program_reward
from rewards.tags import format_reward
from rewards.unit_tests import human_eval_tests, mbpp_tests, parse_tests
from rollouts.tasks.programs import Programs
from rollouts.tasks.rows import Row

IN_FLIGHT = 32
"""Completions a scoring process that are graded or wait for it."""
LOOKED_AT = 1000
"""Completions among which one must have an answer."""
KNOWN_PROMPTS = 1024
KNOWN_REFERENCES = 20_000
"""So many of the last ones are remembered."""


@dataclass(frozen=True, kw_only=True)
class Grader:
    """A reward for the audit.

    Attributes:
        name: For a person.
        reward: What is computed; its verdict says right or wrong.
        is_math: Whether disagreements have the kinds of mathematics.
        checks_references: Whether a reference must be right by its own reward, to be used.
        takes_tests: Whether a reference is tests of a program.
    """

    name: str
    reward: AdaptedReward
    is_math: bool = False
    checks_references: bool = False
    takes_tests: bool = False


def grader_of(name: str, language: str) -> Grader:
    """The grader that a person named: math, code, or package.module:function.

    Raises:
        ValueError: There is none of this name, or it compares a group's completions.
    """
    if name == "math":
        reward = adapted(_with_shape(math_reward, language))
        return Grader(name=name, reward=reward, is_math=True, checks_references=True)
    if name == "code":
        reward = adapted(_with_shape(program_reward, language))
        return Grader(name=name, reward=reward, takes_tests=True)
    if ":" not in name:
        raise ValueError(f"--reward is {name!r}: use math, code, none, or package.module:function")
    reward = adapted(load_reward(name))
    if reward.form is Form.GROUP:
        raise ValueError(
            f"the reward {name!r} takes a group's responses together; an audit grades each alone"
        )
    return Grader(name=name, reward=reward)


def grader_of_run(folder: Path, language: str) -> Grader:
    """The reward of a run of ours, from its config: the task's own, or what its config names.

    Raises ValueError if the config cannot be read.
    """
    from recipes.config import from_yaml  # seconds: it knows every field of a run
    from rollouts.tasks.arithmetic import Arithmetic
    from rollouts.tasks.dataset import Dataset

    file = folder / "config.yaml"
    config = from_yaml(file.read_text(), str(file))
    if ":" in config.reward:
        return grader_of(config.reward, language)
    return Grader(
        name=f"the run's own, of the task {config.task.name}",
        reward=adapted(_with_shape(config.task.score, language)),
        is_math=isinstance(config.task, Dataset | Arithmetic),
    )


def row_tests(row: Row, column: str, place: str) -> str | None:
    """The tests in a row of HumanEval, MBPP, or with cases of input and output; None if unusable."""
    try:
        if not column and "entry_point" in row:
            return human_eval_tests(row).to_json()
        if not column and "test_list" in row:
            return mbpp_tests(row).to_json()
    except (ValueError, KeyError, TypeError):
        return None
    name = column or next((n for n in ("tests", "gts", "answer") if n in row), "tests")
    return usable_tests(row.get(name))


def usable_tests(answer: Any) -> str | None:
    """A reference as rewards.programs reads it: such tests already, or cases; None if neither."""
    try:
        if isinstance(answer, str):
            parse_tests(answer)
            return answer
    except ValueError:
        pass
    try:
        cases = json.loads(answer) if isinstance(answer, str) else answer
        if isinstance(cases, dict) and cases.get("fn_name"):
            return None  # calls of a function, no input on stdin
        return Programs(path="dump").tests_of({"tests": cases}, "dump").to_json()
    except (ValueError, RecursionError):
        return None


@dataclass(kw_only=True)
class Regrader:
    """Gives each sample its problem and our score, in the order of the samples.

    Attributes:
        grader: With which reward.
        pool: Where it is computed.
        references: Where answers are found; None takes those of the dump.
        source: Of the problems that are made.
    """

    grader: Grader
    pool: RewardPool
    references: References | None
    source: str
    workers: int
    _questions: OrderedDict[str, tuple[str, str] | None] = field(default_factory=OrderedDict)
    _sound: OrderedDict[str, Future[list[Score]]] = field(default_factory=OrderedDict)

    def judged(self, samples: Iterator[Sample]) -> Iterator[Judged]:
        """Each sample with our score, as both get ready.

        Raises:
            ValueError: None of the first `LOOKED_AT` samples has an answer, or the reward does not
                work.
        """
        pending: deque[tuple[Sample, Problem | None, Future | None, Future | None]] = deque()
        num_seen = num_answered = 0
        for sample in samples:
            problem = self._problem(sample)
            num_seen += 1
            num_answered += problem is not None
            if problem is not None and num_answered == 1:
                self.pool.check(problem)
            if num_seen == LOOKED_AT and not num_answered:
                raise ValueError(_unanswered(num_seen, self.references))
            score = self.pool.submit(problem, [sample.response]) if problem else None
            check = self._check(problem) if problem else None
            pending.append((sample, problem, score, check))
            while len(pending) > IN_FLIGHT * self.workers:
                yield _settled(*pending.popleft())
        if num_seen and not num_answered:
            raise ValueError(_unanswered(num_seen, self.references))
        while pending:
            yield _settled(*pending.popleft())

    def _problem(self, sample: Sample) -> Problem | None:
        if self.references is not None:
            question, answer = self._found(sample.prompt) or (sample.prompt, None)
        elif sample.problem is not None:
            return sample.problem
        else:
            question, answer = sample.prompt, sample.answer
        if answer is not None and self.grader.takes_tests:
            answer = usable_tests(answer)
        if answer is None:
            return None
        key = sha256(f"{question!r}/{answer}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return Problem(id=key, prompt=question, answer=answer, source=self.source)

    def _found(self, prompt: str | Messages) -> tuple[str, str] | None:
        """What the references have for a prompt, looked for once in a while."""
        key = json.dumps(prompt)
        if key not in self._questions:
            self._questions[key] = self.references.find(prompt)
            if len(self._questions) > KNOWN_PROMPTS:
                self._questions.popitem(last=False)
        return self._questions[key]

    def _check(self, problem: Problem) -> Future[list[Score]] | None:
        """The score of the reference itself, asked for once."""
        if not self.grader.checks_references:
            return None
        if problem.id not in self._sound:
            stated = stated_answer(problem.answer)
            reference = problem.answer if stated is None else stated
            answer = Response(text=f"\\boxed{{{reference}}}")
            self._sound[problem.id] = self.pool.submit(problem, [answer])
            if len(self._sound) > KNOWN_REFERENCES:
                self._sound.popitem(last=False)
        return self._sound[problem.id]


def _settled(
    sample: Sample,
    problem: Problem | None,
    score: Future[list[Score]] | None,
    check: Future[list[Score]] | None,
) -> Judged:
    if score is None or (check and check.result()[0].verdict is not Verdict.CORRECT):
        return Judged(sample=sample, problem=problem)
    return Judged(sample=sample, problem=problem, score=score.result()[0])


def _with_shape(accuracy: RewardFn, language: str) -> RewardFn:
    """Accuracy, with the parts format and language at no weight."""
    return weighted(
        {
            "accuracy": (accuracy, 1.0),
            "format": (format_reward, 0.0),
            "language": (language_reward(language), 0.0),
        }
    )


def _unanswered(count: int, references: References | None) -> str:
    if references is None:
        return (
            f"no answers to grade against in {count} completions: name the field of the dump with "
            "--answer-column, a file of questions and answers with --answers, or --reward none"
        )
    return (
        f"none of {count} prompts holds a question of --answers ({len(references.answers)} of them): "
        "is it the data set that was trained on? --question-column names its questions"
    )
