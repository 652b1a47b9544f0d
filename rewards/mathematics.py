"""The reward for problems whose answer is a number: 1 if it is exactly the reference, else 0.

Leaves out answers that need algebra.
"""

from fractions import Fraction

from rewards.answers import after_thinking, final_answer, stated_answer
from rewards.numeric import is_too_large, parse_number
from rewards.problem import Problem, Response, Score, Verdict
from rewards.purity import pure


@pure(version="1", reads=("answer", "text", "prefill"))
def numeric_reward(problem: Problem, response: Response) -> Score:
    """Compare the final answer of a response with the reference, exactly (R1's accuracy reward).

    Only what follows the last `</think>` is graded, if there is one. The reference is a
    number, or a text that states one (GSM8K's "... #### 72").

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
    verdict = _verdict(reference, after_thinking(response.full_text))
    value = 1.0 if verdict is Verdict.CORRECT else 0.0
    return Score(value=value, verdict=verdict, parts={"accuracy": value})


def reference_number(answer: str) -> Fraction | None:
    """The number that a reference answer is or states; None if it does neither."""
    stated = stated_answer(answer)
    return parse_number(answer if stated is None else stated)


def _verdict(reference: Fraction, text: str) -> Verdict:
    answer = final_answer(text)
    if answer is None:
        return Verdict.NO_ANSWER
    if is_too_large(answer):
        return Verdict.TOO_LARGE
    number = parse_number(answer)
    if number is None:
        return Verdict.MALFORMED
    return Verdict.CORRECT if number == reference else Verdict.WRONG
