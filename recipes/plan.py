"""What a run would take, in memory and time, before anything is loaded.

`python -m recipes.doctor --plan [PRESET] [fields as a recipe takes them] [--recipe NAME]
[--device NAME] [--prompt-tokens N] [--mean-tokens N] [--json]`. DEVICE is cpu (this machine), a GPU's
name such as h100 or rtx4090, several such as 8xh100 or 4x8xh100 (machines x GPUs), or a CPU's memory
such as 24GiB; left out, what the preset states. Of a name that several recipes have, r1_zero's is
meant; of r1, the pipeline, the largest RL stage of a preset is planned.
Exit code 2 with one line if the run does not fit. A model needs no more than its config.json.
Seconds are estimates.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from recipes.apart import host_line, host_parts, phases_of, placed, seconds_of, too_few, trainers_of
from recipes.cli import USER_ERROR, guarded, read_config, split_command
from recipes.config import RunConfig
from recipes.demand import assumed_lengths, demand_of, engine_tokens, round_of
from recipes.devices import GIB, Device, find_device
from recipes.fitting import Verdict, fault, verdict
from recipes.preset_facts import PresetFacts
from recipes.presets import PRESETS, RECIPES, facts_of
from rl.engine_memory import Parts
from rl.memory import peak
from rl.pace import Round, sampled_tokens, update_flops
from rl.workload import Demand
from rollouts.model_config import read_model_config

LEAST_SHOWN = 0.005 * GIB
STYLES = {"fits": "green", "tight": "yellow", "too large": "bold red"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run on a device, or on several: what each needs, by phase and part, and a round's time."""

    model: str
    device: Device
    demand: Demand
    """Of each GPU."""
    work: Round
    """Of each GPU that trains."""
    trainers: int
    """Processes that train."""
    overlapped: bool
    """Whether a round is sampled while another is trained on."""
    num_rounds: int
    memory: dict[str, Parts]
    seconds: dict[str, float]
    verdict: Verdict
    line: str
    """What does not fit or is tight, and what would; empty if it fits."""
    facts: PresetFacts | None = None
    """Of the preset, if it has any."""
    stage: str = ""
    """Of a pipeline, the one that is planned: its largest RL stage."""
    other_hours: float = 0.0
    """Of a pipeline's other RL stages."""

    @property
    def hours(self) -> float:
        """Of all rounds, evaluations left out."""
        return self.num_rounds * self.round_s / 3600 + self.other_hours

    @property
    def round_s(self) -> float:
        """Of a round."""
        sample, update, publish = self.seconds.values()
        return (max(sample, update) if self.overlapped else sample + update) + publish


def main(argv: Sequence[str]) -> int:
    """Plan and print; 2 with one line for a mistake, or if the run does not fit."""
    if {"-h", "--help"} & set(argv):
        print(f"{__doc__}\nFields:")
    words = [word for word in argv if word != "--json"]
    plans: list[Plan] = []
    if failed := guarded(lambda: plans.append(planned(words))):
        return failed
    (plan,) = plans
    if len(words) < len(argv):
        print(json.dumps(as_json(plan), indent=2))
    else:
        print_plan(plan)
    if plan.verdict != "fits":
        word = "error" if plan.verdict == "too large" else "warning"
        print(f"{word}: {plan.line}", file=sys.stderr, flush=True)
    return USER_ERROR if plan.verdict == "too large" else 0


def planned(argv: Sequence[str]) -> Plan:
    """The plan that a command line asks for, as the doctor takes it.

    Raises:
        ValueError: A mistake in it.
    """
    given, rest = _split(argv)
    if given.recipe == "r1":
        return _pipeline(given, rest)
    presets = RECIPES[given.recipe] if given.recipe else PRESETS
    command = split_command(rest, "doctor --plan", "quickstart", list(presets))
    config = read_config(command, presets)
    facts = facts_of(presets, command.preset)
    own = facts if facts and config == presets[command.preset]() else None
    device = find_device(given.device or (facts.device if facts else "cpu"))
    plan = plan_of(
        config,
        device,
        prompt=given.prompt_tokens or (own.prompt_tokens if own else None),
        mean=given.mean_tokens or (own.mean_tokens if own else None),
    )
    return replace(plan, facts=facts)


