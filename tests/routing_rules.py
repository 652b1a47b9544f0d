"""Rewards at the top level of a module, so that a scoring process can load them."""

import time

from rewards.problem import Problem, Response, Score, Verdict


def accuracy(problem: Problem, response: Response) -> Score:
    right = "8" in response.text
    verdict = Verdict.CORRECT if right else Verdict.WRONG
    return Score(value=float(right), verdict=verdict, parts={"accuracy": float(right)})


def form(problem: Problem, response: Response) -> float:
    return float(response.text.startswith("<ok>"))


def slow_accuracy(problem: Problem, response: Response) -> Score:
    time.sleep(0.4)
    return accuracy(problem, response)
