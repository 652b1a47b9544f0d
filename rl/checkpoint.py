"""Checkpoints of a run: masters, moments, reference, frozen buffers, and where the run stands.

A checkpoint is a folder of safetensors and a state.json; it appears whole or not at all.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from rl.optimizer import KINDS
from rl.policy import Policy
from rl.publish import saved_buffers
from rl.run_folder import AtomicFolder


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands between two rounds.

    Example: after 10 rounds of 16 updates: `RunState(round=10, updates=160,
    drawn={"arithmetic": 320})`.

    Attributes:
        round: The next round.
        updates: Optimizer steps so far; also the version of the weights.
        drawn: The ledger's state.
        masters_sha256: Of the float32 masters' file; equal runs have equal hashes.
    """

    round: int = 0
    updates: int = 0
    drawn: dict[str, int] = field(default_factory=dict)
    masters_sha256: str = ""


def save_checkpoint(path: Path, policy: Policy, state: RunState) -> RunState:
    """Write a checkpoint folder; gives the state with the masters' hash.

    Whole tensors, so that any number of processes can go on from it. All of them call it, the
    first one writes. Raises RuntimeError if their masters have come to differ.
    """
    if policy.ranks.is_first:
        with AtomicFolder(path) as folder:
            _write(folder, policy)
            digest = _sha256(folder / "master.safetensors")
            state = replace(state, masters_sha256=digest)
            (folder / "state.json").write_text(json.dumps(asdict(state), indent=1))
    else:
        _write(None, policy)
    if len(set(policy.ranks.gather([policy.optimizer.checksum()]))) > 1:
        raise RuntimeError(
            f"the processes' parameters differ after update {state.updates}: one of them computes "
            f"differently; the checkpoints before {path} are whole"
        )
    return policy.ranks.from_first(lambda: state)


def _write(folder: Path | None, policy: Policy) -> None:
    """All tensors, one kind at a time; without a folder only what others need of this process."""
    for kind in KINDS:
        tensors = policy.optimizer.state([kind])
        if folder:
            named = {name.removeprefix(f"{kind}/"): tensor for name, tensor in tensors.items()}
            save_file(named, folder / f"{kind}.safetensors")
    reference = policy.reference_state()
    if folder and reference is not None:
        save_file(reference, folder / "reference.safetensors")
    if folder and (frozen := saved_buffers(policy.model)):
        save_file(frozen, folder / "buffers.safetensors")


def load_checkpoint(path: Path, policy: Policy) -> RunState:
    """Put a checkpoint back into the policy; gives where the run stood."""
    tensors: dict[str, Tensor] = {}
    for kind in KINDS:
        part = load_file(path / f"{kind}.safetensors")
        tensors |= {f"{kind}/{name}": tensor for name, tensor in part.items()}
    policy.optimizer.load(tensors)
    reference = path / "reference.safetensors"
    if reference.exists():
        policy.load_reference(load_file(reference))
    frozen = path / "buffers.safetensors"
    for name, tensor in load_file(frozen).items() if frozen.exists() else ():
        saved_buffers(policy.model)[name].copy_(tensor)
    return RunState(**json.loads((path / "state.json").read_text()))


def checkpoint_bytes(num_parameters: int, *, reference: bool, itemsize: int) -> int:
    """Size of one checkpoint: masters and two moments in float32, and a reference.

    Example: 135 million parameters without a reference take 1.6 GB.
    """
    return num_parameters * (12 + (itemsize if reference else 0))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
