"""docs/presets.md, written from the presets and the planner: `python -m recipes.preset_table`.

Prints the page; a test holds the file to it. Hours without a source of their own are the planner's.
"""

from recipes.config import RunConfig
from recipes.devices import GIB
from recipes.plan import Plan, planned
from recipes.preset_facts import PresetFacts
from recipes.presets import FACTS, PRESETS
from recipes.r1_facts import R1_FACTS
from recipes.r1_presets import R1_PRESETS
from rl.memory import peak

HEAD = """# Presets

Written by `python -m recipes.preset_table`; change `recipes/presets.py`, `recipes/papers.py`,
`recipes/sizes.py` or `recipes/r1_sizes.py`, not this page. A preset is a whole configuration; every field can be given
beside its name: `python -m recipes.r1_zero qwen2.5-0.5b --train.num-rounds 20`. With several GPUs:
`torchrun --nproc-per-node 8 -m recipes.r1_zero qwen2.5-7b` (docs/several_processes.md).

`python -m recipes.quickstart dapo` is another thing: the quickstart's run by that algorithm
(docs/algorithms.md).

`python -m recipes.doctor --plan NAME` says what a preset needs, here or on another device. Memory
and hours below are its estimates, unless a source is named: arithmetic with makers' figures, right
within a factor of two or three, evaluations and traffic between GPUs left out. **No preset has run
on a GPU here.** The papers' presets differ from `r1_zero` only where the papers do, and in what is
said to be ours.
"""
PIPELINES = """`python -m recipes.r1 NAME` runs R1's stages one after another. RL stages have the model, lengths
and hardware of the preset above of that size; hours are those of the three RL stages. Rejection
sampling and evaluations run on one GPU of the machine. `python -m recipes.doctor --plan --recipe r1
NAME` plans the largest RL stage; `python -m recipes.r1 NAME --show` prints every setting.
"""


def page() -> str:
    """The whole page."""
    lines = [
        HEAD,
        "| preset | model | a round | tokens | learning rate | device | GiB each | hours |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    told = []
    for name, facts in FACTS.items():
        plan = planned([name])
        lines.append(_row(name, PRESETS[name](), facts, plan))
        told.append(_section(name, facts, plan))
    return "\n".join([*lines, "", *told, _pipelines()])


def _pipelines() -> str:
    """The whole of R1 by size."""
    lines = [
        "# Pipelines\n",
        PIPELINES,
        "| preset | model | updates of R1-Zero, Dev2, R1 | cold start | device | GiB each | hours |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    told = []
    for name, facts in R1_FACTS.items():
        config = R1_PRESETS[name]()
        plan = planned(["--recipe", "r1", name])
        runs = (config.r1_zero, config.dev2, config.r1)
        updates = ", ".join(f"{r.train.num_rounds * r.train.updates_per_round:,}" for r in runs)
        rows = f"{config.cold_start.num_rows:,} rows"
        hours = facts.hours or _hours(plan)
        cells = (f"`{name}`", config.model, updates, rows, facts.device, _memory(plan), hours)
        lines.append(f"| {' | '.join(cells)} |")
        told.append(_section(f"Pipeline {name}", facts, plan))
    return "\n".join([*lines, "", *told])


def _row(name: str, config: RunConfig, facts: PresetFacts, plan: Plan) -> str:
    train = config.train
    updates = f", {train.updates_per_round} updates" if train.updates_per_round > 1 else ""
    limits = " then ".join(f"{limit:,}" for _, limit in train.max_tokens)
    cells = (
        f"`{name}`",
        config.model,
        f"{train.problems_per_round} x {train.group_size}{updates}",
        limits,
        f"{config.optimizer.learning_rate:g}",
        facts.device,
        _memory(plan),
        facts.hours or f"{_hours(plan)}",
    )
    return f"| {' | '.join(cells)} |"


def _section(name: str, facts: PresetFacts, plan: Plan) -> str:
    told = f"about {_hours(plan)} (planner, completions of {facts.mean_tokens:,} tokens on average)"
    lines = [f"## {name}\n", f"{facts.about}.\n"]
    lines += [f"- {fact}: {text}." for fact, text in facts.rows(told)]
    if plan.verdict == "too large":
        lines.append(f"- planner: {plan.line}.")
    return "\n".join([*lines, ""])


def _memory(plan: Plan) -> str:
    """A CPU's depends on the machine."""
    if not plan.device.is_gpu:
        return "-"
    need = peak(plan.memory)[1]
    told = f"{need / GIB:,.0f} of {plan.device.memory / GIB:.0f}"
    if plan.verdict != "too large":
        return told
    return f"**{told}: does not fit**" if need > plan.device.memory else f"{told}, but see below"


def _hours(plan: Plan) -> str:
    return f"{plan.hours:,.0f}" if plan.hours >= 10 else f"{plan.hours:.1f}"


if __name__ == "__main__":
    print(page(), end="")
