"""From the settings of an evaluation to what is asked, with every check before an engine starts."""

from dataclasses import replace
from pathlib import Path

from eval.benchmarks import Benchmark, benchmark, data_folder
from eval.protocols import PROTOCOLS, Protocol, check_template
from recipes.config import RunConfig, from_yaml
from recipes.evaluation import Asking, EvaluateConfig, Subject, context_of
from rollouts.models import resolve_model
from rollouts.prompts import PromptConfig
from rollouts.tasks.dataset import Dataset
from rollouts.tasks.programs import Programs

PROBE_PROBLEMS = 32
"""Of each benchmark, to choose a template by."""


def make_asking(config: EvaluateConfig) -> Asking:
    """Read benchmarks and tokenizers, and refuse what cannot be measured; no model is loaded.

    Raises:
        ValueError: An unknown benchmark, a number out of range, k greater than n, a model that
            cannot be had, a template that is not there, prompts longer than the context.
    """
    _check_numbers(config)
    if config.protocol != "training":
        _protocol(config, None)
    whole = [_benchmark(config, name) for name in config.benchmarks]
    measured = tuple(_drawn(config, each) for each in whole)
    names = [each.name for each in measured]
    if len(set(names)) < len(names):
        raise ValueError(
            f"two benchmarks have one name ({', '.join(names)}): give a file another, :name=NAME"
        )
    _check_deadlines(config, measured)
    found = _find_models(config)
    protocol, prompts = _protocol(config, found["model"][2])
    _check_k(config, protocol, measured)
    subjects = [_subject(label, *place, config, protocol) for label, place in found.items()]
    asking = Asking(
        config=config,
        protocol=protocol,
        prompts=prompts,
        benchmarks=measured,
        probes={each.name: _probe(all_, each) for all_, each in zip(whole, measured, strict=True)},
        subjects=tuple(subjects),
    )
    for subject in subjects:
        _check_context(asking, subject)
    return asking


def find_model(name: str) -> tuple[Path, Path | None]:
    """A model's folder, and the run that it is the result of, if it is one.

    Raises ValueError for a run without a result, ModelError for a model that cannot be had.
    """
    path = Path(name).expanduser()
    if (path / "config.yaml").is_file() and (path / "rollouts").is_dir():
        if not (path / "final").is_dir():
            raise ValueError(
                f"{name} is a run that has no final folder yet: finish it with --resume {name}, or "
                "name another model"
            )
        return path / "final", path
    made_here = path.name == "final" and (path.parent / "config.yaml").is_file()
    return resolve_model(name), path.parent if made_here else None


def _find_models(config: EvaluateConfig) -> dict[str, tuple[str, Path, Path | None]]:
    """Name, folder and run of every model by its label, in the order in which they are measured."""
    labels = ["model", *(f"model-{i}" for i in range(2, len(config.models) + 1))]
    names = dict(zip(labels, config.models, strict=True))
    if config.against is not None:
        names = {"against": config.against, **names}
    found = {label: (name, *find_model(name)) for label, name in names.items()}
    names_of: dict[Path, list[str]] = {}
    for name, path, _ in found.values():
        names_of.setdefault(path.resolve(), []).append(name)
    for twice in (names for names in names_of.values() if len(names) > 1):
        raise ValueError(f"{' and '.join(twice)} are one model: name each once, --against too")
    return found


def _check_numbers(config: EvaluateConfig) -> None:
    if not config.benchmarks:
        raise ValueError("no benchmark is named: give some with --benchmarks; --list shows them")
    if len(set(config.benchmarks)) < len(config.benchmarks):
        raise ValueError(f"a benchmark is named twice: {' '.join(config.benchmarks)}")
    if config.engine.tensor_parallel != 1:
        raise ValueError(
            f"--engine.tensor-parallel is {config.engine.tensor_parallel}, but this command samples "
            "in one process: leave it out"
        )
    for name in ("num_problems", "num_samples", "max_tokens"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}: use 1 or more")
    if config.temperature is not None and not 0.0 <= config.temperature < float("inf"):
        raise ValueError(f"--temperature is {config.temperature}: use 0 (greedy) or more")
    if config.top_p is not None and not 0.0 < config.top_p <= 1.0:
        raise ValueError(f"--top-p is {config.top_p}: use more than 0, and at most 1")


def _benchmark(config: EvaluateConfig, name: str) -> Benchmark:
    found = benchmark(name, data=data_folder(config.data), seed=config.seed)
    if not found.problems:
        raise ValueError(f"benchmark {name} has no problem that can be graded ({found.origin})")
    return found


def _drawn(config: EvaluateConfig, each: Benchmark) -> Benchmark:
    return each if config.num_problems is None else each.sample(config.num_problems)


