"""Signs that a stage failed although it finished, with the usual causes and the setting to change.

Each function takes what a stage has made and returns a warning of one line, or None. The stage
reports it at once (`StageContext.warn`); `glore show` and the report repeat it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glore.records import PrefixTrials, Solution
from glore.where import LabelCounts

__all__ = [
    "COPIED",
    "MIN_N",
    "RARE",
    "expert_iteration_gained_nothing",
    "judges_every_draft_alike",
    "judges_every_step_alike",
    "labels_are_of_one_kind",
    "no_rollout_is_right",
    "refiner_copies",
    "student_fails",
]

Scores = Sequence[float]

ALIKE = 0.99
"""A reward model that puts this share of the steps on one side of the threshold tells nothing
apart.
"""
RARE = 0.05
"""Less than this share of one kind is too little to expect a reward model to find it."""
COPIED = 0.5
"""A refiner that returns this share of the drafts unchanged copies."""
MIN_N = 20
"""Fewer items than this are too few for a warning."""


def student_fails(solutions: Sequence[Solution], what: str) -> str | None:
    """For greedy solutions of `what` questions: hardly one is right, or many are cut off."""
    n = len(solutions)
    right = sum(s.correct == "right" for s in solutions)
    cut = sum(s.stop == "length" for s in solutions)
    if n < MIN_N:
        return None
    if cut > n / 4:
        return (
            f"{cut} of {n} greedy solutions of {what} questions run out of tokens; raise "
            "student.max_new_tokens, or train the student longer (student.sft.epochs), so that it "
            "learns where a solution ends"
        )
    if right <= n * RARE:
        return (
            f"the student answers {right} of {n} {what} questions right, which is too few for "
            "rollouts and rewards to learn from; fine-tune harder (student.sft.learning_rate, "
            "student.sft.epochs), use a stronger base.model, or choose easier questions"
        )
    return None


def expert_iteration_gained_nothing(accuracies: Sequence[float], best: int) -> str | None:
    """For the greedy accuracies on dev, round 0 first: no round beats fine-tuning alone."""
    if len(accuracies) < 2 or best > 0:
        return None
    rounds = ", ".join(f"{a:.1%}" for a in accuracies)
    return (
        f"expert iteration gained nothing on dev (rounds: {rounds}), so the student is the SFT "
        "model; sample more (student.ei.samples, student.ei.questions), train longer "
        "(student.ei_train.epochs), or give more dev questions (task.n_dev) to see smaller gains"
    )


def judges_every_step_alike(
    model: str, section: str, scores: Sequence[Scores], labels: Sequence[Sequence[bool]]
) -> str | None:
    """For scores and labels of training steps: the reward model gives every step one class,
    although the labels hold both.
    """
    good = [p > 0.5 for steps in scores for p in steps]
    truth = [label for steps in labels for label in steps]
    n = len(good)
    if n < MIN_N or min(truth.count(True), truth.count(False)) < RARE * n:
        return None
    share = sum(good) / n
    if ALIKE > share > 1 - ALIKE:
        return None
    side, other = ("good", "bad") if share > 0.5 else ("bad", "good")
    n_other = truth.count(other == "good")
    return (
        f"the {model} calls {max(share, 1 - share):.0%} of {n} training steps {side}, although "
        f"{n_other} of them have the label {other}: it learned no difference. Raise "
        f"{section}.learning_rate or {section}.epochs, or give it more solutions "
        "(reward.questions, reward.samples)"
    )


def judges_every_draft_alike(
    model: str, needs_work: Sequence[bool], drafts: Sequence[Solution]
) -> str | None:
    """For the verdicts of a reward model on drafts: all are called right, or all wrong, although
    drafts of both kinds are there.
    """
    right = sum(d.correct == "right" for d in drafts)
    n, called_wrong = len(drafts), sum(needs_work)
    if n < MIN_N or min(right, n - right) < RARE * n:
        return None
    if RARE * n / 5 < called_wrong < n - RARE * n / 5:
        return None
    side = "wrong" if called_wrong > n / 2 else "right"
    return (
        f"the {model} calls {max(called_wrong, n - called_wrong)} of {n} drafts {side}, although "
        f"{right} are right: reranking by it can't help. Train it longer "
        "(reward.orm.epochs, reward.orm.learning_rate), give it more questions "
        "(reward.questions), or move evaluation.threshold to its scores"
    )


def no_rollout_is_right(trials: Sequence[PrefixTrials]) -> str | None:
    """For rollouts from the prefixes of wrong drafts: none reaches the right answer."""
    verdicts = [verdict for trial in trials for verdict in trial.correct]
    if len(verdicts) < MIN_N or "right" in verdicts:
        return None
    return (
        f"none of {len(verdicts)} rollouts from prefixes of wrong drafts is right, so every step "
        "of these drafts gets the label bad; use a stronger student, easier questions, more "
        "rollouts (labels.rollouts), or a higher labels.max_new_tokens if they are cut off"
    )


def labels_are_of_one_kind(counts: LabelCounts) -> str | None:
    """For the labels of training drafts: all steps that count are good, or all are bad."""
    kinds = {"good": counts.n_kept_positive, "bad": counts.n_kept_negative}
    if all(kinds.values()) or counts.n_drafts < MIN_N:
        return None
    if not any(kinds.values()):
        return (
            f"no step of {counts.n_drafts} drafts has a label that counts; see how many drafts are "
            "unlabelled (glore show), and whether labels.balance drops the rest"
        )
    side = max(kinds, key=lambda kind: kinds[kind])
    return (
        f"all {kinds[side]} step labels are {side}, so a SORM has nothing to tell apart; choose "
        "harder or easier questions, a stronger student, or more drafts (reward.draft_samples)"
    )


def refiner_copies(
    refined: Sequence[Solution], draft_steps: Mapping[str, tuple[str, ...]]
) -> str | None:
    """For refinements, and the steps of drafts by id: the refiner returns drafts unchanged."""
    n = len(refined)
    copied = sum(draft_steps[s.draft_id or ""] == s.steps for s in refined)
    if n < MIN_N or copied < COPIED * n:
        return None
    return (
        f"{copied} of {n} refinements are the draft itself: the refiner copies. Give it more pairs "
        "(reward.draft_samples, refiner.global_pairs=all), or train it harder "
        "(refiner.train.epochs, refiner.train.learning_rate)"
    )