def _pipeline(given: argparse.Namespace, rest: Sequence[str]) -> Plan:
    """As `planned`, of one of the pipeline's presets."""
    from recipes.r1_facts import R1_FACTS
    from recipes.r1_plan import plan_pipeline
    from recipes.r1_presets import R1_PRESETS

    command = split_command(rest, "doctor --plan --recipe r1", "smollm2-cpu", list(R1_PRESETS))
    if command.fields or command.config:
        raise ValueError("of a pipeline a preset can be planned, with --device and nothing else")
    facts = R1_FACTS[command.preset]
    device = find_device(given.device or facts.device)
    return plan_pipeline(R1_PRESETS[command.preset](), device, facts)


def plan_of(config: RunConfig, device: Device, *, prompt: int | None, mean: int | None) -> Plan:
    """The plan of a run; `prompt` and `mean` are token counts, guessed where None.

    Raises:
        ValueError: The model's config.json is not here, or of an unknown architecture; or the
            device does not compute in the run's dtype.
    """
    if config.policy.dtype == "bfloat16" and not device.has_bfloat16:
        raise ValueError(
            f"policy.dtype is bfloat16, which {device.name} does not compute in: use "
            "--policy.dtype float16 --engine.dtype float16"
        )
    trainers = trainers_of(config, device.count, is_gpu=device.is_gpu)
    lengths = assumed_lengths(config, prompt, mean)
    values = read_model_config(config.model)
    tokens = engine_tokens(config, lengths.prompt, values.get("max_position_embeddings"))
    try:
        demand = demand_of(
            config,
            values,
            lengths,
            engine_tokens=tokens,
            gpu_bytes=device.memory if device.is_gpu else None,
            processes=trainers,
        )
    except ValueError as error:
        raise ValueError(f"model {config.model!r}: {error}") from error
    few, work = too_few(demand, device.count), round_of(config, trainers)
    found = "too large" if few else verdict(demand, device.memory)
    line = few or ("" if found == "fits" else fault(demand, device))
    return Plan(
        model=config.model,
        device=device,
        demand=demand,
        work=work,
        trainers=trainers,
        overlapped=device.is_gpu and config.train.max_staleness > 0,
        num_rounds=config.train.num_rounds,
        memory=phases_of(demand),
        seconds=seconds_of(demand, work, device.speed),
        verdict=found,
        line=line,
    )


def as_json(plan: Plan) -> dict[str, Any]:
    """All numbers."""
    (phase, need), arch, host = peak(plan.memory), plan.demand.arch, host_parts(plan.demand)
    return {
        "model": plan.model,
        "stage": plan.stage,
        "family": arch.family,
        "parameters": arch.parameters,
        "parameters_computed_per_token": arch.computed,
        "adapter_parameters": plan.demand.adapter_parameters,
        "device": asdict(plan.device),
        "verdict": plan.verdict,
        "line": plan.line,
        "peak_phase": phase,
        "peak_bytes": need,
        "host_bytes": next(iter(host.values()), 0),
        "host_parts": host,
        "placement": placed(plan.demand),
        "memory_bytes": plan.memory,
        "seconds_estimated": plan.seconds,
        "hours_estimated": plan.hours,
        "sampled_tokens_per_round": plan.trainers * sampled_tokens(plan.demand, plan.work),
        "update_flops": {
            name: plan.trainers * flops
            for name, flops in update_flops(plan.demand, plan.work).items()
        },
        "assumed_tokens": asdict(plan.demand.lengths),
        "micro_batch_places": plan.demand.places,
        "layers_compiled": plan.demand.compiled,
        "facts": asdict(plan.facts) if plan.facts else None,
    }


