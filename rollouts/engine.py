"""vLLM in this process: sample, publish weights, prove them. The only file that imports vllm.

Leaves out a server and processes of its own; `rollouts/process.py` has what is set before Python.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import torch._dynamo

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")

from vllm import LLM, SamplingParams, __version__
from vllm.config import ModelConfig
from vllm.distributed.weight_transfer import WeightTransferEngineFactory, nccl_engine
from vllm.inputs import TokensPrompt
from vllm.lora.request import LoRARequest
from vllm.model_executor.models import ModelRegistry, supports_lora
from vllm.sampling_params import RequestOutputKind
from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher

from rollouts.adapters import AdapterShape, AdapterSlot, prove_adapter, use_one_adapter
from rollouts.caller_state import caller_state, engine_call
from rollouts.cures import cures_for
from rollouts.device_memory import device_settings
from rollouts.exchange import EngineError, check_fits, completion_of, sampling_fields
from rollouts.proof import Proof, WeightProofError, prove
from rollouts.rollout import Completion, Request
from rollouts.sampler import EngineConfig

VLLM_NCCL, WEIGHT_TRANSFERS = nccl_engine, WeightTransferEngineFactory
"""vLLM's transfer of weights between processes, for rollouts/receiver.py, transfer.py and gloo.py."""


