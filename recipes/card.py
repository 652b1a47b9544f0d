"""The model card of a finished run: what it is, how it did, how it was made, what it is not.

`python -m recipes.card RUN_FOLDER [--stage NAME] [--evaluation FOLDER ...]` writes it as
`final/README.md`; of a pipeline's stage beside its stages. It holds no folder of this machine, and
nothing that a model wrote. recipes.push sends it to the hub.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from recipes.cli import guarded
from recipes.finished import Finished, Measured, find_finished
from recipes.markdown import fenced, plain, table
from rl.run_folder import write_atomically

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PROJECT = "Groupwise"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the card and say where."""
    parser = argparse.ArgumentParser(prog="python -m recipes.card", description=__doc__)
    add_source(parser)
    given = parser.parse_args(argv)

    def write() -> None:
        found = source(given)
        write_atomically(found.card, card(found, found.folder.name).encode())
        print(f"wrote {found.card}")

    return guarded(write)


def add_source(parser: argparse.ArgumentParser) -> None:
    """What names a finished model on a command line."""
    parser.add_argument("folder", type=Path, help="of a run, or of a pipeline")
    parser.add_argument("--stage", default="", help="of a pipeline; r1 if left out")
    parser.add_argument(
        "--evaluation", type=Path, action="append", default=[], help="folder of recipes.evaluate"
    )


def source(given: argparse.Namespace) -> Finished:
    """The model that the command line names. Raises ValueError if there is none."""
    return find_finished(given.folder, given.stage, given.evaluation)


def card(found: Finished, name: str) -> str:
    """The whole card: YAML for the hub, then Markdown for people."""
    lines = ["---", front_matter(found, name).strip(), "---", "", f"# {plain(name)}", ""]
    lines += [_what(found), ""]
    lines += ["## Evaluation", "", *_evaluation(found)]
    lines += ["## How it was made", "", *_made(found)]
    lines += ["## What it is not", "", *(f"- {line}" for line in _limits(found)), ""]
    return "\n".join(lines)


