"""The command with a real HTTP server as the model: what is asked, kept, counted, and refused.

The real engine, killed and resumed, stands in test_recipes_rejection_engine.py.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipes.cli import guarded
from recipes.rejection import start
from rollouts.tasks.arithmetic import Arithmetic
from tests.endpoint_server import Reply, said, serving

KEY = "sk-very-secret-1234"
FEW = (
    "task:arithmetic", "--task.operations", "add", "--task.add-max", "9", "--task.instruction", "",
    "--num-problems", "10", "--num-samples", "4", "--sampling.max-tokens", "64",
    "--scoring.workers", "1", "--run-folder", "out",
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command in an empty folder: (exit code, stdout with single spaces, stderr)."""
    monkeypatch.chdir(tmp_path)

    def action(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = guarded(lambda: start([str(word) for word in words]))
        shown, errors = capsys.readouterr()
        return code, " ".join(shown.split()), errors

    return action


def served_by(url: str) -> tuple[str, ...]:
    return ("--endpoint.url", url, "--endpoint.model", "teacher", "--endpoint.retries", "0")


def question(body: dict[str, Any]) -> tuple[int, int]:
    """The operands of "What is 3 + 5?"."""
    a, b = re.search(r"What is (\d+) \+ (\d+)\?", body["messages"][-1]["content"]).groups()
    return int(a), int(b)


def thought(body: dict[str, Any], number: int) -> Reply:
    """Right in R1's form, in words that the seed draws, unless a is 1 (never) or even (at times)."""
    a, b = question(body)
    luck = body["seed"] % 4
    total = a + b + (a == 1 or (a % 2 == 0 and luck == 0))
    trace = f"Well, {a} and {b} make {total}, in {['one', 'two', 'three', 'four'][luck]} steps."
    return said(f"It is \\boxed{{{total}}}.", tokens=10 + luck, reasoning_content=trace)


def rows(folder: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "kept.jsonl").read_text().splitlines()]


def counts(folder: str = "out") -> dict[str, Any]:
    return json.loads(Path(folder, "counts.json").read_text())


