"""All tables and figures of one evaluation, and their JSON form (`report/evaluation.json`)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from glore.config import LabelSettings
from glore.errors import RunError
from glore.evaluation.calibration import Calibration, calibrations
from glore.evaluation.decomposition import Decomposition, decompose
from glore.evaluation.inputs import EvaluationInputs, EvaluationOptions, Index
from glore.evaluation.label_agreement import (
    AgreementRow,
    StepBalance,
    label_agreement,
    step_balance,
)
from glore.evaluation.ranking import RankingRow, ranking
from glore.evaluation.refinement import (
    FixedDifference,
    FixedRow,
    Overlap,
    RefineRow,
    RerankDifference,
    RerankRow,
    fixed_shares,
    overlap,
    refine_outcomes,
    reranked,
)
from glore.evaluation.rerank_curves import CurvePoint, rerank_curves
from glore.evaluation.reward_models import (
    JudgeDifference,
    JudgeRow,
    final_accuracy,
    step_accuracy,
)
from glore.evaluation.students import StudentRow, ei_gain, students
from glore.pipeline.folder import write_text
from glore.prompts import LINES, StepFormat
from glore.statistics import Difference

__all__ = ["Counts", "Evaluation", "evaluate", "read_evaluation", "write_evaluation"]


@dataclasses.dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of records, and of those that are left out of tables because they are ungraded."""

    n_problems: int
    n_drafts: int
    n_drafts_right: int
    n_drafts_wrong: int
    n_drafts_unknown: int
    n_samples: int
    n_samples_unknown: int
    n_refinements: int
    n_refinements_unknown: int
    n_drafts_labelled: int
    """Test drafts with step labels from rollouts."""
    n_drafts_with_truth: int


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """Every number of the report. An empty tuple or none: the records don't allow to compute it."""

    name: str
    options: EvaluationOptions
    counts: Counts
    table1: tuple[JudgeRow, ...]
    table1_differences: tuple[JudgeDifference, ...]
    table2: tuple[JudgeRow, ...]
    table2_differences: tuple[JudgeDifference, ...]
    table3: tuple[FixedRow, ...]
    table3_differences: tuple[FixedDifference, ...]
    table5: tuple[StudentRow, ...]
    ei_gain: Difference | None
    figure3: tuple[RefineRow, ...]
    figure4: tuple[RerankRow, ...]
    figure4_differences: tuple[RerankDifference, ...]
    overlap: Overlap | None
    decomposition: Decomposition | None
    ranking: tuple[RankingRow, ...]
    curves: tuple[CurvePoint, ...]
    calibrations: tuple[Calibration, ...]
    agreement: tuple[AgreementRow, ...]
    balance: tuple[StepBalance, ...]


def evaluate(
    inputs: EvaluationInputs,
    options: EvaluationOptions | None = None,
    labels: LabelSettings | None = None,
    steps: StepFormat = LINES,
) -> Evaluation:
    """Records → all tables of method 6. `labels`: the rule that made the training labels; without
    it there is no ablation of App. G. `steps`: how rollouts are cut into steps.
    """
    options = options or EvaluationOptions()
    index = Index(inputs, options)
    table1, table1_differences = step_accuracy(inputs, index)
    table2, table2_differences = final_accuracy(index)
    table3, table3_differences = fixed_shares(index)
    figure4, figure4_differences = reranked(index)
    return Evaluation(
        name=inputs.name,
        options=options,
        counts=_counts(inputs, index),
        table1=table1,
        table1_differences=table1_differences,
        table2=table2,
        table2_differences=table2_differences,
        table3=table3,
        table3_differences=table3_differences,
        table5=students(inputs, index),
        ei_gain=ei_gain(inputs, index),
        figure3=refine_outcomes(index),
        figure4=figure4,
        figure4_differences=figure4_differences,
        overlap=overlap(index),
        decomposition=decompose(inputs, index),
        ranking=ranking(index),
        curves=rerank_curves(index),
        calibrations=calibrations(inputs, index),
        agreement=label_agreement(inputs, index, labels, steps),
        balance=step_balance(inputs),
    )


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write the evaluation as JSON, whole or not at all. Raises RunError when the disk refuses."""
    write_text(path, TypeAdapter(Evaluation).dump_json(evaluation, indent=1).decode() + "\n")


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation that `write_evaluation` wrote. Raises RunError for a missing, damaged or
    foreign file.
    """
    try:
        return TypeAdapter(Evaluation).validate_json(path.read_bytes())
    except OSError as error:
        raise RunError(
            f"can't read {path}: {error.strerror or error}; run the evaluate stage first"
        ) from error
    except ValidationError as error:
        raise RunError(
            f"{path} is not an evaluation of this version; delete its stage folder and run again"
        ) from error


def _counts(inputs: EvaluationInputs, index: Index) -> Counts:
    verdicts = [d.correct for d in index.drafts]
    draft_ids = {d.id for d in index.drafts}
    return Counts(
        n_problems=len(inputs.problems),
        n_drafts=len(verdicts),
        n_drafts_right=verdicts.count("right"),
        n_drafts_wrong=verdicts.count("wrong"),
        n_drafts_unknown=verdicts.count("unknown"),
        n_samples=len(inputs.samples),
        n_samples_unknown=sum(s.correct == "unknown" for s in inputs.samples),
        n_refinements=len(inputs.refinements),
        n_refinements_unknown=sum(s.correct == "unknown" for s in inputs.refinements),
        n_drafts_labelled=sum(
            r.labels is not None and r.solution_id in draft_ids for r in inputs.draft_labels
        ),
        n_drafts_with_truth=sum(
            r.labels is not None and r.solution_id in draft_ids for r in inputs.draft_truth
        ),
    )
