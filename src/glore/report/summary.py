"""An evaluation → a few sentences. An interval that includes zero shows no difference."""

from __future__ import annotations

from glore.evaluation import Evaluation
from glore.evaluation.headline import accuracy, fixed_by_both, gain, judging_steps, label_rule
from glore.evaluation.refinement import BEST_OF, GREEDY, RERANKED
from glore.report.views import percent, points
from glore.report.weakest_part import weakest_part
from glore.statistics import Difference

__all__ = ["headline"]


def headline(e: Evaluation) -> list[str]:
    """A few sentences, the most important first. Sentences about missing parts are left out."""
    makers = (_reranked, _best_of, _fixed, weakest_part, _steps, _labels, _student)
    return [sentence for make in makers if (sentence := make(e)) is not None]


def _reranked(e: Evaluation) -> str | None:
    gained, greedy = gain(e, GREEDY), accuracy(e, GREEDY)
    if gained is None or greedy is None:
        return None
    return (
        f"Greedy drafts answer {percent(greedy)} % of {greedy.n} test questions; "
        f"refined and reranked by the ORM, {percent(accuracy(e, RERANKED))} %: {_verdict(gained)}."
    )


def _best_of(e: Evaluation) -> str | None:
    gained = gain(e, BEST_OF)
    if gained is None:
        return None
    return f"Against the best of {e.options.best_of} samples by the same ORM: {_verdict(gained)}."


def _fixed(e: Evaluation) -> str | None:
    fixed = fixed_by_both(e)
    if fixed is None or not fixed.n:
        return None
    return (
        f"Global and local refinement together fix {percent(fixed)} % of the {fixed.n} wrong "
        "drafts."
    )


def _steps(e: Evaluation) -> str | None:
    found = judging_steps(e)
    if found is None:
        return None
    return f"Judging single steps, SORM against ORM (class-balanced): {_verdict(found.balanced)}."


def _labels(e: Evaluation) -> str | None:
    row = label_rule(e)
    if row is None or not row.agreement.n:
        return None
    return (
        "Step labels made without any human agree with the exact truth "
        f"on {percent(row.agreement)} % of {row.agreement.n} steps."
    )


def _student(e: Evaluation) -> str | None:
    if e.ei_gain is None:
        return None
    if not e.ei_gain.gained and not e.ei_gain.lost:
        return (
            "The student is right on the same questions as the SFT model. It is the SFT model where"
            " no round of expert iteration was run or gained on dev."
        )
    return f"Expert iteration against supervised fine-tuning, greedy: {_verdict(e.ei_gain)}."


def _verdict(d: Difference) -> str:
    if d.value is None:
        return "nothing to compare"
    shown = "" if d.excludes_zero else " (the interval includes zero: no difference shown)"
    return f"{points(d)} points{shown}"
