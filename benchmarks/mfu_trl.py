"""TRL's supervised step with variable-length packing for `benchmarks.mfu`: the same sequences.

Each prompt stands before every one of its completions, as supervised data has it. FlashAttention
where it is installed, else torch's sdpa; the result says which.
"""

import importlib.util
import json
import statistics
import sys
import tempfile
from typing import Any

from benchmarks.mfu import timed


def packed_lengths(groups: list[list[int]], prompt: int) -> list[int]:
    """Tokens of each sequence, prompt included."""
    return [prompt + length for group in groups for length in group]


def trainer_of(given: dict[str, Any], lengths: list[int], folder: str) -> Any:
    """An SFTTrainer on random tokens whose one step takes all packed rows."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    attention = "flash_attention_2" if importlib.util.find_spec("flash_attn") else "sdpa"
    draw = torch.Generator().manual_seed(0)
    ids = [torch.randint(2, given["vocabulary"], (n,), generator=draw).tolist() for n in lengths]
    config = SFTConfig(
        output_dir=folder,
        model_init_kwargs={"dtype": "bfloat16", "attn_implementation": attention},
        packing=True,
        max_length=given["row_tokens"],
        per_device_train_batch_size=1,
        gradient_checkpointing=given["checkpointing"],
        bf16=False,
        max_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    return SFTTrainer(
        model=given["model"],
        args=config,
        train_dataset=Dataset.from_dict({"input_ids": ids}),
        processing_class=AutoTokenizer.from_pretrained(given["model"]),
    )


def main() -> None:
    """Time steps over all rows: forward and backward a row, one optimizer step."""
    import torch

    given = json.loads(sys.argv[1])
    lengths = packed_lengths(given["groups"], given["prompt"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(given, lengths, folder)
        trainer.create_optimizer()
        rows = [
            trainer._prepare_inputs(trainer.data_collator([row])) for row in trainer.train_dataset
        ]
        count = sum(int((row["labels"] != -100).sum()) for row in rows)

        def once() -> None:
            for row in rows:
                trainer.training_step(trainer.model, dict(row), count)
            torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()

        trainer.model.train()
        once()
        seconds = [timed(once) for _ in range(given["steps"])]
    cuda = torch.cuda.is_available()
    found = {
        "step_s": statistics.median(seconds),
        "tokens": sum(row["input_ids"].numel() for row in rows),
        "lengths": lengths,
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else 0,
        "checkpointing": given["checkpointing"],
        "attention": trainer.model.config._attn_implementation,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
