"""A learned reward: a sequence classifier with one output reads a prompt with its response.

    score = Inline(RewardModel(RewardModelConfig(), "my/reward-model", scope="summary"))

It lives in the trainer's process, on the trainer's device, and scores a problem's responses together,
so that what a batch holds never depends on which of them finished first. Leaves out training one.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from rewards.problem import Problem, Response, Score, Verdict
from rewards.routing import preferred
from rewards.tags import summary_of
from rollouts.models import resolve_model

logger = logging.getLogger(__name__)

Scope = Literal["summary", "whole"]
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """How reward models are run; which they are stands in `preference`."""

    max_tokens: int = 8192
    """Longest prompt with response; what is longer is too_large and scores 0. R1's were trained to it."""
    batch_tokens: int = 32_768
    """Tokens of one forward pass, padding included."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    scale: Literal["sigmoid", "none"] = "sigmoid"
    """sigmoid: between 0 and 1, like the rule rewards that it is added to; none: the bare output."""


class RewardModel:
    """A group reward: `(problem, responses) -> scores`, for `rewards.scorer.Inline`.

    Attributes:
        max_tokens: The configured limit, or the model's context if that is shorter.
    """

    def __init__(self, config: RewardModelConfig, model: str, *, scope: Scope):
        """Load the model.

        Args:
            model: A folder or hub id, with a tokenizer that has a chat template.
            scope: What is read of a response: `summary_of` it (R1's helpfulness), or all of it
                (R1's safety).

        Raises:
            ValueError: It is no reward model (another number of outputs, weights that are not
                there), or its chat template loses what it should read.
        """
        self.config, self.scope, self.name = config, scope, model
        folder = resolve_model(model)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = _load(folder, model, DTYPES[config.dtype])
        self._pad = self._model.config.get_text_config().pad_token_id
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self.max_tokens = min(config.max_tokens, context or config.max_tokens)
        self._check_template()

    def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Score]:
        """One score a response: no_answer without anything to read, too_large beyond `max_tokens`."""
        texts = [self._read(response) for response in responses]
        rows = {i: self._ids(problem, text) for i, text in enumerate(texts) if text}
        fitting = {i: ids for i, ids in rows.items() if len(ids) <= self.max_tokens}
        for i in rows.keys() - fitting.keys():
            logger.warning(
                "problem %s: a response with its prompt has %d tokens, more than %d that the reward "
                "model %s reads; it is too_large and scores 0",
                problem.id, len(rows[i]), self.max_tokens, self.name,
            )  # fmt: skip
        values = dict(zip(fitting, self.values(list(fitting.values())), strict=True))
        return [_score(values.get(i), i in rows) for i in range(len(responses))]

    @torch.no_grad()
    def values(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The scaled outputs for token ids, in their order."""
        outputs: list[float] = []
        for batch in _batches(rows, self.config.batch_tokens if self._pad is not None else 0):
            longest = max(map(len, batch))
            padded = [[*ids, *[self._pad] * (longest - len(ids))] for ids in batch]
            mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in batch]
            device = self._model.device
            logits = self._model(
                input_ids=torch.tensor(padded, device=device),
                attention_mask=torch.tensor(mask, device=device),
            ).logits
            outputs += logits[:, 0].float().tolist()
        if self.config.scale == "none":
            return outputs
        return torch.tensor(outputs, dtype=torch.float64).sigmoid().tolist()

    def _read(self, response: Response) -> str:
        text = response.full_text
        return self._plain(summary_of(text) if self.scope == "summary" else text)

    def _plain(self, text: str) -> str:
        """Without the tokenizer's special tokens: a text that spells them would end its own turn."""
        before = None
        while before != text:
            before = text
            for token in self._tokenizer.all_special_tokens:
                text = text.replace(token, "")
        return text.strip()

    def _ids(self, problem: Problem, text: str) -> list[int]:
        return self._tokenizer(self._rendered(problem, text), add_special_tokens=False)["input_ids"]

    def _rendered(self, problem: Problem, text: str) -> str:
        asked = problem.prompt
        turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else list(asked)
        turns.append({"role": "assistant", "content": text})
        return self._tokenizer.apply_chat_template(turns, tokenize=False)

    def _check_template(self) -> None:
        if not getattr(self._tokenizer, "chat_template", None):
            raise ValueError(
                f"the tokenizer of the reward model {self.name!r} has no chat template, so that it "
                "cannot be told prompt from response: choose a model with one"
            )
        text = "<think>thought</think>told" if self.scope == "whole" else "told"
        probe = Problem(id="probe", prompt="asked", answer="", source="probe")
        if text not in self._rendered(probe, text):
            raise ValueError(
                f"the chat template of the reward model {self.name!r} loses {text!r}: it cannot read "
                f"the {self.scope} response"
            )


def _load(folder: Any, name: str, dtype: torch.dtype) -> Any:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # of a missing head it says that it is drawn anew
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=dtype, output_loading_info=True
        )
    except ValueError as error:
        raise ValueError(f"{name!r} cannot be read as a sequence classifier: {error}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{name!r} is no reward model: it has no weights {', '.join(missing[:3])}; choose a "
            "sequence classifier with one output"
        )
    if model.config.num_labels != 1:
        raise ValueError(
            f"{name!r} is no reward model: it has {model.config.num_labels} outputs instead of one"
        )
    model.config.get_text_config().use_cache = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.eval().requires_grad_(False).to(device)


def _batches(rows: Sequence[Sequence[int]], tokens: int) -> list[list[Sequence[int]]]:
    """Rows in their order, as many at once as `tokens` hold when padded; at least one."""
    batches: list[list[Sequence[int]]] = []
    for ids in rows:
        last = batches[-1] if batches else []
        longest = max([len(ids), *map(len, last)])
        if last and longest * (len(last) + 1) <= tokens:
            last.append(ids)
        else:
            batches.append([ids])
    return batches


def _score(value: float | None, has_text: bool) -> Score:
    if value is None:
        return Score(value=0.0, verdict=Verdict.TOO_LARGE if has_text else Verdict.NO_ANSWER)
    return preferred(value)
