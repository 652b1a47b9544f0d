"""Supervised fine-tuning on completions, by TRL's SFTTrainer around the policy of RL.

TRL packs, shuffles, schedules and counts; the forward pass, float32 masters and several processes
are `rl.policy.Policy`'s, so that a supervised stage computes as the RL before and after it does.
Run each stage in a process of its own: SFTConfig resets accelerate's state.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from rl.checkpoint import RunState, load_checkpoint, save_checkpoint
from rl.optimizer import MasterOptimizer
from rl.packing import Batch
from rl.policy import Policy

STATE = "trainer_state.json"
"""transformers' own, written last: a checkpoint without it is not whole."""


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """How long and how much. DeepSeek-R1 (Nature, Methods): 2 to 3 epochs, cosine from 5e-5 to a tenth."""

    epochs: float = 2.0
    """Passes over the examples."""
    max_tokens: int = 32_768
    """Of an example, prompt included, and of a packed row; longer examples are left out, counted."""
    packing: bool = True
    """Put several examples into a row of at most `max_tokens`; none sees another."""
    batch_size: int = 8
    """Rows an update; without packing, examples. Processes and `policy.micro_batch_tokens` divide it."""
    num_processes: int = 1
    """That train together, as torchrun starts them; another number is refused."""
    save_every: int = 200
    """Updates between checkpoints; 0 for none."""
    seed: int = 0
    """Of the order of examples."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One prompt and the completion that is learnt, as ids, the end token included.

    Example: `Example(prompt_ids=(1, 9690), completion_ids=(40, 2))`.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def fine_tune(
    policy: Policy,
    examples: Sequence[Example],
    tokenizer: Any,
    config: SupervisedConfig,
    folder: Path,
    log: Callable[[dict[str, float]], None],
) -> dict[str, float]:
    """Train the policy on all examples and give what the training came to.

    Goes on from the last whole checkpoint under `folder`. The loss of an update is the mean over
    its completion tokens: -1/N sum_t log pi(y_t | x, y_<t).

    Raises:
        ValueError: There is no example that fits.
    """
    rows = [e for e in examples if len(e) <= config.max_tokens]
    if not rows:
        raise ValueError(
            f"none of {len(examples)} examples has at most {config.max_tokens} tokens: raise "
            "training.max_tokens, or give other data"
        )
    trainer = _Trainer(policy, rows, tokenizer, config, folder, log)
    last = last_checkpoint(folder)
    done = trainer.train(resume_from_checkpoint=str(last) if last else None)
    return {
        "examples": len(rows),
        "examples_too_long": len(examples) - len(rows),
        "tokens": sum(map(len, rows)) * config.epochs,
        "trained_tokens": sum(len(e.completion_ids) for e in rows) * config.epochs,
        "updates": trainer.state.global_step,
        "loss": done.training_loss,
    }


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; what is not whole is removed."""
    found = sorted(folder.glob("update-*"), key=lambda path: int(path.name.partition("-")[2]))
    for broken in (path for path in found if not (path / STATE).exists()):
        shutil.rmtree(broken)
    whole = [path for path in found if path.exists()]
    return whole[-1] if whole else None


def packed_batch(input_ids: Tensor, labels: Tensor, positions: Tensor) -> Batch:
    """A row as TRL collates it, as a batch: what is learnt is where the label is the token.

    Example: two examples (5, 6 -> 8, 2) and (5 -> 9): input_ids (5, 6, 8, 2, 5, 9), labels
    (-100, -100, 8, 2, -100, 9), positions (0, 1, 2, 3, 0, 1): sampled (F, F, T, T, F, T), each with
    a token weight of 1/3.
    """
    sampled = (labels != -100) & (positions > 0)
    weight = 1.0 / max(1, int(sampled.sum()))
    empty = torch.zeros(len(input_ids))
    count = (positions == 0).cumsum(0) - 1
    return Batch(
        token_ids=input_ids,
        positions=positions,
        segments=torch.stack((count, torch.zeros_like(count)), dim=-1),
        sampled=sampled,
        behaviour_logprobs=empty,
        advantages=empty,
        token_weights=sampled * weight,
    )


