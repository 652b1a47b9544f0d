"""R1-Distill as settings and stages: a student learns from a teacher's samples, or by RL in the same time.

DeepSeek-R1 (Nature 645, 2025, supplement B.4.3 and F): supervised fine-tuning on samples alone beats
RL on the same student.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path

from recipes.config import RunConfig, to_yaml
from recipes.evaluation import EvaluateConfig
from recipes.pipeline import Pipeline
from recipes.rejection_config import RejectionConfig
from recipes.sections import write_sections
from recipes.stage_kinds import FINAL, KEPT, measure_stage, rejection_stage, rl_stage, sft_stage
from recipes.stages import Stages
from recipes.supervised import SftConfig
from rollouts.models import DEFAULT_MODEL, resolve_model

TAGS = "<think>\nso\n</think>\n\\boxed{8}"
"""What a student's tokenizer must give back as it is."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Both ways to a student. Models and data are filled in from the stages before."""

    teacher: str = ""
    """A checkpoint or a run folder; empty where `data.endpoint` names a server."""
    student: str = DEFAULT_MODEL
    """What is taught; its tokenizer need not be the teacher's, since samples travel as text."""
    data: RejectionConfig
    """The teacher's samples, and which of them are kept."""
    distill: SftConfig
    rl: RunConfig | None = None
    """RL on the same student, ended after the seconds that sampling and fine-tuning took."""
    measure: EvaluateConfig
    """Of student, distilled student, the one trained by RL, and a teacher that is a checkpoint."""
    num_processes: int = 1
    """Of the stages that train, as torchrun starts them."""


def check_teacher(config: DistillConfig) -> None:
    """Raise ValueError if there is none."""
    if not (config.teacher or config.data.endpoint.url):
        raise ValueError(
            "no teacher is named: give --teacher, or data.endpoint in a file for --config"
        )


def distill_pipeline(config: DistillConfig, root: Path) -> Pipeline:
    """All stages in a folder.

    Raises ValueError for a student whose tokenizer loses what it is to learn.
    """
    check_student(config.student)
    stages, count, prompts = Stages(root=root), config.num_processes, config.distill.prompts
    kept, final = stages.folder("data") / KEPT, stages.folder("distill") / FINAL
    listed = [
        rejection_stage("data", config.data, config.teacher),
        sft_stage(
            "distill",
            config.distill,
            config.student,
            {"the teacher's samples": kept},
            num_processes=count,
        ),
        measure_stage("student", config.measure, config.student, prompts, every_best_template=True),
        measure_stage("distill", config.measure, final, prompts),
    ]
    if config.teacher:
        listed.append(measure_stage("teacher", config.measure, config.teacher, prompts))
    if config.rl:
        stage = rl_stage("rl", config.rl, config.student, num_processes=count)
        listed.append(replace(stage, config=partial(_in_same_time, config, stages)))
        path = stages.folder("rl") / FINAL
        listed.append(measure_stage("rl", config.measure, path, config.rl.prompts))
    return Pipeline(
        config=write_sections(config),
        stages=stages,
        listed=tuple(listed),
        models=ROWS,
        compared=(("student", "distill"), ("student", "rl"), ("rl", "distill")),
        shown=("student", "distill", "rl"),
    )


ROWS: Mapping[str, str] = {
    "teacher": "teacher",
    "student": "student",
    "distill": "distilled",
    "rl": "RL, same time",
}


def _in_same_time(config: DistillConfig, stages: Stages) -> str:
    """The settings of RL that ends after the seconds that sampling and fine-tuning took.

    Raises ValueError if these are not done yet.
    """
    seconds = 0.0
    for name in ("data", "distill"):
        manifest = stages.manifest(name)
        if manifest is None:
            raise ValueError(
                f"stage rl takes as long as stage {name}, which is not done: run it first"
            )
        seconds += manifest["seconds"]
    return to_yaml(replace(config.rl, model=config.student, end_after=f"{ceil(seconds)}s"))


def check_student(student: str) -> None:
    """Raise ValueError if the student's tokenizer does not give R1's form back as it was."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve_model(student))
    ids = tokenizer(TAGS, add_special_tokens=False)["input_ids"]
    back = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if back != TAGS:
        raise ValueError(
            f"the student {student} cannot be taught R1's form: its tokenizer makes {back!r} of "
            f"{TAGS!r}; choose a student whose tokenizer keeps text as it is"
        )
