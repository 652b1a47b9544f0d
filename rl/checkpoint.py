"""Checkpoints of a run: masters, moments, reference, frozen buffers, and where the run stands.

A checkpoint is a folder of safetensors and a state.json; it appears whole or not at all. Whole
tensors are files (master.safetensors), sharded ones folders (rl/sharded_checkpoint.py).
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from rl.optimizer import KINDS
from rl.policy import Policy
from rl.publish import saved_buffers
from rl.run_folder import AtomicFolder
from rl.sharded_checkpoint import is_sharded_checkpoint, take_shards, write_shards


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands between two rounds.

    Example: after 10 rounds of 16 updates: `RunState(round=10, updates=160,
    drawn={"arithmetic": 320})`.

    Attributes:
        round: The next round.
        updates: Optimizer steps so far; also the version of the weights.
        drawn: The ledger's state.
        masters_sha256: Of the float32 masters' file, or of their shards (`write_shards`); equal
            runs of as many processes have equal hashes.
    """

    round: int = 0
    updates: int = 0
    drawn: dict[str, int] = field(default_factory=dict)
    masters_sha256: str = ""


def save_checkpoint(path: Path, policy: Policy, state: RunState) -> RunState:
    """Write a checkpoint folder; gives the state with the masters' hash.

    All processes call it. Where parameters are sharded each process writes its own shards
    (rl/sharded_checkpoint.py); else the first one writes whole tensors. Any number of processes
    goes on from either. Raises RuntimeError if processes' whole parameters have come to differ.
    """
    ranks = policy.ranks
    with AtomicFolder(path) if ranks.is_first else nullcontext() as folder:
        digest = ""
        if policy.sharded:
            digest = write_shards(ranks.from_first(lambda: folder), policy)
        if folder:
            _write(folder, policy, ["step"] if policy.sharded else KINDS)
            digest = digest or _sha256(folder / "master.safetensors")
            state = replace(state, masters_sha256=digest)
            (folder / "state.json").write_text(json.dumps(asdict(state), indent=1))
    if len(set(ranks.gather([policy.optimizer.checksum()]))) > 1:
        raise RuntimeError(
            f"the processes' parameters differ after update {state.updates}: one of them computes "
            f"differently; the checkpoints before {path} are whole"
        )
    return ranks.from_first(lambda: state)


def _write(folder: Path, policy: Policy, kinds: Sequence[str]) -> None:
    """What this process holds whole, one kind at a time."""
    for kind in kinds:
        tensors = policy.optimizer.state([kind])
        named = {name.removeprefix(f"{kind}/"): tensor for name, tensor in tensors.items()}
        save_file(named, folder / f"{kind}.safetensors")
    if policy.reference is not None and not policy.sharded:
        save_file(policy.reference, folder / "reference.safetensors")
    if frozen := saved_buffers(policy.model):
        save_file(frozen, folder / "buffers.safetensors")


def load_checkpoint(path: Path, policy: Policy) -> RunState:
    """Put a checkpoint back into the policy, sharded or whole; gives where the run stood."""
    if is_sharded_checkpoint(path):
        take_shards(path, policy, _read(path, "step"))
    else:
        tensors = [_read(path, kind) for kind in KINDS]
        policy.optimizer.load({name: tensor for kind in tensors for name, tensor in kind.items()})
        reference = path / "reference.safetensors"
        if reference.exists():
            policy.load_reference(load_file(reference))
    frozen = path / "buffers.safetensors"
    for name, tensor in load_file(frozen).items() if frozen.exists() else ():
        saved_buffers(policy.model)[name].copy_(tensor)
    return RunState(**json.loads((path / "state.json").read_text()))


def _read(path: Path, kind: str) -> dict[str, Tensor]:
    held = load_file(path / f"{kind}.safetensors")
    return {f"{kind}/{name}": tensor for name, tensor in held.items()}


def checkpoint_bytes(num_parameters: int, *, reference: bool, itemsize: int) -> int:
    """Size of one checkpoint: masters and two moments in float32, and a reference.

    Example: 135 million parameters without a reference take 1.6 GB.
    """
    return num_parameters * (12 + (itemsize if reference else 0))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