def _probe(whole: Benchmark, measured: Benchmark) -> Benchmark:
    """Problems beside those that are measured, or some of these if all are."""
    ids = {problem.id for problem in measured.problems}
    rest = tuple(problem for problem in whole.problems if problem.id not in ids)
    return replace(whole, problems=rest or measured.problems).sample(PROBE_PROBLEMS)


def _protocol(config: EvaluateConfig, run: Path | None) -> tuple[Protocol, PromptConfig]:
    """The protocol with what the command line changes, and how templates are filled in."""
    prompts = PromptConfig()
    if config.protocol == "training":
        if run is None:
            raise ValueError(
                f"protocol training needs a run: {config.models[0]} is none; name a run folder, its "
                f"final folder, or one of the protocols {', '.join(PROTOCOLS)}"
            )
        file = run / "config.yaml"
        trained = from_yaml(file.read_text(), str(file))
        protocol, prompts = _as_trained(trained), trained.prompts
    else:
        protocol = PROTOCOLS[config.protocol]
    changed = {
        name: value
        for name in ("temperature", "top_p", "max_tokens")
        if (value := getattr(config, name)) is not None
    }
    protocol = replace(
        protocol,
        sampling=replace(protocol.sampling, **changed),
        num_samples=config.num_samples or protocol.num_samples,
        template=config.template or protocol.template,
    )
    if protocol.template:
        check_template(protocol, protocol.template)
    if protocol.sampling.temperature == 0.0 and (protocol.num_samples or 2) > 1:
        raise ValueError(
            "at temperature 0 every completion of a problem is the same: use --num-samples 1, or a "
            "--temperature above 0"
        )
    system = prompts.system if config.system is None else config.system
    kwargs = config.chat_template_kwargs or prompts.chat_template_kwargs
    prefill = config.prefill or prompts.prefill
    return protocol, replace(prompts, system=system, chat_template_kwargs=kwargs, prefill=prefill)


def _as_trained(run: RunConfig) -> Protocol:
    """Sampling, template and instruction of a run's own evaluation."""
    instruction = run.task.instruction if isinstance(run.task, Dataset) else ""
    return Protocol(
        name="training",
        sampling=run.test.sampling,
        num_samples=run.test.num_samples,
        template=run.prompts.template,
        instructions={"mathematics": f" {instruction}" if instruction else ""},
        always_instructed=True,
    )


def _check_deadlines(config: EvaluateConfig, measured: tuple[Benchmark, ...]) -> None:
    """A grading process must outlive the program that it runs, or slow programs would break it."""
    if config.scoring.workers == 0:
        raise ValueError("--scoring.workers is 0: model text is graded in processes; use 1 or more")
    for each in measured:
        task = getattr(each.reward, "__self__", None)
        needed = 2 * task.timeout_s if isinstance(task, Programs) else 0.0
        if config.scoring.deadline_s < needed:
            raise ValueError(
                f"--scoring.deadline-s is {config.scoring.deadline_s:g}, but a program of "
                f"{each.name} may take {needed / 2:g} s: use {needed:g} or more"
            )


def _check_k(config: EvaluateConfig, protocol: Protocol, measured: tuple[Benchmark, ...]) -> None:
    for each in measured:
        num_samples = protocol.samples_of(each)
        for k in config.k:
            if not 1 <= k <= num_samples:
                raise ValueError(
                    f"--k {k}: pass@k of {each.name} needs k from 1 to its {num_samples} samples; "
                    "lower it or raise --num-samples"
                )


def _subject(
    label: str, name: str, path: Path, run: Path | None, config: EvaluateConfig, protocol: Protocol
) -> Subject:
    """A model with its tokenizer. Raises ValueError if it lacks the chat template that is asked for."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    template = protocol.template or ("chat" if has_chat else "plain")
    if template == "chat" and not has_chat:
        raise ValueError(
            f"model {name} has no chat template, and "
            + ("--template is chat" if config.template else f"protocol {protocol.name} uses one")
            + ": use --template plain or r1_zero"
        )
    return Subject(
        label=label, name=name, path=path, run=run, tokenizer=tokenizer, template=template
    )


def _check_context(asking: Asking, subject: Subject) -> None:
    context = context_of(subject.path)
    for trial in asking.trials(subject):
        if trial.max_tokens > context:
            limit = trial.sampling.max_tokens
            room = int(context) - (trial.max_tokens - limit)
            raise ValueError(
                f"the longest prompt of {trial.benchmark} has {trial.max_tokens - limit} tokens and "
                f"its completion up to {limit}, more than the context of {subject.name}, "
                f"{context:g}: "
                + (f"use --max-tokens {room} or less" if room > 0 else "choose another benchmark")
            )
