"""Study `shepherd`: Math-Shepherd's step labels against GLoRe's (Wang et al. 2024, arXiv
2312.08935).

N completions are drawn from every prefix of a solution. The hard estimate calls a step good if any
of them is right, the soft one gives it the share that is. The last step's label is the solution's
own correctness. A solution's score is the minimum over its steps. GLoRe's SORM differs in the
consistency of the completions, in propagation, and in the score (`final`).

A soft label c / N is learned exactly with the two-class loss: the solution is learned N times, and
in c of them the step is good. Equal rows become one with a weight, so a solution of L steps costs
at most L + 1 rows.

Measured: hard and soft, N from 1 to the run's K, all, half and a quarter of the labelled solutions;
labels against the exact truth, step accuracy, reranking by minimum, product, mean and last. Fewer
completers are the first ones of the K that were drawn. The second half of the paper, PPO with these
rewards, is `glore.studies.step_policy`; `policy=false` leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from glore.config import RunConfig, Settings
from glore.pipeline import Stage, StageContext
from glore.records import PrefixTrials, Solution, StepLabels
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.seeds import stable_seed
from glore.stages.labelling import train_drafts
from glore.stages.reward import train_reward_model
from glore.studies.full_counts import full_rollouts
from glore.studies.judging import (
    label_agreement,
    majority_row,
    read_scored,
    reference_labels,
    rerank_rows,
    reward_stage,
    score_stage,
    step_rows,
)
from glore.studies.measured import Measured, dot_chart, number, pivot, read_measured, share
from glore.studies.paired import question_index
from glore.studies.step_policy import (
    ShepherdSettings,
    policy_charts,
    policy_results,
    policy_stages,
    policy_tables,
)
from glore.studies.study import Study

__all__ = ["STUDY", "Variant", "counts_of", "hard_labels", "soft_labels", "variants"]

RESULTS, SCORES = "shepherd_results", "shepherd_scores"
LABELS, STEPS, RERANK = "shepherd-labels", "shepherd-steps", "shepherd-rerank"
WAYS = ("min", "product", "mean", "final")
RUN_MODELS = {"ORM": "orm", "SORM": "sorm"}


class Variant(NamedTuple):
    """One way to label the same solutions."""

    name: str
    model: str
    is_soft: bool
    completers: int
    part: int
    """One in so many of the solutions is learned from."""


def variants(config: RunConfig) -> tuple[Variant, ...]:
    """Hard and soft with all completers, then hard with fewer, then with fewer solutions."""
    k = config.labels.rollouts
    fewer = [n for n in (1, 4) if n < k]
    return (
        Variant(f"hard, N = {k}", "shepherd_hard", False, k, 1),
        Variant(f"soft, N = {k}", "shepherd_soft", True, k, 1),
        *(Variant(f"hard, N = {n}", f"shepherd_hard_{n}", False, n, 1) for n in fewer),
        *(
            Variant(
                f"hard, N = {k}, 1/{part} of the labels", f"shepherd_part_{part}", False, k, part
            )
            for part in (2, 4)
        ),
    )


Counts = Mapping[str, tuple[int, ...]]
"""Draft id → right completions from every prefix P_1 … P_L; N or 0 for the whole draft."""


def counts_of(
    drafts: Sequence[Solution], trials: Sequence[PrefixTrials], completers: int
) -> Counts:
    """Right ones among the first `completers` from every prefix. Ungraded drafts, and those without
    all their rollouts, are left out.
    """
    verdicts = {(t.solution_id, t.n_steps_kept): t.correct for t in trials}
    found: dict[str, tuple[int, ...]] = {}
    for d in drafts:
        tried = [verdicts.get((d.id, i), ()) for i in range(1, len(d.steps))]
        if d.correct == "unknown" or not d.steps or any(len(v) < completers for v in tried):
            continue
        own = completers if d.correct == "right" else 0
        found[d.id] = (*(v[:completers].count("right") for v in tried), own)
    return found


def hard_labels(drafts: Sequence[Solution], counts: Counts) -> list[StepLabels]:
    """A step is good if any completion from it is right."""
    return [_labels(d, counts.get(d.id), 1) for d in drafts]


def soft_labels(
    drafts: Sequence[Solution], counts: Counts, completers: int
) -> tuple[list[Solution], list[StepLabels]]:
    """Every draft N times: in copy j a step is good if at least j of its completions are right."""
    pairs = [(d, _labels(d, counts.get(d.id), j)) for j in range(1, completers + 1) for d in drafts]
    return [d for d, _ in pairs], [r for _, r in pairs]


def _labels(draft: Solution, counts: tuple[int, ...] | None, least: int) -> StepLabels:
    if counts is None:
        return StepLabels(draft.id, None, None, None, "shepherd")
    labels = tuple(c >= least for c in counts)
    first = labels.index(False) if False in labels else None
    return StepLabels(draft.id, labels, (True,) * len(labels), first, "shepherd")


def _part_of(drafts: Sequence[Solution], part: int, seed: int) -> list[Solution]:
    """One in `part` of the drafts, by hash; a smaller part is within a larger one."""
    ranked = sorted(drafts, key=lambda d: (stable_seed(seed, "shepherd part", d.id), d.id))
    kept = {d.id for d in ranked[: -(-len(drafts) // part)]}
    return [d for d in drafts if d.id in kept]


def _training(variant: Variant) -> Stage:
    def train(ctx: StageContext) -> None:
        drafts = _part_of(train_drafts(ctx), variant.part, ctx.seed)
        trials = ctx.read(full_rollouts.name, PrefixTrials)
        counts = counts_of(drafts, trials, variant.completers)
        ctx.count(drafts=len(drafts), labelled=len(counts))
        if variant.is_soft:
            solutions, labels = soft_labels(drafts, counts, variant.completers)
        else:
            solutions, labels = drafts, hard_labels(drafts, counts)
        train_reward_model(ctx, variant.model, solutions, labels, "reward.sorm")

    return reward_stage(variant.model, train, (full_rollouts.name,))


def _models(config: RunConfig) -> dict[str, str]:
    return {**{v.name: v.model for v in variants(config)}, **RUN_MODELS}


def _stages(config: RunConfig) -> tuple[Stage, ...]:
    found, models = variants(config), _models(config)
    return (
        full_rollouts,
        *map(_training, found),
        score_stage(SCORES, models, tuple(models.values())),
        Stage(
            RESULTS,
            lambda ctx: _measure(ctx, found, models),
            inputs=(SCORES, full_rollouts.name, "test_labels", "labels"),
            reads=(
                *("evaluation.bootstrap_samples", "evaluation.threshold", "labels.rollouts"),
                "reward.draft_samples",
            ),
            opens=lambda _: (),
            version=2,
        ),
    )


def _measure(ctx: StageContext, found: Sequence[Variant], models: Mapping[str, str]) -> None:
    drafts, samples = ctx.read("test_drafts", Solution), ctx.read("test_samples", Solution)
    index = question_index(ctx, drafts)
    of_drafts, of_samples = read_scored(ctx, SCORES, models)
    reference = found[0].name
    ctx.write(
        [
            *_label_rows(ctx, found),
            *step_rows(index, STEPS, reference_labels(ctx), of_drafts, reference),
            *rerank_rows(index, RERANK, samples, of_samples, WAYS),
            share(RERANK, "majority", WAYS[0], majority_row(index, samples)),
        ],
        Measured,
    )


def _label_rows(ctx: StageContext, found: Sequence[Variant]) -> list[Measured]:
    """How the labels of the training drafts agree with the exact truth; a soft one of more than a
    half counts as good. The SORM's own labels stand beside them.
    """
    drafts, trials = train_drafts(ctx), ctx.read(full_rollouts.name, PrefixTrials)
    truth = ctx.read("labels", StepLabels, "truth")
    rows = []
    for variant in found:
        if variant.part > 1:
            continue
        n = variant.completers
        counts = counts_of(drafts, trials, n)
        least = n // 2 + 1 if variant.is_soft else 1
        labels = [_labels(d, counts.get(d.id), least) for d in drafts]
        rows += _label_row(ctx, variant.name, labels, truth)
    of_sorm = [
        replace(r, kept=None if r.labels is None else (True,) * len(r.labels))
        for r in ctx.read("labels", StepLabels)
    ]  # before balancing, so of the same steps as the others
    return [*rows, *_label_row(ctx, "SORM's labels", of_sorm, truth)]


def _label_row(
    ctx: StageContext, name: str, labels: Sequence[StepLabels], truth: Sequence[StepLabels]
) -> list[Measured]:
    steps = [x for r in labels for x in (r.labels or ())[:-1]]
    agree = label_agreement(ctx.config, train_drafts(ctx), labels, truth)
    return [
        share(LABELS, name, "labels right", agree),
        number(LABELS, name, "good steps, %", round(100 * sum(steps) / max(1, len(steps)), 1)),
        number(
            LABELS,
            name,
            "labelled drafts",
            sum(r.labels is not None for r in labels),
            total=True,
        ),
    ]


def _tables(config: RunConfig, folder: Path) -> list[TableView]:
    found = read_measured(folder, RESULTS)
    return [
        pivot(
            found,
            LABELS,
            "Math-Shepherd · labels against the exact truth",
            "Steps before the answer line of the training drafts. A soft label above one half "
            "counts as good. Published agreement with people: 85.0 % on GSM8K (Math-Shepherd), "
            "94 % (GLoRe, 257 steps).",
            "labels",
            n_column=True,
        ),
        pivot(
            found,
            STEPS,
            "Math-Shepherd · step accuracy on the test drafts",
            "Steps before the answer line, against the exact truth where the task knows it, else "
            "the labels of rollouts.",
            "reward model",
            n_column=True,
        ),
        pivot(
            found,
            RERANK,
            "Math-Shepherd · reranking all samples, by the way to reduce step scores",
            "Share of test questions answered right. Math-Shepherd's own score is `min`, the "
            "SORM's `final`. The majority has no scores, so its row has one number.",
            "reward model",
            n_column=True,
        ),
    ]


def _charts(config: RunConfig, folder: Path) -> list[Chart]:
    return [
        dot_chart(
            read_measured(folder, RESULTS),
            RERANK,
            "Reranking by Math-Shepherd's labels",
            "Share of test questions answered right when the best of all samples is chosen. "
            "Whiskers: 95 % intervals.",
            "right, %",
        )
    ]


def _study(settings: Settings) -> Study:
    assert isinstance(settings, ShepherdSettings)
    more = settings.policy
    return Study(
        "shepherd",
        "Math-Shepherd's hard and soft step labels by completers and number of labels, against the "
        "SORM's; PPO with their rewards (arXiv 2312.08935).",
        lambda config: (
            *_stages(config),
            *((*policy_stages(settings), policy_results) if more else ()),
        ),
        lambda config, folder: [
            *_tables(config, folder),
            *(policy_tables(folder) if more else ()),
        ],
        lambda config, folder: [
            *_charts(config, folder),
            *(policy_charts(folder) if more else ()),
        ],
        settings=settings,
        build=_study,
    )


STUDY = _study(ShepherdSettings())