def sampled(folder: str = "out", name: str = "samples") -> list[dict[str, Any]]:
    file = Path(folder, name, "completions.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_samples_of_a_server_become_rows(run):
    with serving(thought) as served:
        code, shown, errors = run(*served_by(served.url), *FEW)
    assert (code, errors) == (0, "")
    assert len(served.bodies) == 40
    assert {body["messages"][0]["role"] for body in served.bodies} == {"user"}
    found, told = rows(), counts()
    for row in found:
        a, b = map(int, re.findall(r"\d+", row["prompt"]))
        assert row["completion"].startswith(f"<think>\nWell, {a} and {b} make {a + b}, in ")
        assert row["completion"].endswith(f"</think>\n\nIt is \\boxed{{{a + b}}}.")
        assert row["problem_id"] == f"arithmetic/add/{a}+{b}"
        assert (row["source"], row["origin"]) == ("arithmetic/add", "samples")
        assert 10 <= row["num_tokens"] <= 13  # as the server counts
    assert [row["problem_id"] for row in found] == sorted(
        (row["problem_id"] for row in found),
        key=[row["problem"] for row in problem_order()].index,
    )
    # By hand from what was sampled: right ones a problem, distinct ones, and the quota.
    by_problem: dict[str, list[str]] = {}
    for saved in sampled():
        a, b = map(int, saved["problem"].split("/")[2].split("+"))
        by_problem.setdefault(saved["problem"], [])
        if f"\\boxed{{{a + b}}}" in saved["text"]:
            by_problem[saved["problem"]].append(saved["text"])
    quotas = {0: 4, 1: 4, 2: 3, 3: 2, 4: 1}  # 1 + ceil(3 (1 - correct / 4))
    expected = {
        problem: min(len(set(texts)), quotas[len(texts)])
        for problem, texts in by_problem.items()
        if texts
    }
    assert Counter(row["problem_id"] for row in found) == expected
    assert told["sampled"] == 40 == len(found) + sum(told["removed"]["samples"].values())
    assert told["correct"] == sum(map(len, by_problem.values()))
    assert told["removed"]["samples"]["wrong"] == 40 - told["correct"]
    unsolved = [problem for problem, texts in by_problem.items() if not texts]
    assert set(told["problems"]["without_correct_ids"]) == set(unsolved) != set()
    assert told["problems"]["without_correct"] == len(unsolved)
    by_rate = told["kept"]["by_pass_rate"]
    assert sum(row["problems"] for row in by_rate.values()) == 10
    assert sum(row["kept"] for row in by_rate.values()) == len(found)
    assert by_rate["0"] == {"problems": len(unsolved), "correct": 0, "kept": 0}
    assert told["mean_tokens"]["sampled"] == sum(s["num_tokens"] for s in sampled()) / 40
    assert f"{len(unsolved)} of 10 problems have no correct sample: " in shown
    assert f"kept, samples {len(found)} " in shown


def problem_order() -> list[dict[str, Any]]:
    """The problems in the order in which the folder asks them."""
    from recipes.config import from_yaml
    from recipes.rejection_asking import make_asked
    from recipes.rejection_config import RejectionConfig

    config = from_yaml(Path("out/config.yaml").read_text(), "out", RejectionConfig)
    return [{"problem": problem.id} for problem in make_asked(config).trial.problems]


def test_a_server_that_fails_loses_nothing_and_the_command_resumes(run):
    with serving(thought) as served:
        whole = tuple("whole" if word == "out" else word for word in FEW)
        assert run(*served_by(served.url), *whole)[0::2] == (0, "")

    def failing(body: dict[str, Any], number: int) -> Reply:
        return thought(body, number) if number < 17 else Reply(status=500, body="<html>down</html>")

    with serving(failing) as served:
        words = (*served_by(served.url), *FEW, "--endpoint.max-concurrent", "4")
        code, _, errors = run(*words)
    assert code == 2
    assert re.fullmatch(
        rf"error: endpoint {served.url}, model teacher: 500 \('.*'\); see the server's log. What came "
        r"is kept: go on with --resume\n",
        errors,
    )
    assert len(sampled()) == 17
    assert not Path("out/kept.jsonl").exists()
    with serving(thought) as served:  # elsewhere, by now
        code, _, errors = run("--resume", "out", "--endpoint.url", served.url)
        assert (code, errors) == (0, "")
        assert len(served.bodies) == 40 - 17
        assert run("--resume", "out", "--endpoint.url", served.url)[0] == 0
        assert len(served.bodies) == 40 - 17  # nothing is asked again
    assert Path("out/kept.jsonl").read_bytes() == Path("whole/kept.jsonl").read_bytes()
    assert counts() == counts("whole")


def test_the_key_is_sent_and_stands_in_no_file(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with serving(thought) as served:
        words = (*served_by(served.url), *FEW, "--endpoint.key-variable", "TEACHER_KEY")
        code, shown, errors = run(*words)
    assert code == 0, errors
    assert {header["authorization"] for header in served.headers} == {f"Bearer {KEY}"}
    assert KEY not in shown + errors
    for file in filter(Path.is_file, Path().rglob("*")):
        assert KEY not in file.read_text()
    assert "key_variable: TEACHER_KEY" in Path("out/config.yaml").read_text()


def zero(body: dict[str, Any], number: int) -> Reply:
    """R1-Zero's form; right but where the sum is below 6."""
    a, b = question(body)
    text = f"<think>So {a} and {b} it is.</think> <answer>{a + b - (a + b < 6)}</answer>"
    return said(text)


def test_samples_in_r1_zeros_form_become_rows_in_r1s(run):
    with serving(zero) as served:
        words = ("--filters.format", "r1_zero", "--form", "r1")
        code, _, errors = run(*served_by(served.url), *FEW, *words)
    assert code == 0, errors
    assert counts()["removed"]["samples"]["duplicate"] > 0  # one text a problem
    for row in rows():
        a, b = map(int, re.findall(r"\d+", row["prompt"]))
        assert row["completion"] == (
            f"<think>\nSo {a} and {b} it is.\n</think>\n\nThe answer is \\boxed{{{a + b}}}."
        )
        assert row["num_tokens"] is None  # the server counted another text
    assert {row["problem_id"] for row in rows()} == {
        saved["problem"] for saved in sampled() if sum(map(int, re.findall(r"\d+", saved["problem"]))) >= 6
    }  # fmt: skip


def test_a_stronger_model_writes_summaries_which_are_graded_again(run):
    asked = []

    def summary(body: dict[str, Any], number: int) -> Reply:
        content = body["messages"][0]["content"]
        asked.append(content)
        a, b = map(int, re.search(r"So (\d+) and (\d+) it is", content).groups())
        if a == 9:
            return said(f"It is \\boxed{{{a + b + 1}}}.")  # no longer right
        if a == 8:
            return said(f"It is {a + b}.")  # no box
        if a == 7:
            return said(f"It is \\boxed{{{a + b}}}.", finish="length")
        return said(f"Adding gives \\boxed{{{a + b}}}.", reasoning_content="Let me see.")

    words = [w for w in FEW if w not in ("--num-problems", "10")]
    with serving(zero) as served, serving(summary) as rewriter:
        rewrite = ("--rewrite.url", rewriter.url, "--rewrite.model", "strong")
        code, shown, errors = run(
            *served_by(served.url), *words, "--filters.format", "r1_zero", "--form", "r1", *rewrite
        )
        assert code == 0, errors
        assert all("Question:\nWhat is " in content for content in asked)
        assert len(asked) == len(set(asked))
        told, found, count = counts(), rows(), len(asked)
        assert run("--resume", "out")[0] == 0
        assert len(asked) == count  # kept, too
        assert (counts(), rows()) == (told, found)
    operands = [tuple(map(int, re.findall(r"\d+", row["prompt"]))) for row in found]
    assert all(a < 7 for a, _ in operands)
    for (a, b), row in zip(operands, found, strict=True):
        assert row["completion"] == (
            f"<think>\nSo {a} and {b} it is.\n</think>\n\nAdding gives \\boxed{{{a + b}}}."
        )
    first = Counter(saved["problem"].split("/")[2][0] for saved in sampled(name="rewritten"))
    assert told["removed"]["samples"]["regraded"] == first["9"] > 0
    assert told["removed"]["samples"]["form"] == first["8"] + first["7"] > 0
    assert "regraded" in shown


def worked_file(task: Arithmetic) -> dict[str, dict[str, str]]:
    """A row of each kind, by its kind."""
    train, test = task.problems("train"), task.problems("test")
    form = "<think>Count on: {}.</think>\\boxed{{{}}}"
    good, wrong, bare = train[:3]
    return {
        "good": {"q": good.prompt, "s": form.format("up", good.answer)},
        "again": {"q": good.prompt, "s": form.format("UP", good.answer)},
        "wrong": {"q": wrong.prompt, "s": form.format("up", "99")},
        "bare": {"q": bare.prompt, "s": f"It is \\boxed{{{bare.answer}}}."},
        "held_out": {"q": test[0].prompt, "s": form.format("up", test[0].answer)},
        "unknown": {"q": "What is 70 + 7?", "s": form.format("up", 77), "gold": "77"},
    }


NO_SAMPLES = ("--num-samples", "0", "--scoring.workers", "1", "--run-folder", "out")
SUMS = (
    "task:arithmetic", "--task.operations", "add", "--task.add-max", "9", "--task.instruction", "",
)  # fmt: skip
FILE = (
    "--solutions.path", "worked.jsonl", "--solutions.prompt-column", "q",
    "--solutions.completion-column", "s",
)  # fmt: skip


@pytest.fixture
def solutions(run) -> dict[str, dict[str, str]]:
    found = worked_file(Arithmetic(operations=("add",), add_max=9, instruction=""))
    Path("worked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found.values()))
    return found


def test_a_file_of_worked_solutions_goes_through_the_same_filters(run, solutions):
    code, _, errors = run(*SUMS, *NO_SAMPLES, *FILE)
    assert code == 0, errors
    (row,) = rows()
    assert row["completion"] in (solutions["good"]["s"], solutions["again"]["s"])
    assert (row["origin"], row["prompt"]) == ("file", solutions["good"]["q"])
    assert row["place"] in ("worked.jsonl, line 1", "worked.jsonl, line 2")
    assert counts()["removed"]["file"] == {
        "wrong": 1, "format": 1, "held_out": 1, "unknown_question": 1, "duplicate": 1
    }  # fmt: skip


def test_questions_that_the_task_does_not_have_are_graded_by_a_column(run, solutions):
    del solutions["unknown"]
    with Path("worked.jsonl").open("w") as file:
        for row in solutions.values():
            file.write(json.dumps({**row, "gold": row["s"][-2] if row["q"] != "x" else ""}) + "\n")
        good = {"q": "What is 70 + 7?", "s": "<think>Up.</think>\\boxed{77}", "gold": "77"}
        file.write(json.dumps(good) + "\n" + json.dumps({**good, "gold": "78"}) + "\n")
    code, _, errors = run(*SUMS, *NO_SAMPLES, *FILE, "--solutions.answer-column", "gold")
    assert code == 0, errors
    assert sorted(row["prompt"] for row in rows()) == sorted(
        [solutions["good"]["q"], "What is 70 + 7?"]
    )
    assert counts()["removed"]["file"]["wrong"] == 2


def test_solutions_can_be_taken_as_they_are(run, solutions):
    words = ("--solutions.no-graded", "--filters.format", "none", "--form", "r1")
    code, _, errors = run(*SUMS, *NO_SAMPLES, *FILE, *words)
    assert code == 0, errors
    found = {row["prompt"]: row["completion"] for row in rows()}
    assert set(found) == {
        solutions[kind]["q"] for kind in ("good", "wrong", "bare", "unknown")
    }  # fmt: skip
    bare = solutions["bare"]["s"]  # a solution without tags is its own trace
    assert found[solutions["bare"]["q"]].startswith(f"<think>\n{bare}\n</think>\n\nThe answer is ")


def worked(self: Arithmetic, problem) -> str:
    return f"<think>By the book.</think>The answer is \\boxed{{{problem.answer}}}."


def test_what_is_missing_comes_from_the_tasks_generator(
    run, solutions, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Arithmetic, "worked", worked, raising=False)
    with serving(thought) as served:
        code, shown, errors = run(*served_by(served.url), *FEW, *FILE, "--num-rows", "30")
    assert code == 0, errors
    found, told = rows(), counts()
    by_origin = told["kept"]["by_origin"]
    assert by_origin == Counter(row["origin"] for row in found)
    assert (sum(by_origin.values()), by_origin["file"]) == (30, 1)
    unsolved = told["problems"]["without_correct_ids"]
    made = [row["problem_id"] for row in found if row["origin"] == "worked"]
    assert len(set(made)) == len(made) == by_origin["worked"] > 10
    assert set(made[: len(unsolved)]) == set(unsolved) - {found[by_origin["samples"]]["problem_id"]}
    assert f"kept, worked {by_origin['worked']} " in shown


def test_no_more_worked_solutions_than_problems(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Arithmetic, "worked", worked, raising=False)
    code, shown, errors = run(*SUMS, *NO_SAMPLES, "--num-rows", "999")
    assert code == 0, errors
    task = Arithmetic(operations=("add",), add_max=9, instruction="")
    assert {row["problem_id"] for row in rows()} == {p.id for p in task.problems("train")}
    assert f"{len(rows())} of 999 rows that were wanted" in shown


def test_a_task_without_a_generator_says_so(run, solutions):
    code, shown, errors = run(*SUMS, *NO_SAMPLES, *FILE, "--num-rows", "5")
    assert code == 0, errors
    assert "1 of 5 rows that were wanted; task arithmetic has no generator of worked" in shown
    shutil.rmtree("out")
    _, shown, _ = run(*SUMS, *NO_SAMPLES, *FILE, "--num-rows", "5", "--no-fill-up")
    assert "1 of 5 rows that were wanted; fill_up is off" in shown


def test_fewer_rows_are_wanted_than_are_kept(run):
    with serving(thought) as served:
        code, _, errors = run(*served_by(served.url), *FEW, "--num-rows", "5")
    assert code == 0, errors
    assert len({row["problem_id"] for row in rows()}) == len(rows()) == 5
    removed = counts()["removed"]["samples"]
    assert sum(removed.values()) == 35
    assert removed["surplus"] > 0


def test_no_correct_sample_is_one_line_with_the_counts_kept(run):
    with serving(lambda body, n: said("no idea")) as served:
        code, _, errors = run(*served_by(served.url), *FEW)
    assert code == 2
    assert errors == (
        "error: no sample is correct: 40 samples of 10 problems by teacher; see "
        "out/samples/completions.jsonl, and raise num_samples or sampling.max_tokens, or choose "
        "easier problems, other prompts or another model\n"
    )
    assert counts()["problems"]["without_correct"] == 10
    assert not Path("out/kept.jsonl").exists()


def test_correct_samples_that_no_filter_lets_pass_are_one_line(run):
    def plain(body: dict[str, Any], number: int) -> Reply:
        return said(str(sum(question(body))))

    with serving(plain) as served:
        code, _, errors = run(*served_by(served.url), *FEW)
    assert code == 2
    assert errors == (
        "error: no row is kept; removed were format 40 (out/counts.json): loosen filters\n"
    )


def test_a_file_alone_says_all_of_it_with_a_mixture_too(run):
    from recipes.config import to_yaml
    from recipes.rejection_config import RejectionConfig
    from rewards.pool import ScoringConfig
    from rollouts.endpoint_config import EndpointConfig
    from rollouts.rollout import Sampling
    from rollouts.tasks.countdown import Countdown
    from rollouts.tasks.mixture import Mixture

    sums = Arithmetic(operations=("add",), add_max=5, instruction="")

    def either(body: dict[str, Any], number: int) -> Reply:
        text = body["messages"][-1]["content"]
        return thought(body, number) if text.startswith("What is") else said("<think>x</think>?")

    with serving(either) as served:
        config = RejectionConfig(
            endpoint=EndpointConfig(url=served.url, model="teacher"),
            task=Mixture(tasks=(sums, Countdown(num_problems=20)), weights=(1.0, 1.0)),
            scoring=ScoringConfig(workers=1),
            sampling=Sampling(max_tokens=64),
            num_samples=2,
        )
        Path("config.yaml").write_text(to_yaml(config))
        code, _, errors = run("--config", "config.yaml", "--run-folder", "out")
    assert code == 0, errors
    assert {row["source"] for row in rows()} == {"arithmetic/add"}
    assert any(p.startswith("countdown/") for p in counts()["problems"]["without_correct_ids"])
    assert Path("out/config.yaml").read_text() == to_yaml(config)


def longest(problem, responses) -> list[float]:
    """A reward of whole groups."""
    return [float(len(response.text)) for response in responses]


def refused(run: Callable[..., tuple[int, str, str]], *words: object) -> str:
    """The one line of what is refused before anything is written."""
    code, _, errors = run(*words)
    assert code == 2
    assert (errors.startswith("error: "), errors.count("\n")) == (True, 1)
    assert not Path("out").exists()
    return errors


def test_what_cannot_be_sampled_is_refused_before_anything_is_asked(run, tiny_model: Path):
    where = served_by("http://127.0.0.1:9/v1")
    assert "nobody to sample from: name a MODEL first" in refused(run, *FEW)
    assert "did you mean --filters.format?" in refused(run, *where, *FEW, "--filters.forma", "none")
    assert "prompts.template r1_zero" in refused(run, *where, *FEW, "--prompts.template", "r1_zero")
    assert "variable NO_KEY, which is not set" in refused(
        run, *where, *FEW, "--endpoint.key-variable", "NO_KEY"
    )
    line = refused(run, *FEW, "--endpoint.url", f"http://x:{KEY}@h/v1", "--endpoint.model", "m")
    assert "carries a key or a query" in line
    assert KEY not in line
    assert "did you mean 'r1'" in refused(run, *where, *FEW, "--reward", "r1_")
    assert "scores the samples of a problem together" in refused(
        run, *where, *FEW, "--reward", "tests.test_recipes_rejection:longest"
    )
    assert "rewrite makes summaries of form r1" in refused(
        run, *where, *FEW, "--rewrite.url", "http://h/v1", "--rewrite.model", "m"
    )
    assert "use --sampling.max-tokens " in refused(
        run, tiny_model, *[word if word != "64" else "600" for word in FEW]
    )
    assert "no/model" in refused(run, "no/model", *FEW)
    assert (
        "'gone.jsonl' is not a file" in run(*SUMS, *NO_SAMPLES, "--solutions.path", "gone.jsonl")[2]
    )


def test_a_folder_that_is_none_or_whose_task_changed_is_refused(run, solutions):
    assert "nowhere/config.yaml does not exist" in refused(run, "--resume", "nowhere")
    assert run(*SUMS, *NO_SAMPLES, *FILE)[0] == 0
    assert (
        "a resumed folder keeps its config; these fields differ"
        in run("--resume", "out", "--seed", "3")[2]
    )
    assert "the folder out exists: go on with --resume out" in run(*SUMS, *NO_SAMPLES, *FILE)[2]
    before = Path("out/kept.jsonl").read_bytes()
    Path("worked.jsonl").write_text("")
    code, _, errors = run("--resume", "out")
    assert (code, errors) == (
        2,
        "error: out was started with another solutions (asked.json): give back what changed, or "
        "start a new folder\n",
    )
    assert Path("out/kept.jsonl").read_bytes() == before
