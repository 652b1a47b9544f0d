"""A pipeline: stages one after another, and the table that they come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from recipes.stages import Stage, Stages
from rl.run_folder import lock_folder, write_atomically


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What is run, and which of it is shown.

    Attributes:
        config: Its settings as YAML.
        listed: Every stage, in an order in which each finds what it reads.
        models: Rows of the table by the stage that made the model: {"dev2": "Dev2"}; measured by the
            stage `measure_dev2`.
        compared: Pairs of such stages that are compared, problem by problem.
        shown: Stages of whose models completions are shown.
    """

    config: str
    stages: Stages
    listed: tuple[Stage, ...]
    models: Mapping[str, str]
    compared: tuple[tuple[str, str], ...]
    shown: tuple[str, ...]

    def named(self, names: Sequence[str]) -> list[Stage]:
        """The stages of these names, all if none is given.

        Raises ValueError for a name that is none, with the nearest.
        """
        known = [stage.name for stage in self.listed]
        for name in names:
            if name not in known:
                near = (get_close_matches(name, known, n=1, cutoff=0.0) or known)[0]
                raise ValueError(
                    f"unknown stage {name!r}; did you mean {near!r}? Stages are {', '.join(known)}"
                )
        return [stage for stage in self.listed if not names or stage.name in names]


def run_pipeline(pipeline: Pipeline, names: Sequence[str] = ()) -> None:
    """Run what is not done yet of the stages named, then write and print the table.

    Raises what `Stages.run` raises, and ValueError if another process is at work in the folder.
    """
    from recipes.pipeline_table import report

    wanted = pipeline.named(names)
    root = pipeline.stages.root
    root.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(root)
    try:
        for number, stage in enumerate(wanted, 1):
            place = f"[{number}/{len(wanted)}] {stage.name}"
            done = pipeline.stages.manifest(stage.name) is not None
            print(f"{place} {'is done' if done else f'starts: recipes.{stage.recipe}'}", flush=True)
            manifest = pipeline.stages.run(stage)
            if not done:
                print(f"{place} took {manifest['seconds']:.0f} s", flush=True)
        # Not before every stage has agreed: settings that are refused must not stand there.
        write_atomically(root / "config.yaml", pipeline.config.encode())
        report(pipeline)
    finally:
        lock.close()
