"""What tests/test_rl_sharded_checkpoint.py runs under torchrun: `sharded_program.py FOLDER STEP ...`.

A step is a function below, `loads:NAME` with its word. It leaves files in the folder, which the
test reads; the model is in FOLDER/llama.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import rl.sharded_checkpoint
from rl.checkpoint import RunState, load_checkpoint, save_checkpoint
from rl.fsdp import gathered
from rl.objective import LossConfig
from rl.optimizer import OptimizerConfig
from rl.policy import Policy
from rl.ranks import Ranks, find_ranks, leave
from rl.run_folder import RunFolder
from rl.update import prepare, update
from tests.ranks_program import RATE, TEMPERATURE, Case, batches_of, policy

CASE = Case(loss=LossConfig(kl_coefficient=0.1), policy=policy(fsdp=True, dtype="bfloat16"))


def made(folder: Path, ranks: Ranks, states: str = "float32") -> Policy:
    return Policy(folder / "llama", CASE.policy, OptimizerConfig(states=states), ranks=ranks)


def trained(model: Policy, seed: int) -> Policy:
    """Two updates; the reference is the policy before the first."""
    if model.reference is None:
        model.refresh_reference()
    for batch in prepare(model, batches_of(CASE, seed), CASE.loss, TEMPERATURE):
        update(model, batch, CASE.loss, temperature=TEMPERATURE, rate=RATE)
    return model


def whole(model: Policy) -> dict[str, Any]:
    """Everything that a checkpoint must bring back, in whole tensors."""
    params = dict(model.model.named_parameters())
    parts = model.reference.items()
    reference = {f"reference/{name}": gathered(part, params[name]) for name, part in parts}
    return reference | {name: tensor.clone() for name, tensor in model.optimizer.state().items()}


def own(model: Policy) -> list[torch.Tensor]:
    """What this process holds of masters and reference, and of moments their values."""
    moments = list(model.optimizer.moments().values())
    plain = [m.dequantize() if hasattr(m, "codes") else m.clone() for m in moments]
    masters = [master.detach().clone() for master in model.optimizer.masters.values()]
    return [*masters, *model.reference.values(), *plain]


def loads(folder: Path, ranks: Ranks, name: str) -> None:
    """Some checkpoint, by these processes."""
    model = made(folder, ranks)
    state = load_checkpoint(folder / name, model)
    torch.save((state, whole(model)), folder / f"{name}-by-{ranks.count}-{ranks.index}.pt")


def saves(folder: Path, ranks: Ranks) -> None:
    """Train, save, go on from the checkpoint and without it; digests of equal and other masters."""
    model = made(folder, ranks)
    save_checkpoint(folder / "fresh", model, RunState())
    trained(model, 1)
    state = save_checkpoint(folder / "sharded", model, RunState(round=1, drawn={"a": 3}))
    torch.save(whole(model), folder / f"expected-{ranks.index}.pt")
    other = made(folder, ranks)
    same = load_checkpoint(folder / "sharded", other)
    outcomes = [own(trained(each, 2)) for each in (model, other)]
    found = {"saved": state.masters_sha256, "loaded": same.masters_sha256}
    found["equal"] = all(map(torch.equal, *outcomes))
    found["after"] = [
        save_checkpoint(folder / name, each, RunState()).masters_sha256
        for name, each in (("after", model), ("again", other))
    ]
    if ranks.index == 1:  # the last value of the last shard
        list(other.optimizer.masters.values())[-1].view(-1)[-1] += 1e-6
    found["changed"] = save_checkpoint(folder / "changed", other, RunState()).masters_sha256
    (folder / f"found-{ranks.index}.json").write_text(json.dumps(found))


def fails(folder: Path, ranks: Ranks) -> None:
    """One process sees no folder; one has no room; what both are told."""
    model = trained(made(folder, ranks), 1)
    told = []
    try:
        rl.sharded_checkpoint.write_shards(folder if ranks.is_first else folder / "none", model)
    except ValueError as error:
        told.append(str(error))
    if ranks.index == 1:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        save_checkpoint(folder / "full", model, RunState())
    except OSError as error:
        told.append(type(error).__name__)
    if ranks.index == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (folder / f"told-{ranks.index}.json").write_text(json.dumps(told))


def dies(folder: Path, ranks: Ranks) -> None:
    """The first process is killed when the second checkpoint's masters are written, no moments yet."""
    path = folder / "run"
    if ranks.is_first:
        RunFolder.create(path, "{}", {}).close()
    model = trained(made(folder, ranks), 1)
    save_checkpoint(path / "checkpoints" / "round-000001", model, RunState(round=1))
    save, calls = rl.sharded_checkpoint.save, []

    def watched(*given: Any, **settings: Any) -> Any:
        calls.append(given)
        if len(calls) == 2 and ranks.is_first:
            os.kill(os.getpid(), signal.SIGKILL)
        return save(*given, **settings)

    rl.sharded_checkpoint.save = watched
    save_checkpoint(path / "checkpoints" / "round-000002", model, RunState(round=2))


def eight_bits(folder: Path, ranks: Ranks) -> None:
    """Moments in 8 bits: saved, and gone on with and without the checkpoint."""
    model = trained(made(folder, ranks, "8bit"), 1)
    save_checkpoint(folder / "eight", model, RunState(round=1))
    moments = model.optimizer.moments().values()
    coded = sum(hasattr(moment, "codes") for moment in moments)
    values = [m.dequantize() if hasattr(m, "codes") else m for m in moments]
    torch.save(values, folder / f"eight-{ranks.index}.pt")
    other = made(folder, ranks, "8bit")
    load_checkpoint(folder / "eight", other)
    outcomes = [own(trained(each, 2)) for each in (model, other)]
    found = {"equal": all(map(torch.equal, *outcomes)), "coded": coded}
    (folder / f"eight-{ranks.index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    path, *steps = sys.argv[1:]
    mine = find_ranks()
    for step in steps:
        what, *words = step.split(":")
        globals()[what](Path(path), mine, *words)
    leave()
