"""DeepSeek-R1's pipeline as settings; `recipes.r1_stages` has the stages that they come to."""

from dataclasses import dataclass

from recipes.config import RunConfig
from recipes.evaluation import EvaluateConfig
from recipes.rejection_config import RejectionConfig
from recipes.supervised import SftConfig
from rollouts.models import DEFAULT_MODEL


@dataclass(frozen=True, kw_only=True)
class R1Config:
    """Every stage of the pipeline. A stage's model and data are filled in from those before it.

    Nature 645 (2025), Methods: R1-Zero, cold start, Dev1, RL to Dev2, rejection sampling, Dev3 again
    from the base, RL over all scenarios to R1; then a student learns from R1's samples.
    """

    model: str = DEFAULT_MODEL
    """The base, from which R1-Zero, Dev1, Dev3 and the student start."""
    r1_zero: RunConfig
    """RL straight from the base under its own template."""
    cold_start: RejectionConfig
    """R1-Zero's correct and readable samples in R1's form, and worked solutions where too few."""
    dev1: SftConfig
    dev2: RunConfig
    """Reasoning RL from Dev1: accuracy, format and language."""
    rejection: RejectionConfig
    """Of Dev2, on reasoning problems."""
    general: RejectionConfig | None = None
    """General prompts with answers, beside Dev2's samples in Dev3's data."""
    dev3: SftConfig
    r1: RunConfig
    """RL over all scenarios, from Dev3."""
    distill_data: RejectionConfig
    """Of R1, for the student."""
    distill: SftConfig
    measure: EvaluateConfig
    """Of every model, under the template that it was trained with."""
    instructions: EvaluateConfig | None = None
    """Of Dev3 and R1 on general prompts."""
    control: bool = True
    """Also RL from Dev1 by accuracy alone, as R1-Zero's, with Dev2's settings else: what worked
    solutions brought is not to be taken for what a stage brought."""
    cut_off: bool = True
    """Also measure Dev2 with its thinking cut off at once."""
    answer_start: str = ""
    """What a summary begins with, such as "The answer is". Where it is given, Dev2 is also measured
    going on from there, without thinking: one that is only cut off may think in its summary."""
    num_processes: int = 1
    """Of every stage that trains, as torchrun starts them."""
