"""The command: what it refuses before an engine, what it asks, what it keeps, and what it shows.

A scripted sampler answers here, so that the bytes on the screen and in the files are known; the
real engine, killed and resumed, stands in test_recipes_evaluate_engine.py.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from recipes import measuring
from recipes.cli import guarded
from recipes.evaluate import start
from rollouts.rollout import Completion, Request

HOSTILE = "\x1b]0;owned\x07[red]\u202e<script> \\boxed{8}"
ROWS = [{"id": f"r{i}", "question": f"What is {i} + 1?", "gold": str(i + 1)} for i in range(60)]


class Scripted:
    """Answers each prompt with what a function of it says."""

    def __init__(self, prompts: list[str], answer: Callable[[str], str], tokenizer):
        self.prompts, self.answer, self.tokenizer = prompts, answer, tokenizer

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        for request in requests:
            prompt = self.tokenizer.decode(request.token_ids, skip_special_tokens=True)
            self.prompts.append(prompt)
            text = self.answer(prompt)
            yield Completion(
                request_id=request.id,
                token_ids=(40, 2),
                logprobs=(-0.1, -0.2),
                text=text,
                finish="stop",
                versions=((-1, 0, 2),),
            )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with sums.jsonl and no other data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GROUPWISE_DATA", raising=False)
    Path("sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


@pytest.fixture
def other(tiny_model: Path, folder: Path) -> Path:
    """The same model under another name, without a chat template."""
    copy = Path(shutil.copytree(tiny_model, folder / "other"))
    (copy / "chat_template.jinja").unlink()
    return copy


@pytest.fixture
def run(
    folder: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Runs the command with a scripted sampler: (exit code, stdout, stderr); `run.prompts`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    prompts: list[str] = []
    built: list[Path] = []

    def action(*words: object, answer: Callable[[str], str] = lambda prompt: "8"):
        def build(model: Path, config, *, max_tokens: int, num_requests: int):
            built.append(model)
            return Scripted(prompts, answer, tokenizer)

        monkeypatch.setattr(measuring, "build_engine", build)
        capsys.readouterr()
        code = guarded(lambda: start([str(word) for word in words]))
        action.said = capsys.readouterr()
        return code, *action.said

    action.prompts, action.built = prompts, built
    return action


SUMS = ("--benchmarks", "sums.jsonl:prompt=question:answer=gold:id=id", "--scoring.workers", "1")
FEW = (*SUMS, "--num-problems", "4", "--max-tokens", "16", "--run-folder", "out")


def results(folder: str = "out") -> dict:
    return json.loads(Path(folder, "results.json").read_text())


def test_one_model_on_one_benchmark(run, tiny_model: Path):
    code, shown, _ = run(tiny_model, *FEW, "--num-samples", "2", "--temperature", "1")
    assert code == 0, run.said
    assert len(run.prompts) == 8
    assert run.prompts[0].startswith("user\nWhat is ")
    assert run.prompts[0].endswith("put your final answer within \\boxed{}.\nassistant\n")
    (standing,) = results()["standings"]
    ids = [count["id"] for count in standing["counts"]]
    correct = [count["num_correct"] for count in standing["counts"]]
    assert correct == [2 * (id_ == "sums/r7") for id_ in ids]
    assert standing["pass_at_1"] == sum(correct) / 8
    assert standing["single_draws"] == [2]
    assert "sums: 4 problems, n = 2" in shown
    assert "at most 16 tokens, seed 0" in shown
    assert results()["trials"]["model/sums"]["sampling"]["temperature"] == 1.0
    assert set(results()["models"]["model"]["files"]) >= {"model.safetensors", "config.json"}
    assert results()["versions"]["packages"]["torch"]


def test_a_finished_evaluation_is_shown_again_without_an_engine(run, tiny_model: Path):
    assert run(tiny_model, *FEW)[0] == 0
    first = results()
    run.built.clear()
    code, shown, _ = run("--resume", "out")
    assert (code, run.built) == (0, [])
    assert "sums: 4 problems, n = 1" in shown
    assert results()["standings"] == first["standings"]


def test_an_incomplete_line_is_told_and_only_its_sample_is_asked_again(run, tiny_model: Path):
    assert run(tiny_model, *FEW)[0] == 0
    first = results()
    file = Path("out/completions/model/sums/completions.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    run.prompts.clear()
    code, _, errors = run("--resume", "out")
    assert (code, len(run.prompts)) == (0, 1)
    assert errors == (
        f"{file}: its last line was incomplete and is dropped; what it held is made again\n"
    )
    assert file.read_bytes() == whole
    assert results()["standings"] == first["standings"]


def test_two_models_are_paired_and_the_base_has_its_best_template_too(run, tiny_model, other):
    def answer(prompt: str) -> str:
        """Under r1_zero always right; plain never; chat in half of the problems."""
        right = plus_one(prompt)
        if "Assistant:" in prompt:
            return f"<think> </think><answer>{right}</answer>"
        return right if prompt.startswith("user") and int(right) % 2 else "no"

    code, shown, _ = run(tiny_model, *FEW, "--against", other, answer=answer)
    assert code == 0, run.said
    assert run.built == [other, tiny_model]
    found = results()
    labels = [standing["label"] for standing in found["standings"]]
    assert labels == ["against (plain)", "against (best: r1_zero)", "model (chat)"]
    assert f"against is {other}" in shown.splitlines()
    base, best, model = found["standings"]
    assert (base["pass_at_1"], best["pass_at_1"]) == (0.0, 1.0)
    assert best["trial"] == "against/r1_zero/sums"
    assert (base["rates"]["formatted_frac"], best["rates"]["formatted_frac"]) == (None, 1.0)
    assert "| in the format asked for | - | 100.0% | - |" in Path("out/report.md").read_text()
    templates = found["best_templates"]["sums"]
    assert templates["pass_at_1"] == {"plain": 0.0, "r1_zero": 1.0}  # it has no chat template
    assert (templates["num_problems"], templates["chosen_on"]) == (32, "other problems")
    ids = {count["id"] for count in model["counts"]}
    gained = {count["id"] for count in model["counts"] if count["num_correct"]}
    first, second = found["comparisons"]
    assert (set(first["gained"]), first["lost"]) == (gained, [])
    assert (second["gained"], set(second["lost"])) == ([], ids - gained)
    assert 0 < second["p_value"] <= 1
    assert "sums, against (plain) to model (chat): +" in " ".join(shown.split())
    assert "best template of" in shown


def plus_one(prompt: str) -> str:
    return str(int(prompt.rpartition("What is ")[2].split()[0]) + 1)


def test_models_side_by_side_with_their_spread(run, tiny_model: Path, other: Path, folder: Path):
    third = Path(shutil.copytree(other, folder / "third"))
    alike = ("--template", "plain", "--against", other, "--no-best-template")
    code, shown, _ = run(tiny_model, third, *FEW, *alike, answer=plus_one)
    assert code == 0, run.said
    assert run.built == [other, tiny_model, third]
    found = results()
    assert [row["after"] for row in found["comparisons"]] == ["model (plain)", "model-2 (plain)"]
    assert found["over_models"]["sums"] == {
        "mean": 1.0, "std": 0.0, "lowest": 1.0, "highest": 1.0, "num_seeds": 2
    }  # fmt: skip
    said = " ".join(shown.split())
    assert "pass@1 of 2 models 100.0% on average, standard deviation 0.0 points" in said
    assert "2 paired intervals do not suffice to call one better (3 or more" in said
    assert sorted(path.name for path in Path("out/completions").iterdir()) == [
        "against", "model", "model-2"
    ]  # fmt: skip


def test_the_report_names_every_problem_that_changed(run, tiny_model: Path, other: Path):
    def answer(prompt: str) -> str:
        return plus_one(prompt) if prompt.startswith("user") else "no"

    words = (*SUMS, "--num-problems", "8", "--max-tokens", "16", "--run-folder", "out")
    code, shown, _ = run(
        tiny_model, *words, "--against", other, "--no-best-template", answer=answer
    )
    assert code == 0, run.said
    text = Path("out/report.md").read_text()
    (comparison,) = results()["comparisons"]
    assert len(comparison["gained"]) == 8
    assert "and 3 more" in " ".join(shown.split())
    assert f"- gained on 8: {', '.join(comparison['gained'])}" in text.splitlines()
    assert "| pass@1, 95% | 0.0% [0.0, 32.4] | 100.0% [67.6, 100.0] |" in text.splitlines()
    assert "| correct | 0.0% | 100.0% |" in text.splitlines()
    assert results()["benchmarks"]["sums"]["sha256"][:12] in text


def test_what_training_asked_is_told(run, tiny_model: Path, folder: Path):
    """A run that trained on rows of which the benchmark holds three."""
    from dataclasses import replace

    from recipes.config import to_yaml
    from recipes.presets import PRESETS
    from rollouts.tasks.dataset import Dataset

    long = "A farmer has {} hens and buys two more of them at the market on Monday: how many?"
    rows = [{"id": str(i), "question": long.format(i), "gold": str(i + 2)} for i in range(8)]
    new = [{"id": f"n{i}", "question": f"What is {i} + 1?", "gold": str(i + 1)} for i in range(9)]
    Path("trained.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows[:3], *new]))
    task = Dataset(
        name="trained", path="trained.jsonl", prompt_column="question", answer_column="gold"
    )
    run_folder = Path("runs/mine")
    (run_folder / "rollouts").mkdir(parents=True)
    config = replace(PRESETS["r1_zero_tiny"](), task=task)
    (run_folder / "config.yaml").write_text(to_yaml(config))
    shutil.copytree(tiny_model, run_folder / "final")
    words = ("--benchmarks", "asked.jsonl:prompt=question:answer=gold:id=id", "--max-tokens", "16")
    code, shown, _ = run(run_folder, *words, "--run-folder", "out", "--scoring.workers", "1")
    assert code == 0, run.said
    overlap = results()["training_overlap"]["model"]["asked"]
    train = {problem.id for problem in task.problems("train")}
    assert overlap["num_training"] == len(train)
    pairs = {(pair["training"], pair["benchmark"]) for pair in overlap["overlaps"]}
    assert pairs
    assert "share 10 words in a row with the training problems of model;" in " ".join(shown.split())
    gone = replace(config, task=replace(task, path="gone.jsonl"))
    (run_folder / "config.yaml").write_text(to_yaml(gone))
    code, shown, _ = run(run_folder, *words, "--run-folder", "out2", "--scoring.workers", "1")
    assert code == 0, run.said
    assert "training data of runs/mine cannot be compared: " in shown


def test_where_all_problems_are_measured_the_choice_says_so(run, tiny_model: Path, other: Path):
    whole = (*SUMS, "--max-tokens", "16", "--run-folder", "out")
    code, shown, _ = run(tiny_model, *whole, "--against", other)
    assert code == 0, run.said
    assert "chosen on 32 measured problems, which favours it" in shown


def test_hostile_text_reaches_the_file_but_not_the_screen(run, tiny_model: Path):
    code, shown, errors = run(tiny_model, *FEW, answer=lambda prompt: HOSTILE)
    assert code == 0, run.said
    for text in (shown, errors):
        assert "owned" not in text
        assert all(c.isprintable() or c == "\n" for c in text)
    line = Path("out/completions/model/sums/completions.jsonl").read_text().splitlines()[0]
    assert json.loads(line)["text"] == HOSTILE
    assert line.isascii()


def test_hostile_names_are_shown_harmless(run, tiny_model: Path):
    rows = [{"id": f"{i}\x1b[31m[b]", "question": "What is 7 + 1?", "gold": "8"} for i in range(3)]
    Path("bad\u202e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("--benchmarks", "bad\u202e.jsonl:prompt=question:answer=gold:id=id")
    code, shown, _ = run(
        tiny_model, *words, "--run-folder", "out", "--max-tokens", "8", "--scoring.workers", "1"
    )
    assert code == 0, run.said
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert "bad\\u202e: 3 problems" in shown


def refused(run, *words: object) -> str:
    """The one line; no engine was built and nothing was written."""
    before = sorted(Path.cwd().rglob("*"))
    code, _, errors = run(*words)
    assert (code, run.built) == (2, [])
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert sorted(Path.cwd().rglob("*")) == before
    return errors.removeprefix("error: ").strip()


def test_what_needs_no_model_is_refused_before_one_is_looked_for(run):
    absent = ("no-one/no-model", *SUMS)
    assert refused(run) == "no model is named: python -m recipes.evaluate MODEL --benchmarks gsm8k"
    assert "no benchmark is named" in refused(run, "no-one/no-model")
    assert refused(run, "no-one/no-model", "--benchmarks", "gsm8").startswith(
        "unknown benchmark 'gsm8'; did you mean 'gsm8k'?"
    )
    assert refused(run, *absent, "--engine.tensor-parallel", 2) == (
        "--engine.tensor-parallel is 2, but this command samples in one process: leave it out"
    )
    assert "--num-samples is 0: use 1 or more" in refused(run, *absent, "--num-samples", 0)
    assert "--top-p is 1.5: use more than 0" in refused(run, *absent, "--top-p", 1.5)
    assert "unknown field --num-sample; did you mean --num-samples?" in refused(
        run, *absent, "--num-sample", 2
    )
    assert "at temperature 0 every completion" in refused(run, *absent, "--num-samples", 2)
    assert "has no place: use --template plain or chat" in refused(
        run, *absent, "--protocol", "few_shot", "--template", "r1_zero"
    )
    assert refused(run, "--resume", "nowhere") == (
        "nowhere is no folder of an evaluation: it holds no asked.json"
    )
    twice = ("sums.jsonl:prompt=question:answer=gold", "sums.jsonl:answer=gold:prompt=question")
    assert "two benchmarks have one name (sums, sums)" in refused(
        run, "no-one/no-model", "--benchmarks", *twice
    )
    assert "model 'no-one/no-model': no such folder" in refused(run, *absent)


def test_what_a_model_cannot_do_is_refused_before_an_engine(run, tiny_model: Path, other: Path):
    assert "k from 1 to its 1 samples; lower it or raise --num-samples" in refused(
        run, tiny_model, *SUMS, "--k", 2
    )
    assert refused(run, other, *SUMS, "--template", "chat", "--max-tokens", 8) == (
        f"model {other} has no chat template, and --template is chat: use --template plain or r1_zero"
    )
    line = refused(run, tiny_model, *SUMS, "--protocol", "r1")
    assert line.startswith("the longest prompt of sums has ")
    assert "more than the context of" in line
    assert line.endswith("use --max-tokens 406 or less")
    assert "protocol training needs a run" in refused(
        run, tiny_model, *SUMS, "--protocol", "training"
    )
    assert "are one model" in refused(run, tiny_model, *SUMS, "--against", f"{tiny_model}/")
    assert "are one model" in refused(run, tiny_model, tiny_model, *SUMS)
    Path("out").mkdir()
    assert "the folder out exists: go on with --resume out" in refused(run, tiny_model, *FEW)


def test_a_resumed_evaluation_keeps_settings_model_and_rows(run, tiny_model: Path, other: Path):
    assert run(other, *FEW)[0] == 0
    assert "keeps its settings" in refused_again(run, "--seed", "3")
    rows = Path("sums.jsonl").read_text()
    Path("sums.jsonl").write_text(rows.replace("What is", "How much is"))
    assert "started with another model/sums (trials of asked.json)" in refused_again(run)
    Path("sums.jsonl").write_text(rows)
    generation = json.loads((other / "generation_config.json").read_text())
    (other / "generation_config.json").write_text(json.dumps(generation | {"eos_token_id": 7}))
    assert "started with another model (models of asked.json)" in refused_again(run)


def refused_again(run, *words: str) -> str:
    run.built.clear()
    code, _, errors = run("--resume", "out", *words)
    assert (code, run.built, errors.count("\n")) == (2, [], 1)
    return errors


def test_a_stranger_in_the_files_is_named(run, tiny_model: Path):
    assert run(tiny_model, *FEW)[0] == 0
    file = Path("out/completions/model/sums/completions.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows.append(rows[0] | {"problem": "sums/\x1b[31mr99"})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, errors = run("--resume", "out")
    assert code == 2
    assert "sample 0 of problem 'sums/\\x1b[31mr99', which is not asked for" in errors


def test_the_training_protocol_is_the_runs_own(run, tiny_model: Path):
    from dataclasses import replace

    from recipes.config import to_yaml
    from recipes.presets import PRESETS

    config = PRESETS["r1_zero_tiny"]()
    run_folder = Path("runs/mine")
    (run_folder / "rollouts").mkdir(parents=True)
    test = replace(config.test, num_samples=3, temperature=0.7, top_p=0.95, max_tokens=9)
    (run_folder / "config.yaml").write_text(to_yaml(replace(config, test=test)))
    words = (*SUMS, "--num-problems", "2", "--protocol", "training", "--run-folder", "out")
    assert "is a run that has no final folder yet" in refused(run, run_folder, *words)
    shutil.copytree(tiny_model, run_folder / "final")
    for number, name in enumerate((run_folder, run_folder / "final")):
        run.prompts.clear()
        code, shown, _ = run(name, *words[:-1], f"out{number}", answer=lambda prompt: "x")
        assert code == 0, run.said
        assert "temperature 0.7, top-p 0.95, at most 9 tokens" in shown
        assert len(run.prompts) == 6
        assert run.prompts[0].startswith("A conversation between User and Assistant.")
        assert run.prompts[0].endswith(" + 1?. Assistant:")


def test_parts_of_a_score_stand_in_the_results_and_the_report(run, tiny_model: Path):
    pytest.importorskip("if_verifiable", reason="the extra ifeval is not installed")
    pytest.importorskip("punkt", reason="the extra ifeval is not installed")
    row = {
        "key": 1,
        "prompt": "Write no commas.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    }
    Path("data/ifeval").mkdir(parents=True)
    Path("data/ifeval/train.jsonl").write_text(json.dumps(row) + "\n")
    words = ("--benchmarks", "ifeval", "--data", "data", "--run-folder", "out")
    few = ("--num-samples", "2", "--temperature", "1", "--max-tokens", "16")
    code, _, _ = run(
        tiny_model, *words, *few, "--scoring.workers", "1", answer=lambda _: "Sure,\nno comma"
    )
    assert code == 0, run.said
    assert "Write no commas." in run.prompts[0] and "boxed" not in run.prompts[0]
    (standing,) = results()["standings"]
    assert standing["pass_at_1"] == 0.0
    assert standing["parts"] == {
        "loose": 1.0, "loose_share": 1.0, "strict": 0.0, "strict_share": 0.0,
    }  # fmt: skip
    assert "| loose, mean | 100.0% |" in Path("out/report.md").read_text()
