"""A finished model with what is known of it: the result of a run, or of a stage of a pipeline."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from recipes.arguments import text_of
from rollouts.known_models import KNOWN_MODELS, KnownModel

STAGES = "stages"
LAST_STAGE = "r1"
MEASURE = "measure_"
DEPTH = 16
"""So many runs may stand between a model and its base."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An evaluation by recipes.evaluate.

    Attributes:
        results: Its results.json.
        stage: What a pipeline measured by it, which its rows are then called; else empty.
        own: Names of those of its models that are the finished one.
    """

    results: dict[str, Any]
    stage: str
    own: frozenset[str]

    def label(self, row: dict[str, Any]) -> str:
        """What to call a row: in a pipeline each is of "model"."""
        return row["label"].replace("model", self.stage, 1) if self.stage else row["label"]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One checkpoint folder and its history.

    Attributes:
        folder: Of the run or stage.
        card: Where its model card is kept: in `final/`, or beside the stages of a pipeline, whose
            manifests hold what is in `final/`.
        config: Its settings, as config.yaml has them.
        versions: What it was made with.
        numbers: Of a supervised stage; else empty.
        before_after: eval.json of a run; None without.
        evaluations: Of it, and of those that it is compared with.
        compared: Differences between stages, as a pipeline's table.json has them.
        base: The model that the first of its runs started from, as a recipe names it.
    """

    folder: Path
    card: Path
    config: dict[str, Any]
    versions: dict[str, Any]
    numbers: dict[str, Any] = field(default_factory=dict)
    before_after: dict[str, Any] | None = None
    evaluations: tuple[Measured, ...] = ()
    compared: tuple[dict[str, Any], ...] = ()
    base: str

    @property
    def final(self) -> Path:
        """The checkpoint."""
        return self.folder / "final"

    @property
    def stage(self) -> str:
        """Its name in a pipeline; empty for a run of its own."""
        return "" if self.card.parent == self.final else self.folder.name

    @property
    def is_supervised(self) -> bool:
        """Whether it was trained on completions, not by reward."""
        return "training" in self.config

    @property
    def known_base(self) -> KnownModel | None:
        """What is known of the base; None for a model that no preset names."""
        return KNOWN_MODELS.get(self.base)


def find_finished(path: Path, stage: str = "", evaluations: Sequence[Path] = ()) -> Finished:
    """The finished model in a run's folder, or in a pipeline's.

    Args:
        stage: Of a pipeline; empty takes r1, or the last that is finished.
        evaluations: Folders of recipes.evaluate; a pipeline's own are found.

    Raises:
        ValueError: There is none, it is not finished, or an evaluation is none.
    """
    root = path if (path / STAGES).is_dir() else None
    if root:
        folder = _stage(root, stage)
    elif stage:
        raise ValueError(f"{path} has no stages: leave --stage out, or name a pipeline's folder")
    else:
        folder = path
    file = folder / "config.yaml"
    if not file.is_file():
        raise ValueError(f"{path} is not a run folder: it holds no config.yaml")
    if not (folder / "final" / "config.json").is_file():
        raise ValueError(f"{folder} holds no final/: run it to its end with --resume first")
    config = yaml.safe_load(text_of(file))
    in_pipeline = (folder / "manifest.json").is_file()
    return Finished(
        folder=folder,
        card=folder.parent.parent / f"card-{folder.name}.md"
        if in_pipeline
        else folder / "final" / "README.md",
        config=config,
        versions=_read(folder / "versions.json") or {},
        numbers=_read(folder / "numbers.json") or {},
        before_after=_read(folder / "eval.json"),
        evaluations=(
            *(_measured_stages(root, folder.name) if root else ()),
            *(_measured(each, folder) for each in evaluations),
        ),
        compared=tuple((_read(root / "table.json") or {}).get("comparisons", ()) if root else ()),
        base=_base(config, folder),
    )


def _stage(root: Path, name: str) -> Path:
    done = list(_finished_stages(root))
    if not done:
        raise ValueError(f"{root} has no finished stage with a model yet")
    named = {each.name: each for each in done}
    if name and name not in named:
        raise ValueError(f"no finished stage {name!r} in {root}; there are {', '.join(named)}")
    return named.get(name or LAST_STAGE, done[-1])


def _finished_stages(root: Path) -> Iterator[Path]:
    """Those with a model, in the order in which they ended."""
    manifests = root.glob(f"{STAGES}/*/manifest.json")
    for manifest in sorted(manifests, key=lambda each: each.stat().st_mtime):
        if (manifest.parent / "final").is_dir():
            yield manifest.parent


def _base(config: dict[str, Any], folder: Path) -> str:
    """Back along the runs that each started from another's final folder."""
    model = str(config.get("model", ""))
    for _ in range(DEPTH):
        before = Path(model).expanduser()
        run = before.parent if before.name == "final" else before
        file = run / "config.yaml"
        if not file.is_file() or run.resolve() == folder.resolve():
            return model
        model = str((yaml.safe_load(file.read_text()) or {}).get("model", ""))
    return model


def _measured(folder: Path, model: Path) -> Measured:
    """An evaluation that was named; the model is known by the folder that was measured."""
    results = _results(folder)
    ours = {model.resolve(), (model / "final").resolve()}
    own = {
        subject
        for subject, other in results["models"].items()
        if Path(other["name"]).expanduser().resolve() in ours
    }
    return Measured(results=results, stage="", own=frozenset(own))


def _measured_stages(root: Path, stage: str) -> Iterator[Measured]:
    """A pipeline's own, in the order in which they ended; each measures one model."""
    files = root.glob(f"{STAGES}/{MEASURE}*/results.json")
    for file in sorted(files, key=lambda each: each.stat().st_mtime):
        name = file.parent.name.removeprefix(MEASURE)
        results = _results(file.parent)
        is_own = name in (stage, f"{stage}_instructions")
        yield Measured(
            results=results, stage=name, own=frozenset(results["models"] if is_own else ())
        )


def _results(folder: Path) -> dict[str, Any]:
    results = _read(folder / "results.json")
    if results is None or not {"standings", "models", "comparisons"} <= results.keys():
        raise ValueError(f"{folder} is no finished evaluation: it holds no results.json of ours")
    return results


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error})") from error
