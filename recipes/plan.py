"""What a run would take, in memory and time, before anything is loaded.

`python -m recipes.doctor --plan [PRESET] [fields as a recipe takes them] [--device NAME]
[--prompt-tokens N] [--mean-tokens N] [--calibrate] [--json]`. DEVICE is cpu (this machine, the
default), a GPU's name such as h100 or rtx4090, or a CPU's memory such as 24GiB. Exit code 2 with
one line if the run does not fit. A model needs no more than its config.json. Seconds are estimates.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from recipes.cli import USER_ERROR, guarded, read_config, split_command
from recipes.config import RunConfig
from recipes.demand import assumed_lengths, demand_of, engine_tokens, round_of
from recipes.devices import GIB, Device, calibrated, find_device
from recipes.fitting import Verdict, fault, verdict
from recipes.presets import PRESETS
from rl.architecture import Architecture, read_architecture
from rl.memory import Demand, Parts, peak, phases
from rl.pace import Round, sampled_tokens, seconds, update_flops
from rollouts.model_config import read_model_config

SWITCHES = ("--plan", "--json", "--calibrate")
VALUES = ("--device", "--prompt-tokens", "--mean-tokens")
LEAST_SHOWN = 0.005 * GIB
STYLES = {"fits": "green", "tight": "yellow", "too large": "bold red"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run on a device: what it needs, by phase and part, and how long a round takes."""

    config: RunConfig
    device: Device
    demand: Demand
    work: Round
    memory: dict[str, Parts]
    seconds: dict[str, float]
    verdict: Verdict
    line: str
    """What does not fit or is tight, and what would; empty if it fits."""
    measured: bool
    """Whether the device's speed was measured."""


def main(argv: Sequence[str]) -> int:
    """Plan and print; 2 with one line for a mistake, or if the run does not fit."""
    if {"-h", "--help"} & set(argv):
        print(f"{__doc__}\nFields:")
    words = list(argv)
    switches = {name: _took(words, name) for name in SWITCHES}
    plans: list[Plan] = []
    failed = guarded(lambda: plans.append(_planned(words, measured=switches["--calibrate"])))
    if failed:
        return failed
    (plan,) = plans
    if switches["--json"]:
        print(json.dumps(as_json(plan), indent=2))
    else:
        print_plan(plan)
    if plan.verdict != "fits":
        word = "error" if plan.verdict == "too large" else "warning"
        print(f"{word}: {plan.line}", file=sys.stderr, flush=True)
    return USER_ERROR if plan.verdict == "too large" else 0


def plan_of(
    config: RunConfig, device: Device, *, prompt: int | None, mean: int | None, measured: bool
) -> Plan:
    """The plan of a run; `prompt` and `mean` are token counts, guessed where None.

    Raises:
        ValueError: The model's config.json is not here, or of an unknown architecture.
    """
    arch, context = _model(config.model)
    lengths = assumed_lengths(config, prompt, mean)
    demand = demand_of(
        config,
        arch,
        lengths,
        engine_tokens=engine_tokens(config, lengths.prompt, context),
        gpu_bytes=device.memory if device.is_gpu else None,
    )
    found, work = verdict(demand, device.memory), round_of(config)
    return Plan(
        config=config,
        device=device,
        demand=demand,
        work=work,
        memory=phases(demand),
        seconds=seconds(demand, work, device.speed),
        verdict=found,
        line="" if found == "fits" else fault(demand, device),
        measured=measured,
    )


def as_json(plan: Plan) -> dict[str, Any]:
    """All numbers."""
    phase, need = peak(plan.memory)
    arch = plan.demand.arch
    return {
        "model": plan.config.model,
        "family": arch.family,
        "parameters": arch.parameters,
        "parameters_computed_per_token": arch.computed,
        "device": asdict(plan.device),
        "speed_measured": plan.measured,
        "verdict": plan.verdict,
        "line": plan.line,
        "peak_phase": phase,
        "peak_bytes": need,
        "memory_bytes": plan.memory,
        "seconds_estimated": plan.seconds,
        "sampled_tokens_per_round": sampled_tokens(plan.demand, plan.work),
        "update_flops": update_flops(plan.demand, plan.work),
        "assumed_tokens": asdict(plan.demand.lengths),
        "micro_batch_places": plan.demand.places,
        "layers_compiled": plan.demand.compiled,
    }