def front_matter(found: Finished, name: str) -> str:
    """The card's YAML, by huggingface_hub, so that it is what the hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    known, base = found.known_base, _base_id(found)
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=_slug(dataset),
            dataset_name=dataset,
            metric_type="pass@1",
            metric_name=f"pass@1, 95% {_interval(interval)}",
            metric_value=round(100 * value, 2),
        )
        for dataset, value, interval in _own_results(found)
    ]
    data = ModelCardData(
        base_model=base,
        license=known.licence if known else None,
        license_name=(known.licence_name or None) if known else None,
        datasets=_datasets(found) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["groupwise", "sft"] if found.is_supervised else ["groupwise", "grpo", "reasoning"],
        model_name=name if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _what(found: Finished) -> str:
    base = _base_id(found)
    start = f"`{base}`" if base else "a checkpoint that is not on the Hugging Face hub"
    if found.is_supervised:
        rows = found.numbers.get("examples")
        told = f"{rows:,} " if isinstance(rows, int) else ""
        how = f"supervised fine-tuning on {told}prompts with completions"
    else:
        kind = found.config.get("task", {}).get("kind", "?")
        how = f"reinforcement learning with rewards that rules check (task: {plain(str(kind))})"
    stage = f"Stage {plain(found.stage)} of DeepSeek-R1's pipeline on this base: its own part was "
    return f"Made by {PROJECT} from {start}. {stage if found.stage else 'By '}{how}, with one seed."


def _evaluation(found: Finished) -> Iterator[str]:
    """Before and after of the run, then benchmarks."""
    if not found.before_after and not found.evaluations:
        yield from ["It was not evaluated.", ""]
    if found.before_after:
        yield from _before_after(found.before_after)
    if found.evaluations:
        yield from _benchmarks(found)


def _before_after(summary: dict[str, Any]) -> Iterator[str]:
    results = summary["results"]
    first = next(iter(results.values()))
    k = first["k"] or first["num_samples"]
    rows = [["", "pass@1, 95%", f"pass@{k}", f"maj@{k}", "cut off", "tokens"]]
    for label, row in results.items():
        rows.append(
            [
                label,
                f"{_percent(row['pass_at_1'])} {_interval(row['pass_at_1_interval'])}",
                _percent(row["pass_at_k"]),
                _percent(row["maj_at_k"]),
                _percent(row["truncated_frac"]),
                f"{row['mean_tokens']:.0f}",
            ]
        )
    sampling = first["sampling"]
    yield from [*table(rows), ""]
    yield (
        f"{first['num_problems']} held-out problems of its own task, {first['num_samples']} samples "
        f"each at temperature {sampling['temperature']:g}, at most {sampling['max_tokens']} tokens. "
        "Intervals are over problems."
    )
    yield ""
    if difference := summary.get("difference"):
        yield (
            f"pass@1, {plain(difference['before'])} to {plain(difference['after'])}: "
            f"{_points(difference)}."
        )
        yield ""


def _benchmarks(found: Finished) -> Iterator[str]:
    """One table of all evaluations, then what they compare."""
    rows = [["", "benchmark", "problems x samples", "pass@1, 95%", "cut off", "tokens"]]
    rows += [row for evaluation in found.evaluations for row in _standings(evaluation)]
    yield from [*table(rows), ""]
    for evaluation in found.evaluations:
        for row in evaluation.results["comparisons"]:
            names = f"{plain(row['before'])} to {plain(row['after'])}"
            yield f"- {plain(row['benchmark'])}, {names}: {_points(row)}"
    for row in found.compared:
        yield f"- {plain(str(row['before']))} to {plain(str(row['after']))}: {_points(row)}"
    protocols = {str(each.results["config"].get("protocol")) for each in found.evaluations}
    yield from [f"- Protocol: {plain(', '.join(sorted(protocols)))}", ""]


def _standings(evaluation: Measured) -> Iterator[list[str]]:
    for each in evaluation.results["standings"]:
        yield [
            evaluation.label(each),
            each["benchmark"],
            f"{each['num_problems']} x {each['num_samples']}",
            f"{_percent(each['pass_at_1'])} {_interval(each['pass_at_1_interval'])}",
            _percent(each["rates"]["truncated_frac"]),
            f"{each['rates']['mean_tokens']:.0f}",
        ]


def _made(found: Finished) -> Iterator[str]:
    yield f"`config.yaml` of the run ({PROJECT}, `python -m recipes.{_recipe(found)} --config`):"
    yield from ["", *fenced(yaml.safe_dump(without_folders(found.config), sort_keys=False), "yaml")]
    packages = found.versions.get("packages", {})
    made = [f"{name} {version}" for name, version in packages.items()]
    made += [f"Python {found.versions['python']}"] if "python" in found.versions else []
    made += [f"{PROJECT} commit {found.versions['commit']}"] if found.versions.get("commit") else []
    cpu = found.versions.get("machine", {}).get("cpu")
    made += [f"on {cpu}"] if cpu else []
    yield from ["", f"Made with {plain(', '.join(made))}.", ""] if made else [""]


def _limits(found: Finished) -> Iterator[str]:
    yield "No assistant: it was trained for right answers, not for helpful or safe ones"
    yield (
        "Not measured beyond the tables above; another prompt template than its own "
        f"(`prompts.template: {plain(str(found.config.get('prompts', {}).get('template')))}`) may "
        "do far worse"
    )
    yield "One seed: how far another seed would land is not in the intervals"
    reasons = found.before_after and next(iter(found.before_after["results"].values()))
    if reasons and reasons.get("is_single_draw"):
        yield "pass@k and maj@k are of a single draw: too noisy to compare"
    if not found.known_base:
        yield "The licence of its base is not known to its makers' tool: look it up before sharing"


def without_folders(value: Any) -> Any:
    """Settings with this machine's paths cut to their last part."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if isinstance(value, str) and _is_path(value):
        return f"FOLDER/{Path(value).name}"
    return value


def _is_path(text: str) -> bool:
    return text.startswith(("/", "~", "./", "../")) or ("/" in text and Path(text).exists())


def _recipe(found: Finished) -> str:
    return "sft" if found.is_supervised else "r1_zero"


def _base_id(found: Finished) -> str | None:
    """The base's id on the hub, if it has one."""
    if found.known_base:
        return found.known_base.hub_id or found.base
    fits = HUB_ID.fullmatch(found.base) and not _is_path(found.base)
    return found.base if fits else None


def _datasets(found: Finished) -> list[str]:
    """Ids on the hub of the data that it was trained on."""
    task = found.config.get("task") or {}
    paths = [part.get("path", "") for part in (task, *task.get("tasks", []))]
    return [path for path in paths if path and HUB_ID.fullmatch(path) and not _is_path(path)]


def _own_results(found: Finished) -> Iterator[tuple[str, float, Sequence[float]]]:
    """Data set, pass@1 and its interval, of this model alone."""
    if found.before_after:
        row = list(found.before_after["results"].values())[-1]
        kind = found.config.get("task", {}).get("kind", "own task")
        yield f"{kind} ({row['split']} split)", row["pass_at_1"], row["pass_at_1_interval"]
    for evaluation in found.evaluations:
        for each in evaluation.results["standings"]:
            if each["trial"].partition("/")[0] in evaluation.own:
                yield each["benchmark"], each["pass_at_1"], each["pass_at_1_interval"]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "own"


def _points(row: dict[str, Any]) -> str:
    low, high = (100 * bound for bound in row["interval"])
    return f"{100 * row['mean']:+.1f} points [{low:+.1f}, {high:+.1f}], paired by problem"


def _interval(interval: Sequence[float]) -> str:
    low, high = interval
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


if __name__ == "__main__":
    sys.exit(main())
