"""Rewards at the top level of a module, so that a scoring process can load them."""

import os
import time
from dataclasses import replace

from rewards.problem import Problem, Response, Score, Verdict


def accuracy(problem: Problem, response: Response) -> Score:
    right = "8" in response.text
    verdict = Verdict.CORRECT if right else Verdict.WRONG
    return Score(value=float(right), verdict=verdict, parts={"accuracy": float(right)})


def form(problem: Problem, response: Response) -> float:
    return float(response.text.startswith("<ok>"))


def slow_accuracy(problem: Problem, response: Response) -> Score:
    """Slow enough that nobody scores two while another process waits; tells whose it is."""
    time.sleep(0.4)
    score = accuracy(problem, response)
    return replace(score, parts={**score.parts, "process": float(os.getpid())})
