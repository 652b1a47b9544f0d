"""From texts that were chosen to rows: into the form that is asked for, and graded again."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from random import Random
from typing import Any

from recipes.rejection_asking import Asked
from rewards.problem import Problem, Response, Score, Verdict
from rewards.scorer import Scorer, scored_in_order
from rollouts.cold_start import to_r1_form
from rollouts.completions import Key
from rollouts.rejection import Sample, Selection, at_most, removed_by
from rollouts.tasks.dataset import hashed, key_of, text_of
from rollouts.tasks.rows import Row, field_of, read_rows

Rows = list[dict[str, Any]]

Found = tuple[Problem, str | None, dict[str, Any]]
"""A problem, a text for it (None: there is none after all), and further fields of its row."""


@dataclass(kw_only=True)
class Finishing:
    """What makes rows of texts, and counts by origin what does not become one.

    Attributes:
        removed: By origin: how many for which reason.
    """

    asked: Asked
    score: Scorer
    removed: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, origin: str) -> Counter[str]:
        """The counts of an origin."""
        return self.removed.setdefault(origin, Counter())

    def rows(self, origin: str, texts: Iterable[Found]) -> Iterator[dict[str, Any]]:
        """A row of each text; what is put into another form is graded again.

        A text that is None, or cannot be put into the form that is asked for, counts as "form", one
        that is no longer right as "regraded".
        """
        as_sampled = self.asked.config.form == "as_sampled"
        formed = texts if as_sampled else self._formed(texts, self.count(origin))
        if as_sampled or not self._is_graded(origin):
            for problem, text, more in formed:
                yield self._row(origin, problem, text, more)
            return
        waiting: deque[Found] = deque()

        def responses() -> Iterator[tuple[str, Problem, Response]]:
            for found in formed:
                waiting.append(found)
                yield origin, found[0], Response(text=found[1])

        for _, _, score in scored_in_order(self.score, responses()):
            problem, text, more = waiting.popleft()
            if score.verdict is Verdict.CORRECT:
                yield self._row(origin, problem, text, more)
            else:
                self.count(origin)["regraded"] += 1

    def _formed(self, texts: Iterable[Found], removed: Counter[str]) -> Iterator[Found]:
        language = self.asked.config.filters.language
        for problem, text, more in texts:
            formed = None if text is None else to_r1_form(text, language=language)
            if formed is None:
                removed["form"] += 1
            else:
                yield problem, formed, more

    def _is_graded(self, origin: str) -> bool:
        return origin != "file" or self.asked.config.solutions.graded

    def _row(
        self, origin: str, problem: Problem, text: str, more: dict[str, Any]
    ) -> dict[str, Any]:
        row = {
            "prompt": problem.prompt,
            "completion": text,
            "problem_id": problem.id,
            "source": problem.source,
            "origin": origin,
        }
        counted = self.asked.num_tokens(text)
        return {**row, **more, "num_tokens": more.get("num_tokens") if counted is None else counted}


def file_rows(finishing: Finishing, wanted: int | None) -> Rows:
    """Rows of the file of worked solutions, at most `wanted`, through the same filters."""
    asked = finishing.asked
    config = asked.config
    removed = finishing.count("file")
    found: dict[Key, tuple[Problem, str, str]] = {}
    selection = Selection(config=config.filters, seed=config.seed, removed=removed)
    items = _solutions(asked, removed)
    for number, (place, problem, text, score) in enumerate(_graded(finishing, items)):
        sample = Sample(
            text=text,
            verdict=score.verdict if config.solutions.graded else None,
            finish="stop",
            num_tokens=asked.num_tokens(text),
        )
        key = (problem.id, number)
        selection.add(key, sample, is_final_form=config.form == "r1")
        if number in selection.tallies[problem.id].passed:
            found[key] = problem, text, place
    kept = selection.balanced()
    keys = at_most(kept, len(found) if wanted is None else wanted, config.seed)
    removed["surplus"] += sum(map(len, kept.values())) - len(keys)
    texts = ((found[key][0], found[key][1], {"place": found[key][2]}) for key in sorted(keys))
    return list(finishing.rows("file", texts))


def _graded(
    finishing: Finishing, items: Iterator[tuple[str, Problem, str]]
) -> Iterator[tuple[str, Problem, str, Score]]:
    """(place, problem, text, score) in the file's order."""
    problems: dict[str, Problem] = {}

    def responses() -> Iterator[tuple[str, Problem, Response]]:
        for place, problem, text in items:
            problems[place] = problem
            yield place, problem, Response(text=text)

    if not finishing.asked.config.solutions.graded:
        for place, problem, text in items:
            yield place, problem, text, Score(value=1.0, verdict=Verdict.CORRECT)
        return
    for place, response, score in scored_in_order(finishing.score, responses()):
        yield place, problems.pop(place), response.text, score


