"""Runs the stages of a pipeline one after another, and shows what came of them."""

from difflib import get_close_matches
from typing import Any

from recipes.r1_config import write_config
from recipes.r1_stages import Pipeline
from recipes.r1_table import report
from recipes.stages import Stage, Stages
from rl.run_folder import lock_folder, write_atomically


def stages_of(command: Any) -> list[Stage]:
    """The stages that a command asks for.

    Raises ValueError for a name that is none, with the nearest.
    """
    found = _pipeline(command).all(command.num_seeds)
    names = [stage.name for stage in found]
    for name in command.stages:
        if name not in names:
            near = (get_close_matches(name, names, n=1, cutoff=0.0) or names)[0]
            raise ValueError(
                f"unknown stage {name!r}; did you mean {near!r}? Stages are {', '.join(names)}"
            )
    return [stage for stage in found if not command.stages or stage.name in command.stages]


def run_pipeline(command: Any) -> None:
    """Run what is not done yet, then write and print the table."""
    wanted = stages_of(command)
    pipeline = _pipeline(command)
    root = pipeline.stages.root
    root.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(root)
    try:
        write_atomically(root / "config.yaml", write_config(command.config).encode())
        for number, stage in enumerate(wanted, 1):
            done = pipeline.stages.manifest(stage.name) is not None
            told = "is done" if done else f"starts (recipes.{stage.recipe})"
            print(f"[{number}/{len(wanted)}] {stage.name} {told}", flush=True)
            manifest = pipeline.stages.run(stage)
            if not done:
                print(f"[{number}/{len(wanted)}] {stage.name} took {manifest['seconds']:.0f} s")
        report(pipeline, command.num_seeds)
    finally:
        lock.close()


def _pipeline(command: Any) -> Pipeline:
    stages = Stages(root=command.folder)
    return Pipeline(config=command.config, stages=stages, dev1=command.dev1)
