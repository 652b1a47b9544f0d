"""What tests/test_rl_ranks.py runs in one process, and under torchrun in several.

`torchrun --nproc-per-node N tests/ranks_program.py FOLDER`: trains every case of `CASES` on the
models in the folder and writes what came out as RESULT-N.pt beside them.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch

from rewards.problem import Problem, Response, Score, Verdict
from rl.checkpoint import RunState, load_checkpoint, save_checkpoint
from rl.fsdp import gathered, local
from rl.lora import LoraSettings
from rl.objective import LossConfig
from rl.optimizer import OptimizerConfig
from rl.packing import Batch, PackingConfig, pack
from rl.policy import Policy, PolicyConfig
from rl.ranks import Ranks, find_ranks, leave
from rl.update import prepare, update
from rollouts.rollout import Group, Rollout

ROOT = Path(__file__).parent.parent
RATE = 1e-3
TEMPERATURE = 0.7
ADAM = OptimizerConfig(max_grad_norm=0.5)


EVEN = {"micro_batch_tokens": 90}
"""Six groups are then two parts, cut alike for one process and for two."""


def policy(**fields: Any) -> PolicyConfig:
    return PolicyConfig(**{"dtype": "float32", "micro_batch_tokens": 40} | fields)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, how it computes, and what it learns by."""

    model: str = "llama"
    loss: LossConfig = field(default_factory=LossConfig)
    policy: PolicyConfig = field(default_factory=lambda: policy())
    packing: PackingConfig = field(default_factory=PackingConfig)
    groups: int = 5


CASES = {
    "clip": Case(),
    "kl": Case(loss=LossConfig(kl_coefficient=0.1)),
    "unbiased kl, trainer": Case(
        loss=LossConfig(kl_coefficient=0.1, kl="unbiased_k3", anchor="trainer")
    ),
    "entropy, tokens": Case(
        loss=LossConfig(entropy_coefficient=0.01), packing=PackingConfig(normalise="token")
    ),
    "gspo": Case(loss=LossConfig(objective="gspo", anchor="trainer", importance_level="sequence")),
    "cispo": Case(loss=LossConfig(objective="cispo")),
    "sapo": Case(loss=LossConfig(objective="sapo")),
    "dppo, constant": Case(
        loss=LossConfig(objective="dppo", anchor="sampler", importance="none"),
        packing=PackingConfig(normalise="constant"),
    ),
    "batch std, checkpointing": Case(
        packing=PackingConfig(advantage_scale="batch_std"),
        policy=policy(gradient_checkpointing=True),
    ),
    "one group for all": Case(groups=1),
    "one row": Case(policy=policy(micro_batch_tokens=10_000)),
    "lora": Case(policy=policy(lora=LoraSettings(rank=2))),
    "bfloat16": Case(groups=6, policy=policy(dtype="bfloat16", compile=False, **EVEN)),
    "float16": Case(groups=6, policy=policy(dtype="float16", compile=False, **EVEN)),
    "fsdp": Case(policy=policy(fsdp=True)),
    "fsdp, kl, checkpointing": Case(
        loss=LossConfig(kl_coefficient=0.1), policy=policy(fsdp=True, gradient_checkpointing=True)
    ),
    "fsdp, one group": Case(policy=policy(fsdp=True), groups=1),
    "fsdp, untied": Case(model="qwen3", policy=policy(fsdp=True)),
    "fsdp, experts": Case(model="deepseek_v3", policy=policy(fsdp=True)),
    "fsdp, experts, bfloat16": Case(
        model="deepseek_v3",
        groups=6,
        policy=policy(dtype="bfloat16", fsdp=True, compile=False, **EVEN),
    ),
    "fsdp, windows": Case(model="gemma2", policy=policy(fsdp=True)),
    "fsdp, bfloat16": Case(
        groups=6, policy=policy(dtype="bfloat16", fsdp=True, compile=False, **EVEN)
    ),
    "fsdp, float16": Case(
        groups=6, policy=policy(dtype="float16", fsdp=True, compile=False, **EVEN)
    ),
}


