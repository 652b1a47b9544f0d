"""Several tasks as one; each problem is scored by the task that it comes from."""

import math
from dataclasses import dataclass

from rewards.problem import Problem, Response, Score
from rollouts.sampler import Split
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.countdown import Countdown
from rollouts.tasks.dataset import Competition, Dataset, Gsm8k
from rollouts.tasks.general import General
from rollouts.tasks.instructions import Instructions
from rollouts.tasks.programs import HumanEval, Mbpp, Programs
from rollouts.tasks.reasoning_gym import ReasoningGym
from rollouts.tasks.steps import Steps
from rollouts.tasks.verifiers import Verifiers

SingleTask = (
    Arithmetic
    | Countdown
    | Steps
    | Gsm8k
    | Competition
    | Dataset
    | General
    | Instructions
    | HumanEval
    | Mbpp
    | Programs
    | ReasoningGym
    | Verifiers
)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The problems of all `tasks`.

    Example: `Mixture(tasks=(Arithmetic(), Countdown()), weights=(1.0, 3.0))`.
    """

    tasks: tuple[SingleTask, ...]
    """Their names must differ."""
    weights: tuple[float, ...]
    """Relative share of each task among the problems drawn; not applied here."""
    starts: tuple[int, ...] = ()
    """The update from which each task is drawn, at least one 0; empty draws all from the start. R1's
    last stage adds general prompts for the last 400 of 1,700 updates: `starts=(0, 1300)`."""

    def __post_init__(self) -> None:
        """Refuse what could not be drawn from or told apart."""
        if not self.tasks or len(self.weights) != len(self.tasks):
            raise ValueError(
                f"a mixture has {len(self.tasks)} tasks and {len(self.weights)} weights; give at "
                "least one task and one weight each"
            )
        if not all(0.0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"weights is {self.weights}; each must be positive and finite")
        if self.starts and (len(self.starts) != len(self.tasks) or min(self.starts) != 0):
            raise ValueError(
                f"starts is {self.starts}; give each of the {len(self.tasks)} tasks the update from "
                "which it is drawn, 0 for at least one and none below"
            )
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"the tasks are named {names}; names must differ (Dataset has `name`)")

    @property
    def name(self) -> str:
        """The mixture's; its problems keep the names of their own tasks."""
        return "mixture"

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split, task after task."""
        return [problem for task in self.tasks for problem in task.problems(split)]

    def score(self, problem: Problem, response: Response) -> Score:
        """What the problem's own task says."""
        return self.task_of(problem).score(problem, response)

    def task_of(self, problem: Problem) -> SingleTask:
        """The task named by the first part of the problem's source."""
        name = problem.source.partition("/")[0]
        for task in self.tasks:
            if task.name == name:
                return task
        names = [task.name for task in self.tasks]
        raise ValueError(f"problem {problem.id} is of task {name!r}; this mixture has {names}")


TaskConfig = SingleTask | Mixture
"""Every task that a configuration can name."""