class Engine:
    """One vLLM engine behind the `Sampler` protocol, with the version of its weights.

    With an adapter shape it keeps the base that it loaded, and what is published is an adapter.
    Processes that share one (`tensor_parallel`) call the same methods with the same arguments.
    Random state and default dtype are the caller's again after every call.
    """

    def __init__(
        self,
        model: Path,
        config: EngineConfig,
        *,
        max_tokens: int,
        num_requests: int,
        adapter: AdapterShape | None = None,
        transfer: str = "",
    ):
        """Load `model`, a checkpoint folder.

        Args:
            max_tokens: Longest sequence, prompt and completion together.
            num_requests: Most requests that will be given to one `sample`.
            adapter: What will be published, or None for whole weights.
            transfer: vLLM's way of taking weights from another process (rollouts/receiver.py).
        """
        self.config = config
        self.max_tokens = max_tokens
        self.version = -1  # Nothing published yet.
        self._asleep: set[str] = set()
        self.unfinished: dict[str, Request] = {}
        self._num_proofs = 0
        if not (config.compile or torch.cuda.is_available()):
            torch._dynamo.config.disable = True  # vLLM's small kernels too; compiling wants g++.
        concurrent = min(config.max_concurrent, num_requests)
        settings = device_settings(model, config, max_tokens, concurrent)
        self._cures = cures_for(__version__, model, config)
        self.kv_pool_bytes = settings.get("kv_cache_memory_bytes", 0)
        with caller_state(), self._cures.launching(ExecutorWithExternalLauncher):
            self._llm = LLM(
                str(model),
                dtype=config.dtype,
                enforce_eager=not config.compile,
                max_model_len=max_tokens,
                max_num_seqs=concurrent,
                logprobs_mode="processed_logprobs",
                seed=0,
                disable_log_stats=True,
                **settings,
                **self._cures.settings,
                **(adapter.settings if adapter else {}),
                **({"weight_transfer_config": {"backend": transfer}} if transfer else {}),
            )
            if fault := self._llm.apply_model(self._cures.start)[0]:
                raise EngineError(f"vLLM {__version__} cannot compute this model: {fault}")
            if adapter and not torch.cuda.is_available():
                self._llm.apply_model(use_one_adapter)
        self._core = self._llm.llm_engine
        self._slot = AdapterSlot(self._core, LoRARequest, adapter) if adapter else None

    @property
    def dtype(self) -> str:
        """What it computes in, as a torch dtype's name."""
        return str(self._core.model_config.dtype).removeprefix("torch.")

    @property
    def vocab_size(self) -> int:
        """Ids it can draw."""
        return self._core.model_config.get_vocab_size()

    @cached_property
    def eos_token_ids(self) -> frozenset[int]:
        """The ids that end a completion; trainer, masks and finish reason use the same set."""
        params = SamplingParams()
        fields = self._core.model_config.try_get_generation_config()
        params.update_from_generation_config(fields, self.tokenizer.eos_token_id)
        return frozenset(params.all_stop_token_ids)

    @property
    def tokenizer(self) -> Any:
        """The engine's own, with its chat template."""
        return self._llm.get_tokenizer()

    def render(self, messages: list[dict[str, str]], **kwargs: Any) -> list[int]:
        """Ids of a conversation under the engine's own tokenizer and chat template."""
        return self.tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=False, **kwargs
        )

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield one completion a request as they finish; whatever is left is aborted on exit.

        Raises ValueError for a request that does not fit into the engine's `max_tokens`.
        """
        self._assert_idle()
        try:
            self.submit(requests)
            while self.unfinished:
                # All of a step before the first is yielded: a publish may come in between.
                yield from self.advance()
        finally:
            self.abort(list(self.unfinished))

    def submit(self, requests: Sequence[Request]) -> None:
        """Take more to sample beside what is unfinished; `advance` gives it back.

        Raises ValueError for a request that does not fit into the engine's `max_tokens`.
        """
        for request in requests:
            if request.id in self.unfinished:
                raise AssertionError(f"request ids must be unique: {request.id}")
            self._add(request)
            self.unfinished[request.id] = request

    def advance(self, patience_s: float = math.inf) -> list[Completion]:
        """Step until something has finished, or for so many seconds; gives what has."""
        tokenizer, ends = self.tokenizer, self.eos_token_ids
        return [
            completion_of(output, self.unfinished.pop(output.request_id), tokenizer, ends)
            for output in self._finished(patience_s)
        ]

    def abort(self, ids: Sequence[str]) -> None:
        """Forget these of what is unfinished."""
        self._core.abort_request([i for i in ids if self.unfinished.pop(i, None)])

    def publish(
        self,
        weights: Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]],
        version: int,
        *,
        in_flight: bool = False,
    ) -> Proof:
        """Replace the weights, drop the prefix cache, and prove what the engine now computes with.

        Args:
            weights: Tensors as a saved checkpoint names and shapes them, plus `lm_head.weight`
                where the head is tied. Read in order, layer by layer, and by the proof again: a
                mapping may make each on access. Pairs are kept until it is done. With LoRA the
                adapter, as `LAYER.lora_A.weight` and `LAYER.lora_B.weight`, its factor in B.
            version: Stamped on every token from now on.
            in_flight: What is unfinished goes on with the new weights; else there must be nothing.

        Raises WeightProofError, or EngineError where the engine refuses the weights; it must not
        be sampled from after either.
        """
        if not in_flight:
            self._assert_idle()
        if self._slot and not self._slot.base_is_proved:
            raise AssertionError("an adapter says nothing on an unknown base: prove_base first")
        published = weights if isinstance(weights, Mapping) else dict(weights)
        self._load(published, version)
        self.version = version
        return self.prove(published)

    def prove(self, published: Mapping[str, torch.Tensor], *, whole: bool = False) -> Proof:
        """Compare the engine's weights with `published`: all of them the first time or if `whole`.

        Else the next of `proof_parts` parts, counted by proofs, since versions may skip numbers.
        An adapter is small and always compared as a whole.
        """
        held = self._llm.get_weight_version()
        if held != str(self.version):
            raise WeightProofError(f"the engine holds version {held}, published was {self.version}")
        num_parts = 1 if whole or not self._num_proofs else self.config.proof_parts

        def compare(model: torch.nn.Module) -> tuple[int, int]:
            if self._slot:
                return prove_adapter(model, published, self._slot.request.lora_int_id)
            return prove(model, published, part=self._num_proofs, num_parts=num_parts)

        proof = self._proof(compare)
        self._num_proofs += 1
        return proof

    def prove_base(self, weights: Mapping[str, torch.Tensor]) -> Proof:
        """Compare the base under an adapter with the trainer's, whole; before the first publish."""
        proof = self._proof(lambda model: prove(model, weights))
        self._slot.base_is_proved = True
        return proof

    def reset_prefix_cache(self) -> None:
        """Forget every computed prompt."""
        self._llm.reset_prefix_cache()

    def sleep(self) -> None:
        """Give the GPU's memory to the trainer; nothing to do on CPU."""
        if torch.cuda.is_available() and not self._asleep:
            self._llm.sleep(level=1)
            self._asleep = {"weights", "kv_cache"}

    def wake(self, *parts: Literal["weights", "kv_cache"]) -> None:
        """Take back memory for `parts`, staged: weights, publish, then kv_cache. Nothing to do on CPU."""
        if tags := [part for part in parts if part in self._asleep]:
            torch.cuda.empty_cache()  # what the trainer freed, but its allocator still holds
            self._llm.wake_up(tags=tags)
            self._asleep.difference_update(tags)

    def _proof(self, compare: Callable[[torch.nn.Module], tuple[int, int]]) -> Proof:
        with caller_state():
            num_checked, num_total = self._llm.apply_model(compare)[0]
        return Proof(num_checked=num_checked, num_total=num_total, version=self.version)

    def _load(self, published: Mapping[str, torch.Tensor], version: int) -> None:
        with self._taking(version):
            if self._slot:
                self._slot.load(published, version)
                return
            with self._cures.reload(self._llm.apply_model):
                iterator = {"weights_iterator": iter(published.items())}
                self._llm.collective_rpc("reload_weights", kwargs=iterator)

    @contextmanager
    def _taking(self, version: int) -> Iterator[None]:
        """Around the loading of a version: after it, nothing is left of the one before."""
        with engine_call(f"the engine refused version {version}"):
            yield
            self._llm.reset_prefix_cache()
            self._llm.update_weight_version(str(version))

    def _assert_idle(self) -> None:
        if self._core.has_unfinished_requests():
            raise AssertionError("still being sampled: exhaust or close that iterator")

    def _add(self, request: Request) -> None:
        if request.min_version > self.version:
            raise AssertionError(f"{request.id} needs a newer version than {self.version}")
        check_fits(request, self.max_tokens)
        kind = RequestOutputKind.FINAL_ONLY
        params = SamplingParams(**sampling_fields(request), output_kind=kind)
        # Weights may change while others are unfinished: no prompt is shared across versions.
        ids, salt = list(request.token_ids), str(self.version)
        prompt = TokensPrompt(prompt_token_ids=ids, cache_salt=salt)
        with caller_state():
            adapter = self._slot.request if self._slot else None
            self._core.add_request(request.id, prompt, params, lora_request=adapter)

    def _finished(self, patience_s: float) -> list[Any]:
        """Step until something has finished; the caller sees its own random state only here."""
        end = time.monotonic() + patience_s
        with engine_call("the engine died"):
            while True:
                done = [output for output in self._core.step() if output.finished]
                if done or time.monotonic() >= end:
                    return done


def adapter_fault(model: Path, dtype: str) -> str | None:
    """Why this engine cannot apply adapters to a model, in words; None if it can."""
    if torch.cuda.is_available() and dtype == "float32":
        return "vLLM's LoRA kernels on a GPU know 16 bits only: set engine.dtype and policy.dtype to bfloat16"
    with caller_state():
        config = ModelConfig(model=str(model))
        kind, _ = ModelRegistry.resolve_model_cls(config.architectures, config)
    if supports_lora(kind):
        return None
    return f"vLLM cannot apply adapters to {config.architectures[0]}: train its full weights"
