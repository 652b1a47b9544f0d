"""The math reward beside math-verify 0.9: accuracy on labelled answers, pairs a second.

math-verify is given each reference as a formula, the response as it is, its own defaults, and
the configuration for choice letters where the reference is one. Both parse anew for every pair.
"""

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from rewards.answers import stated_answer
from rewards.mathematics import math_reward
from rewards.problem import Problem, Response

DATA = Path(__file__).parent / "data"
LABELS = DATA / "math_answers.jsonl"
BLIND = DATA / "math_answers_blind.jsonl"
"""Written and labelled by someone who had not seen the grader, nor its labels above."""
QUESTIONS = ("problem", "question_concat", "question")
"""Columns of a data set that hold the question, the first there is."""
NUM_PAIRS = 400
ROUNDS = 3
"""Timings of each grader over the same pairs; the fastest counts."""

Pair = tuple[str, str]  # reference, response
Grader = Callable[[dict[str, Any]], bool]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def blind_rows(data: Path | None) -> list[dict[str, Any]]:
    """The rows of `BLIND`, those of a data set with their problem: such texts are not ours to give.

    Their source is a file and a row, such as "gsm8k/test/0"; without `data` they are left out.
    """
    rows = read_rows(BLIND)
    if data is None:
        own = [row for row in rows if "problem" in row]
        print(f"{len(rows) - len(own)} labelled rows need the data sets and are left out")
        return own
    sources: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if "source" in row:
            name, _, number = row["source"].rpartition("/")
            if name not in sources:
                sources[name] = read_rows(data / f"{name}.jsonl")
            row["problem"] = question(sources[name][int(number)])
    return rows


def question(row: dict[str, Any]) -> str:
    """The text of a data set's problem."""
    if "body" in row:
        return f"{row['body']} {row['question']}"
    return next(row[name] for name in QUESTIONS if name in row)


def measure(data: Path | None, labels: Path | None = None) -> dict[str, float | None]:
    """Print the confusion tables, the mistakes and the mix; return the figures.

    With `labels`, another file of labelled rows takes the place of both of ours.
    """
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    if labels is not None:
        files = {labels.name: [renamed(row) for row in read_rows(labels)]}
    else:
        files = {LABELS.name: read_rows(LABELS), BLIND.name: blind_rows(data)}
    rows = [row for each in files.values() for row in each]
    ours = {name: [graded(row) for row in each] for name, each in files.items()}
    theirs = {name: [graded_by_math_verify(row) for row in each] for name, each in files.items()}
    for name, each in files.items():
        print(f"{name}: {len(each)} rows, {sum('source' in row for row in each)} of data sets")
        print_table(each, ours[name], theirs[name])
        for row, said in zip(each, ours[name], strict=True):
            if said != row["right"]:
                shown = {key: value for key, value in row.items() if key != "problem"}
                print(f"ours says {said}: {json.dumps(shown)}")
    figures: dict[str, float | None] = {
        **rates("math", rows, list(chain(*ours.values()))),
        **rates("math_verify", rows, list(chain(*theirs.values()))),
        "math_speedup": None,
        "math500_speedup": None,
    }
    if data is not None:
        figures["math_speedup"] = speedup("GSM8K", gsm8k_pairs(data))
        figures["math500_speedup"] = speedup("MATH-500", math500_pairs(data))
    return figures


