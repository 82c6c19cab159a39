"""The tables of an evaluation as titles, columns and text cells: one source for the terminal, the
page and Markdown.
"""

from __future__ import annotations

from collections.abc import Callable

from glore.evaluation.labels import AgreementRow
from glore.evaluation.reward_models import JudgeDifference, JudgeRow
from glore.evaluation.tables import Evaluation
from glore.report import paper
from glore.report.views import MODEL_NAMES, REFINER_NAMES, WAY_NAMES, TableView, percent, points
from glore.statistics import Difference

__all__ = ["table_views"]

AGAINST_NAMES = {"labels": "rollout labels", "truth": "exact truth"}
SCOPE_NAMES = {"intermediate": "", "all": ", with answer line"}


def table_views(evaluation: Evaluation) -> list[TableView]:
    """Every table that has rows, in the order of reading."""
    makers: tuple[Callable[[Evaluation], TableView], ...] = (
        _figure4,
        _figure4_differences,
        _table3,
        _table3_differences,
        _figure3,
        _table1,
        _table1_differences,
        _table2,
        _table2_differences,
        _table5,
        _curves,
        _agreement,
        _counts,
    )
    return [view for view in (make(evaluation) for make in makers) if view.rows]


def _figure4(e: Evaluation) -> TableView:
    k = e.options.best_of
    rows = tuple(
        (WAY_NAMES[r.way].format(k=k), percent(r.accuracy), str(r.accuracy.n)) for r in e.figure4
    )
    return TableView(
        "figure4",
        "Fig. 4 · Accuracy after reranking",
        "Share of test questions answered right, %. The paper (GSM8K 13B): 53 greedy → 65 "
        "reranked.",
        ("way", "accuracy, % [95 %]", "n"),
        rows,
        frozenset(i for i, r in enumerate(e.figure4) if r.way == "reranked"),
    )


def _figure4_differences(e: Evaluation) -> TableView:
    k = e.options.best_of
    rows = tuple(
        (
            f"{WAY_NAMES[d.first].format(k=k)} − {WAY_NAMES[d.second].format(k=k)}",
            *_difference_cells(d.difference),
        )
        for d in e.figure4_differences
    )
    return TableView(
        "figure4-differences",
        "Fig. 4 · Paired differences",
        "On the same questions, in points.",
        _DIFFERENCE_COLUMNS,
        rows,
    )


def _table3(e: Evaluation) -> TableView:
    rows = tuple(
        (
            _group(r.refiners),
            percent(r.fixed),
            str(r.fixed.n),
            str(r.n_without),
            str(r.n_unknown),
            paper.quoted(paper.TABLE_3.get(r.refiners)),
        )
        for r in e.table3
    )
    return TableView(
        "table3",
        "Table 3 · Wrong drafts that refinement fixes",
        "Share of wrong drafts, no reranker. A union counts a draft that either refiner fixes. "
        "“No refinement”: no step fell to the threshold, so there was nothing to mark.",
        ("refiner", "fixed, % [95 %]", "n", "no refinement", "ungraded", paper.PAPER_COLUMN),
        rows,
        frozenset(i for i, r in enumerate(e.table3) if r.refiners == ("global", "local_sorm")),
    )


def _table3_differences(e: Evaluation) -> TableView:
    rows = tuple(
        (f"{_group(d.first)} − {_group(d.second)}", *_difference_cells(d.difference))
        for d in e.table3_differences
    )
    return TableView(
        "table3-differences",
        "Table 3 · Paired differences",
        "On the same wrong drafts, in points. A union is never below its parts; the interval says "
        "by how much it is above.",
        _DIFFERENCE_COLUMNS,
        rows,
    )


def _figure3(e: Evaluation) -> TableView:
    rows = tuple(
        (
            REFINER_NAMES[r.refiner],
            percent(r.all_drafts),
            percent(r.only_wrong),
            percent(r.orm_gated),
            *(
                str(n)
                for n in (
                    r.all_drafts.n,
                    r.fixed,
                    r.broken,
                    r.still_right,
                    r.still_wrong,
                    r.unrefined,
                )
            ),
        )
        for r in e.figure3
    )
    return TableView(
        "figure3",
        "Fig. 3 · Accuracy after refining, no reranker",
        "Refining every draft, only the wrong ones (a perfect judge of when), or those the ORM "
        "calls wrong.",
        (
            "refiner",
            "all drafts",
            "only wrong",
            "when the ORM says",
            "n",
            "fixed",
            "broken",
            "still right",
            "still wrong",
            "no refinement",
        ),
        rows,
    )


