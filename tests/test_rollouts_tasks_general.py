import json
import pickle

import pytest

from rewards.problem import Problem, Response, Verdict
from rollouts.tasks.general import General
from rollouts.tasks.splits import split_of

ROWS = [{"prompt": f"Write about {n}.", "chat": {"reply": f"On {n}."}} for n in range(40)]


def write(folder, *rows):
    path = folder / "chat.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rows_are_prompts_with_or_without_a_reference(tmp_path):
    path = write(tmp_path, *ROWS)
    task = General(path=path, reference_column="chat.reply")
    problems = [p for split in ("train", "validation", "test") for p in task.problems(split)]
    assert len(problems) == 40 and {p.source for p in problems} == {"chat"}
    first = next(p for p in problems if p.prompt == "Write about 0.")
    # The first 16 digits of the SHA-256 of "Write about 0.".
    assert first == Problem(
        id="chat/f16841af2037cf4a", prompt="Write about 0.", answer="On 0.", source="chat"
    )
    assert first in task.problems(split_of("Write about 0."))
    assert {p.answer for p in General(path=path).problems("train")} == {""}
    assert pickle.loads(pickle.dumps(task)) == task


def test_a_conversation_is_a_prompt_too(tmp_path):
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    task = General(path=write(tmp_path, {"prompt": turns, "n": 7}), id_column="n", name="talk")
    (problem,) = [p for s in ("train", "validation", "test") for p in task.problems(s)]
    assert (problem.id, problem.prompt) == ("talk/7", tuple(turns))


def test_a_rule_finds_nothing_wrong_and_adds_nothing(tmp_path):
    task = General(path=write(tmp_path, *ROWS))
    score = task.score(task.problems("train")[0], Response(text=""))
    assert (score.value, score.verdict, score.parts) == (0.0, Verdict.CORRECT, {})


def test_a_missing_field_or_an_empty_reference_is_named(tmp_path):
    path = write(tmp_path, *ROWS, {"prompt": "x", "chat": {"reply": " "}})
    with pytest.raises(ValueError, match=r"line 1: no field 'reply'; the fields are 'prompt', 'ch"):
        General(path=path, reference_column="reply").problems("train")
    with pytest.raises(ValueError, match=r"line 41: field 'chat.reply' is empty"):
        General(path=path, reference_column="chat.reply").problems("train")
