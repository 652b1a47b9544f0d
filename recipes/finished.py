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
DEPTH = 16
"""So many runs may stand between a model and its base."""


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
        evaluations: results.json of evaluations that may be of it.
        base: The model that the first of its runs started from, as a recipe names it.
    """

    folder: Path
    card: Path
    config: dict[str, Any]
    versions: dict[str, Any]
    numbers: dict[str, Any] = field(default_factory=dict)
    before_after: dict[str, Any] | None = None
    evaluations: tuple[dict[str, Any], ...] = ()
    base: str

    @property
    def final(self) -> Path:
        """The checkpoint."""
        return self.folder / "final"

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
    found = list(evaluations)
    root = path if (path / STAGES).is_dir() else None
    if root:
        folder = _stage(root, stage)
        found += sorted(each.parent for each in root.glob(f"{STAGES}/*/results.json"))
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
        evaluations=tuple(_evaluation(each) for each in found),
        base=_base(config, folder),
    )


def own_rows(found: Finished, evaluation: dict[str, Any]) -> set[str]:
    """Names of the models of an evaluation that are this one, by the folder that was measured."""
    ours = {found.folder.resolve(), found.final.resolve()}
    return {
        subject
        for subject, model in evaluation["models"].items()
        if Path(model["name"]).expanduser().resolve() in ours
    }


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


def _evaluation(folder: Path) -> dict[str, Any]:
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
