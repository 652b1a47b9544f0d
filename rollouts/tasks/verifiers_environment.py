"""An environment of the verifiers package, loaded, and why one cannot be trained on.

Leaves out its rows and its scores (rollouts/tasks/verifiers.py).
"""

import contextlib
import inspect
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

INSTALL = "pip install 'groupwise[verifiers]'"
OWN_STEPS = ("env_response", "get_prompt_messages", "render_completion", "rollout")
"""Methods that make a turn; an environment with its own is more than a prompt and a rubric."""
JUDGES = ("client", "judge", "judge_client", "judge_model")
"""What a reward function asks for when it needs a model to judge with."""


def loaded(name: str, arguments: dict[str, Any]) -> Any:
    """The environment that `verifiers.load_environment` gives.

    Raises:
        ValueError: The package or the environment is not there or fails to load, or training
            needs more than one prompt, one answer and functions that score it.
    """
    try:
        import verifiers  # seconds: only where it is needed
        from datasets import disable_progress_bars

        single, judge = verifiers.SingleTurnEnv, verifiers.JudgeRubric
    except (ImportError, AttributeError) as error:
        raise ValueError(f"verifiers cannot be used ({error}): {INSTALL}") from error
    logging.getLogger("verifiers").setLevel(logging.ERROR)
    disable_progress_bars()
    with _signals_kept():
        try:
            environment = verifiers.load_environment(name, **arguments)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"the environment {name!r} cannot be loaded: {reason}") from error
    said = _refusal(environment, single, judge)
    if said:
        raise ValueError(f"no training on the environment {name!r}: {said}")
    return environment


def _refusal(environment: Any, single: type, judge: type) -> str:
    """Why this version cannot train on an environment, "" if it can."""
    kind = type(environment)
    if not isinstance(environment, single):
        return f"it is a {kind.__name__}, and only SingleTurnEnv has one turn without tools"
    if kind.__name__ == "ReasoningGymEnv":
        return "its scorers evaluate the model's text; use task:reasoning-gym"
    if environment.oai_tools:
        return "it brings tools"
    own = [name for name in OWN_STEPS if getattr(kind, name) is not getattr(single, name)]
    if own:
        return f"{kind.__name__} has its own {', '.join(own)}"
    for rubric in _rubrics(environment.rubric):
        if isinstance(rubric, judge):
            return f"its rubric {type(rubric).__name__} asks a model to judge"
        for function in rubric.funcs:
            name = getattr(function, "__name__", repr(function))
            asked = [p for p in inspect.signature(function).parameters if p in JUDGES]
            if asked:
                return f"its reward function {name} asks for {', '.join(asked)}, a model to judge"
            if rubric._is_group_func(function):
                return f"its reward function {name} scores whole groups"
    return ""


def _rubrics(rubric: Any) -> Iterator[Any]:
    """A rubric, or all those in a group of them."""
    inner = getattr(rubric, "rubrics", None)
    if inner is None:
        yield rubric
    for one in inner or ():
        yield from _rubrics(one)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """The package takes Ctrl-C and SIGTERM for itself, which would end a run without its save."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    kept = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in zip(numbers, kept, strict=True):
                if handler is not None:  # None: not set from Python, so not ours to set back
                    signal.signal(number, handler)
