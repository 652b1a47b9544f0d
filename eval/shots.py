"""Four worked problems that stand before a question: chains of thought with boxed answers.

Ours, so that no benchmark is shown its own rows. Easy on purpose: they show the form.
"""

from typing import NamedTuple


class Shot(NamedTuple):
    """A question with an answer that reasons and then states the result in a box."""

    question: str
    answer: str


SHOTS: tuple[Shot, ...] = (
    Shot(
        question="A ferry makes 6 crossings a day and carries 45 cars on each. On Sunday two "
        "crossings are cancelled. How many cars can it carry on Sunday?",
        answer="On Sunday there are 6 - 2 = 4 crossings. Each carries 45 cars, so the ferry can "
        "carry 4 * 45 = 180 cars. The answer is $\\boxed{180}$.",
    ),
    Shot(
        question="Solve $3(x - 4) = 2x + 5$ for $x$.",
        answer="Expanding the left side gives $3x - 12 = 2x + 5$. Subtracting $2x$ from both sides "
        "gives $x - 12 = 5$, and adding 12 gives $x = 17$. The answer is $\\boxed{17}$.",
    ),
    Shot(
        question="A bag holds 3 red, 4 green and 5 white marbles. One marble is drawn at random. "
        "What is the probability that it is not green?",
        answer="There are $3 + 4 + 5 = 12$ marbles, of which $3 + 5 = 8$ are not green. The "
        "probability is $\\frac{8}{12} = \\frac{2}{3}$. The answer is $\\boxed{\\frac{2}{3}}$.",
    ),
    Shot(
        question="The legs of a right triangle are 9 and 12 long. How long is its perimeter?",
        answer="By the Pythagorean theorem the hypotenuse is $\\sqrt{9^2 + 12^2} = \\sqrt{225} = "
        "15$. The perimeter is $9 + 12 + 15 = 36$. The answer is $\\boxed{36}$.",
    ),
)
