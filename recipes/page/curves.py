"""The curves of the page: what belongs into one panel, and what each says in a sentence.

A panel's series are metrics by name, or all that begin with a prefix. docs/numbers.md has more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Column = Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart.

    Attributes:
        section: Under which heading it stands.
        meaning: What it shows and how to read it, in one sentence.
        names: Metrics, in the order of their colours; absent ones are left out.
        prefix: Every metric that begins with it, instead.
        unit: Of the vertical axis; frac is shown in percent, bytes in GiB.
        zero: Whether the axis begins at 0.
    """

    section: str
    title: str
    meaning: str
    names: tuple[str, ...] = ()
    prefix: str = ""
    unit: Literal["frac", "", "tokens", "nats", "s", "tokens/s", "bytes"] = ""
    zero: bool = True


PANELS = (
    Panel(
        section="Reward",
        title="Reward",
        meaning="Mean score of the round's completions; it swings with the problems drawn, so "
        "compare means over several rounds.",
        names=("reward/mean",),
    ),
    Panel(
        section="Reward",
        title="Reward by part",
        meaning="Each part before its weight: if format rises and accuracy does not, only the "
        "format is learnt.",
        prefix="reward/part/",
    ),
    Panel(
        section="Reward",
        title="Reward by source",
        meaning="Mean score by where the problems come from.",
        prefix="reward/source/",
    ),
    Panel(
        section="Reward",
        title="Groups without signal",
        meaning="Groups whose completions all got the same reward, from which nothing is learnt: "
        "too hard, too easy, or too small a group.",
        names=("reward/no_signal_frac",),
        unit="frac",
    ),
    Panel(
        section="Reward",
        title="pass@k of the round",
        meaning="The chance that at least one of k completions is right, without bias from the "
        "round's groups, with a 95% band over problems; k above a quarter of the group is one draw.",
        prefix="pass@",
        unit="frac",
    ),
    Panel(
        section="Reward",
        title="Validation split",
        meaning="Measured between rounds on problems that are never trained on, pass@1 with a 95% "
        "band; the best checkpoint is chosen by one of these.",
        names=("eval/pass_at_1", "eval/pass_at_k", "eval/maj_at_k"),
        unit="frac",
    ),
    Panel(
        section="Completions",
        title="Verdicts",
        meaning="What the graders found; those named error are the grader's own failures and leave "
        "the batch.",
        prefix="verdict/",
        unit="frac",
    ),
    Panel(
        section="Completions",
        title="Length",
        meaning="Sampled tokens of a completion on average: reasoning that is learnt often shows "
        "here first, and so does rambling.",
        names=("rollouts/mean_tokens",),
        unit="tokens",
    ),
    Panel(
        section="Completions",
        title="Cut off by the limit",
        meaning="Completions that did not end by themselves; if this grows with the length, the "
        "limit decides the score.",
        names=("rollouts/truncated_frac",),
        unit="frac",
    ),
    Panel(
        section="Completions",
        title="Trained tokens",
        meaning="Sampled tokens that reached the updates; groups without signal are left out.",
        names=("update/trained_tokens", "rollouts/sampled_tokens"),
        unit="tokens",
    ),
    Panel(
        section="Policy",
        title="Entropy",
        meaning="How undecided the policy is at a token; near 0 completions become alike and groups "
        "lose their signal.",
        names=("update/entropy",),
        unit="nats",
    ),
    Panel(
        section="Policy",
        title="KL to the reference",
        meaning="How far the policy has moved from what it is held to; only where the loss has it.",
        names=("update/kl",),
        unit="nats",
    ),
    Panel(
        section="Policy",
        title="Clipped tokens",
        meaning="Trained tokens whose gradient the clip cut; 0 where the ratio is exactly 1.",
        names=("update/clipped_frac",),
        unit="frac",
    ),
    Panel(
        section="Policy",
        title="Gradient norm",
        meaning="Before clipping; a sudden rise often comes before a run falls apart.",
        names=("update/gradient_norm",),
    ),
    Panel(
        section="Policy",
        title="Learning rate",
        meaning="Of the optimizer.",
        names=("update/learning_rate",),
    ),
    Panel(
        section="Policy",
        title="Loss",
        meaning="A sum whose advantages are centred: it stays near 0 and is no measure of progress.",
        names=("update/loss",),
        zero=False,
    ),
    Panel(
        section="Engine against trainer",
        title="Mismatch",
        meaning="The mean gap between the engine's and the trainer's logprobs of the same tokens "
        "under the same weights; a jump means that they no longer hold the same.",
        names=("mismatch/abs", "drift/abs"),
        unit="nats",
    ),
    Panel(
        section="Engine against trainer",
        title="Mismatch as KL",
        meaning="The same gap as an estimate of KL(sampler, trainer), never negative.",
        names=("mismatch/k3", "drift/k3"),
        unit="nats",
    ),
    Panel(
        section="Engine against trainer",
        title="Largest gap",
        meaning="The one token on which engine and trainer differ most.",
        names=("mismatch/max", "drift/max"),
        unit="nats",
    ),
    Panel(
        section="Engine against trainer",
        title="Importance weight",
        meaning="What the loss is multiplied by to make up for the gap; about 1 when all is well.",
        names=("update/importance", "update/ratio"),
        zero=False,
    ),
    Panel(
        section="Time and memory",
        title="Seconds by phase",
        meaning="Where a round's time goes; sampling and updating should be nearly all of it.",
        names=(
            "time/sample_s",
            "time/update_s",
            "time/publish_s",
            "time/evaluate_s",
            "time/pack_s",
            "time/other_s",
        ),
        unit="s",
    ),
    Panel(
        section="Time and memory",
        title="Sampling speed",
        meaning="Sampled tokens over the seconds of sampling, waits for scores included.",
        names=("tokens_per_s",),
        unit="tokens/s",
    ),
    Panel(
        section="Time and memory",
        title="Scoring hidden",
        meaning="Work of scoring and packing that ran while the engine was sampling; the rest was "
        "waited for.",
        names=("time/score_hidden_frac", "time/pack_hidden_frac"),
        unit="frac",
    ),
    Panel(
        section="Time and memory",
        title="Memory",
        meaning="Resident in the training process at the end of a round; not its peak.",
        names=("memory/resident_bytes",),
        unit="bytes",
    ),
)


def panels_json() -> list[dict[str, Any]]:
    """The panels as the page reads them."""
    return [asdict(panel) for panel in PANELS]


def derived(columns: Mapping[str, Column]) -> dict[str, list[float | None]]:
    """What is shown and not logged: tokens a second, and the axes of hours and tokens so far."""
    none: Column = [None] * len(columns.get("round", []))
    tokens = columns.get("rollouts/sampled_tokens", none)
    waited, ahead = (columns.get(f"time/{name}_s", none) for name in ("sample", "engine"))
    seconds = [max(w or 0.0, a or 0.0) for w, a in zip(waited, ahead, strict=True)]
    rates = [t / s if t is not None and s else None for t, s in zip(tokens, seconds, strict=True)]
    hours = [total / 3600 for total in _running(columns.get("time/round_s", none))]
    return {"tokens_per_s": rates, "axis/hours": hours, "axis/tokens": _running(tokens)}


def _running(values: Column) -> list[float]:
    totals, total = [], 0.0
    for value in values:
        total += value or 0.0
        totals.append(total)
    return totals
