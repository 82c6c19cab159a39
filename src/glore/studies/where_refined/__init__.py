"""Study `where-refined`: which wrong drafts global and local refinement fix, by the position of the
first error, and whether the two complement each other (the paper's Fig. 2 and Table 3 in numbers).

The paper finds that the union of both fixes far more than either (28 % by one, 41 % by both). The
study measures the overlap, and why it is large or small:

- on two sets of wrong solutions: the greedy drafts of the run, and samples at the run's temperature
  (several different errors of one question), apart for those with one own mistake and with several;
- against a second try of the *same* refiner: the union of global and local refinement is compared
  with that of the greedy global refinement and one sampled at T = 1, and with that of the greedy
  and a sampled local one. If another kind of refinement adds no more than another draw, the kinds
  don't complement each other;
- by text: how often both refinements are the same, and how often the global one keeps all steps
  before the first error, so that it is a local one in effect.

An own mistake is the first wrong step, and each later one that writes an equation that does not
hold (`error_kinds`). Local refinements start at the first wrong step (exact truth, else labels from
rollouts), and, for the greedy drafts, also at the SORM's mark, as in the run.

`separate=true` asks whether the one model is the reason: two more refiners are trained, one on the
run's global pairs alone and one on its local pairs alone, as many of both, from the same start and
with the same settings. The same tables are made of their refinements of the same wrong solutions.
They are compared with the one, and, since two trainings differ by themselves, with two refiners
that learned from one half of all pairs each, global and local ones; one of them refines globally,
the other locally.

stages   wrong solutions, their refinements, the other refiners
results  who fixes which, overlaps, texts
views    tables, charts, sentences
"""

from __future__ import annotations

from pydantic import Field

from glore.config import RunConfig, Settings
from glore.pipeline import Stage
from glore.studies.records import reading
from glore.studies.study import Study
from glore.studies.where_refined.results import measure
from glore.studies.where_refined.stages import (
    APART,
    MIXED,
    WRONG,
    WrongSolution,
    apart_stages,
    refining_stage,
)
from glore.studies.where_refined.views import MEASURE, charts, findings, tables

__all__ = ["STUDY", "WhereRefinedSettings", "WrongSolution"]


class WhereRefinedSettings(Settings):
    """Of the study `where-refined`."""

    samples: int = Field(800, ge=0)
    """Most wrong samples that are refined; they are chosen by hash."""
    separate: bool = False
    """Whether a refiner for each kind is trained, too, and two of both kinds."""


def study(settings: Settings) -> Study:
    """The study with these settings."""
    assert isinstance(settings, WhereRefinedSettings)
    limit, is_apart = settings.samples, settings.separate

    def stages(config: RunConfig) -> tuple[Stage, ...]:
        more = apart_stages() if is_apart else ()
        refined = (WRONG, APART, MIXED) if is_apart else (WRONG,)
        return (
            refining_stage(limit),
            *more,
            reading(MEASURE, config, measure, inputs=refined),
        )

    return Study(
        "where-refined",
        "Drafts fixed by global and by local refinement, by the position of the first error, and "
        "whether the two complement each other (Fig. 2, Table 3).",
        stages,
        tables,
        charts,
        findings,
        settings=settings,
        build=study,
    )


STUDY = study(WhereRefinedSettings())
