"""Study `rerank`: the ways to reduce step scores to one score, for every reward model, and K up to
96 (App. D).

K samples of each test question are reranked by the ORM, the Balanced ORM and the SORM, with every
way of `glore.rerank.AGGREGATES`; the same scores also weigh the votes of a majority. Plain majority
voting and pass@K stand beside them. By default the study reads the samples and scores of the run;
with `samples=96` it draws and scores what is missing. Accuracy at K is the expectation over all
K-subsets of the samples (`glore.evaluation.rerank_curves`); of a majority, the mean over a few.
Assumes that all samples of a question come from one student at one temperature.

Published since (arXiv 2501.07301): models trained on rollout labels rank best by the last step's
score, on human labels by the minimum. The SORM is of the first kind, so `final − min` is a row.

Fig. 4's candidates (draft, global and local refinement) are chosen by the same models and ways,
where the run lets the ORM choose by its one aggregate.

samples     accuracies at every K
candidates  the choice among draft and refinements
views       tables, charts, sentences
"""

from __future__ import annotations

from pydantic import Field

from glore.config import RunConfig, Settings
from glore.errors import ConfigError
from glore.evaluation.inputs import REWARD_MODELS
from glore.pipeline import Stage, StageContext
from glore.records import Problem, Solution
from glore.stages.checks import check_engine
from glore.stages.common import SAMPLING, drawn_by, problems_by_id, sample, score
from glore.stages.estimates import draft_tokens
from glore.studies.records import BOOTSTRAP, reading
from glore.studies.rerank import candidates
from glore.studies.rerank.samples import MORE, SCORES, measure
from glore.studies.rerank.views import CANDIDATES_MEASURED, MEASURE, charts, findings, tables
from glore.studies.study import Study

__all__ = ["STUDY", "RerankSettings"]


class RerankSettings(Settings):
    """Of the study `rerank`."""

    samples: int = Field(0, ge=0, le=4096)
    """K: samples of each test question, of which the run has some; 0: those alone."""


def study(settings: Settings) -> Study:
    """The study with these settings."""
    assert isinstance(settings, RerankSettings)
    wanted = settings.samples

    def missing(config: RunConfig) -> int:
        return max(0, wanted - config.evaluation.samples)

    def draw(ctx: StageContext) -> None:
        """The samples that the run lacks."""
        evaluation = ctx.config.evaluation
        sample(
            ctx,
            ctx.model_dir("student"),
            ctx.read("problems", Problem, "test"),
            source="student",
            n=missing(ctx.config),
            drawn=evaluation,
        )

    def stages(config: RunConfig) -> tuple[Stage, ...]:
        if 0 < wanted < config.evaluation.samples:
            raise ConfigError(
                f"samples: the run has {config.evaluation.samples} samples of each test question "
                f"and all are used, got {wanted}; give a larger number, or leave it out"
            )
        more: tuple[Stage, ...] = ()
        if missing(config):
            more = (
                Stage(
                    MORE,
                    draw,
                    inputs=("test_samples",),
                    reads=("evaluation.samples", *drawn_by("evaluation"), *SAMPLING),
                    opens=lambda _: ("student",),
                    estimate=lambda c: missing(c) * draft_tokens(c),
                    checks=(check_engine,),
                    own={"samples": wanted},
                ),
                Stage(
                    SCORES,
                    _score,
                    inputs=(MORE, *REWARD_MODELS),
                    reads=("engine",),
                    opens=lambda _: REWARD_MODELS,
                    checks=(check_engine,),
                ),
            )
        measuring = Stage(
            MEASURE,
            measure,
            inputs=("test_samples", "test_scores", *(stage.name for stage in more)),
            reads=BOOTSTRAP,
            opens=lambda _: (),
            own={"samples": wanted},
            version=2,
        )
        chosen = reading(CANDIDATES_MEASURED, config, candidates.measure)
        return (*more, chosen, measuring)

    return Study(
        "rerank",
        "The ways to reduce step scores to one score, for every reward model and K (App. D).",
        stages,
        tables,
        charts,
        findings,
        settings=settings,
        build=study,
    )


def _score(ctx: StageContext) -> None:
    """Every reward model on the new samples: a part each."""
    problems, samples = problems_by_id(ctx, "test"), ctx.read(MORE, Solution)
    for model in REWARD_MODELS:
        score(ctx, model, samples, problems, part=model)


STUDY = study(RerankSettings())