def print_plan(plan: Plan) -> None:
    """The plan for a person."""
    console = Console(highlight=False)
    _, need = peak(plan.memory)
    console.print(f"{plan.config.model}: {_model_line(plan.demand)}")
    told = Text(f"memory: {need / GIB:.1f} GiB at the peak, {plan.device.told}: ")
    console.print(told.append(plan.verdict, STYLES[plan.verdict]))
    console.print(_table(plan.memory))
    console.print(_pace(plan), soft_wrap=True)
    console.print(_assumed(plan.demand), style="dim", soft_wrap=True)


def _table(memory: dict[str, Parts]) -> Table:
    """Parts by phase in GiB, the largest phase in bold."""
    highest, _ = peak(memory)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("GiB")
    for phase in memory:
        table.add_column(phase, justify="right", style="bold" if phase == highest else None)
    names = list(dict.fromkeys(name for parts in memory.values() for name in parts))
    for name in names:
        sizes = [parts.get(name, 0) for parts in memory.values()]
        if max(sizes) >= LEAST_SHOWN:
            table.add_row(name, *(f"{size / GIB:.2f}" if size else "" for size in sizes))
    totals = [sum(parts.values()) for parts in memory.values()]
    table.add_row("together", *(f"{total / GIB:.2f}" for total in totals), end_section=True)
    return table


def _planned(words: list[str], *, measured: bool) -> Plan:
    given = {name: _value(words, name) for name in VALUES}
    command = split_command(words, "doctor --plan", "quickstart", list(PRESETS))
    config = read_config(command)
    device = find_device(given["--device"] or "cpu")
    if measured and device.is_gpu:
        raise ValueError(f"--calibrate measures this machine's CPU, not {device.name}: leave it out")
    if measured:
        device = replace(device, speed=calibrated())
    prompt, mean = (_count(name, given[name]) for name in ("--prompt-tokens", "--mean-tokens"))
    return plan_of(config, device, prompt=prompt, mean=mean, measured=measured)


def _model(name: str) -> tuple[Architecture, int | None]:
    values = read_model_config(name)
    try:
        return read_architecture(values), values.get("max_position_embeddings")
    except ValueError as error:
        raise ValueError(f"model {name!r}: {error}") from error


def _model_line(demand: Demand) -> str:
    arch = demand.arch
    met = f", {arch.computed:,} of them in the layers that a token meets" if arch.experts else ""
    return f"{arch.parameters:,} parameters{met} ({arch.family}, {demand.policy.dtype})"


def _pace(plan: Plan) -> str:
    """One line of seconds and speed."""
    took = plan.seconds
    rate = sampled_tokens(plan.demand, plan.work) / took["sample"]
    phases_s = ", ".join(f"{name} {_rounded(s)}" for name, s in took.items())
    source = "measured" if plan.measured else "assumed"
    return (
        f"a round, estimated: {_rounded(sum(took.values()))} s ({phases_s}; {rate:,.0f} tokens/s "
        f"sampled) at {plan.device.speed.flops / 1e12:.3g} TFLOP/s and "
        f"{plan.device.speed.bandwidth / 1e9:.0f} GB/s, {source}"
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


def _took(words: list[str], flag: str) -> bool:
    present = flag in words
    words[:] = [word for word in words if word != flag]
    return present


def _value(words: list[str], flag: str) -> str | None:
    for index, word in enumerate(words):
        if word.startswith(f"{flag}="):
            return words.pop(index).partition("=")[2]
        if word == flag:
            if index + 1 >= len(words):
                raise ValueError(f"{flag} needs a value")
            words.pop(index)
            return words.pop(index)
    return None


def _count(flag: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{flag} is {text!r}: give a whole number of tokens, 1 or more")
    return int(text)
