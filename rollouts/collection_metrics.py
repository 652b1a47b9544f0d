"""What a round's groups say of the policy, in numbers."""

from collections.abc import Sequence

from rewards.problem import Verdict
from rollouts.collect import graded
from rollouts.rollout import Group


def collection_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What a round's groups say of the policy: rewards, verdicts, lengths, truncation, by source too.

    Rewards are over what could be graded; all else, verdicts too, over everything sampled.
    """
    everything = [rollout for group in groups for rollout in group.rollouts]
    count = len(everything)
    kept = graded(groups)
    metrics = {
        "reward/no_signal_frac": sum(not group.has_signal for group in kept) / len(kept),
        "rollouts/count": float(count),
        "rollouts/dropped_groups": float(len(groups) - len(kept)),
        "rollouts/sampled_tokens": float(sum(r.response.num_tokens for r in everything)),
        "rollouts/mean_tokens": sum(r.response.num_tokens for r in everything) / count,
        "rollouts/truncated_frac": sum(r.response.finish == "length" for r in everything) / count,
    }
    for verdict in Verdict:
        metrics[f"verdict/{verdict}"] = sum(r.score.verdict is verdict for r in everything) / count
    return metrics | _reward_metrics(kept)


def _reward_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Mean reward, each part's mean, and each source's."""
    values: dict[str, list[float]] = {"reward/mean": []}
    for group in groups:
        for rollout in group.rollouts:
            values["reward/mean"].append(rollout.score.value)
            source = f"reward/source/{group.problem.source}"
            values.setdefault(source, []).append(rollout.score.value)
            for part, value in rollout.score.parts.items():
                values.setdefault(f"reward/part/{part}", []).append(value)
    return {name: sum(seen) / len(seen) for name, seen in sorted(values.items())}
