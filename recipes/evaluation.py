"""What an evaluation is told, and what it asks of which model: benchmarks times templates."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from eval.benchmarks import Benchmark
from eval.estimators import answer_key
from eval.protocols import TEMPLATES, Protocol, Template, asked, counted
from rewards.pool import ScoringConfig
from rewards.problem import Problem, Response, Score
from rewards.tags import has_think_answer_format
from rollouts.model_config import read_model_config
from rollouts.prompts import PromptConfig, Renderer
from rollouts.sampler import EngineConfig
from rollouts.trials import Trial

PROBE_SAMPLES = 4
"""Of each problem that a template is chosen by."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """A whole evaluation, as the command line gives it."""

    models: tuple[str, ...]
    """Folders, run folders, .gguf files, Hugging Face ids, or smollm2-135m-instruct; several for runs
    that differ by their seed alone, which are shown side by side."""
    benchmarks: tuple[str, ...]
    """Names (see --list), or files with named columns: my.jsonl:prompt=question:answer=gold."""
    against: str | None = None
    """Another model under the same protocol; what is compared is each of the models with it."""
    protocol: Literal["r1", "greedy", "few_shot", "training"] = "greedy"
    """r1: temperature 0.6, top-p 0.95, 64, 16 or 8 samples, 32,768 tokens; greedy: one completion;
    few_shot: greedy after four worked examples, for base models; training: sampling and prompts
    of the run that the model comes from."""
    template: Template | None = None
    """chat, plain or r1_zero; left out: the protocol's, else chat where the model has a template."""
    best_template: bool = True
    """Also measure `against` under its best template, chosen on problems that are not measured
    where there are any."""
    every_best_template: bool = False
    """The same of the models themselves."""
    prefill: str = ""
    """Written at the start of every answer, such as an empty chain of thought; left out: none, and under
    the protocol training the run's."""
    system: str | None = None
    """System message of the chat template; left out: the template's own."""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to the chat template, such as enable_thinking false."""
    data: str | None = None
    """A folder of `<data set>/<split>.jsonl`; left out: GROUPWISE_DATA, else the hub."""
    num_problems: int | None = None
    """Problems of each benchmark, drawn once, the same in every run; left out: all."""
    num_samples: int | None = None
    """n, completions of each problem; left out: the protocol's."""
    k: tuple[int, ...] = ()
    """Of pass@k and maj@k; left out: 1, 2, 4, ... up to a quarter of n, and n."""
    temperature: float | None = None
    """Of sampling; left out: the protocol's, as the next two."""
    top_p: float | None = None
    """Nucleus."""
    max_tokens: int | None = None
    """Sampled tokens at most."""
    seed: int = 0
    """Request seeds derive from it, and the order of choices."""
    engine: EngineConfig = field(default_factory=lambda: EngineConfig(gpu_memory_frac=0.9))
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    """The processes that grade."""


@dataclass(frozen=True, kw_only=True)
class Grader:
    """The benchmarks' rewards as one, told apart by the first part of a problem's id."""

    rewards: dict[str, Any]

    def score(self, problem: Problem, response: Response) -> Score:
        """What the problem's own benchmark says."""
        return self.rewards[problem.id.partition("/")[0]](problem, response)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model under test, with the template that the protocol asks it in.

    Attributes:
        label: "against", "model", "model-2", ...: its folder, and its part of a trial's name.
        name: As the command line has it.
        run: The run folder that the model is the result of, if it is one.
    """

    label: str
    name: str
    path: Path
    run: Path | None
    tokenizer: Any
    template: Template

    @property
    def templates(self) -> tuple[Template, ...]:
        """Those that it can be asked in."""
        has_chat = bool(getattr(self.tokenizer, "chat_template", None))
        return tuple(name for name in TEMPLATES if name != "chat" or has_chat)


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Everything that is asked, of whom, and how.

    Attributes:
        benchmarks: As measured.
        probes: Of each benchmark, problems to choose a template by.
        subjects: In the order in which they are measured.
        made: Trials, each made once: their prompts take a while.
        prompts: How a template is filled in; its `template` is each trial's.
    """

    config: EvaluateConfig
    protocol: Protocol
    prompts: PromptConfig
    benchmarks: tuple[Benchmark, ...]
    probes: dict[str, Benchmark]
    subjects: tuple[Subject, ...]
    made: dict[str, Trial] = field(default_factory=dict)

    def named(self, name: str) -> Benchmark:
        """The benchmark of a name."""
        return next(each for each in self.benchmarks if each.name == name)

    def trials(self, subject: Subject) -> list[Trial]:
        """Every benchmark in the subject's own template."""
        return [self.trial(subject, each, subject.template) for each in self.benchmarks]

    def probe_trials(self, subject: Subject) -> dict[tuple[str, Template], Trial]:
        """A few problems of each benchmark in each template that has room, by both names."""
        is_base = self.config.best_template and subject.label == "against"
        wanted = is_base or self.config.every_best_template
        return {
            (each.name, template): self.trial(
                subject, self.probes[each.name], template, part="probe-"
            )
            for each in (self.benchmarks if wanted else ())
            for template in self._candidates(subject, each)
        }

    def trial(self, subject: Subject, each: Benchmark, template: Template, part: str = "") -> Trial:
        """One benchmark in one template; `part` tells a probe's name from the measurement's."""
        place = part + template if part or template != subject.template else ""
        name = "/".join(filter(None, (subject.label, place, _plain(each.name))))
        if name not in self.made:
            self.made[name] = self._trial(name, subject, each, template, is_probe=bool(part))
        return self.made[name]

    def _trial(
        self, name: str, subject: Subject, each: Benchmark, template: Template, *, is_probe: bool
    ) -> Trial:
        num_samples = self.protocol.samples_of(each)
        config = replace(self.prompts, template=template)
        renderer = Renderer(tokenizer=subject.tokenizer, config=config)
        words = {"kind": each.kind, "protocol": self.protocol, "template": template}
        return Trial(
            name=name,
            benchmark=each.name,
            problems=each.problems,
            prompts=tuple(renderer.ids(asked(problem, **words)) for problem in each.problems),
            sampling=self.protocol.sampling,
            num_samples=min(num_samples, PROBE_SAMPLES) if is_probe else num_samples,
            seed=self.config.seed,
            prefill=self.prompts.prefill,
            counted=partial(counted, **words),
            answer_of=answer_key if each.votes else None,
            format_of=has_think_answer_format if template == "r1_zero" else None,
        )

    def _candidates(self, subject: Subject, each: Benchmark) -> Iterator[Template]:
        """Templates that the protocol and the context have room for, the subject's own first."""
        yield subject.template
        for template in subject.templates:
            if template == subject.template or (self.protocol.shots and template == "r1_zero"):
                continue
            probe = self.trial(subject, self.probes[each.name], template, part="probe-")
            whole = self.trial(subject, each, template)
            if max(probe.max_tokens, whole.max_tokens) <= context_of(subject.path):
                yield template


def _plain(name: str) -> str:
    """A benchmark's name as a folder's."""
    return re.sub(r"[^\w-]+", "_", name)


def context_of(model: Path) -> float:
    """The most tokens that a model's positions reach; infinity if its config does not say."""
    values = read_model_config(str(model))
    return values.get("text_config", values).get("max_position_embeddings") or float("inf")
