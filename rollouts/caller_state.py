"""What vLLM changes in a process and its caller must find as it was: random state and default dtype."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from rollouts.exchange import EngineError


@contextmanager
def caller_state() -> Iterator[None]:
    """Keep the caller's random state and default dtype through a call into vLLM.

    vLLM seeds Python's and NumPy's generators as well when it starts.
    """
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        torch.set_rng_state(state)
        torch.set_default_dtype(dtype)


@contextmanager
def engine_call(fault: str) -> Iterator[None]:
    """The same, and whatever the engine raises comes as an EngineError that says what it means."""
    with caller_state():
        try:
            yield
        except Exception as error:
            raise EngineError(f"{fault}: {type(error).__name__}: {error}") from error
