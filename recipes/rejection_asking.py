"""From the settings of rejection sampling to what is asked, with every check before an engine."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from recipes.asking import find_model
from recipes.digests import folder_digest
from recipes.evaluation import context_of
from recipes.preflight import check_deadlines
from recipes.rejection_config import RejectionConfig
from recipes.scoring import reward_of
from rewards.problem import Messages, Problem
from rollouts.endpoint import Endpoint, EndpointSampler
from rollouts.prompts import Renderer, messages_of
from rollouts.rollout import Request
from rollouts.tasks.mixture import Mixture
from rollouts.trials import Trial

SAMPLES = "samples"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of whom.

    Attributes:
        model: Its folder; None where only an endpoint is named.
        tokenizer: Of the model; None without one.
        trial: The problems that are asked, as one trial.
        num_too_long: Problems left out for their prompt.
        endpoint: Who is asked instead of the model; None for the model.
        rewriter: Who writes summaries; None for the rule.
    """

    config: RejectionConfig
    model: Path | None
    tokenizer: Any
    trial: Trial
    num_too_long: int
    endpoint: Endpoint | None
    rewriter: Endpoint | None

    @property
    def name(self) -> str:
        """Who is asked, as the settings name it."""
        return self.config.endpoint.model if self.endpoint else self.config.model

    @cached_property
    def problems(self) -> list[Problem]:
        """All training problems of the task, those that are asked and those that are not."""
        return self.config.task.problems("train")

    def sampler(self) -> EndpointSampler:
        """The endpoint, asked in the task's words."""
        return EndpointSampler(self.endpoint, self._messages)

    def num_tokens(self, text: str) -> int | None:
        """Of a completion with its end token; None without a tokenizer."""
        if self.tokenizer is None:
            return None
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1

    def worked(self, problem: Problem) -> str | None:
        """A solution by the generator of the problem's task; None if it has none."""
        task = self.config.task
        task = task.task_of(problem) if isinstance(task, Mixture) else task
        generator = getattr(task, "worked", None)
        return generator(problem) if generator else None

    def described(self) -> dict[str, Any]:
        """What asked.json holds; equal descriptions ask the same model the same."""
        model = {"served": self.config.endpoint.model} if self.endpoint else {}
        if self.model is not None and not self.endpoint:
            model = folder_digest(self.model)
        digest = hashlib.sha256()
        for problem, prompt in zip(self.trial.problems, self.trial.prompts, strict=True):
            row = [problem.id, problem.prompt, prompt, problem.answer]
            digest.update(json.dumps(row).encode())
        described = {
            "model": model,
            "samples": {
                "problems": len(self.trial.problems),
                "samples": self.trial.num_samples,
                "sampling": asdict(self.trial.sampling),
                "seed": self.trial.seed,
                "prompts": asdict(self.config.prompts),
                "prompts_sha256": digest.hexdigest(),
            },
        }
        solutions = Path(self.config.solutions.path)
        if self.config.solutions.path and solutions.is_file():
            with solutions.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            described["solutions"] = {"sha256": sha256}
        return described

    def _messages(self, request: Request) -> Messages:
        problem = self.trial.by_id[self.trial.key_of(request.id)[0]]
        return tuple(messages_of(problem, self.config.prompts.system))


def make_asked(config: RejectionConfig) -> Asked:
    """Read task and tokenizer, and refuse what cannot be sampled; no model is loaded.

    Raises:
        ValueError: Nobody to ask, a key that is not set, a model that cannot be had, prompts that
            a server cannot be given, no problem, or completions longer than the context.
    """
    endpoint, rewriter = _check(config)
    model = find_model(config.model)[0] if config.model else None
    tokenizer = None
    if model is not None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model)
    renderer = None
    if config.num_samples and endpoint is None:
        renderer = Renderer(tokenizer=tokenizer, config=config.prompts)
    rows = list(config.task.problems("train"))
    if not rows:
        raise ValueError(f"task {config.task.name} has no training problems: choose another")
    Random(f"rejection/{config.seed}").shuffle(rows)
    problems, prompts, num_too_long = _drawn(rows, renderer, config)
    if not problems:
        raise ValueError(
            f"every training problem of {config.task.name} has a prompt longer than "
            f"prompts.max_prompt_tokens {config.prompts.max_prompt_tokens}: raise it"
        )
    trial = Trial(
        name=SAMPLES,
        benchmark=config.task.name,
        problems=tuple(problems),
        prompts=tuple(prompts),
        sampling=config.sampling,
        num_samples=config.num_samples,
        seed=config.seed,
        prefill=config.prompts.prefill,
    )
    if renderer is not None:
        _check_context(config, model, trial)
    return Asked(
        config=config,
        model=model,
        tokenizer=tokenizer,
        trial=trial,
        num_too_long=num_too_long,
        endpoint=endpoint,
        rewriter=rewriter,
    )


def _check(config: RejectionConfig) -> tuple[Endpoint | None, Endpoint | None]:
    """The servers, once everything that needs no model is right."""
    if config.num_samples and not (config.model or config.endpoint.url):
        raise ValueError(
            "nobody to sample from: name a MODEL first, or give --endpoint.url and "
            "--endpoint.model, or --num-samples 0 for worked solutions alone"
        )
    if reward_of(config).takes_group:
        raise ValueError(
            f"reward {config.reward!r} scores the samples of a problem together; each is graded when it "
            "is there: give one that scores one response"
        )
    check_deadlines(config)
    prompts = config.prompts
    if config.endpoint.url and (prompts.template != "chat" or prompts.prefill):
        raise ValueError(
            f"an endpoint applies its own chat template: prompts.template {prompts.template} and "
            f"prefill {prompts.prefill!r} need a model here; leave them out"
        )
    endpoint = rewriter = None
    if config.endpoint.url:
        endpoint = Endpoint(config.endpoint, prompts.chat_template_kwargs)
    if config.rewrite.url:
        rewriter = Endpoint(config.rewrite)
    return endpoint, rewriter


def _drawn(
    rows: list[Problem], renderer: Renderer | None, config: RejectionConfig
) -> tuple[list[Problem], list[tuple[int, ...]], int]:
    """The first problems whose prompt is short enough, their ids, and how many were left out."""
    problems, prompts, num_too_long = [], [], 0
    for problem, ids in _rendered(rows, renderer):
        if len(problems) == config.num_problems:
            break
        if len(ids) > config.prompts.max_prompt_tokens:
            num_too_long += 1
            continue
        problems.append(problem)
        prompts.append(ids)
    return problems, prompts, num_too_long


def _rendered(
    rows: list[Problem], renderer: Renderer | None
) -> Iterator[tuple[Problem, tuple[int, ...]]]:
    """A server renders itself: no ids, and no bound."""
    for problem in rows:
        yield problem, renderer.ids(problem) if renderer else ()


def _check_context(config: RejectionConfig, model: Path, trial: Trial) -> None:
    context = context_of(model)
    if trial.max_tokens > context:
        longest = trial.max_tokens - config.sampling.max_tokens
        room = int(context) - longest
        raise ValueError(
            f"the longest prompt has {longest} tokens and its completion up to "
            f"{config.sampling.max_tokens}, more than the context of {config.model}, {context:g}: "
            + (
                f"use --sampling.max-tokens {room} or less"
                if room > 0
                else "leave long prompts out"
            )
        )