def renamed(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a foreign file: `answer` for our `reference`, `correct` or `label` for `right`."""
    right = next(row[name] for name in ("right", "correct", "label") if name in row)
    reference = row.get("reference", row.get("answer"))
    return {"kind": "all", **row, "reference": str(reference), "right": bool(right)}


def graded(row: dict[str, Any]) -> bool:
    """What our reward says of a labelled row."""
    problem = Problem(
        id="label", prompt=row.get("problem", ""), answer=row["reference"], source="labels"
    )
    return math_reward(problem, Response(text=row["response"])).value == 1.0


def graded_by_math_verify(row: dict[str, Any]) -> bool:
    """What math-verify says of it."""
    return math_verify_says(row["reference"], row["response"])


def math_verify_says(reference: str, response: str) -> bool:
    """math-verify's verdict, with its own time limits."""
    from math_verify import (
        ExprExtractionConfig,
        LatexExtractionConfig,
        StringExtractionConfig,
        parse,
        verify,
    )

    configs: tuple[Any, ...] = (LatexExtractionConfig(), ExprExtractionConfig())
    if re.fullmatch(r"(?:\\text\{)?\(?[A-D]\)?\}?", reference):
        configs = (StringExtractionConfig(), *configs)
    gold = parse(f"${reference.strip('$')}$", extraction_config=configs)
    return verify(gold, parse(response, extraction_config=configs))


def rates(name: str, rows: list[dict[str, Any]], said: list[bool]) -> dict[str, float]:
    """Accuracy, missed right answers over right ones, accepted wrong ones over wrong ones."""
    pairs = Counter((row["right"], answer) for row, answer in zip(rows, said, strict=True))
    right, wrong = pairs[True, True] + pairs[True, False], pairs[False, True] + pairs[False, False]
    return {
        f"{name}_accuracy": (pairs[True, True] + pairs[False, False]) / len(rows),
        f"{name}_false_negative_frac": pairs[True, False] / right,
        f"{name}_false_positive_frac": pairs[False, True] / wrong,
    }


def print_table(rows: list[dict[str, Any]], ours: list[bool], theirs: list[bool]) -> None:
    """By kind: rows, and the false negatives and false positives of both."""
    print(
        f"{'kind':15} {'right':>5} {'wrong':>5} {'ours FN':>8} {'FP':>3} {'math-verify FN':>15} {'FP':>3}"
    )
    kinds = sorted({row["kind"] for row in rows})
    for kind in [*(kind for kind in kinds if kind != "all"), "all"]:
        here = [i for i, row in enumerate(rows) if kind in (row["kind"], "all")]
        right = [i for i in here if rows[i]["right"]]
        wrong = [i for i in here if not rows[i]["right"]]
        print(
            f"{kind:15} {len(right):5} {len(wrong):5} "
            f"{sum(not ours[i] for i in right):8} {sum(ours[i] for i in wrong):3} "
            f"{sum(not theirs[i] for i in right):15} {sum(theirs[i] for i in wrong):3}"
        )


def speedup(name: str, pairs: list[Pair]) -> float:
    """Our pairs a second over math-verify's on the same pairs, after a warm-up of each."""
    print(f"{name}: {len(pairs)} pairs, half right in another spelling, half wrong; the first 12:")
    for reference, response in pairs[:12]:
        print(f"  {reference!r} <- {response!r}")
    ours = seconds(lambda pair: graded({"reference": pair[0], "response": pair[1]}), pairs)
    theirs = seconds(lambda pair: math_verify_says(*pair), pairs)
    print(f"  ours {len(pairs) / ours:.0f}, math-verify {len(pairs) / theirs:.0f} pairs a second")
    return theirs / ours


def seconds(grade: Callable[[Pair], bool], pairs: list[Pair]) -> float:
    """The fastest of a few passes over all pairs."""
    for pair in pairs[:20]:
        grade(pair)
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for pair in pairs:
            grade(pair)
        times.append(time.perf_counter() - start)
    return min(times)


def gsm8k_pairs(data: Path) -> list[Pair]:
    """References of GSM8K's test split with responses in four styles; every second is wrong."""
    lines = (data / "gsm8k" / "test.jsonl").read_text().splitlines()
    references = [stated_answer(json.loads(line)["answer"]) or "" for line in lines[:NUM_PAIRS]]
    pairs = []
    for i, reference in enumerate(references):
        value = int(reference.replace(",", ""))
        if i % 2:
            answers = (f"{value + 1}", f"{value * 10}", f"{value}.5", f"{-value - 1}")
        else:
            answers = (
                f"{value}.00",
                f"\\${value:,}",
                f"{2 * value}/2",
                f"{value} \\text{{ units}}",
            )
        pairs.append(
            (reference, f"Adding it all up gives the total. \\boxed{{{answers[i // 2 % 4]}}}")
        )
    return pairs


def math500_pairs(data: Path) -> list[Pair]:
    """References of MATH-500: every second in another spelling, else that of another problem."""
    lines = (data / "math500" / "test.jsonl").read_text().splitlines()
    references = [json.loads(line)["answer"] for line in lines[:NUM_PAIRS]]
    pairs = []
    for i, reference in enumerate(references):
        answer = respelled(reference) if i % 2 == 0 else wrong_answer(references, i)
        pairs.append((reference, f"Putting this together, the answer is $\\boxed{{{answer}}}$."))
    return pairs


def respelled(answer: str) -> str:
    r"""The same in other LaTeX: \dfrac, \left, spaces; a bare integer as a sum."""
    if re.fullmatch(r"-?[0-9]+", answer):
        return f"{int(answer) - 1} + 1"
    answer = answer.replace("\\frac", "\\dfrac").replace("pmatrix", "bmatrix")
    answer = re.sub(r"(?<!\\left)\(", r"\\left(", answer) if "]" not in answer else answer
    answer = re.sub(r"(?<!\\right)\)", r"\\right)", answer) if "\\left(" in answer else answer
    return f"\\, {answer} \\,"


def wrong_answer(references: list[str], i: int) -> str:
    """The nearest later reference of about the same length that has other characters."""
    later = [*references[i + 1 :], *references[: i + 1]]
    others = [other for other in later if other != references[i]]
    return min(others[:40], key=lambda other: abs(len(other) - len(references[i])))
