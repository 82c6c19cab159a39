"""Training and evaluation as an ordered list of stages, top to bottom (methods 1 to 6). Each is
thin I/O around the concepts.

    bases      problems, base model, SFT, expert iteration, the student
    reward     samples, ORM, Balanced ORM, verifying rollouts, step labels, SORM
    refining   refinement pairs, the joint refiner
    testing    drafts, samples, labels, scores and refinements of the test questions; tables
    checks     what a stage would refuse of the settings, before the first begins
    common     opening tasks and models, sampling and scoring shard by shard

A stage names the settings it reads, so that a change to any other setting leaves its result in
place. Which engine rows or devices are used is not among them: they change speed alone. The two
stages that read local data or the folder of a base model name it in `contents`, so that a changed
file counts as a changed setting; the others follow from them.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from glore.config import RunConfig
from glore.pipeline import Stage
from glore.pipeline.fingerprints import model_contents
from glore.stages import bases, refining, reward, testing
from glore.stages.checks import check_stage
from glore.stages.common import engine_key, estimated_questions, estimated_tokens
from glore.stages.testing import evaluation_options, read_inputs
from glore.tasks.open import data_contents

__all__ = ["build_stages", "evaluation_options", "read_inputs"]

Settings = dict[str, object]

TRAIN_ROWS_SHARE = 0.5
"""For estimates: so many of the solutions are right, distinct or wrong enough to be trained on."""
PREFIXES_PER_DRAFT = 2
"""For estimates: so many prefixes of a draft are tried by the scan, right drafts counted."""


def build_stages(config: RunConfig) -> tuple[Stage, ...]:
    """All stages of a run, in order. The number of rounds and whether there is an SFT student
    depend on the settings.
    """
    rounds = range(1, config.student.ei.max_rounds + 1)
    trained = ("sft", *(f"ei{r}_train" for r in rounds))
    sft_stages = _sft_stages() if config.student.bootstrap == "sft" else ()
    sft_tests = tuple(s.name for s in sft_stages if s.name.startswith("sft_test"))
    sft_orm = tuple(s.name for s in sft_stages if s.name == "sft_orm")
    stages = (
        Stage(
            "problems",
            (),
            lambda c: c.task,
            bases.read_problems,
            contents=lambda c: data_contents(c.task),
        ),
        Stage(
            "base",
            (),
            _base_settings,
            bases.make_base,
            models=() if config.base.model else ("base",),
            contents=_base_contents,
            estimate=lambda c: 0 if c.base.model else c.base.scratch.n_tokens,
        ),
        Stage(
            "sft",
            ("problems", "base"),
            _sft_settings,
            bases.run_sft,
            models=("sft",) if config.student.bootstrap == "sft" else (),
            estimate=_estimate_sft,
        ),
        *(stage for r in rounds for stage in _round(r)),
        Stage("student", trained, _student_settings, bases.select_student, models=("student",)),
        Stage(
            "samples",
            ("problems", "student"),
            _sample_settings,
            reward.sample_train_questions,
            estimate=_estimate_samples,
        ),
        Stage(
            "orm",
            ("base", "samples"),
            _orm_settings,
            reward.train_orm,
            models=("orm",),
            estimate=_estimate_orm,
        ),
        Stage(
            "balanced_orm",
            ("base", "samples"),
            _orm_settings,
            reward.train_balanced_orm,
            models=("balanced_orm",),
            estimate=_estimate_orm,
        ),
        Stage(
            "rollouts",
            ("samples",),
            _rollout_settings,
            reward.verify_train_drafts,
            estimate=_estimate_rollouts,
        ),
        Stage("labels", ("rollouts",), _label_settings, reward.label_train_drafts),
        Stage(
            "sorm",
            ("base", "labels"),
            _sorm_settings,
            reward.train_sorm,
            models=("sorm",),
            estimate=_estimate_sorm,
        ),
        Stage("pairs", ("labels",), _pair_settings, refining.make_pairs),
        Stage(
            "refiner",
            ("base", "pairs"),
            _refiner_settings,
            refining.train_refiner,
            models=("refiner",),
        ),
        Stage(
            "test_drafts",
            ("student",),
            _greedy_settings,
            partial(testing.solve_test_questions, model="student"),
            estimate=_estimate_drafts,
        ),
        Stage(
            "test_samples",
            ("student",),
            _test_sample_settings,
            partial(testing.sample_test_questions, model="student"),
            estimate=_estimate_test_samples,
        ),
        *sft_stages,
        Stage(
            "test_rollouts",
            ("test_drafts",),
            _test_rollout_settings,
            testing.verify_test_drafts,
            estimate=_estimate_test_rollouts,
        ),
        Stage("test_labels", ("test_rollouts",), _test_label_settings, testing.label_test_drafts),
        Stage(
            "test_draft_scores",
            ("test_drafts", "orm", "balanced_orm", "sorm"),
            _scorer_settings,
            testing.score_test_drafts,
        ),
        Stage(
            "test_refinements",
            ("test_draft_scores", "refiner"),
            _refine_settings,
            testing.refine_test_drafts,
            estimate=lambda c: 3 * _estimate_drafts(c),
        ),
        Stage(
            "test_scores",
            ("test_samples", "test_refinements", *sft_tests, *sft_orm),
            _scorer_settings,
            testing.score_test_solutions,
        ),
        Stage(
            "evaluate",
            ("labels", "test_labels", "test_scores", *sft_tests),
            _evaluate_settings,
            testing.evaluate_run,
        ),
    )
    return tuple(dataclasses.replace(stage, check=partial(check_stage, stage)) for stage in stages)


def _round(number: int) -> tuple[Stage, Stage]:
    """Sampling and training of one round of expert iteration; both do nothing once the stopping
    rule fired.
    """
    earlier = ("problems", "base", "sft", *(f"ei{r}_train" for r in range(1, number)))
    return (
        Stage(
            f"ei{number}_samples",
            earlier,
            _round_settings,
            partial(bases.sample_round, round_=number),
            estimate=_estimate_round,
        ),
        Stage(
            f"ei{number}_train",
            (*earlier, f"ei{number}_samples"),
            _round_train_settings,
            partial(bases.train_round, round_=number),
            models=(f"ei{number}",),
            estimate=lambda c: round(
                number * _estimate_round(c) * TRAIN_ROWS_SHARE * c.student.ei_train.epochs
            ),
        ),
    )


def _sft_stages() -> tuple[Stage, ...]:
    """The SFT student for Table 5: its own ORM, its drafts and samples. Empty where the student is
    the SFT model.
    """
    drafts, samples = (
        partial(testing.solve_test_questions, model="sft"),
        partial(testing.sample_test_questions, model="sft"),
    )
    return (
        Stage(
            "sft_samples",
            ("student",),
            _sample_settings,
            reward.sample_for_sft_orm,
            estimate=_estimate_samples,
        ),
        Stage(
            "sft_orm",
            ("base", "sft_samples"),
            _orm_settings,
            reward.train_sft_orm,
            models=("sft_orm",),
            estimate=_estimate_orm,
        ),
        Stage("sft_test_drafts", ("student",), _greedy_settings, drafts, estimate=_estimate_drafts),
        Stage(
            "sft_test_samples",
            ("student",),
            _test_sample_settings,
            samples,
            estimate=_estimate_test_samples,
        ),
    )


def _base_settings(c: RunConfig) -> Settings:
    if c.base.model is not None:
        pinned = {"base.revision": c.base.revision} if c.base.revision else {}
        return {"base.model": c.base.model, **pinned, "base.dtype": c.base.dtype}
    task = c.task.model_dump(exclude={"stories": {"n_train", "worked_share"}, "boxed": True})
    return {"base.dtype": c.base.dtype, "base.scratch": c.base.scratch, "task": task}


def _base_contents(c: RunConfig) -> dict[str, str | None]:
    return (
        data_contents(c.task, base_text=True)
        if c.base.model is None
        else model_contents(c.base.model)
    )


def _greedy_settings(c: RunConfig) -> Settings:
    return {"student.max_new_tokens": c.student.max_new_tokens, **engine_key(c)}


def _sft_settings(c: RunConfig) -> Settings:
    return {
        "student.bootstrap": c.student.bootstrap,
        "student.sft": c.student.sft,
        **_greedy_settings(c),
    }


def _round_settings(c: RunConfig) -> Settings:
    ei = c.student.ei
    own = {
        f"student.ei.{key}": getattr(ei, key)
        for key in ("samples", "questions", "temperature", "min_gain")
    }
    return {"student.bootstrap": c.student.bootstrap, **own, **_greedy_settings(c)}


def _round_train_settings(c: RunConfig) -> Settings:
    own = {
        "student.ei.max_per_question": c.student.ei.max_per_question,
        "student.ei_train": c.student.ei_train,
    }
    return {"student.bootstrap": c.student.bootstrap, **own, **_greedy_settings(c)}


def _student_settings(c: RunConfig) -> Settings:
    return {
        "student.bootstrap": c.student.bootstrap,
        "student.ei.max_rounds": c.student.ei.max_rounds,
    }


def _sample_settings(c: RunConfig) -> Settings:
    own = {
        "reward.questions": c.reward.questions,
        "reward.samples": c.reward.samples,
        "reward.temperature": c.reward.temperature,
    }
    return {**own, **_greedy_settings(c)}


def _orm_settings(c: RunConfig) -> Settings:
    return {"reward.init": c.reward.init, "reward.orm": c.reward.orm}


def _consistency(c: RunConfig) -> Settings:
    return {
        "labels.consistency": c.labels.consistency,
        "labels.consistency_steps": c.labels.consistency_steps,
    }


def _test_rollout_settings(c: RunConfig) -> Settings:
    labels = c.labels
    own = {
        "labels.rollouts": labels.rollouts,
        "labels.temperature": labels.temperature,
        "labels.max_new_tokens": labels.max_new_tokens,
    }
    full = {
        "labels.full_counts": labels.full_counts,
        "evaluation.label_full_counts": c.evaluation.label_full_counts,
    }
    return {**own, **full, **_consistency(c), **engine_key(c)}


def _rollout_settings(c: RunConfig) -> Settings:
    shared = {
        k: v for k, v in _test_rollout_settings(c).items() if k != "evaluation.label_full_counts"
    }
    return {**shared, "reward.draft_samples": c.reward.draft_samples}


def _test_label_settings(c: RunConfig) -> Settings:
    return {"labels.propagate": c.labels.propagate, **_consistency(c)}


def _label_settings(c: RunConfig) -> Settings:
    return {
        **_test_label_settings(c),
        "labels.balance": c.labels.balance,
        "reward.draft_samples": c.reward.draft_samples,
    }


def _sorm_settings(c: RunConfig) -> Settings:
    return {
        "reward.init": c.reward.init,
        "reward.sorm": c.reward.sorm,
        "reward.draft_samples": c.reward.draft_samples,
    }


def _pair_settings(c: RunConfig) -> Settings:
    own = {
        "refiner.global_mark": c.refiner.global_mark,
        "refiner.global_pairs": c.refiner.global_pairs,
    }
    return {
        **own,
        **_consistency(c),
        "reward.draft_samples": c.reward.draft_samples,
        "student.bootstrap": c.student.bootstrap,
    }


def _refiner_settings(c: RunConfig) -> Settings:
    return {"refiner.init": c.refiner.init, "refiner.train": c.refiner.train}


def _test_sample_settings(c: RunConfig) -> Settings:
    own = {
        "evaluation.samples": c.evaluation.samples,
        "evaluation.temperature": c.evaluation.temperature,
    }
    return {**own, **_greedy_settings(c)}


def _scorer_settings(c: RunConfig) -> Settings:
    return {"student.bootstrap": c.student.bootstrap, **engine_key(c)}


def _refine_settings(c: RunConfig) -> Settings:
    own = {
        "refiner.global_mark": c.refiner.global_mark,
        "evaluation.threshold": c.evaluation.threshold,
    }
    return {**own, **_greedy_settings(c)}


def _evaluate_settings(c: RunConfig) -> Settings:
    e = c.evaluation
    own = {
        "evaluation.threshold": e.threshold,
        "evaluation.aggregate": e.aggregate,
        "evaluation.best_of": e.best_of,
    }
    more = {
        "evaluation.bootstrap_samples": e.bootstrap_samples,
        "labels": c.labels,
        "reward.draft_samples": c.reward.draft_samples,
    }
    return {"student.bootstrap": c.student.bootstrap, **own, **more}


def _reward_questions(c: RunConfig) -> int:
    n = estimated_questions(c, "train")
    return min(n, c.reward.questions or n)


def _estimate_sft(c: RunConfig) -> int:
    if c.student.bootstrap != "sft":
        return 0
    share = c.task.stories.worked_share if c.task.kind == "stories" else 1.0
    return estimated_tokens(c, estimated_questions(c, "train") * share * c.student.sft.epochs)


def _estimate_round(c: RunConfig) -> int:
    n_train = estimated_questions(c, "train")
    return estimated_tokens(
        c, min(c.student.ei.questions or n_train, n_train) * c.student.ei.samples
    )


def _estimate_samples(c: RunConfig) -> int:
    return estimated_tokens(c, _reward_questions(c) * c.reward.samples)


def _estimate_orm(c: RunConfig) -> int:
    return round(_estimate_samples(c) * c.reward.orm.epochs)


def _estimate_sorm(c: RunConfig) -> int:
    return estimated_tokens(c, _reward_questions(c) * c.reward.draft_samples * c.reward.sorm.epochs)


def _estimate_rollouts(c: RunConfig) -> int:
    drafts = _reward_questions(c) * c.reward.draft_samples
    return estimated_tokens(c, drafts * PREFIXES_PER_DRAFT * c.labels.rollouts * TRAIN_ROWS_SHARE)


def _estimate_drafts(c: RunConfig) -> int:
    return estimated_tokens(c, estimated_questions(c, "test"))


def _estimate_test_samples(c: RunConfig) -> int:
    return _estimate_drafts(c) * c.evaluation.samples


def _estimate_test_rollouts(c: RunConfig) -> int:
    return round(_estimate_drafts(c) * PREFIXES_PER_DRAFT * c.labels.rollouts * TRAIN_ROWS_SHARE)
