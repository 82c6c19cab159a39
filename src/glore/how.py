"""How to refine: training pairs of the joint refiner, and refinement requests (method 4).

One model learns both kinds of refinement: question and marked draft → whole corrected solution. It
is trained on wrong drafts only.

Local: `[BAD]` stands before the first bad step S_e; the target is P_{e−1} and a right, consistent
verifying trace from it (for e = 1, any right solution of the question). Global: `[BAD]` stands
before S_1; the target is a right solution of the question. Value-based (App. J): `[BAD]` stands
after the prefix from which most verifying rollouts are right.

Every random choice is by a stable hash of the draft, so it depends neither on the order nor on the
rest of the data. A draft without a target gives no pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glore.engines.protocol import Request, SamplingParams
from glore.prompts import LINES, PLAIN, PromptLayout, StepFormat
from glore.records import PrefixTrials, RefinementPair, Solution, StepLabels
from glore.seeds import stable_seed
from glore.solutions import same_text

__all__ = [
    "global_pairs",
    "local_pairs",
    "mixed_pairs",
    "refine_request",
    "value_mark",
    "value_pairs",
]

Steps = tuple[str, ...]


def local_pairs(
    drafts: Sequence[Solution],
    labels: Sequence[StepLabels],
    traces: Mapping[tuple[str, int], Sequence[Steps]],
    right: Mapping[str, Sequence[Steps]],
    *,
    seed: int,
) -> list[RefinementPair]:
    """Up to one pair per wrong, labelled draft. `traces`: (draft id, i) → right, consistent
    continuations of P_i; `right`: problem id → right solutions.
    """
    first_error = {r.solution_id: r.first_error for r in labels if r.labels is not None}
    pairs = []
    for draft in drafts:
        e = first_error.get(draft.id)
        if draft.correct != "wrong" or e is None:
            continue
        kept, tails = (
            draft.steps[:e],
            (traces.get((draft.id, e), ()) if e else right.get(draft.problem_id, ())),
        )
        if tails:
            pairs.append(_pair(draft, "local", e, (*kept, *_drawn(tails, seed, "local", draft.id))))
    return pairs


def global_pairs(
    drafts: Sequence[Solution],
    right: Mapping[str, Sequence[Steps]],
    *,
    seed: int,
    mark: str = "first",
    how_many: str = "one",
) -> list[RefinementPair]:
    """Pairs of each wrong draft with right solutions of its question. `right`: problem id → right
    solutions; `mark`: `first` or `none`; `how_many`: `one` (random) or `all`.
    """
    pairs = []
    for draft in drafts:
        targets = (
            list(right.get(draft.problem_id, ()))
            if draft.correct == "wrong" and draft.steps
            else []
        )
        chosen = (
            [_drawn(targets, seed, "global", draft.id)]
            if targets and how_many == "one"
            else targets
        )
        pairs += [
            _pair(draft, "global", 0 if mark == "first" else None, target) for target in chosen
        ]
    return pairs


def mixed_pairs(
    local: Sequence[RefinementPair], globals_: Sequence[RefinementPair], *, seed: int
) -> list[RefinementPair]:
    """Local, then global pairs, as many of each: the larger kind is subsampled by hash, its order
    stays.
    """
    n = min(len(local), len(globals_))
    return [*_subsample(local, n, seed), *_subsample(globals_, n, seed)]


def value_pairs(
    drafts: Sequence[Solution],
    trials: Sequence[PrefixTrials],
    *,
    seed: int,
    steps: StepFormat = LINES,
) -> list[RefinementPair]:
    """App. J: up to one pair per wrong draft, from full counts.

    v_i = right rollouts from P_i; i* = argmax over i < L (ties: the latest); the target is
    P_{i*} ⊕ T with T right and its first step ≠ S_{i*+1}; the mark stands before S_{i*+1}.
    """
    of_draft: dict[str, list[PrefixTrials]] = {}
    for trial in trials:
        of_draft.setdefault(trial.solution_id, []).append(trial)
    pairs = []
    for draft in drafts:
        tried = of_draft.get(draft.id, [])
        if draft.correct != "wrong" or not tried:
            continue
        best = max(tried, key=lambda t: (t.correct.count("right"), t.n_steps_kept))
        i = best.n_steps_kept
        rollouts = [
            steps.split(text)
            for text, verdict in zip(best.completions, best.correct, strict=True)
            if verdict == "right"
        ]
        other = [rollout for rollout in rollouts if rollout[:1] != (draft.steps[i],)]
        if other:
            pairs.append(
                _pair(
                    draft, "value", i, (*draft.steps[:i], *_drawn(other, seed, "value", draft.id))
                )
            )
    return pairs


def value_mark(orm_scores: Sequence[float]) -> int | None:
    """App. J at test time: ORM scores after every step → the 0-based index of S_{i*+1}, with i* =
    argmax of ORM(P_i) over 1 ≤ i < L (ties: the latest). None for L < 2.
    """
    return max(range(1, len(orm_scores)), key=lambda i: (orm_scores[i - 1], i), default=None)


def refine_request(
    request_id: str,
    question: str,
    draft: Sequence[str],
    marked_step: int | None,
    max_new_tokens: int,
    seed: int,
    layout: PromptLayout = PLAIN,
) -> Request:
    """One greedy refinement request."""
    return Request(
        id=request_id,
        segments=layout.refine(question, draft, marked_step),
        seeds=(stable_seed(seed, "refine", request_id),),
        params=SamplingParams(temperature=0.0, max_new_tokens=max_new_tokens),
    )


def _pair(draft: Solution, kind: str, marked_step: int | None, target: Steps) -> RefinementPair:
    return RefinementPair(
        problem_id=draft.problem_id,
        draft_id=draft.id,
        kind=kind,
        marked_step=marked_step,
        draft_steps=draft.steps,
        target_steps=target,
    )


def _drawn(options: Sequence[Steps], seed: int, kind: str, draft_id: str) -> Steps:
    """The option with the smallest hash: uniform over distinct options, whatever their order."""
    return min(
        options, key=lambda steps: stable_seed(seed, "pair", kind, draft_id, same_text(steps))
    )


def _subsample(pairs: Sequence[RefinementPair], n: int, seed: int) -> list[RefinementPair]:
    ranked = sorted(
        range(len(pairs)),
        key=lambda i: (
            stable_seed(
                seed, "mix", pairs[i].kind, pairs[i].draft_id, same_text(pairs[i].target_steps)
            ),
            i,
        ),
    )
    kept = set(ranked[:n])
    return [pair for i, pair in enumerate(pairs) if i in kept]