def _solutions(asked: Asked, removed: Counter[str]) -> Iterator[tuple[str, Problem, str]]:
    """(place, problem, solution) of the file's rows; what belongs to no problem is counted."""
    config, task = asked.config.solutions, asked.config.task
    known = {key_of(problem.prompt): problem for problem in asked.problems}
    held_out = {key_of(p.prompt) for split in ("validation", "test") for p in task.problems(split)}
    for place, row in read_rows(config.path, "", "train"):
        question = text_of(row, config.prompt_column, place)
        key = key_of(question)
        if key in held_out:
            removed["held_out"] += 1
            continue
        problem = known.get(key) or _own_problem(asked, row, question, place)
        if problem is None:
            removed["unknown_question"] += 1
            continue
        yield place, problem, text_of(row, config.completion_column, place)


def _own_problem(asked: Asked, row: Row, question: str, place: str) -> Problem | None:
    """The problem of a question that the task does not have; None if it could not be graded."""
    config = asked.config.solutions
    if config.graded and not config.answer_column:
        return None
    answer = str(field_of(row, config.answer_column, place)) if config.answer_column else ""
    name = asked.config.task.name
    identity = f"{name}/file/{hashed(key_of(question))}"
    return Problem(id=identity, prompt=question, answer=answer, source=f"{name}/file")


def worked_rows(finishing: Finishing, wanted: int, covered: Set[str]) -> Rows:
    """So many rows by the task's own generator, through the same filters, or as many as there are.

    First of problems that were asked and have no row, then of those that were not asked, then of
    the rest; each once.
    """
    asked = finishing.asked
    is_asked = asked.trial.by_id
    problems = list(asked.problems)
    Random(f"worked/{asked.config.seed}").shuffle(problems)
    problems.sort(key=lambda p: 2 if p.id in covered else 0 if p.id in is_asked else 1)
    removed = finishing.count("worked")
    rows: Rows = []
    known: dict[str, Problem] = {}

    def made() -> Iterator[tuple[str, Problem, Response]]:
        for problem in problems:
            if (text := asked.worked(problem)) is not None:
                known[problem.id] = problem
                yield problem.id, problem, Response(text=text)

    def good() -> Iterator[Found]:
        for name, response, score in scored_in_order(finishing.score, made()):
            sample = Sample(
                text=response.text,
                verdict=score.verdict,
                finish="stop",
                num_tokens=asked.num_tokens(response.text),
            )
            is_final_form = asked.config.form == "r1"
            if reason := removed_by(sample, asked.config.filters, is_final_form=is_final_form):
                removed[reason] += 1
            else:
                yield known[name], response.text, {}

    for row in finishing.rows("worked", good()):
        rows.append(row)
        if len(rows) == wanted:
            break
    return rows


Text = Callable[[Key], tuple[str | None, int | None]]
"""A sample's text, None if there is none after all, and its tokens, None if they are not known."""


def sample_rows(
    finishing: Finishing, selection: Selection, keys: Iterable[Key], text: Text
) -> Iterator[dict[str, Any]]:
    """A row of each sample that was chosen, in the order of the problems."""
    by_id = finishing.asked.trial.by_id
    place = {problem: number for number, problem in enumerate(by_id)}
    ordered = sorted(keys, key=lambda key: (place[key[0]], key[1]))

    def texts() -> Iterator[Found]:
        for problem, sample in ordered:
            found, num_tokens = text((problem, sample))
            pass_rate = selection.tallies[problem].pass_rate
            more = {"sample": sample, "pass_rate": pass_rate, "num_tokens": num_tokens}
            yield by_id[problem], found, more

    return finishing.rows("samples", texts())
