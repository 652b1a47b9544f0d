"""Model FLOPs utilisation of the update alone on a GPU, beside TRL's supervised step.

`python -m benchmarks.mfu [--models 0.5B 1.5B] [--lengths 1024 4096 16384]`; the last line is JSON.
Random Qwen-shaped models, groups of 8 completions with log-normal lengths of which the longest has
the length asked for, behind a prompt of 256 tokens. Counted as in benchmarks/flops.py, over the
bf16 rate of a large matrix product in the same run. Where our update does not fit without gradient
checkpointing it is measured with it, and says so; what that computes again is not counted.

`--tiny` runs all of it with a tiny model on the CPU; otherwise a GPU is needed.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.flops import ModelShape, group_work, sequence_work, update_flops
from rollouts.process import prepare_process

GROUP = 8
SHAPES = {
    "0.5B": {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864},
    "1.5B": {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "intermediate_size": 8960},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is computed."""

    prompt: int = 256
    vocabulary: int = 151_936
    matmul: int = 8192
    """Rows and columns of the product that gives the peak."""
    step_tokens: int = 65_536
    """Groups are drawn until their tokens come to this."""


TINY = Sizes(prompt=8, vocabulary=256, matmul=256, step_tokens=256)


def completion_lengths(longest: int, rng: random.Random) -> list[int]:
    """[G] log-normal with median a quarter of the longest, sigma 0.8, cut off there and reaching it."""
    drawn = [round(longest / 4 * rng.lognormvariate(0.0, 0.8)) for _ in range(GROUP - 1)]
    return [longest, *(max(1, min(longest, length)) for length in drawn)]


def groups_until(sizes: Sizes, longest: int) -> list[list[int]]:
    """Lengths of the completions of each group of a step."""
    rng, groups = random.Random(longest), []
    while sum(sizes.prompt + sum(group) for group in groups) < sizes.step_tokens:
        groups.append(completion_lengths(longest, rng))
    return groups


def peak_flops(size: int) -> float:
    """Operations a second of a large bf16 matrix product, the best of several."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    best = min(timed(lambda: left @ right) for _ in range(20))
    return 2 * size**3 / best


def timed(work: Any) -> float:
    """Seconds until the device has done it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def write_model(folder: Path, name: str, vocabulary: int) -> ModelShape:
    """A random checkpoint of a shape, with a tokenizer that nothing asks anything."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=vocabulary,
        tie_word_embeddings=True,
        max_position_embeddings=32_768,
        dtype="bfloat16",
        **SHAPES[name],
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<end>": 0, "<pad>": 1}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", pad_token="<pad>"
    )
    tokenizer.save_pretrained(folder)
    return ModelShape.of(config)


def row_tokens(sizes: Sizes, longest: int) -> int:
    """Of a micro-batch: one longest sequence, and for short ones 16,384 where a step has as many."""
    return max(sizes.prompt + longest, min(16_384, sizes.step_tokens))


def measure_case(model: str, longest: int, sizes: Sizes, steps: int, peak: float) -> dict[str, Any]:
    """Ours and TRL's on one model and one longest length, each in a process of its own."""
    groups = groups_until(sizes, longest)
    with tempfile.TemporaryDirectory() as folder:
        shape = write_model(Path(folder), model, sizes.vocabulary)
        given = {
            "model": folder,
            "groups": groups,
            "prompt": sizes.prompt,
            "vocabulary": sizes.vocabulary,
            "row_tokens": row_tokens(sizes, longest),
            "steps": steps,
        }
        ours = in_process("mfu_ours", given, checkpointing=False)
        if "out_of_memory" in ours:
            ours = in_process("mfu_ours", given, checkpointing=True)
        trl = in_process("mfu_trl", given, checkpointing=bool(ours.get("checkpointing")))
    shared = update_flops(shape, [group_work(sizes.prompt, group) for group in groups])
    found = {"model": model, "longest": longest}
    return found | {
        "ours": utilisation(ours, shared, peak),
        "trl_sft": utilisation(trl, trl_flops(shape, trl), peak),
    }


def trl_flops(shape: ModelShape, result: dict[str, Any]) -> int:
    """Of the sequences that a supervised step packed."""
    return update_flops(shape, [sequence_work(result.get("lengths", []))])


def in_process(module: str, given: dict[str, Any], *, checkpointing: bool) -> dict[str, Any]:
    """The last line of `python -m benchmarks.MODULE JSON`; its failure in words if it fails."""
    text = json.dumps(given | {"checkpointing": checkpointing})
    command = [sys.executable, "-m", f"benchmarks.{module}", text]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        kind = "out_of_memory" if "OutOfMemoryError" in done.stderr else "failed"
        return {kind: lines[-1][:300], "checkpointing": checkpointing}
    return json.loads(done.stdout.strip().splitlines()[-1])


def utilisation(result: dict[str, Any], flops: int, peak: float) -> dict[str, Any]:
    """What was measured, with the utilisation; unchanged where it failed."""
    if "step_s" not in result:
        return result
    lengths = result.pop("lengths", None)
    if lengths is not None:
        result["sequences"] = len(lengths)
    return result | {
        "mfu": flops / result["step_s"] / peak,
        "tokens_per_s": result["tokens"] / result["step_s"],
    }


def row_of(case: dict[str, Any]) -> str:
    """One line of the table for each of ours and TRL."""
    lines = []
    for who in ("ours", "trl_sft"):
        one = case[who]
        if "mfu" not in one:
            lines.append(f"{case['model']:>5}{case['longest']:>8}  {who:8} {next(iter(one))}")
            continue
        lines.append(
            f"{case['model']:>5}{case['longest']:>8}  {who:8}{one['mfu']:>8.1%}"
            f"{one['tokens_per_s']:>12,.0f} tokens/s{one['peak_bytes'] / 1e9:>8.1f} GB"
            f"{'  checkpointing' if one['checkpointing'] else ''}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=("0.5B", "1.5B"), default=["0.5B", "1.5B"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[1024, 4096, 16_384])
    parser.add_argument("--steps", type=int, default=3, help="timed, after one to warm up")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on the CPU too")
    given = parser.parse_args(argv)
    prepare_process()
    import torch

    if not (given.tiny or torch.cuda.is_available()):
        print("error: no GPU: run this where torch sees one, or with --tiny", file=sys.stderr)
        return 2
    from recipes.versions import versions

    sizes = TINY if given.tiny else Sizes()
    models, lengths = (["tiny"], [64]) if given.tiny else (given.models, given.lengths)
    peak = peak_flops(sizes.matmul)
    print(f"bf16 peak {peak / 1e12:.3f} TFLOP/s, a product of {sizes.matmul} x {sizes.matmul}")
    cases = []
    for model in models:
        for longest in lengths:
            cases.append(measure_case(model, longest, sizes, given.steps, peak))
            print(row_of(cases[-1]), flush=True)
    print(json.dumps({"peak_flops": peak, "cases": cases, "versions": versions()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
