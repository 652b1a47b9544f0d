"""Supervised stages in a process of their own, for test_rl_sft.py: `python sft_program.py NAME MODEL FOLDER`.

TRL resets accelerate's state, so nothing of this runs in the process of the other tests.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from rl.optimizer import OptimizerConfig
from rl.policy import Policy, PolicyConfig
from rl.ranks import find_ranks, leave
from rl.sft import Example, SupervisedConfig, fine_tune

EXAMPLES = tuple(
    Example(
        prompt_ids=tuple(3 + (7 * i + j) % 250 for j in range(4 + i % 5)),
        completion_ids=(*(3 + (11 * i + 5 * j) % 250 for j in range(3 + i % 7)), 2),
    )
    for i in range(24)
)


def trained(model, folder, log=lambda line: None, rate=1e-3, **training):
    config = SupervisedConfig(
        **{"max_tokens": 64, "batch_size": 2, "epochs": 2, "save_every": 0, **training}
    )
    optimizer = OptimizerConfig(learning_rate=rate, schedule="cosine")
    ranks = find_ranks()
    policy = Policy(
        model,
        PolicyConfig(dtype="float32", compile=False, micro_batch_tokens=70),
        optimizer,
        ranks=ranks,
    )
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    numbers = fine_tune(policy, EXAMPLES, tokenizer, config, folder, log)
    return policy, numbers


def losses(model, folder):
    """The first loss and gradient norm of all examples as one update, packed and not, and by hand."""
    found = {}
    for name, packing, size in (("packed", True, 8), ("unpacked", False, 24)):
        lines = []
        trained(model, folder / name, lines.append, packing=packing, batch_size=size, epochs=1)
        found[name] = [lines[0]["sft/loss"], lines[0]["sft/gradient_norm"]]
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    total = count = 0
    for each in EXAMPLES:
        ids = torch.tensor([[*each.prompt_ids, *each.completion_ids]])
        logits = plain(input_ids=ids).logits[0, len(each.prompt_ids) - 1 : -1]
        targets = torch.tensor(each.completion_ids)
        total = total + torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        count += len(targets)
    (total / count).backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in plain.parameters()])
    return found | {"by_hand": [(total / count).item(), norm.item()]}


def schedule(model, folder):
    lines = []
    _, numbers = trained(model, folder, lines.append)
    return {"rates": [line["sft/learning_rate"] for line in lines], "numbers": numbers}


def killed(model, folder):
    """Dies of SIGKILL after its fifth update, with checkpoints of the second and fourth."""

    def log(line):
        if line["update"] == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    trained(model, folder, log, save_every=2)


def resumed(model, folder):
    seen = []
    policy, _ = trained(model, folder, lambda line: seen.append(line["update"]), save_every=2)
    return {"updates": seen, "checksum": policy.optimizer.checksum()}


def whole(model, folder):
    """By however many processes: the masters, on disk."""
    policy, numbers = trained(model, folder)
    if policy.ranks.is_first:
        torch.save(policy.optimizer.masters, folder.parent / f"{policy.ranks.count}.pt")
    return {"numbers": numbers}


if __name__ == "__main__":
    name, model, folder = sys.argv[1:]
    told = globals()[name](Path(model), Path(folder))
    if os.environ.get("RANK", "0") == "0":
        print("\n" + json.dumps(told))
    leave()
