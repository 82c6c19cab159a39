"""App. G: agreement of the labels from rollouts with the exact truth, and the effect of each
post-processing step.

The ablation derives the labels again from the stored rollouts, so it costs no sampling. Without
propagation, labels need all K rollouts at every step. After a lazy scan only a few drafts could be
labelled, and not a random choice of them, so such a row has counts but no agreement. Full counts of
the test drafts alone (`evaluation.label_full_counts`) cost little and fill these rows.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from glore.config import LabelSettings
from glore.evaluation.inputs import EvaluationInputs, Index
from glore.prompts import LINES, StepFormat
from glore.records import PrefixTrials, Solution, StepLabels
from glore.statistics import Estimate, FloatArray, Resampler
from glore.where import label_drafts

__all__ = [
    "AS_USED",
    "TEST",
    "TRAIN",
    "AgreementRow",
    "StepBalance",
    "label_agreement",
    "step_balance",
]

TRAIN, TEST = "train", "test"
AS_USED = "as used"
"""The rule that made the labels of this run, with nothing switched off."""


@dataclasses.dataclass(frozen=True, slots=True)
class AgreementRow:
    """Labels of one rule against the exact truth. A step is true if no step up to it is false."""

    where: str
    """Which drafts: TRAIN or TEST."""
    rule: str
    """AS_USED, or what was switched off."""
    agreement: Estimate
    """n: steps."""
    balanced: Estimate
    """Mean of the agreements on true and on false steps."""
    wrong_drafts: Estimate
    """Agreement on wrong drafts alone, before the answer line. (Labels of right drafts follow from
    their answer.)
    """
    called_good: Estimate
    """Share of false steps labelled good."""
    called_bad: Estimate
    """Share of true steps labelled bad."""
    n_drafts: int
    n_unlabelled: int
    """Drafts that this rule could not label."""
    n_positive: int
    n_negative: int
    n_kept_positive: int
    """After balancing."""
    n_kept_negative: int


@dataclasses.dataclass(frozen=True, slots=True)
class StepBalance:
    """Training labels at one position of a solution, before and after balancing."""

    step: int
    """0-based."""
    n_positive: int
    n_negative: int
    n_kept_positive: int
    n_kept_negative: int


def label_agreement(
    inputs: EvaluationInputs,
    index: Index,
    rule: LabelSettings | None,
    steps: StepFormat = LINES,
) -> tuple[AgreementRow, ...]:
    """One row per rule on the training drafts, then on the test drafts. Empty without known truth.
    `rule`: how the labels were made; without it there is no ablation. `steps`: how rollouts are cut
    into steps.
    """
    rows: list[AgreementRow] = []
    if inputs.train_truth:
        n_draws, seed = index.options.bootstrap_samples, index.options.seed
        resampler = Resampler(
            (d.problem_id for d in inputs.train_drafts), n_draws=n_draws, seed=seed
        )
        labellings = _labellings(
            inputs.train_drafts, inputs.train_labels, inputs.train_trials, rule, seed, steps
        )
        if rule is not None and inputs.train_trials:
            name = "no balancing" if rule.balance else "balanced"
            labellings[name] = _labelled(
                inputs.train_drafts,
                inputs.train_trials,
                rule,
                {"balance": not rule.balance},
                seed,
                steps,
            )
        rows += _rows(TRAIN, inputs.train_drafts, labellings, inputs.train_truth, resampler, None)
    if inputs.draft_truth and inputs.draft_labels:
        unbalanced = rule.model_copy(update={"balance": False}) if rule else None
        labellings = _labellings(
            index.drafts,
            inputs.draft_labels,
            inputs.test_trials,
            unbalanced,
            index.options.seed,
            steps,
        )
        rows += _rows(
            TEST, index.drafts, labellings, inputs.draft_truth, index.resampler, index.cluster_of
        )
    return tuple(rows)


def _rows(
    where: str,
    drafts: Sequence[Solution],
    labellings: dict[str, Sequence[StepLabels]],
    truth: Sequence[StepLabels],
    resampler: Resampler,
    cluster_of: dict[str, str] | None,
) -> list[AgreementRow]:
    used, *others = (
        _row(where, name, drafts, labels, truth, resampler, cluster_of)
        for name, labels in labellings.items()
    )
    return [
        used,
        *(_without_numbers(row) if row.n_unlabelled > used.n_unlabelled else row for row in others),
    ]


def _without_numbers(row: AgreementRow) -> AgreementRow:
    none = Estimate(None, None, None, 0)
    return dataclasses.replace(
        row, agreement=none, balanced=none, wrong_drafts=none, called_good=none, called_bad=none
    )


def step_balance(inputs: EvaluationInputs) -> tuple[StepBalance, ...]:
    """Label counts per position in a solution, over the training drafts."""
    counts: Counter[tuple[int, bool, bool]] = Counter()
    for record in inputs.train_labels:
        if record.labels is not None:
            kept = record.kept if record.kept is not None else (True,) * len(record.labels)
            counts.update(
                (i, label, k) for i, (label, k) in enumerate(zip(record.labels, kept, strict=True))
            )
    n_steps = max((i for i, _, _ in counts), default=-1) + 1
    return tuple(
        StepBalance(
            step=i,
            n_positive=counts[i, True, True] + counts[i, True, False],
            n_negative=counts[i, False, True] + counts[i, False, False],
            n_kept_positive=counts[i, True, True],
            n_kept_negative=counts[i, False, True],
        )
        for i in range(n_steps)
    )


def _labellings(
    drafts: Sequence[Solution],
    used: Sequence[StepLabels],
    trials: Sequence[PrefixTrials],
    rule: LabelSettings | None,
    seed: int,
    steps: StepFormat,
) -> dict[str, Sequence[StepLabels]]:
    """Rule → labels: those in use, then derived again without consistency check or propagation."""
    found: dict[str, Sequence[StepLabels]] = {AS_USED: used}
    if not trials or rule is None:
        return found
    changes: dict[str, dict[str, object]] = {
        "no consistency check": {"consistency": "off"},
        "no propagation": {"propagate": False},
        "neither": {"consistency": "off", "propagate": False},
    }
    for name, change in changes.items():
        if all(getattr(rule, key) != value for key, value in change.items()):
            found[name] = _labelled(drafts, trials, rule, change, seed, steps)
    return found


def _labelled(
    drafts: Sequence[Solution],
    trials: Sequence[PrefixTrials],
    rule: LabelSettings,
    change: dict[str, object],
    seed: int,
    steps: StepFormat,
) -> Sequence[StepLabels]:
    changed = rule.model_copy(update=change)
    return label_drafts(drafts, trials, changed, seed=seed, steps=steps).labels


def _row(
    where: str,
    name: str,
    drafts: Sequence[Solution],
    labels: Sequence[StepLabels],
    truth: Sequence[StepLabels],
    resampler: Resampler,
    cluster_of: dict[str, str] | None,
) -> AgreementRow:
    label_of = {r.solution_id: r for r in labels}
    units, table = _compared(drafts, label_of, {r.solution_id: r for r in truth}, cluster_of)
    n_true, n_false, n_inside = (int(table[:, c].sum()) for c in (1, 3, 5))
    records = [label_of[d.id] for d in drafts if d.id in label_of]
    flags = [
        pair
        for r in records
        if r.labels is not None
        for pair in zip(r.labels, r.kept or (True,) * len(r.labels), strict=True)
    ]
    estimate = resampler.estimate
    return AgreementRow(
        where=where,
        rule=name,
        agreement=estimate(
            units, table, lambda s: (s[..., 0] + s[..., 2]) / (s[..., 1] + s[..., 3])
        ),
        balanced=estimate(
            units, table, lambda s: (s[..., 0] / s[..., 1] + s[..., 2] / s[..., 3]) / 2
        ),
        wrong_drafts=dataclasses.replace(
            estimate(units, table, lambda s: s[..., 4] / s[..., 5]), n=n_inside
        ),
        called_good=dataclasses.replace(
            estimate(units, table, lambda s: 1 - s[..., 2] / s[..., 3]), n=n_false
        ),
        called_bad=dataclasses.replace(
            estimate(units, table, lambda s: 1 - s[..., 0] / s[..., 1]), n=n_true
        ),
        n_drafts=len(records),
        n_unlabelled=sum(r.labels is None for r in records),
        n_positive=sum(label for label, _ in flags),
        n_negative=sum(not label for label, _ in flags),
        n_kept_positive=sum(label and kept for label, kept in flags),
        n_kept_negative=sum(not label and kept for label, kept in flags),
    )


def _compared(
    drafts: Sequence[Solution],
    label_of: Mapping[str, StepLabels],
    truth_of: Mapping[str, StepLabels],
    cluster_of: Mapping[str, str] | None,
) -> tuple[list[str], FloatArray]:
    """Every step with label and truth: its cluster, and the row [6] true and labelled good, true,
    false and labelled bad, false, inside a wrong draft and agreed, inside a wrong draft.
    """
    units: list[str] = []
    columns: list[tuple[float, ...]] = []
    for draft in drafts:
        ours, exact = label_of.get(draft.id), truth_of.get(draft.id)
        if (
            ours is None
            or exact is None
            or ours.labels is None
            or exact.labels is None
            or len(ours.labels) != len(exact.labels)
        ):
            continue
        units += [
            cluster_of[draft.problem_id] if cluster_of is not None else draft.problem_id
        ] * len(ours.labels)
        for i, (label, true) in enumerate(zip(ours.labels, exact.labels, strict=True)):
            inside = draft.correct == "wrong" and i < len(ours.labels) - 1
            columns.append(
                (
                    true and label,
                    true,
                    not true and not label,
                    not true,
                    inside and label == true,
                    inside,
                )
            )
    return units, np.asarray(columns, dtype=np.float64).reshape(len(units), 6)
