"""General prompts whose instructions can be checked: a topic, and how to write about it.

The smallest general task: no answer to find, only wishes to follow. `worked` writes a text that
follows them, for supervised data. Leaves out whether what is written is true.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from rewards.problem import Problem, Response, Score
from rewards.purity import pure
from rewards.requirements import parse_requirements, requirements_reward, words
from rollouts.sampler import Split
from rollouts.tasks.splits import split_of
from rollouts.tasks.topics import TOPICS

MIN_DIFFERENT_WORDS = 5
NUMBERS = {1: "one", 2: "two", 3: "three"}
ATTEMPTS_PER_PROBLEM = 20

VALUES: dict[str, tuple[Any, ...]] = {
    "sentences": (1, 2, 3),
    "bullets": (2, 3),
    "at_most_words": (25, 40),
    "lower_case": (True,),
    "upper_case": (True,),
    "no_commas": (True,),
    "includes": (0, 1, 2),
    "begins": ("Well", "Indeed", "Often", "Clearly"),
    "ends": ("as we all know", "if you ask me", "every single year", "in my own view"),
}
"""What can be asked for, and the values drawn; of "includes" the place in the topic's words."""

EXCLUSIVE = ({"sentences", "bullets"}, {"lower_case", "upper_case"})
"""Never asked for together."""


@dataclass(frozen=True, kw_only=True)
class Instructions:
    """`num_problems` prompts with one wish and as many with two; the same for the same configuration.

    Example: `Problem(id="instructions/one/rain/sentences=2", prompt='Write a sentence or more
    about rain. The word "rain" must be in it, and at least five different words. Write exactly two
    sentences.', answer='[["includes", "rain"], ["different_words", 5], ["sentences", 2]]',
    source="instructions/one")`. The same wishes in another order are the same problem.
    """

    num_problems: int = 1000
    """With each number of wishes, over all splits, or about as many as there are (504 with one)."""
    max_wishes: int = 2
    """1 or 2 wishes a prompt."""
    seed: int = 0
    """Of what is drawn."""

    def __post_init__(self) -> None:
        """Refuse sizes that are not there."""
        if self.num_problems < 20:
            raise ValueError(f"num_problems is {self.num_problems}; use 20 or more")
        if self.max_wishes not in (1, 2):
            raise ValueError(f"max_wishes is {self.max_wishes}; use 1 or 2")

    @property
    def name(self) -> str:
        """The first part of ids and sources."""
        return "instructions"

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split, those with one wish first."""
        return [problem for home, problem in _all_problems(self) if home == split]

    @pure(version="1", reads=("answer", "text", "prefill"))
    def score(self, problem: Problem, response: Response) -> Score:
        """1 if what stands after the last `</think>` (or all, without one) follows every wish."""
        return requirements_reward(problem, response)

    def worked(self, problem: Problem) -> str:
        r"""A text that follows every wish, in R1's form.

        Example: "<think>\nAbout rain. Two sentences.\n</think>\nRain falls from the dark clouds. It
        helps the plants to grow."
        """
        topic = problem.id.split("/")[2].replace("-", " ")
        wishes = dict(parse_requirements(problem.answer)[2:])
        plan = " ".join([f"About {topic}.", *map(_said_short, wishes, wishes.values())])
        count = wishes.get("sentences", wishes.get("bullets", Random(problem.id).randint(1, 2)))
        return f"<think>\n{plan}\n</think>\n{_text(TOPICS[topic][:count], wishes)}"


@lru_cache(maxsize=8)
def _all_problems(task: Instructions) -> tuple[tuple[Split, Problem], ...]:
    counts = range(1, task.max_wishes + 1)
    return tuple(pair for count in counts for pair in _with_wishes(task, count))


def _with_wishes(task: Instructions, count: int) -> Iterator[tuple[Split, Problem]]:
    random = Random(f"{task.seed}/{count}")
    seen: set[str] = set()
    for _ in range(task.num_problems * ATTEMPTS_PER_PROBLEM):
        topic = random.choice(list(TOPICS))
        names = sorted(random.sample(list(VALUES), count))
        wishes = {name: random.choice(VALUES[name]) for name in names}
        if any(pair <= set(names) for pair in EXCLUSIVE):
            continue
        if "includes" in wishes:
            wishes["includes"] = _own_words(topic)[wishes["includes"]]
        problem = _problem(topic, wishes)
        if problem.id not in seen:
            seen.add(problem.id)
            yield split_of(problem.id), problem
        if len(seen) == task.num_problems:
            return


def _own_words(topic: str) -> list[str]:
    """The last three words of the first sentence on a topic, the topic's own left out."""
    return [word for word in words(TOPICS[topic][0]) if word not in words(topic)][-3:]


def _problem(topic: str, wishes: dict[str, Any]) -> Problem:
    word = topic.split()[-1]
    required = [["includes", word], ["different_words", MIN_DIFFERENT_WORDS], *wishes.items()]
    asked = [
        f'Write a sentence or more about {topic}. The word "{word}" must be in it, and at least '
        "five different words.",
        *map(_said, wishes, wishes.values()),
    ]
    source = f"instructions/{NUMBERS[len(wishes)]}"
    told = ",".join(f"{name}={value}" for name, value in wishes.items())
    return Problem(
        id=f"{source}/{topic}/{told}".replace(" ", "-"),
        prompt=" ".join(asked),
        answer=json.dumps(required),
        source=source,
    )


def _said(name: str, value: Any) -> str:
    """A wish as the prompt words it."""
    number = NUMBERS.get(value) if isinstance(value, int) else None
    return {
        "sentences": f"Write exactly {number} sentence{'s' if value != 1 else ''}.",
        "bullets": f'Write exactly {number} lines, each starting with "- ", and nothing else.',
        "at_most_words": f"Use at most {value} words.",
        "lower_case": "Write in lower case only.",
        "upper_case": "Write in capital letters only.",
        "no_commas": "Do not use any commas.",
        "includes": f'Use the word "{value}" too.',
        "begins": f'Begin with the word "{value}".',
        "ends": f'End with the words "{value}".',
    }[name]


def _said_short(name: str, value: Any) -> str:
    """The same in a plan."""
    number = NUMBERS.get(value, "") if isinstance(value, int) else ""
    return {
        "sentences": f"{number.capitalize()} sentence{'s' if value != 1 else ''}.",
        "bullets": f"{number.capitalize()} lines with a dash.",
        "at_most_words": f"At most {value} words.",
        "lower_case": "Lower case.",
        "upper_case": "Capital letters.",
        "no_commas": "No commas.",
        "includes": f'With "{value}".',
        "begins": f'First "{value}".',
        "ends": f'Last "{value}".',
    }[name]


def _text(sentences: Sequence[str], wishes: dict[str, Any]) -> str:
    lines = list(sentences)
    if "begins" in wishes:
        lines[0] = f"{wishes['begins']} {lines[0][0].lower()}{lines[0][1:]}"
    if "ends" in wishes:
        lines[-1] = f"{lines[-1][:-1]} {wishes['ends']}."
    text = "\n".join(f"- {line}" for line in lines) if "bullets" in wishes else " ".join(lines)
    if "lower_case" in wishes:
        return text.lower()
    return text.upper() if "upper_case" in wishes else text