def print_plan(plan: Plan) -> None:
    """The plan for a person."""
    console = Console(highlight=False)
    if plan.facts:
        told = plan.facts.told(f"about {_rounded(plan.hours)}, estimated")
        console.print(f"{told}\n", markup=False, soft_wrap=True)
    _, need = peak(plan.memory)
    stage = f", stage {plan.stage}" if plan.stage else ""
    console.print(f"{plan.model}{stage}: {_model_line(plan.demand)}")
    told = Text(f"memory: {need / GIB:.1f} GiB at the peak, {plan.device.told}: ")
    console.print(told.append(plan.verdict, STYLES[plan.verdict]))
    console.print(_table(plan.memory))
    for line in filter(None, (placed(plan.demand), host_line(plan.demand, plan.device.count))):
        console.print(line, soft_wrap=True)
    console.print(_pace(plan), soft_wrap=True)
    console.print(_assumed(plan.demand), style="dim", soft_wrap=True)


def _split(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The plan's own options, and what a recipe takes."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--recipe", choices=[*RECIPES, "r1"])
    parser.add_argument("--device")
    parser.add_argument("--prompt-tokens", type=_count)
    parser.add_argument("--mean-tokens", type=_count)
    try:
        return parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(str(error).removeprefix("argument ")) from error


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens, 1 or more")
    return int(text)


def _table(memory: dict[str, Parts]) -> Table:
    """Parts by phase in GiB, the largest phase in bold."""
    highest, _ = peak(memory)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("GiB")
    for phase in memory:
        table.add_column(phase, justify="right", style="bold" if phase == highest else None)
    for name in dict.fromkeys(name for parts in memory.values() for name in parts):
        sizes = [parts.get(name, 0) for parts in memory.values()]
        if max(sizes) >= LEAST_SHOWN:
            table.add_row(name, *(f"{size / GIB:.2f}" if size else "" for size in sizes))
    totals = [sum(parts.values()) for parts in memory.values()]
    table.add_row("together", *(f"{total / GIB:.2f}" for total in totals), end_section=True)
    return table


def _model_line(demand: Demand) -> str:
    arch = demand.arch
    met = f", {arch.computed:,} of them in the layers that a token meets" if arch.experts else ""
    lora = f", {demand.adapter_parameters:,} of adapters" if demand.adapted else ""
    return f"{arch.parameters:,} parameters{met}{lora} ({arch.family}, {demand.policy.dtype})"


def _pace(plan: Plan) -> str:
    """One line of seconds and speed."""
    took = plan.seconds
    rate = plan.trainers * sampled_tokens(plan.demand, plan.work) / took["sample"]
    phases_s = ", ".join(f"{name} {_rounded(s)}" for name, s in took.items())
    return (
        f"a round, estimated: {_rounded(plan.round_s)} s ({phases_s}; {rate:,.0f} tokens/s "
        f"sampled{', beside the update' * plan.overlapped}) at {plan.device.speed.flops / 1e12:.3g} TFLOP/s and "
        f"{plan.device.speed.bandwidth / 1e9:.0f} GB/s{' each' * (plan.device.count > 1)}; "
        f"{plan.num_rounds} rounds about {_rounded(plan.hours - plan.other_hours)} hours"
        f"{f', all RL stages {_rounded(plan.hours)}' if plan.stage else ''}, evaluations left out"
    )


def _assumed(demand: Demand) -> str:
    lengths = demand.lengths
    return (
        f"assumed: prompts of at most {lengths.prompt} tokens (--prompt-tokens), completions of "
        f"{lengths.mean} on average (--mean-tokens) and {lengths.longest} at most; micro-batches of "
        f"{demand.places:,} places, {'' if demand.compiled else 'not '}compiled"
    )


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.2g}"