def _table1(e: Evaluation) -> TableView:
    rows = tuple(
        (
            f"{MODEL_NAMES[r.model]} · {AGAINST_NAMES[r.against]}{SCOPE_NAMES[r.scope]}",
            *_judge_cells(r),
            paper.quoted(paper.TABLE_1.get(r.model))
            if (r.against, r.scope) == ("labels", "intermediate")
            else "",
        )
        for r in e.table1
    )
    return TableView(
        "table1",
        f"Table 1 · Step accuracy at {e.options.threshold:g}",
        "Steps before the answer line, unless said otherwise. Balanced: mean of the recalls of "
        "good and bad steps. Intervals resample whole questions, since the steps of one solution "
        "hang together.",
        ("model · against", *_JUDGE_COLUMNS, paper.PAPER_COLUMN),
        rows,
        frozenset(
            i
            for i, r in enumerate(e.table1)
            if (r.model, r.against, r.scope) == ("sorm", "labels", "intermediate")
        ),
    )


def _table1_differences(e: Evaluation) -> TableView:
    rows = tuple(_judge_difference(d) for d in e.table1_differences)
    return TableView(
        "table1-differences",
        "Table 1 · Paired differences",
        "On the same steps, in points.",
        _JUDGE_DIFFERENCE_COLUMNS,
        rows,
    )


def _table2(e: Evaluation) -> TableView:
    rows = tuple(
        (MODEL_NAMES[r.model], *_judge_cells(r), paper.quoted(paper.TABLE_2.get(r.model)))
        for r in e.table2
    )
    return TableView(
        "table2",
        f"Table 2 · Final-answer accuracy at {e.options.threshold:g}",
        "Is the draft's final answer right? Drafts that could not be graded are left out.",
        ("model", *_JUDGE_COLUMNS, paper.PAPER_COLUMN),
        rows,
    )


def _table2_differences(e: Evaluation) -> TableView:
    rows = tuple(_judge_difference(d) for d in e.table2_differences)
    return TableView(
        "table2-differences",
        "Table 2 · Paired differences",
        "On the same drafts, in points.",
        _JUDGE_DIFFERENCE_COLUMNS,
        rows,
    )


def _table5(e: Evaluation) -> TableView:
    students = {r.student: r for r in e.table5}
    rows = []
    for measure, name in _STUDENT_MEASURES:
        found = [getattr(r, measure) for r in e.table5]
        if any(x is not None for x in found):
            n = next(x.n for x in found if x is not None)
            quotes = [
                f"{s} {q}" for s in students if (q := paper.quoted(paper.TABLE_5.get((s, measure))))
            ]
            gain = points(e.ei_gain) if measure == "greedy" else ""
            rows.append((name, *(percent(x) for x in found), gain, str(n), "; ".join(quotes)))
    return TableView(
        "table5",
        "Table 5 · The student",
        "Supervised fine-tuning (SFT) and expert iteration (EI), %. "
        "Each student is reranked by an ORM trained on its own samples. The paper's K is 96.",
        (
            "measure",
            *(f"{s}, K = {r.k}" if r.k else s for s, r in students.items()),
            "EI − SFT, points",
            "n",
            paper.PAPER_COLUMN,
        ),
        tuple(rows),
    )


def _curves(e: Evaluation) -> TableView:
    ways = list(dict.fromkeys(p.way for p in e.curves))
    ks = sorted({p.k for p in e.curves})
    found = {(p.way, p.k): p.accuracy for p in e.curves}
    rows = tuple(
        (MODEL_NAMES[way], *(percent(found.get((way, k))) for k in ks), str(found[way, ks[0]].n))
        for way in ways
    )
    note = (
        "Expected accuracy when K of the samples are drawn and one is chosen. "
        "pass@K: at least one of them is right."
    )
    return TableView(
        "curves",
        "Reranking samples, accuracy against K",
        note,
        ("choice by", *(f"K = {k}" for k in ks), "n"),
        rows,
    )


