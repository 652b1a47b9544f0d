"""The rewards for mathematics: 1 if the final answer is the reference, else 0.

`math_reward` reads any answer of rewards/equivalence.py, `numeric_reward` numbers only. Both
grade what follows the last `</think>`, by the rules of rewards/answers.py.
"""

from fractions import Fraction

from rewards.answers import after_thinking, stated_answer, stated_answers
from rewards.equivalence import equivalent, is_choice
from rewards.maths.asked import asked_by, text_of
from rewards.maths.phrases import last_number
from rewards.maths.precision import TooLarge
from rewards.maths.unstated import second_answer, unstated_answer
from rewards.numeric import is_too_large, parse_number
from rewards.problem import Problem, Response, Score, Verdict
from rewards.purity import pure


@pure(version="1", reads=("prompt", "answer", "text", "prefill"))
def math_reward(problem: Problem, response: Response) -> Score:
    """Compare the final answer of a response with the reference (R1's accuracy reward).

    The reference is an answer or a text that states one (GSM8K's "... #### 72", a solution
    with a box). A problem that asks for rounding allows it.

    Example: the answer "1/2" to a response "so it is \\boxed{0.5}" scores 1, correct.
    """
    stated = stated_answer(problem.answer)
    reference = problem.answer if stated is None else stated
    try:
        verdict = _math_verdict(problem, reference, after_thinking(response.full_text))
    except TooLarge:
        verdict = Verdict.TOO_LARGE
    return _score(verdict)


@pure(version="1", reads=("answer", "text", "prefill"))
def numeric_reward(problem: Problem, response: Response) -> Score:
    """Compare the final answer of a response with the reference, exactly (R1's accuracy reward).

    The reference is a number, or a text that states one (GSM8K's "... #### 72").

    Example: the answer "8" to a response "3 + 5 is 8</think>It is 8.0" scores 1, correct.

    Raises:
        ValueError: The reference is not a number; never because of the response.
    """
    reference = reference_number(problem.answer)
    if reference is None:
        raise ValueError(
            f"the reference answer {problem.answer[:80]!r} of problem {problem.id} is not a "
            "number; numeric_reward compares numbers only, use another reward for this problem"
        )
    return _score(_numeric_verdict(reference, after_thinking(response.full_text)))


def reference_number(answer: str) -> Fraction | None:
    """The number that a reference answer is or states; None if it does neither."""
    stated = stated_answer(answer)
    return parse_number(answer if stated is None else stated)


def _math_verdict(problem: Problem, reference: str, text: str) -> Verdict:
    answers = stated_answers(text)
    is_stated = answers is not None
    if answers is None:
        answer = unstated_answer(text, reference, is_choice=is_choice(reference))
        answers = (answer,) if answer else ()
    if not any(answers):
        return Verdict.NO_ANSWER
    asked = asked_by(text_of(problem))
    found = [equivalent(reference, answer, asked=asked) for answer in answers]
    if found == [None] and (second := second_answer(answers[0], reference, is_stated=is_stated)):
        found = [equivalent(reference, second, asked=asked)]
    if all(found):
        return Verdict.CORRECT
    if len(answers) > 1:
        whole = equivalent(reference, ", ".join(answers), asked=asked)
        return Verdict.CORRECT if whole else Verdict.WRONG
    if found[0] is None:
        return Verdict.MALFORMED if is_stated else Verdict.NO_ANSWER
    return Verdict.WRONG


def _numeric_verdict(reference: Fraction, text: str) -> Verdict:
    answers = stated_answers(text)
    if answers is None:
        number = last_number(text)
        answers = (number,) if number else ()
    if not any(answers):
        return Verdict.NO_ANSWER
    if any(is_too_large(answer) for answer in answers):
        return Verdict.TOO_LARGE
    numbers = [parse_number(answer) for answer in answers]
    if None in numbers:
        return Verdict.MALFORMED
    return Verdict.CORRECT if set(numbers) == {reference} else Verdict.WRONG


def _score(verdict: Verdict) -> Score:
    value = 1.0 if verdict is Verdict.CORRECT else 0.0
    return Score(value=value, verdict=verdict, parts={"accuracy": value})
