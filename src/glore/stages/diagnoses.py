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
"""A student that is right less often than this gives too little to learn from."""
MIN_OTHER = 5
"""Fewer items of one kind than this say nothing about whether it is found."""
FOUND = 0.2
"""A reward model that finds fewer of a rare kind than this share of their number doesn't know it.
"""
COPIED = 0.5
"""A refiner that returns this share of the drafts unchanged copies."""
HOPELESS = 0.002
"""A student that is right in at most this share of its rollouts from wrong drafts never recovers.
"""
MIN_N = 20
"""Fewer items than this are too few for a warning."""


def _harder(training: str) -> str:
    """What makes a training learn more, from the setting that makes it longer."""
    return f"{training.rpartition('.')[0]}.learning_rate, {training}"


def student_fails(solutions: Sequence[Solution], what: str, training: str) -> str | None:
    """For greedy solutions of `what` questions: hardly one is right, or many are cut off.
    `training`: the setting that makes the student's training longer.
    """
    n = len(solutions)
    right = sum(s.correct == "right" for s in solutions)
    cut = sum(s.stop == "length" for s in solutions)
    if n < MIN_N:
        return None
    if cut > n / 4:
        return (
            f"{cut} of {n} greedy solutions of {what} questions run out of tokens; raise "
            f"student.max_new_tokens, or train the student longer ({training}), so that it learns "
            "where a solution ends"
        )
    if right <= n * RARE:
        return (
            f"the student answers {right} of {n} {what} questions right, which is too few for "
            f"rollouts and rewards to learn from; fine-tune harder ({_harder(training)}), use a "
            "stronger base.model, or choose easier questions"
        )
    return None


def expert_iteration_gained_nothing(
    accuracies: Sequence[float], best: int, training: str, n_dev: str
) -> str | None:
    """For the greedy accuracies on dev, round 0 first, and the student's round: no round beats
    round 0, which is fine-tuning alone, or the base with examples in its prompt. `training`: the
    setting that makes a round's training longer; `n_dev`: that of the number of dev questions.
    """
    if len(accuracies) < 2 or max(accuracies[1:]) > accuracies[0]:
        return None
    rounds = ", ".join(f"{a:.1%}" for a in accuracies)
    student = "the SFT model" if best == 0 else f"round {best}, no better than the prompted base"
    return (
        f"expert iteration gained nothing on dev (rounds: {rounds}), so the student is {student}; "
        "sample more (student.ei.samples, student.ei.questions), train longer "
        f"({training}), or give more dev questions ({n_dev}) to see smaller gains"
    )


def judges_every_step_alike(
    model: str, training: str, scores: Sequence[Scores], labels: Sequence[Sequence[bool]]
) -> str | None:
    """For scores and labels of training steps: the reward model gives every step one class,
    although the labels hold both. `training`: the setting that makes its training longer.
    """
    good = [p > 0.5 for steps in scores for p in steps]
    truth = [label for steps in labels for label in steps]
    n = len(good)
    missed = _missed(good, truth)
    if missed is None:
        return None
    called = good.count(missed)
    other, side = ("good", "bad") if missed else ("bad", "good")
    n_other = truth.count(missed)
    return (
        f"the {model} calls {1 - called / n:.0%} of {n} training steps {side}, although "
        f"{n_other} of them have the label {other}: it learned no difference. Raise "
        f"{_harder(training).replace(',', ' or')}, or give it more solutions "
        f"(reward.questions, reward.samples){_rare(n_other, n)}"
    )


