"""What came out, in plain words. Says "no difference shown" when an interval includes zero."""

from __future__ import annotations

from glore.evaluation import Evaluation
from glore.report.views import percent, points
from glore.statistics import Difference, Estimate

__all__ = ["fixed_by_both", "gain", "headline"]


def headline(e: Evaluation) -> list[str]:
    """A few sentences, the most important first; fewer where parts of the run are missing."""
    return [
        s for s in (_reranked(e), _best_of(e), _fixed(e), _steps(e), _labels(e), _student(e)) if s
    ]


def _reranked(e: Evaluation) -> str | None:
    ways = {r.way: r.accuracy for r in e.figure4}
    gained = gain(e, "greedy")
    if gained is None:
        return None
    return (
        f"Greedy drafts answer {percent(ways['greedy'])} % of {ways['greedy'].n} test questions; "
        f"refined and reranked by the ORM, {percent(ways['reranked'])} %: {_verdict(gained)}."
    )


def _best_of(e: Evaluation) -> str | None:
    gained = gain(e, "best_of")
    return (
        f"Against the best of {e.options.best_of} samples by the same ORM: {_verdict(gained)}."
        if gained
        else None
    )


def _fixed(e: Evaluation) -> str | None:
    fixed = fixed_by_both(e)
    return (
        f"Global and local refinement together fix {percent(fixed)} % of the {fixed.n} wrong "
        "drafts."
        if fixed and fixed.n
        else None
    )


def _steps(e: Evaluation) -> str | None:
    against = "labels" if any(d.against == "labels" for d in e.table1_differences) else "truth"
    found = [
        d
        for d in e.table1_differences
        if (d.first, d.second, d.against, d.scope) == ("sorm", "orm", against, "intermediate")
    ]
    return (
        f"Judging single steps, SORM against ORM (class-balanced): {_verdict(found[0].balanced)}."
        if found
        else None
    )


def _labels(e: Evaluation) -> str | None:
    row = next((r for r in e.agreement if r.rule == "as used"), None)
    if row is None or not row.agreement.n:
        return None
    return (
        "Step labels made without any human agree with the exact truth "
        f"on {percent(row.agreement)} % of {row.agreement.n} steps."
    )


def _student(e: Evaluation) -> str | None:
    return (
        f"Expert iteration against supervised fine-tuning, greedy: {_verdict(e.ei_gain)}."
        if e.ei_gain
        else None
    )


def gain(e: Evaluation, over: str) -> Difference | None:
    """Accuracy of refining and reranking, minus that of another way of Fig. 4."""
    return next(
        (d.difference for d in e.figure4_differences if (d.first, d.second) == ("reranked", over)),
        None,
    )


def fixed_by_both(e: Evaluation) -> Estimate | None:
    """Share of wrong drafts that global or local refinement fixes."""
    return next((r.fixed for r in e.table3 if r.refiners == ("global", "local_sorm")), None)


def _verdict(d: Difference) -> str:
    if d.value is None:
        return "nothing to compare"
    return f"{points(d)} points" + (
        "" if d.excludes_zero else " (the interval includes zero: no difference shown)"
    )
