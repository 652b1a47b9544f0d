"""The base under its best prompt: chosen on validation, measured once on test, never too long."""

from dataclasses import dataclass, field
from types import SimpleNamespace

from eval.evaluate import EvalConfig
from recipes.baseline import ASKS, best_prompt
from rewards.problem import Problem
from rollouts.prompts import PromptConfig

VALIDATION = EvalConfig(split="validation", max_tokens=5)
TEST = EvalConfig(split="test", max_tokens=10)
CONFIG = SimpleNamespace(validation=VALIDATION, test=TEST)
ALL = ["base, as trained", "base, question alone", "base, with examples", "base, step by step"]


def problem(name: str) -> Problem:
    return Problem(id=name, prompt=f"What is {name}? Briefly.", answer="7", source="s")


@dataclass
class Renderer:
    """One id a character of the last turn, and one for each earlier turn."""

    template: str = "chat"
    length: dict[str, int] = field(default_factory=dict)

    @property
    def config(self) -> PromptConfig:
        return PromptConfig(template=self.template)

    def ids(self, problem: Problem) -> tuple[int, ...]:
        if isinstance(problem.prompt, str):
            return tuple(range(len(problem.prompt)))
        return tuple(range(100 * len(problem.prompt)))


@dataclass
class Data:
    """Twelve training problems, two of validation, one of test."""

    renderer: Renderer = field(default_factory=Renderer)
    max_tokens: int = 10_000
    problems = {
        "train": [problem(f"1 + {i}") for i in range(12)],
        "validation": [problem("3 + 4"), problem("4 + 3")],
        "test": [problem("2 + 5")],
    }

    def selected(self, config: EvalConfig) -> list[Problem]:
        return self.problems[config.split]


class Sampler:
    """Gives each way to ask the pass@1 it is told, and notes what it was asked."""

    def __init__(self, scores: dict[str, float]):
        self.scores, self.calls, self.prompts = scores, [], []

    def __call__(self, config, problems, label, render):
        self.calls.append((config.split, label))
        self.prompts += [render(problem) for problem in problems]
        return Result(label=label, pass_at_1=self.scores.get(label, 0.0))


@dataclass(frozen=True)
class Result:
    """As much of an evaluation as a choice needs."""

    label: str
    pass_at_1: float


BASE = Result("base", 0.25)


def test_the_best_on_validation_is_measured_on_test():
    sample = Sampler({"base, step by step": 0.4, "base, question alone": 0.3})
    result = best_prompt(CONFIG, Data(max_tokens=10_000), sample, BASE)
    assert result.label == "base, step by step"
    assert sample.calls == [("validation", label) for label in ALL] + [("test", ALL[3])]


def test_of_equals_the_prompt_of_training_stays_and_is_not_measured_again():
    sample = Sampler({})
    result = best_prompt(CONFIG, Data(max_tokens=10_000), sample, BASE)
    assert result == Result(ALL[0], 0.25)
    assert sample.calls == [("validation", label) for label in ALL]


def test_without_a_chat_template_there_are_no_turns():
    sample = Sampler({})
    best_prompt(CONFIG, Data(Renderer("r1_zero")), sample, BASE)
    assert [label for _, label in sample.calls] == ALL[:2]


def test_what_the_engine_cannot_hold_is_left_out():
    # Four examples are eight turns and the question a ninth: 900 ids, and 10 to be sampled.
    for limit, tried in ((910, ALL), (909, [ALL[0], ALL[1], ALL[3]])):
        sample = Sampler({"base, with examples": 1.0})
        best_prompt(CONFIG, Data(max_tokens=limit), sample, BASE)
        assert [label for split, label in sample.calls if split == "validation"] == tried
    # The prompt of training is tried even if it alone is too long: the engine then says so.
    sample = Sampler({})
    best_prompt(CONFIG, Data(max_tokens=1), sample, BASE)
    assert sample.calls == [("validation", ALL[0])]


def test_the_ways_to_ask():
    asked, examples = problem("3 + 4"), [problem("1 + 1"), problem("1 + 2")]
    trained, alone, shown, steps = (ask(asked, examples).prompt for ask in ASKS)
    assert trained == "What is 3 + 4? Briefly."
    assert alone == "What is 3 + 4?"
    assert steps == "What is 3 + 4? Let's think step by step."
    assert [turn["role"] for turn in shown] == ["user", "assistant"] * 2 + ["user"]
    assert [turn["content"] for turn in shown[:2]] == ["What is 1 + 1? Briefly.", "7"]
    assert shown[-1]["content"] == "What is 3 + 4? Briefly."
    assert all(ask(asked, examples).answer == "7" for ask in ASKS)
