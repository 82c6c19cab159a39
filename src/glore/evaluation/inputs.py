"""Input of the evaluation: the records of one run or of several, pooled, and an index over them.

Nothing here reads a disk. `pool` makes the records of several runs into one bundle with prefixed
ids, so the same code computes every table for one seed or for five. Questions with the same text
stay one cluster for the intervals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from glore.decisions import MARKED_BY, Decisions
from glore.records import PrefixTrials, Problem, Solution, StepLabels, StepScores
from glore.solutions import by_problem
from glore.statistics import Estimate, Resampler

__all__ = [
    "BALANCED_ORM",
    "ORM",
    "REFINERS",
    "REWARD_MODELS",
    "SFT_ORM",
    "SORM",
    "EvaluationInputs",
    "EvaluationOptions",
    "Index",
    "pool",
]

REWARD_MODELS = ORM, BALANCED_ORM, SORM = ("orm", "balanced_orm", "sorm")
"""Values of `StepScores.model`."""
SFT_ORM = "sft_orm"
"""The ORM trained on the SFT student's own samples. It scores only that student's samples."""
REFINERS = tuple(MARKED_BY)
"""Values of `Solution.source` of a refinement."""

R = TypeVar("R", Problem, Solution, PrefixTrials, StepLabels, StepScores)


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationOptions(Decisions):
    """The settings that the tables depend on, besides threshold and aggregate."""

    best_of: int = 3
    bootstrap_samples: int = 2000
    seed: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationInputs:
    """All records that the tables are made of. Tuples may be empty: a table that can't be computed
    is left out.
    """

    name: str
    problems: tuple[Problem, ...]
    """Test questions."""
    drafts: tuple[Solution, ...]
    """Greedy solutions of the final student, one per question."""
    samples: tuple[Solution, ...]
    """K samples of the final student per question, in order of k."""
    sft_drafts: tuple[Solution, ...] = ()
    """Of the SFT student. The same records as `drafts` if the final student is the SFT model."""
    sft_samples: tuple[Solution, ...] = ()
    refinements: tuple[Solution, ...] = ()
    """Of the drafts; `source` is one of REFINERS. A draft without a bad step has no local
    refinement.
    """
    scores: tuple[StepScores, ...] = ()
    """Scores of drafts, samples and refinements by each of REWARD_MODELS, and of the SFT student's
    samples by SFT_ORM.
    """
    draft_labels: tuple[StepLabels, ...] = ()
    """Of the test drafts, rule `sorm`."""
    draft_truth: tuple[StepLabels, ...] = ()
    """Of the test drafts, rule `truth`; empty if the task does not know it."""
    test_trials: tuple[PrefixTrials, ...] = ()
    """Of the test drafts."""
    train_drafts: tuple[Solution, ...] = ()
    train_trials: tuple[PrefixTrials, ...] = ()
    train_labels: tuple[StepLabels, ...] = ()
    """Of training drafts, rule `sorm`, with `kept` after balancing."""
    train_truth: tuple[StepLabels, ...] = ()


class Index:
    """Look-ups in the records, and the shared bootstrap over test questions. `keeps`: estimates
    keep their observations (`statistics.Kept`).
    """

    def __init__(
        self, inputs: EvaluationInputs, options: EvaluationOptions, *, keeps: bool = False
    ) -> None:
        self.options = options
        self.cluster_of = {p.id: " ".join(p.question.split()) for p in inputs.problems}
        """Problem id → its cluster for the bootstrap: the question, the same for all seeds."""
        known = self.cluster_of.keys()
        self.drafts = [s for s in inputs.drafts if s.problem_id in known]
        self.samples_of = by_problem(inputs.samples)
        self.refinement_of = {(s.draft_id, s.source): s for s in inputs.refinements}
        self._scores = {(s.model, s.solution_id): s.p_correct for s in inputs.scores}
        self.resampler = Resampler(
            self.cluster_of.values(),
            n_draws=options.bootstrap_samples,
            seed=options.seed,
            keeps=keeps,
        )

    def units(self, solutions: Sequence[Solution]) -> list[str]:
        """Solutions → the cluster of each."""
        return [self.cluster_of[s.problem_id] for s in solutions]

    def share(self, solutions: Sequence[Solution], flags: Sequence[bool]) -> Estimate:
        """Share of flagged solutions, with Wilson's interval, or the bootstrap's if several
        solutions belong to one question.
        """
        units = self.units(solutions)
        if len(set(units)) == len(units):
            return self.resampler.share(units, [float(f) for f in flags])
        return self.resampler.mean(units, [float(f) for f in flags])

    def step_scores(self, model: str, solution: Solution) -> tuple[float, ...] | None:
        """Probability after every step. None: this model did not score the solution."""
        return self._scores.get((model, solution.id))

    def score(self, model: str, solution: Solution) -> float | None:
        """One score of a whole solution, by the run's aggregate."""
        steps = self.step_scores(model, solution)
        return None if steps is None else self.options.score(steps)

    def final(self, model: str, solution: Solution) -> float | None:
        """Probability after the last step, 0 for a solution without steps. None: this model did not
        score it.
        """
        steps = self.step_scores(model, solution)
        return None if steps is None else steps[-1] if steps else 0.0


def pool(bundles: Sequence[EvaluationInputs]) -> EvaluationInputs:
    """Several runs (seeds) → one bundle. Ids get the run's position as a prefix; orders stay."""
    if len(bundles) == 1:
        return bundles[0]
    parts = [f.name for f in dataclasses.fields(EvaluationInputs) if f.name != "name"]
    pooled = {
        part: tuple(_renamed(r, f"{i}/") for i, b in enumerate(bundles) for r in getattr(b, part))
        for part in parts
    }
    return EvaluationInputs(name=" + ".join(b.name for b in bundles), **pooled)


def _renamed(record: R, prefix: str) -> R:
    """The record with `prefix` before its own id and the ids of the records it belongs to."""
    ids = {
        name: getattr(record, name, None)
        for name in ("id", "problem_id", "solution_id", "draft_id")
    }
    return dataclasses.replace(
        record, **{name: prefix + value for name, value in ids.items() if value is not None}
    )
