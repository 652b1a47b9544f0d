"""Our update for `benchmarks.mfu`: one JSON of sizes in, one line of JSON out."""

import json
import random
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.mfu import timed
from benchmarks.ours_updates import groups_of
from benchmarks.step_work import FixedRollouts


def rollouts_of(given: dict[str, Any]) -> FixedRollouts:
    """Random tokens of the lengths asked for; rewards 0 and 1 in turn."""
    rng = random.Random(0)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(given["vocabulary"]) for _ in range(length))

    return FixedRollouts(
        prompts=tuple(draw(given["prompt"]) for _ in given["groups"]),
        completions=tuple(tuple(draw(n) for n in group) for group in given["groups"]),
        logprobs=tuple(tuple((-10.0,) * n for n in group) for group in given["groups"]),
        rewards=tuple(tuple(float(i % 2) for i in range(len(g))) for g in given["groups"]),
    )


def main() -> None:
    """Time updates of one batch after one for warming up."""
    import torch

    from rl.objective import LossConfig
    from rl.optimizer import OptimizerConfig
    from rl.packing import PackingConfig, pack
    from rl.policy import Policy, PolicyConfig
    from rl.update import update

    given = json.loads(sys.argv[1])
    policy = Policy(
        Path(given["model"]),
        PolicyConfig(
            micro_batch_tokens=given["row_tokens"], gradient_checkpointing=given["checkpointing"]
        ),
        OptimizerConfig(learning_rate=1e-6),
    )
    groups = groups_of(rollouts_of(given))
    batch = pack(groups, PackingConfig(normalise="token"), keep_no_signal=False)
    loss = LossConfig(importance="none")

    def once() -> None:
        update(policy, batch, loss, temperature=1.0, rate=1e-6)

    once()
    seconds = [timed(once) for _ in range(given["steps"])]
    cuda = torch.cuda.is_available()
    found = {
        "step_s": statistics.median(seconds),
        "tokens": given["prompt"] * len(given["groups"]) + sum(map(sum, given["groups"])),
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else 0,
        "checkpointing": given["checkpointing"],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