def _agreement(e: Evaluation) -> TableView:
    return TableView(
        "agreement",
        "App. G · Step labels against the exact truth",
        "Agreement over all steps, class-balanced, and on wrong drafts alone (before the answer "
        "line), %. The paper: 94 % of 257 hand-labelled steps. Training labels are derived again "
        "with each post-processing step off; a rule without propagation needs full counts (n/a "
        "after a lazy scan).",
        (
            "labels",
            "agreement",
            "balanced",
            "wrong drafts",
            "false → good",
            "true → bad",
            "steps",
            "drafts (unlabelled)",
            "good / bad",
            "after balancing",
        ),
        tuple(_agreement_row(r) for r in e.agreement),
        frozenset(
            i for i, r in enumerate(e.agreement) if r.rule == "as used" and r.where == "train"
        ),
    )


def _agreement_row(r: AgreementRow) -> tuple[str, ...]:
    numbers = [
        percent(x) if r.agreement.n else "n/a"
        for x in (r.agreement, r.balanced, r.wrong_drafts, r.called_good, r.called_bad)
    ]
    kept = f"{r.n_kept_positive} / {r.n_kept_negative}" if r.where == "train" else "–"
    drafts = f"{r.n_drafts} ({r.n_unlabelled})"
    return (
        f"{r.where}: {r.rule}",
        *numbers,
        str(r.agreement.n),
        drafts,
        f"{r.n_positive} / {r.n_negative}",
        kept,
    )


def _counts(e: Evaluation) -> TableView:
    c = e.counts
    rows = (
        ("test questions", str(c.n_problems), ""),
        (
            "greedy drafts",
            str(c.n_drafts),
            f"{c.n_drafts_right} right, {c.n_drafts_wrong} wrong, {c.n_drafts_unknown} could not "
            "be graded",
        ),
        ("samples", str(c.n_samples), f"{c.n_samples_unknown} could not be graded"),
        ("refinements", str(c.n_refinements), f"{c.n_refinements_unknown} could not be graded"),
        ("drafts with step labels from rollouts", str(c.n_drafts_labelled), ""),
        ("drafts with the exact truth of each step", str(c.n_drafts_with_truth), ""),
    )
    note = "What could not be graded counts as not right in accuracies, and never as a wrong draft."
    return TableView("counts", "Counts", note, ("what", "n", "of which"), rows)


_STUDENT_MEASURES = (
    ("greedy", "greedy (maj@1)"),
    ("sampled", "one sample"),
    ("majority", "maj@K"),
    ("reranked", "Rerank@K by the ORM"),
    ("pass_k", "pass@K"),
    ("pass_8", "pass@8"),
)
_DIFFERENCE_COLUMNS = (
    "difference",
    "points [95 %]",
    "n",
    "only first right",
    "only second right",
    "McNemar p",
)
_JUDGE_COLUMNS = (
    "balanced, % [95 %]",
    "natural, % [95 %]",
    "bad called good",
    "good called bad",
    "n",
)
_JUDGE_DIFFERENCE_COLUMNS = (
    "difference · against",
    "balanced, points [95 %]",
    "natural, points [95 %]",
    "n",
)


def _difference_cells(d: Difference) -> tuple[str, ...]:
    return (points(d), str(d.n), str(d.gained), str(d.lost), "–" if d.p is None else f"{d.p:.2g}")


def _judge_cells(r: JudgeRow) -> tuple[str, ...]:
    return (
        percent(r.balanced),
        percent(r.natural),
        percent(r.false_positive_rate),
        percent(r.false_negative_rate),
        str(r.natural.n),
    )


def _judge_difference(d: JudgeDifference) -> tuple[str, ...]:
    against = "" if d.scope == "final" else f" · {AGAINST_NAMES[d.against]}{SCOPE_NAMES[d.scope]}"
    name = f"{MODEL_NAMES[d.first]} − {MODEL_NAMES[d.second]}{against}"
    return (name, points(d.balanced), points(d.natural), str(d.natural.n))


def _group(refiners: tuple[str, ...]) -> str:
    return " ∪ ".join(REFINER_NAMES[r] for r in refiners)