def judges_every_draft_alike(
    model: str, needs_work: Sequence[bool], drafts: Sequence[Solution], training: str | None
) -> str | None:
    """For the verdicts of a reward model on drafts: all are called right, or all wrong, although
    drafts of both kinds are there. `training`: the setting that makes its training longer; none
    for one that the recipe names.
    """
    truth = [d.correct == "right" for d in drafts]
    missed = _missed([not wrong for wrong in needs_work], truth)
    if missed is None:
        return None
    n, n_other = len(drafts), truth.count(missed)
    other, side = ("right", "wrong") if missed else ("wrong", "right")
    called = sum(wrong != missed for wrong in needs_work)
    fix = (
        f"Take another model (reward.ready.{model})"
        if training is None
        else f"Train it harder ({_harder(training)}), give it more questions (reward.questions)"
    )
    return (
        f"the {model} calls {n - called} of {n} drafts {side}, although {n_other} are {other}: "
        f"reranking by it can't help. {fix}, or move evaluation.threshold to its scores"
        f"{_rare(n_other, n)}"
    )


def _missed(called: Sequence[bool], truth: Sequence[bool]) -> bool | None:
    """The kind that is hardly ever called, although there are some of it; None without one."""
    n = len(called)
    for kind in (True, False):
        n_kind = truth.count(kind)
        most = min((1 - ALIKE) * n, FOUND * n_kind)
        if n >= MIN_N and n_kind >= MIN_OTHER and called.count(kind) <= most:
            return kind
    return None


def _rare(n_other: int, n: int) -> str:
    if n_other >= RARE * n:
        return ""
    return f"; at {n_other / n:.1%} they are rare, so a stronger student would help more"


def no_rollout_is_right(trials: Sequence[PrefixTrials], drafts: Sequence[Solution]) -> str | None:
    """For the rollouts from prefixes of these drafts: from those of wrong drafts none reaches the
    right answer, or hardly one.
    """
    wrong = {d.id for d in drafts if d.correct == "wrong"}
    verdicts = [v for trial in trials if trial.solution_id in wrong for v in trial.correct]
    n, right = len(verdicts), verdicts.count("right")
    if n < MIN_N or right > HOPELESS * n:
        return None
    return (
        f"{right or 'none'} of {n} rollouts from prefixes of wrong drafts "
        f"{'are' if right > 1 else 'is'} right, so {'nearly ' if right else ''}every step of these "
        "drafts gets the label bad; use a stronger student, easier questions, more rollouts "
        "(labels.rollouts), or a higher labels.max_new_tokens if they are cut off"
    )


def labels_are_of_one_kind(counts: LabelCounts, in_run: bool = True) -> str | None:
    """For the labels of training drafts: all steps that count are good, or all are bad. `in_run`:
    the drafts are those of a run, or else solutions of a file.
    """
    kinds = {"good": counts.n_kept_positive, "bad": counts.n_kept_negative}
    if all(kinds.values()) or counts.n_drafts < MIN_N:
        return None
    if not any(kinds.values()):
        return (
            f"no step of {counts.n_drafts} drafts has a label that counts: {counts.n_unlabelled} "
            "are unlabelled; see whether "
            f"{'labels.balance' if in_run else 'balance'} drops the rest"
        )
    side = max(kinds, key=lambda kind: kinds[kind])
    return f"all {kinds[side]} step labels are {side}, so a SORM has nothing to tell apart; " + (
        "choose harder or easier questions, a stronger student, or more drafts "
        "(reward.draft_samples)"
        if in_run
        else "give more solutions, right and wrong ones, or another --policy"
    )


def refiner_copies(
    refined: Sequence[Solution], drafts: Mapping[str, Solution], training: str
) -> str | None:
    """For refinements, and drafts by id: the refiner returns wrong drafts unchanged. To leave a
    right one as it is, is no fault. `training`: the setting that makes its training longer.
    """
    pairs = [(drafts[s.draft_id or ""], s) for s in refined]
    of_wrong = [s.steps == d.steps for d, s in pairs if d.correct != "right"]
    n, copied = len(of_wrong), sum(of_wrong)
    if n < MIN_N or copied < COPIED * n:
        return None
    return (
        f"{copied} of {n} refinements of wrong drafts are the draft itself: the refiner copies. "
        "Give it more pairs (reward.draft_samples, refiner.global_pairs=all), or train it harder "
        f"({_harder(training)})"
    )
