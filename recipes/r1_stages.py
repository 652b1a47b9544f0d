"""The stages of DeepSeek-R1's pipeline, in order: what each is told, reads and leaves.

Nature 645 (2025), Methods. A seed above 0 repeats R1-Zero, Dev1 and Dev2 with other draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from recipes.config import RunConfig
from recipes.pipeline import Pipeline
from recipes.r1_config import R1Config
from recipes.sections import write_sections
from recipes.stage_kinds import (
    FINAL,
    KEPT,
    measure_stage,
    rejection_stage,
    rl_stage,
    sft_stage,
)
from recipes.stages import Stage, Stages

EMPTY_CHAIN = "<think>\n</think>\n"
"""What a model whose thinking is cut off goes on from."""
MODELS = {
    "base": "base",
    "r1_zero": "R1-Zero",
    "r1_zero_from_dev1": "R1-Zero from Dev1",
    "dev1": "Dev1",
    "dev2": "Dev2",
    "dev2_cut_off": "Dev2, no thinking",
    "dev2_at_once": "Dev2, answer only",
    "dev3": "Dev3",
    "r1": "R1",
    "distill": "Distill",
}
SEEDED = ("r1_zero", "r1_zero_from_dev1", "dev1", "dev2")
COMPARED = (
    ("base", "r1_zero"),
    ("dev1", "dev2"),
    ("dev1", "r1_zero_from_dev1"),
    ("dev2", "dev2_cut_off"),
    ("dev2", "dev2_at_once"),
    ("dev2", "dev3"),
    ("dev3", "r1"),
    ("base", "r1"),
    ("base", "distill"),
    ("r1_zero", "distill"),
)


def r1_pipeline(
    config: R1Config, root: Path, *, dev1: Path | None = None, num_seeds: int = 1
) -> Pipeline:
    """All stages in a folder; `dev1` is a checkpoint that stands in for the cold start's."""
    plan = _Plan(config=config, stages=Stages(root=root), dev1=dev1)
    more = [stage for seed in range(1, num_seeds) for stage in plan.first(seed)]
    listed = (*plan.first(0), *plan.later(), *more)
    models, compared = dict(MODELS), list(COMPARED)
    for seed in range(1, num_seeds):
        models |= {_seeded(s, seed): f"{MODELS[s]}, seed {seed}" for s in SEEDED}
        compared += [
            (a if a == "base" else _seeded(a, seed), _seeded(b, seed))
            for a, b in COMPARED
            if b in SEEDED
        ]
    return Pipeline(
        config=write_sections(config),
        stages=plan.stages,
        listed=listed,
        models=models,
        compared=tuple(compared),
        shown=("dev1", "dev2", "r1"),
    )


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """A config and a place: the stages with their paths."""

    config: R1Config
    stages: Stages
    dev1: Path | None

    def first(self, seed: int) -> Iterator[Stage]:
        """From the base to Dev2, with its measurements."""
        config, model = self.config, self.config.model
        if seed == 0:
            prompts = config.dev1.prompts
            yield measure_stage("base", config.measure, model, prompts, every_best_template=True)
        yield self._rl("r1_zero", config.r1_zero, model, seed)
        zero = self.final("r1_zero", seed)
        yield measure_stage(_seeded("r1_zero", seed), config.measure, zero, config.r1_zero.prompts)
        if self.dev1 is None:
            cold = replace(config.cold_start, seed=config.cold_start.seed + seed)
            yield rejection_stage(_seeded("cold_start", seed), cold, zero)
            yield self._sft("dev1", {"cold start": self.kept("cold_start", seed)}, seed)
        dev1 = self.final("dev1", seed)
        prompts = config.dev2.prompts
        yield measure_stage(_seeded("dev1", seed), config.measure, dev1, prompts)
        runs = {"dev2": config.dev2}
        if config.control:
            runs["r1_zero_from_dev1"] = replace(config.dev2, reward="accuracy")
        for name, run in runs.items():
            yield self._rl(name, run, dev1, seed)
            path = self.final(name, seed)
            yield measure_stage(_seeded(name, seed), config.measure, path, prompts)

    def later(self) -> Iterator[Stage]:
        """From Dev2 to R1 and its student."""
        config, dev2 = self.config, self.final("dev2")
        if config.cut_off:
            prompts = replace(config.dev2.prompts, prefill=EMPTY_CHAIN)
            yield measure_stage("dev2_cut_off", config.measure, dev2, prompts)
        if config.answer_start:
            prompts = replace(config.dev2.prompts, prefill=EMPTY_CHAIN + config.answer_start)
            yield measure_stage("dev2_at_once", config.measure, dev2, prompts)
        yield rejection_stage("rejection", config.rejection, dev2)
        data = {"rejection sampling": self.kept("rejection")}
        if config.general:
            yield rejection_stage("general", config.general, config.model)
            data["general"] = self.kept("general")
        yield self._sft("dev3", data)
        yield self._rl("r1", config.r1, self.final("dev3"))
        for name in ("dev3", "r1"):
            yield from self._measured(name)
        yield rejection_stage("distill_data", config.distill_data, self.final("r1"))
        yield self._sft("distill", {"samples of R1": self.kept("distill_data")})
        distill = self.final("distill")
        yield measure_stage("distill", config.measure, distill, config.distill.prompts)

    def _measured(self, name: str) -> Iterator[Stage]:
        config, model, prompts = self.config, self.final(name), self.config.r1.prompts
        yield measure_stage(name, config.measure, model, prompts)
        if config.instructions:
            yield measure_stage(f"{name}_instructions", config.instructions, model, prompts)

    def final(self, name: str, seed: int = 0) -> Path:
        """The checkpoint that a stage leaves."""
        if name == "dev1" and self.dev1:
            return self.dev1
        return self.stages.folder(_seeded(name, seed)) / FINAL

    def kept(self, name: str, seed: int = 0) -> Path:
        """The rows that a stage of rejection sampling leaves."""
        return self.stages.folder(_seeded(name, seed)) / KEPT

    def _rl(self, name: str, config: RunConfig, model: Path | str, seed: int = 0) -> Stage:
        train = replace(config.train, seed=config.train.seed + seed)
        run, count = replace(config, train=train), self.config.num_processes
        return rl_stage(_seeded(name, seed), run, model, num_processes=count)

    def _sft(self, name: str, data: dict[str, Path], seed: int = 0) -> Stage:
        """Always from the base."""
        config = getattr(self.config, name)
        training = replace(config.training, seed=config.training.seed + seed)
        return sft_stage(
            _seeded(name, seed),
            replace(config, training=training),
            self.config.model,
            data,
            num_processes=self.config.num_processes,
        )


def _seeded(name: str, seed: int) -> str:
    return f"{name}_seed{seed}" if seed else name
