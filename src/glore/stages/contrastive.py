"""Stage: the contrastive reward model (method 2, App. F), on the samples of the ORM. It is no stage
of a run but the first one of a study, as `rerank` and `where` have theirs: `score(ctx,
"contrastive", …)` in a later stage of the study reads the model, and the score of the last step
ranks the solutions of a question.
"""

from __future__ import annotations

from glore.errors import RunError
from glore.pipeline import StageContext, declare
from glore.records import Solution
from glore.stages.checks import check_training
from glore.stages.common import layout_of, problems_by_id
from glore.stages.estimates import orm_tokens
from glore.stages.fine_tuning import TRAINING, count_training, training_settings
from glore.stages.reward_training import reward_setup, start_of, start_opened
from glore.when import contrastive_pairs

__all__ = ["contrastive"]


@declare(
    "contrastive",
    inputs=("base", "samples"),
    reads=("reward.init", "reward.orm"),
    uses=TRAINING,
    models=("contrastive",),
    opens=start_opened,
    estimate=orm_tokens,
    checks=(check_training("reward.orm"),),
)
def contrastive(ctx: StageContext) -> None:
    """Pairs of a right and a wrong sample of one question, −log σ(r_right − r_wrong) on the last
    token, with the settings of the ORM; the samples are those of the Balanced ORM.
    """
    from glore.training.finetune import train_contrastive
    from glore.training.pairs import PairExample

    pairs = contrastive_pairs(ctx.read("samples", Solution), ctx.seed)
    if not pairs:
        raise RunError(
            "the contrastive reward model needs a question with a right and a wrong sample, and "
            "there is none: choose harder or easier questions, or more samples (reward.samples)"
        )
    ctx.count(pairs=len(pairs))
    problems = problems_by_id(ctx, "train")
    start, section = start_of(ctx), "reward.orm"
    layout = layout_of(ctx, start)
    examples = [
        PairExample(
            prompt=layout.solve(problems[right.problem_id].question),
            right=tuple(map(layout.steps.text, right.steps)),
            wrong=tuple(map(layout.steps.text, wrong.steps)),
        )
        for right, wrong in pairs
    ]
    setup = reward_setup(ctx, "contrastive", section, layout)
    report = train_contrastive(start, examples, training_settings(ctx, section), setup)
    count_training(ctx, report)
