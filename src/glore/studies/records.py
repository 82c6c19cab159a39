"""What the studies read of a run: all records that its tables are made of, an index over them, and
a stage that only reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from glore.config import RunConfig
from glore.evaluation import EvaluationInputs
from glore.evaluation.inputs import Index
from glore.pipeline import Stage, StageContext
from glore.records import StepLabels
from glore.stages.evaluating import EVALUATED, evaluated, evaluation_options, gathered
from glore.studies.measured import Measured

__all__ = ["BOOTSTRAP", "READS", "USES", "first_false", "has_sft", "reading", "run_records"]

READS = (*EVALUATED, "prompt")
USES = ("name",)
"""Settings that `run_records` reads."""
BOOTSTRAP = ("evaluation.bootstrap_samples",)


def has_sft(config: RunConfig) -> bool:
    """Whether the run has an SFT student."""
    return config.student.bootstrap == "sft"


def run_records(ctx: StageContext) -> tuple[EvaluationInputs, Index]:
    """All records of the run's test questions and training drafts, and look-ups in them. The stage
    has the inputs `evaluated(has_sft(config))`, reads `READS` and uses `USES`.
    """
    inputs = gathered(ctx.read, ctx.config)
    return inputs, Index(inputs, evaluation_options(ctx.config), keeps=True)


def reading(
    name: str,
    config: RunConfig,
    measure: Callable[[StageContext, EvaluationInputs, Index], Sequence[Measured]],
    *,
    inputs: tuple[str, ...] = (),
    reads: tuple[str, ...] = (),
    own: dict[str, object] | None = None,
) -> Stage:
    """A stage that measures on the run's records and on those of `inputs`, and opens no model. It
    writes `Measured`.
    """

    def run(ctx: StageContext) -> None:
        records, index = run_records(ctx)
        found = measure(ctx, records, index)
        ctx.write(found, Measured)
        ctx.count(numbers=len(found))

    return Stage(
        name,
        run,
        inputs=(*evaluated(has_sft(config)), *inputs),
        reads=(*READS, *reads),
        uses=USES,
        opens=lambda _: (),
        version=2,
        own=own or {},
    )


def first_false(record: StepLabels) -> int | None:
    """0-based index of the first negative step, or none."""
    labels = record.labels or ()
    return next((i for i, good in enumerate(labels) if not good), None)
