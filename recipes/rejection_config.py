"""What rejection sampling is told: who is asked what, which samples are kept, and in what form."""

from dataclasses import dataclass, field
from typing import Literal

from recipes.config import FREE_FIELDS, PreferenceConfig
from rewards.pool import ScoringConfig
from rollouts.endpoint_config import EndpointConfig
from rollouts.prompts import PromptConfig
from rollouts.rejection import FilterConfig
from rollouts.rollout import Sampling
from rollouts.sampler import EngineConfig
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.mixture import SingleTask, TaskConfig

FREE = (
    *FREE_FIELDS,
    *(
        f"{server}.{name}"
        for server in ("endpoint", "rewrite")
        for name in ("url", "key_variable", "max_concurrent", "timeout_s", "retries", "send_seeds")
    ),
)
"""May differ when sampling is resumed: the same model may be served elsewhere."""


@dataclass(frozen=True, kw_only=True)
class SolutionsConfig:
    """A file of worked solutions, taken beside the samples."""

    path: str = ""
    """A .jsonl, .json, .csv or .parquet file, or a Hugging Face id; empty for none."""
    prompt_column: str = "prompt"
    """The question. A row whose question the task has is that problem's; one that the task asks in
    validation or test is left out."""
    completion_column: str = "completion"
    """The solution."""
    answer_column: str = ""
    """The reference answer of questions that the task does not have; empty leaves these out."""
    graded: bool = True
    """Whether the task's reward decides which are right; else all are taken as right, and questions
    that the task does not have, too."""


@dataclass(frozen=True, kw_only=True)
class RejectionConfig:
    """One round of rejection sampling, as the command line or a file gives it."""

    model: str = ""
    """A folder, a run folder, a .gguf file, a Hugging Face id, or smollm2-135m-instruct. With an
    endpoint, only its tokenizer is used, to count tokens."""
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    """A server that is asked instead of a model here."""
    task: TaskConfig = field(default_factory=Arithmetic)
    """Its training problems are asked."""
    reward: str = "accuracy"
    """As in a run's config; what counts is its verdict."""
    preference: PreferenceConfig = field(default_factory=PreferenceConfig)
    """As in a run's config, for general tasks."""
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    """The processes that grade."""
    prompts: PromptConfig = field(default_factory=PromptConfig)
    """How the problems are asked. What it prefills is part of the completions that are kept."""
    engine: EngineConfig = field(default_factory=lambda: EngineConfig(gpu_memory_frac=0.9))
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=1024))
    num_samples: int = 4
    """n, of each problem; 0 asks nobody, for worked solutions alone."""
    num_problems: int | None = None
    """Of the training split, drawn once by the seed; left out: all."""
    filters: FilterConfig = field(default_factory=FilterConfig)
    form: Literal["as_sampled", "r1"] = "as_sampled"
    """r1: rows in R1's form, <think> and a summary, whatever form the samples have (filters.format),
    and graded again where that changed them."""
    rewrite: EndpointConfig = field(default_factory=EndpointConfig)
    """A stronger model that writes the summaries of form r1; none: by rule."""
    rewrite_sampling: Sampling = field(
        default_factory=lambda: Sampling(temperature=0.6, max_tokens=2048)
    )
    solutions: SolutionsConfig = field(default_factory=SolutionsConfig)
    num_rows: int | None = None
    """Rows that are wanted; left out: all that are kept."""
    fill_up: bool = True
    """Where fewer are kept than `num_rows`, take worked solutions of the task's own generator, if it
    has one (`worked`)."""
    seed: int = 0
    """Request seeds derive from it, the choice of problems, and of samples that are equally good."""

    def __post_init__(self) -> None:
        """Refuse what nobody could sample."""
        if self.engine.tensor_parallel != 1:
            raise ValueError(
                f"engine.tensor_parallel is {self.engine.tensor_parallel}, but this command samples "
                "in one process: leave it out"
            )
        for name, least in (("num_samples", 0), ("num_problems", 1), ("num_rows", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}: use {least} or more")
        for name in ("sampling", "rewrite_sampling"):
            sampling: Sampling = getattr(self, name)
            if not 0.0 <= sampling.temperature < float("inf") or sampling.max_tokens < 1:
                raise ValueError(
                    f"{name} has temperature {sampling.temperature:g} and max_tokens "
                    f"{sampling.max_tokens}: use 0 or more, and 1 or more"
                )
            if not 0.0 < sampling.top_p <= 1.0:
                raise ValueError(f"{name}.top_p is {sampling.top_p}: use more than 0, at most 1")
        if self.sampling.temperature == 0.0 and self.num_samples > 1:
            raise ValueError(
                "at temperature 0 every sample of a problem is the same: use num_samples 1, or a "
                "sampling.temperature above 0"
            )
        if self.rewrite.url and self.form != "r1":
            raise ValueError("rewrite makes summaries of form r1: set form r1 too")


@dataclass(frozen=True, kw_only=True)
class OneTaskRejectionConfig(RejectionConfig):
    """What a command line can spell out: everything but a mixture of tasks."""

    task: SingleTask = field(default_factory=Arithmetic)