class _Trainer(SFTTrainer):
    """TRL's trainer whose model, loss, optimizer and checkpoints are the policy's."""

    def __init__(
        self,
        policy: Policy,
        examples: Sequence[Example],
        tokenizer: Any,
        config: SupervisedConfig,
        folder: Path,
        log: Callable[[dict[str, float]], None],
    ):
        self.policy, self._tell = policy, log
        optimizer = _Stepper(policy.optimizer)
        super().__init__(
            model=policy.model,
            args=_arguments(policy, config, folder),
            train_dataset=_dataset(examples),
            processing_class=tokenizer,
            optimizers=(optimizer, None),
        )
        # The policy has placed its model, deals each update's rows to the processes, and sums.
        self.accelerator.prepare_model = lambda model, *_, **__: model
        self.accelerator.prepare_data_loader = lambda loader, *_, **__: prepare_data_loader(
            loader,
            num_processes=1,
            process_index=0,
            use_seedable_sampler=True,
            data_seed=config.seed,
        )

    def training_step(
        self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None
    ) -> Tensor:
        """Backward of one update's rows in micro-batches; gives the loss over all processes."""
        rows = packed_batch(*(inputs[k][0].cpu() for k in ("input_ids", "labels", "position_ids")))
        policy, total = self.policy, 0.0
        for part in policy.micro_batches(rows):
            part = part.to(policy.device)
            logprobs, _ = policy.logprobs(part, 1.0)
            loss = -(logprobs * part.token_weights).sum()
            (loss * policy.optimizer.loss_scale).backward()
            total += loss.item()
        return torch.tensor(sum(policy.ranks.gather([total])), device=policy.device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """transformers' metrics, with the gradient's norm that the masters know."""
        told = {k: float(v) for k, v in logs.items() if isinstance(v, int | float)}
        if "loss" in told:
            names = {"loss": "sft/loss", "learning_rate": "sft/learning_rate", "epoch": "sft/epoch"}
            line = {name: told[key] for key, name in names.items() if key in told}
            line["sft/gradient_norm"] = self.optimizer_in_use.norm
            self._tell({"update": self.state.global_step, **line})

    @property
    def optimizer_in_use(self) -> "_Stepper":
        """Ours, under what accelerate wraps around it."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        path = Path(self.args.output_dir) / f"update-{self.state.global_step:06d}"
        save_checkpoint(path, self.policy, RunState(updates=self.state.global_step))
        if self.policy.ranks.is_first:
            self.state.save_to_json(str(path / STATE))
            for old in sorted(path.parent.glob("update-*"))[:-1]:
                shutil.rmtree(old)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_checkpoint(Path(resume_from_checkpoint), self.policy)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        steps = json.loads((Path(checkpoint) / STATE).read_text())["global_step"]
        self.lr_scheduler.step(steps)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing draws: there is no dropout, and the order of examples is the seed's."""


class _Stepper(torch.optim.Optimizer):
    """The masters' optimizer as transformers' Trainer steps one."""

    def __init__(self, masters: MasterOptimizer):
        self.masters, self.norm = masters, 0.0
        params = list(masters.masters.values())
        super().__init__([{"params": params}], {"lr": masters.config.learning_rate})

    def step(self, closure: Any = None) -> None:
        """One step at the scheduled rate."""
        self.norm = self.masters.step(self.param_groups[0]["lr"])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """A step has forgotten its gradients already."""


def _arguments(policy: Policy, config: SupervisedConfig, folder: Path) -> SFTConfig:
    settings = policy.optimizer.config
    return SFTConfig(
        output_dir=str(folder),
        use_cpu=policy.device.type == "cpu",
        bf16=False,  # the policy computes in its own dtype; autocast would convert again
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine_with_min_lr" if settings.schedule == "cosine" else "constant",
        lr_scheduler_kwargs=_floor(settings),
        warmup_steps=settings.warmup_updates,
        max_grad_norm=0.0,  # the masters clip
        gradient_checkpointing=False,  # the policy's own
        packing=config.packing,
        padding_free=True,
        max_length=config.max_tokens if config.packing else None,
        completion_only_loss=True,
        shuffle_dataset=True,
        average_tokens_across_devices=False,  # each process sees all rows
        save_strategy="steps" if config.save_every else "no",
        save_steps=config.save_every or 1,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
        data_seed=config.seed,
    )


def _floor(settings: Any) -> Mapping[str, float]:
    if settings.schedule != "cosine":
        return {}
    return {"min_lr_rate": settings.final_learning_rate_frac}


def _dataset(examples: Sequence[Example]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [[*e.prompt_ids, *e.completion_ids] for e in examples],
            "completion_mask": [
                [0] * len(e.prompt_ids) + [1] * len(e.completion_ids) for e in examples
            ],
        }
    )