def torchrun(*words: object, count: int = 2, **environ: str) -> subprocess.CompletedProcess:
    """A program, or `-m MODULE`, in so many processes of one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run(
        [*command, *map(str, words)],
        env={**os.environ, **settings, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def groups_of(count: int, seed: int) -> list[Group]:
    """Groups of unequal size and length; every third has no signal."""
    draw = Random(seed)
    return [_group(draw, 2 + index % 3, silent=index % 3 == 2) for index in range(count)]


def _group(draw: Random, size: int, *, silent: bool) -> Group:
    prompt = tuple(draw.randrange(1, 24) for _ in range(draw.randint(3, 12)))
    rewards = [1.0] * size if silent else [float(i % 2) for i in range(size)]
    members = tuple(_rollout(draw, prompt, reward) for reward in rewards)
    return Group(problem=Problem(id="p", prompt="?", answer="!", source="t"), rollouts=members)


def _rollout(draw: Random, prompt: tuple[int, ...], reward: float) -> Rollout:
    size = draw.randint(1, 14)
    return Rollout(
        token_ids=prompt + tuple(draw.randrange(1, 24) for _ in range(size)),
        sampled=(False,) * len(prompt) + (True,) * size,
        logprobs=(0.0,) * len(prompt) + tuple(draw.uniform(-5, -2) for _ in range(size)),
        response=Response(text="", num_tokens=size, max_tokens=16),
        score=Score(value=reward, verdict=Verdict.CORRECT if reward else Verdict.WRONG),
        versions=((0, len(prompt), len(prompt) + size),),
    )


def batches_of(case: Case, seed: int) -> list[Batch]:
    """A round's two updates."""
    keep = case.loss.keeps_no_signal
    return [
        pack(groups_of(case.groups, seed + part), case.packing, keep_no_signal=keep)
        for part in (0, 100)
    ]


def trained(folder: Path, case: Case, ranks: Ranks) -> dict[str, Any]:
    """Two rounds, with a checkpoint written and read between them by as many processes."""
    model = make_policy(folder, case, ranks)
    metrics = list(_round(model, case, 1))
    path = folder / f"checkpoint-{list(CASES).index(_name(case))}-{ranks.count}"
    save_checkpoint(path, model, RunState(round=1))
    model = make_policy(folder, case, ranks)
    load_checkpoint(path, model)
    metrics += _round(model, case, 2)
    return outcome(model) | {"metrics": metrics}


def outcome(model: Policy) -> dict[str, Any]:
    exact = model.float32_copy()
    few, names = model.few_layers(exact)
    return {
        "state": {name: t.clone() for name, t in model.optimizer.state().items()},
        "published": {name: t.detach().clone() for name, t in model.published().items()},
        "exact": {n: whole(t).clone() for n, t in exact.state_dict().items()},
        "few": {n: t.clone() for n, t in few.state_dict().items()},
        "names": names,
    }


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return gathered(local(tensor), tensor)


def make_policy(folder: Path, case: Case, ranks: Ranks) -> Policy:
    model = Policy(folder / case.model, case.policy, ADAM, ranks=ranks)
    if case.loss.kl_coefficient > 0:
        model.refresh_reference()
    return model


def _round(model: Policy, case: Case, seed: int) -> Iterator[dict[str, float]]:
    for batch in prepare(model, batches_of(case, seed), case.loss, TEMPERATURE):
        yield update(model, batch, case.loss, temperature=TEMPERATURE, rate=RATE)


def _name(case: Case) -> str:
    return next(name for name, other in CASES.items() if other is case)


def main() -> None:
    folder, ranks = Path(sys.argv[1]), find_ranks()
    found = {name: trained(folder, case, ranks) for name, case in CASES.items()}
    torch.save(found, folder / f"result-{ranks.index}-of-{ranks.count}.pt")
    leave()


if __name__ == "__main__":
    main()
