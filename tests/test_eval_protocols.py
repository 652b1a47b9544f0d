"""What is written around a question, by protocol, template and kind of benchmark."""

import pytest

from eval.benchmarks import Benchmark
from eval.protocols import PROTOCOLS, STEPS, Protocol, asked, check_template, counted
from eval.shots import SHOTS
from rewards.mathematics import math_reward
from rewards.problem import Problem, Response
from rollouts.rollout import Sampling

QUESTION = Problem(id="b/1", prompt="What is 3 + 5?", answer="8", source="b")
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."


def benchmark(num_samples: int) -> Benchmark:
    return Benchmark(
        name="b",
        split="test",
        problems=(QUESTION,),
        reward=math_reward,
        kind="mathematics",
        votes=True,
        num_samples=num_samples,
        origin="here",
    )


def prompt(protocol: str, template: str, kind: str = "mathematics"):
    return asked(QUESTION, kind, PROTOCOLS[protocol], template).prompt


def test_the_numbers_of_r1_and_of_greedy():
    r1, greedy = PROTOCOLS["r1"], PROTOCOLS["greedy"]
    assert r1.sampling == Sampling(temperature=0.6, top_p=0.95, max_tokens=32_768)
    assert [r1.samples_of(benchmark(n)) for n in (64, 16, 8)] == [64, 16, 8]
    assert greedy.sampling.temperature == 0.0
    assert greedy.samples_of(benchmark(64)) == 1


def test_an_instruction_follows_a_question_but_not_under_r1_zero():
    assert prompt("r1", "chat") == f"What is 3 + 5?\n\n{BOXED}"
    assert prompt("greedy", "plain") == f"What is 3 + 5?\n\n{BOXED}"
    assert prompt("greedy", "r1_zero") == "What is 3 + 5?"
    assert prompt("r1", "chat", "choice").endswith(
        "put the letter of your answer within \\boxed{}."
    )
    for kind in ("program", "own"):
        assert prompt("r1", "chat", kind) == "What is 3 + 5?"


def test_trainings_own_instruction_follows_under_every_template():
    own = Protocol(
        name="training",
        sampling=Sampling(),
        instructions={"mathematics": " Be brief."},
        always_instructed=True,
    )
    for template in ("chat", "plain", "r1_zero"):
        assert asked(QUESTION, "mathematics", own, template).prompt == "What is 3 + 5? Be brief."
        assert asked(QUESTION, "program", own, template).prompt == "What is 3 + 5?"


def test_examples_are_turns_under_chat_and_text_under_plain():
    turns = prompt("few_shot", "chat")
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 4 + ["user"]
    assert turns[0]["content"] == SHOTS[0].question
    assert turns[-1]["content"] == "What is 3 + 5?"
    text = prompt("few_shot", "plain")
    assert text.startswith(
        f"Question: {SHOTS[0].question}\nAnswer: {SHOTS[0].answer}\n\nQuestion: "
    )
    assert text.endswith("\n\nQuestion: What is 3 + 5?\nAnswer:")
    assert prompt("few_shot", "plain", "program") == "What is 3 + 5?"
    with pytest.raises(ValueError, match="r1_zero has no place: use --template plain or chat"):
        check_template(PROTOCOLS["few_shot"], "r1_zero")


def test_a_conversation_is_left_as_it_is():
    turns = ({"role": "user", "content": "What is 3 + 5?"},)
    problem = Problem(id="b/1", prompt=turns, answer="8", source="b")
    assert asked(problem, "mathematics", PROTOCOLS["few_shot"], "chat") is problem


def test_the_examples_answers_are_those_that_they_state():
    expected = ["180", "17", "\\frac{2}{3}", "36"]
    for shot, answer in zip(SHOTS, expected, strict=True):
        problem = Problem(id="s", prompt=shot.question, answer=answer, source="s")
        assert math_reward(problem, Response(text=shot.answer)).value == 1.0
        assert math_reward(problem, Response(text=shot.answer.replace(answer, "5"))).value == 0.0


def test_what_a_base_model_asks_itself_next_does_not_count():
    few, greedy = PROTOCOLS["few_shot"], PROTOCOLS["greedy"]
    text = "3 + 5 is $\\boxed{8}$.\n\nQuestion: What is 1 + 1?\nAnswer: $\\boxed{2}$"
    assert counted(text, "mathematics", few, "plain") == "3 + 5 is $\\boxed{8}$.\n"
    for kind, protocol, template in (
        ("mathematics", few, "chat"),
        ("program", few, "plain"),
        ("mathematics", greedy, "plain"),
    ):
        assert counted(text, kind, protocol, template) == text


def test_the_instruction_is_one_sentence_after_a_blank_line():
    assert STEPS["mathematics"] == f"\n\n{BOXED}"
