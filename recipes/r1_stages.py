"""The stages of DeepSeek-R1's pipeline, in order: what each is told, reads and leaves.

Nature 645 (2025), Methods. A seed above 0 repeats R1-Zero, Dev1 and Dev2 with other draws.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recipes.config import RunConfig, to_yaml
from recipes.evaluation import EvaluateConfig
from recipes.r1_config import R1Config
from recipes.rejection_config import RejectionConfig
from recipes.stages import Stage, Stages
from recipes.supervised import SftConfig
from rollouts.models import resolve_model
from rollouts.prompts import PromptConfig

FINAL, KEPT, RESULTS = "final", "kept.jsonl", "results.json"
EMPTY_CHAIN = "<think>\n</think>\n"
"""What a model whose thinking is cut off goes on from."""
LOGGED = ("reward/mean", "rollouts/mean_tokens", "rollouts/truncated_frac")


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A config and a place: the stages with their paths.

    Attributes:
        dev1: A checkpoint in place of the cold start's, from --from.
    """

    config: R1Config
    stages: Stages
    dev1: Path | None = None

    def all(self, num_seeds: int = 1) -> list[Stage]:
        """Every stage in an order in which each finds what it reads."""
        listed = [*self._first(0), *self._later()]
        for seed in range(1, num_seeds):
            listed += self._first(seed)
        return listed

    def _first(self, seed: int) -> Iterator[Stage]:
        """From the base to Dev2, with its measurements."""
        config, model = self.config, self.config.model
        if seed == 0:
            yield self._measure("base", model, config.dev1.prompts, every_best_template=True)
        yield self._rl("r1_zero", config.r1_zero, model, seed)
        zero = self.final("r1_zero", seed)
        yield self._measure("r1_zero", zero, config.r1_zero.prompts, seed)
        if self.dev1 is None:
            yield self._reject("cold_start", config.cold_start, zero, seed)
            data = {"cold start": self.kept("cold_start", seed)}
            yield self._sft("dev1", config.dev1, data, seed)
        dev1 = self.final("dev1", seed)
        yield self._measure("dev1", dev1, config.dev1.prompts, seed)
        yield self._rl("dev2", config.dev2, dev1, seed)
        yield self._measure("dev2", self.final("dev2", seed), config.dev2.prompts, seed)
        if config.control:
            control = replace(config.dev2, reward="accuracy")
            yield self._rl("r1_zero_from_dev1", control, dev1, seed)
            path = self.final("r1_zero_from_dev1", seed)
            yield self._measure("r1_zero_from_dev1", path, control.prompts, seed)

    def _later(self) -> Iterator[Stage]:
        """From Dev2 to R1 and its student."""
        config = self.config
        dev2 = self.final("dev2")
        if config.cut_off:
            prompts = replace(config.dev2.prompts, prefill=EMPTY_CHAIN)
            yield self._measure("dev2_cut_off", dev2, prompts)
        yield self._reject("rejection", config.rejection, dev2)
        data = {"rejection sampling": self.kept("rejection")}
        if config.general:
            yield self._reject("general", config.general, config.model)
            data["general"] = self.kept("general")
        yield self._sft("dev3", config.dev3, data)
        yield self._rl("r1", config.r1, self.final("dev3"))
        for name in ("dev3", "r1"):
            yield self._measure(name, self.final(name), config.r1.prompts)
            if config.instructions:
                yield self._measure(
                    f"{name}_instructions",
                    self.final(name),
                    config.r1.prompts,
                    settings=config.instructions,
                )
        yield self._reject("distill_data", config.distill_data, self.final("r1"))
        yield self._sft("distill", config.distill, {"samples of R1": self.kept("distill_data")})
        yield self._measure("distill", self.final("distill"), config.distill.prompts)

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
        return Stage(
            name=_seeded(name, seed),
            recipe="r1_zero",
            config=to_yaml(replace(config, model=str(model), train=train)),
            inputs={"model": _folder(model)},
            outputs=(FINAL,),
            numbers=run_numbers,
            num_processes=self.config.num_processes,
        )

    def _sft(self, name: str, config: SftConfig, data: dict[str, Path], seed: int = 0) -> Stage:
        """Always from the base."""
        model = self.config.model
        training = replace(config.training, seed=config.training.seed + seed)
        paths = tuple(str(path) for path in data.values())
        return Stage(
            name=_seeded(name, seed),
            recipe="sft",
            config=to_yaml(replace(config, model=model, data=paths, training=training)),
            inputs={"model": _folder(model), **data},
            outputs=(FINAL,),
            numbers=lambda folder: _json(folder / "numbers.json"),
            num_processes=self.config.num_processes,
        )

    def _reject(
        self, name: str, config: RejectionConfig, model: Path | str, seed: int = 0
    ) -> Stage:
        """Of a model, unless the settings name an endpoint."""
        return Stage(
            name=_seeded(name, seed),
            recipe="rejection",
            config=to_yaml(replace(config, model=str(model), seed=config.seed + seed)),
            inputs={"model": _folder(model)},
            outputs=(KEPT,),
            numbers=lambda folder: _json(folder / "counts.json"),
        )

    def _measure(
        self,
        name: str,
        model: Path | str,
        prompts: PromptConfig,
        seed: int = 0,
        *,
        settings: EvaluateConfig | None = None,
        every_best_template: bool = False,
    ) -> Stage:
        """The same problems and seeds for every model, whatever seed trained it."""
        asked = replace(
            settings or self.config.measure,
            models=(str(model),),
            template=prompts.template,
            prefill=prompts.prefill,
            system=prompts.system,
            chat_template_kwargs=prompts.chat_template_kwargs,
            every_best_template=every_best_template,
        )
        return Stage(
            name=f"measure_{_seeded(name, seed)}",
            recipe="evaluate",
            config=to_yaml(asked),
            inputs={"model": _folder(model)},
            outputs=(RESULTS,),
            numbers=evaluation_numbers,
        )


def run_numbers(folder: Path) -> dict[str, Any]:
    """Of a run of RL: its rounds, tokens and seconds, and its first and last round."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    ends = {"first": lines[0], "last": lines[-1]}
    return {
        "rounds": len(lines),
        "sampled_tokens": sum(line["rollouts/sampled_tokens"] for line in lines),
        "trained_tokens": sum(line["update/trained_tokens"] for line in lines),
        "round_s": sum(line["time/round_s"] for line in lines),
        **{f"{end}/{name}": line[name] for end, line in ends.items() for name in LOGGED},
    }


def evaluation_numbers(folder: Path) -> dict[str, Any]:
    """Of an evaluation: pass@1 with its interval, by row."""
    standings = _json(folder / RESULTS)["standings"]
    return {
        f"{each['benchmark']}, {each['label']}": {
            "pass_at_1": each["pass_at_1"],
            "pass_at_1_interval": each["pass_at_1_interval"],
        }
        for each in standings
    }


def _seeded(name: str, seed: int) -> str:
    return f"{name}_seed{seed}" if seed else name


def _folder(model: Path | str) -> Path:
    """Where a model's files are: a stage's folder, or what a name means."""
    path = Path(model)
    return path if path.name == FINAL else resolve_model(str(model))


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
