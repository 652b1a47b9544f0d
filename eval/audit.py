"""What a dump of completions shows: two graders compared, and how the texts and groups look.

    audit = Audit(right_above=0.0, num_examples=5)
    for judged in ...:
        audit.add(judged)
    audit.to_json()

One pass, in memory that grows with the rows of one table (a few bytes each) and the number of
steps, not with the dump. Leaves out reading (recipes/dumps.py), grading (rewards) and showing
(eval/audit_report.py).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from eval.group_signal import Groups
from eval.judged import Judged, Sample, prompt_text
from eval.tallies import Examples, Gaps, Rate, Spread
from eval.text_faults import (
    CUT_RULE,
    LOOP_RULE,
    NGRAM,
    REPETITIVE,
    ends_in_loop,
    looks_cut,
    repetition,
)
from eval.wrong_grades import MEANINGS, accepted_kind, refused_kind
from rewards.answers import stated_answer
from rewards.problem import Problem, Verdict

SHOWN_CHARS = 600
"""Of a response's end in an example; of a prompt's end half as many."""
OUTCOMES = {
    (True, True): "both_right",
    (False, False): "both_wrong",
    (True, False): "accepted",
    (False, True): "refused",
}
"""(theirs, ours) of a completion that both graded."""


@dataclass(kw_only=True)
class Step:
    """What one step of the training shows."""

    completions: int = 0
    theirs: Rate = field(default_factory=Rate)
    ours: Rate = field(default_factory=Rate)
    truncated: Rate = field(default_factory=Rate)
    looks_cut: Rate = field(default_factory=Rate)
    loop: Rate = field(default_factory=Rate)
    characters: Spread = field(default_factory=Spread)

    def to_json(self) -> dict[str, Any]:
        """Fractions and the mean length."""
        rates = ("theirs", "ours", "truncated", "looks_cut", "loop")
        found = {name: getattr(self, name) for name in rates}
        fracs = {
            f"{name}_frac": r.count / r.known if r.known else None for name, r in found.items()
        }
        mean = self.characters.total / max(self.characters.count, 1)
        return {"completions": self.completions, **fracs, "mean_characters": mean}


@dataclass(kw_only=True)
class Audit:
    """Takes completions one by one, table after table.

    Attributes:
        right_above: Their grade is right above it.
        num_examples: Kept of each kind of disagreement.
        is_math: Whether disagreements have the kinds of mathematics.
    """

    right_above: float
    num_examples: int
    is_math: bool = True

    completions: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    grade_fields: Counter[str] = field(default_factory=Counter)
    answer_fields: Counter[str] = field(default_factory=Counter)
    theirs: Rate = field(default_factory=Rate)
    ours: Rate = field(default_factory=Rate)
    kinds: dict[tuple[str, str], tuple[Rate, Examples]] = field(default_factory=dict)
    parts: dict[str, Spread] = field(default_factory=dict)
    rewards: dict[str, Spread] = field(default_factory=dict)
    ungraded: Counter[str] = field(default_factory=Counter)
    faults: dict[str, Rate] = field(default_factory=dict)
    repeated: Spread = field(default_factory=Spread)
    lengths: dict[str, Spread] = field(default_factory=dict)
    gaps: Gaps = field(default_factory=Gaps)
    steps: dict[int, Step] = field(default_factory=dict)
    groups: Groups = field(default_factory=Groups)
    _table: str = ""

    def add(self, judged: Judged) -> None:
        """Count one completion; those of a table come together."""
        sample = judged.sample
        if sample.table != self._table:
            self.groups.close_table()
            self._table = sample.table
        self.completions += 1
        if sample.grade is not None:
            self.grade_fields[sample.grade_field] += 1
        if sample.answer is not None:
            self.answer_fields[sample.answer_field] += 1
        theirs, ours = judged.theirs(self.right_above), judged.ours
        self.theirs.add(theirs)
        self.ours.add(ours)
        self._grades(judged, theirs, ours)
        step = self.steps.setdefault(sample.step, Step())
        step.completions += 1
        step.theirs.add(theirs)
        step.ours.add(ours)
        self._text(sample, step, theirs, ours)
        self.groups.add(judged)
        if len(sample.sampler_logprobs) == len(sample.trainer_logprobs):
            self.gaps.add(sample.sampler_logprobs, sample.trainer_logprobs)

    def to_json(self) -> dict[str, Any]:
        """Everything that was found; call it at the end."""
        self.groups.close_table()
        both = sum(self.outcomes.values())
        agreed = self.outcomes["both_right"] + self.outcomes["both_wrong"]
        return {
            "completions": self.completions,
            "right_above": self.right_above,
            "grade_fields": dict(self.grade_fields),
            "answer_fields": dict(self.answer_fields),
            "right": {"theirs": self.theirs.to_json(), "ours": self.ours.to_json()},
            "agreement": {name: self.outcomes[name] for name in OUTCOMES.values()}
            | {"both_graded": both, "agreed_frac": agreed / both if both else None},
            "ungraded": dict(self.ungraded),
            "verdicts": {
                str(verdict): {"count": count, "frac": count / sum(self.verdicts.values())}
                for verdict, count in self.verdicts.most_common()
            },
            "wrong_grades": {side: self._kinds_of(side) for side in ("accepted", "refused")},
            "parts": {name: spread.to_json() for name, spread in sorted(self.parts.items())},
            "rewards": {name: spread.to_json() for name, spread in self.rewards.items()},
            "texts": self._texts(),
            "lengths": {name: spread.to_json() for name, spread in self.lengths.items()},
            "groups": self.groups.to_json(),
            "mismatch": self.gaps.to_json(),
            "steps": [{"step": step} | seen.to_json() for step, seen in sorted(self.steps.items())],
        }

    def _grades(self, judged: Judged, theirs: bool | None, ours: bool | None) -> None:
        sample, score = judged.sample, judged.score
        for name, value in sample.rewards.items():
            if value is not None:
                self.rewards.setdefault(name, Spread()).add(value)
        if judged.problem is None:
            self.ungraded["no_answer_to_grade_against"] += 1
        elif score is None:
            self.ungraded["reference_not_read"] += 1
        elif ours is None:
            self.ungraded["our_grader_failed"] += 1
        if score is not None:
            self.verdicts[score.verdict] += 1
            for name, part in score.parts.items():
                self.parts.setdefault(name, Spread()).add(part)
        if theirs is None:
            self.ungraded["not_graded_by_them"] += 1
        if theirs is None or ours is None:
            return
        outcome = OUTCOMES[theirs, ours]
        self.outcomes[outcome] += 1
        if theirs != ours:
            self._disagreement(outcome, judged)

    def _disagreement(self, side: str, judged: Judged) -> None:
        sample, problem, score = judged.sample, judged.problem, judged.score
        assert problem is not None
        assert score is not None
        kind = _kind(side, judged, is_math=self.is_math)
        fresh = (Rate(), Examples(limit=self.num_examples))
        rate, examples = self.kinds.setdefault((side, kind), fresh)
        rate.add(True)
        examples.add(sample.place, _example(sample, problem, score.verdict))

    def _kinds_of(self, side: str) -> dict[str, Any]:
        found = [(kind, *held) for (at, kind), held in self.kinds.items() if at == side]
        found.sort(key=lambda item: (-item[1].count, item[0]))
        return {
            kind: {
                "count": rate.count,
                "meaning": MEANINGS.get(kind, ""),
                "examples": examples.to_json(),
            }
            for kind, rate, examples in found
        }

    def _text(self, sample: Sample, step: Step, theirs: bool | None, ours: bool | None) -> None:
        text = sample.response.full_text
        share = repetition(text)
        faults = {
            "truncated": sample.is_truncated,
            "looks_cut": looks_cut(text),
            "loop": ends_in_loop(text),
            "repetitive": share >= REPETITIVE,
            "empty": not text.strip(),
        }
        for name, found in faults.items():
            self.faults.setdefault(name, Rate()).add(found)
            for grader, right in (("theirs", theirs), ("ours", ours)):
                if found and right is not None:
                    self.faults.setdefault(f"{name}_right_by_{grader}", Rate()).add(right)
        for name in ("truncated", "looks_cut", "loop"):
            getattr(step, name).add(faults[name])
        self.repeated.add(share)
        for name, size in _sizes(sample):
            self.lengths.setdefault(name, Spread()).add(size)
            if ours is not None:
                side = "right" if ours else "wrong"
                self.lengths.setdefault(f"{name}_of_{side}", Spread()).add(size)
        step.characters.add(len(sample.response.text))

    def _texts(self) -> dict[str, Any]:
        rules = {
            "looks_cut": CUT_RULE,
            "loop": LOOP_RULE,
            "repetitive": f"at least {REPETITIVE:.0%} of its {NGRAM}-grams of words stood there before",
        }
        rates = {name: rate.to_json() for name, rate in self.faults.items()}
        return {"rules": rules, "repeated_share": self.repeated.to_json()} | rates


def _kind(side: str, judged: Judged, *, is_math: bool) -> str:
    sample, problem, score = judged.sample, judged.problem, judged.score
    if not is_math:
        return str(score.verdict)
    stated = stated_answer(problem.answer)
    reference = problem.answer if stated is None else stated
    if side == "refused":
        return refused_kind(reference, sample.response, is_truncated=sample.is_truncated)
    return accepted_kind(
        score.verdict, reference, sample.response, is_truncated=sample.is_truncated
    )


def _example(sample: Sample, problem: Problem, verdict: Verdict) -> dict[str, Any]:
    return {
        "place": sample.place,
        "step": sample.step,
        "prompt_end": prompt_text(sample.prompt)[-SHOWN_CHARS // 2 :],
        "response_end": sample.response.text[-SHOWN_CHARS:],
        "reference": problem.answer[-SHOWN_CHARS:],
        "theirs": sample.grade,
        "ours": str(verdict),
    }


def _sizes(sample: Sample) -> Iterator[tuple[str, int]]:
    yield "characters", len(sample.response.text)
    if sample.response.num_tokens:
        yield "tokens", sample.response.num_tokens
