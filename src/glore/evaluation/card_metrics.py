"""The numbers of an evaluation in the model cards of its run."""

from __future__ import annotations

from pathlib import Path

from glore.errors import RunError
from glore.evaluation.inputs import SFT_ORM
from glore.evaluation.result import Evaluation
from glore.evaluation.reward_models import ANSWER, FINAL, INTERMEDIATE, LABELS, TRUTH
from glore.model_cards import with_metrics
from glore.pipeline.folder import write_text
from glore.statistics import Estimate

__all__ = ["card_metrics", "write_card_metrics"]

_STUDENTS = {"SFT": "sft", "EI": "student"}
_AGAINST = {
    (LABELS, INTERMEDIATE): "steps before the answer, against labels from rollouts",
    (TRUTH, INTERMEDIATE): "steps before the answer, against the exact truth",
    (ANSWER, FINAL): "final answers",
}
_INTERVALS = (
    "On the test questions of the run, with 95 % bootstrap intervals over questions; n counts what "
    "is judged."
)


def card_metrics(evaluation: Evaluation) -> dict[str, list[str]]:
    """Name of a model in the run → the lines of its card's section `Metrics`."""
    found: dict[str, list[str]] = {}
    for student in evaluation.table5:
        if student.student in _STUDENTS:
            shares = {
                "right, greedy": student.greedy,
                "right, sampled": student.sampled,
                f"right, majority of {student.k}": student.majority,
                f"right, one of {student.k}": student.pass_k,
            }
            found[_STUDENTS[student.student]] = [_line(what, e) for what, e in shares.items()]
    for row in (*evaluation.table1, *evaluation.table2):
        what = _AGAINST.get((row.against, row.scope))
        if what is not None:
            found.setdefault(row.model, []).extend(
                [
                    _line(f"accuracy on {what}", row.natural),
                    _line(f"class-balanced accuracy on {what}", row.balanced),
                ]
            )
    fixed = [
        _line(f"wrong drafts fixed ({' or '.join(row.refiners)})", row.fixed)
        for row in evaluation.table3
        if len(row.refiners) == 1
    ]
    if fixed:
        found["refiner"] = fixed
    return {model: [_INTERVALS, "", *lines] for model, lines in found.items() if model != SFT_ORM}


def write_card_metrics(models: Path, evaluation: Evaluation) -> None:
    """Write the numbers into the cards below the run's folder of models. A card that was removed,
    or whose section `Metrics` was, stays so. Raises RunError when the disk refuses.
    """
    for model, lines in card_metrics(evaluation).items():
        card = models / model / "README.md"
        try:
            text = card.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise RunError(f"can't read {card}: {error}; remove it or correct it") from error
        changed = with_metrics(text, lines)
        if changed != text:
            write_text(card, changed)


def _line(what: str, e: Estimate | None) -> str:
    if e is None or e.value is None or e.low is None or e.high is None:
        return f"- {what}: not measured"
    low, high = 100 * e.low, 100 * e.high
    return f"- {what}: {100 * e.value:.1f} % [{low:.1f}, {high:.1f}], n = {e.n:,}"
