"""Tables 1 and 2 of an evaluation: how well the reward models judge steps and answers."""

from __future__ import annotations

from glore.evaluation.inputs import SORM
from glore.evaluation.ranking import RankingRow
from glore.evaluation.result import Evaluation
from glore.evaluation.reward_models import (
    ALL_STEPS,
    FINAL,
    INTERMEDIATE,
    LABELS,
    TRUTH,
    JudgeDifference,
    JudgeRow,
)
from glore.report import paper
from glore.report.views import MODEL_NAMES, Columns, TableView, table_of

__all__ = ["ranking", "table1", "table1_differences", "table2", "table2_differences"]

AGAINST_NAMES = {LABELS: "rollout labels", TRUTH: "exact truth"}
SCOPE_NAMES = {INTERMEDIATE: "", ALL_STEPS: ", with answer line"}


def table1(e: Evaluation) -> TableView:
    """Step accuracy of each model, against labels and against the truth."""
    columns: Columns[JudgeRow] = (
        ("model · against", lambda r: f"{MODEL_NAMES[r.model]} · {_against(r)}"),
        *_JUDGED,
        (
            paper.PAPER_COLUMN,
            lambda r: paper.quoted(paper.TABLE_1.get(r.model)) if _is_the_papers(r) else "",
        ),
    )
    return table_of(
        "table1",
        f"Table 1 · Step accuracy at {e.options.threshold:g}",
        "Steps before the answer line, unless said otherwise. Balanced: mean of the recalls of "
        "good and bad steps. Intervals resample whole questions, since the steps of one solution "
        "are not independent.",
        columns,
        e.table1,
        lambda r: r.model == SORM and _is_the_papers(r),
    )


def table1_differences(e: Evaluation) -> TableView:
    """Paired differences of the models on the same steps."""
    return table_of(
        "table1-differences",
        "Table 1 · Paired differences",
        "On the same steps, in points.",
        _DIFFERENCES,
        e.table1_differences,
    )


def table2(e: Evaluation) -> TableView:
    """Accuracy of each model on final answers."""
    columns: Columns[JudgeRow] = (
        ("model", lambda r: MODEL_NAMES[r.model]),
        *_JUDGED,
        (paper.PAPER_COLUMN, lambda r: paper.quoted(paper.TABLE_2.get(r.model))),
    )
    return table_of(
        "table2",
        f"Table 2 · Final-answer accuracy at {e.options.threshold:g}",
        "Is the draft's final answer right? Drafts that could not be graded are left out.",
        columns,
        e.table2,
    )


def table2_differences(e: Evaluation) -> TableView:
    """Paired differences of the models on the same drafts."""
    return table_of(
        "table2-differences",
        "Table 2 · Paired differences",
        "On the same drafts, in points.",
        _DIFFERENCES,
        e.table2_differences,
    )


def ranking(e: Evaluation) -> TableView:
    """How often each model scores a right sample above a wrong one of the same question."""
    columns: Columns[RankingRow] = (
        ("model", lambda r: MODEL_NAMES[r.model]),
        ("right above wrong, % [95 %]", lambda r: r.above),
        ("questions", lambda r: r.above.n),
        ("pairs", lambda r: r.n_pairs),
    )
    return table_of(
        "ranking",
        "Rerank · Samples of one question",
        "Share of the pairs of a right and a wrong sample of one question in which the right one "
        "has the higher score. 50 is chance: a model that only knows which questions are hard. "
        "Intervals resample questions.",
        columns,
        e.ranking,
    )


def _against(r: JudgeRow | JudgeDifference) -> str:
    return f"{AGAINST_NAMES[r.against]}{SCOPE_NAMES[r.scope]}"


def _is_the_papers(r: JudgeRow) -> bool:
    """The paper's Table 1 has steps before the answer line, against labels from rollouts."""
    return (r.against, r.scope) == (LABELS, INTERMEDIATE)


def _difference(d: JudgeDifference) -> str:
    against = "" if d.scope == FINAL else f" · {_against(d)}"
    return f"{MODEL_NAMES[d.first]} − {MODEL_NAMES[d.second]}{against}"


_JUDGED: Columns[JudgeRow] = (
    ("balanced, % [95 %]", lambda r: r.balanced),
    ("natural, % [95 %]", lambda r: r.natural),
    ("bad called good", lambda r: r.false_positive_rate),
    ("good called bad", lambda r: r.false_negative_rate),
    ("n", lambda r: r.natural.n),
)
_DIFFERENCES: Columns[JudgeDifference] = (
    ("difference · against", _difference),
    ("balanced, points [95 %]", lambda d: d.balanced),
    ("natural, points [95 %]", lambda d: d.natural),
    ("n", lambda d: d.natural.n),
)
