"""The stages of the study: data and trainings of RISE and of its ablations, turns on the test
questions. Each variant has its own stage of turns, so that another study reads one of them alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from glore.config import RunConfig
from glore.pipeline import Stage, StageContext, declare
from glore.prompts import PromptLayout
from glore.records import Problem, RefinementPair, Solution
from glore.solutions import by_problem, first_of_each
from glore.stages.checks import check_engine, check_training
from glore.stages.common import SAMPLING, drawn_by, problems_by_id, sample
from glore.stages.estimates import draft_tokens, refiner_tokens, sample_tokens
from glore.stages.fine_tuning import TRAINING, train_lm
from glore.stages.refining import refiner_opened, train_refiner
from glore.studies.refining import global_mark
from glore.studies.rise.examples import (
    TurnExample,
    as_targets,
    first_turns,
    kept_right,
    next_turns,
    other_attempts,
    subsample,
)
from glore.studies.rise.turns import answer_again, attempts_before, play_turns
from glore.tasks.grading.answers import with_answer_line

__all__ = [
    "GLORE",
    "GLORE_RIGHT",
    "N_TURNS",
    "ONLY_TARGETS",
    "ONLY_WRONG",
    "PARALLEL",
    "RISE",
    "ROUND_1",
    "VARIANTS",
    "Variant",
    "rise_stages",
    "turns_name",
]

BEST_OF = 4
"""N: attempts of which the best is learned from."""
N_TURNS = 5
PARALLEL = 5
"""Attempts at turn 1 that majority voting sees (m5@t1)."""

Steps = tuple[str, ...]
GLORE, GLORE_RIGHT = "glore", "glore_right"
ROUND_1, RISE = "rise_1", "rise_2"
ONLY_WRONG, ONLY_TARGETS = "rise_only_wrong", "rise_only_right_targets"


class Variant(NamedTuple):
    """A model that is asked to try again, and what it learned from."""

    name: str
    model: str
    about: str
    marked: bool
    """Whether `[BAD]` stands before the first step, as in GLoRe's global refinement."""
    has_own_first: bool
    """Whether turn 1 is the model's own; else the student's."""


VARIANTS = (
    Variant(GLORE, "refiner", "GLoRe's refiner, asked again", True, False),
    Variant(GLORE_RIGHT, GLORE_RIGHT, "+ right drafts in training", True, False),
    Variant(ONLY_WRONG, ONLY_WRONG, "RISE round 1 without right drafts", False, True),
    Variant(ONLY_TARGETS, ONLY_TARGETS, "RISE round 1, right targets alone", False, True),
    Variant(ROUND_1, ROUND_1, "RISE round 1", False, True),
    Variant(RISE, RISE, "RISE round 2: own turns", False, True),
)


@declare(
    "rise_examples_1",
    inputs=("samples", "pairs"),
    reads=("reward.draft_samples",),
    opens=lambda _: (),
)
def examples_1(ctx: StageContext, window: int = 1) -> None:
    """Round 1, from the run's samples of the student: the draft of turn 2 is one of them, and the
    best of the question's other ones is the improved attempt. With a window, others than these
    stand before the draft.
    """
    samples = _stated(ctx, ctx.read("samples", Solution))
    attempts = first_of_each(samples, BEST_OF)
    drafts = first_of_each(samples, ctx.config.reward.draft_samples)
    others = by_problem(samples)
    attempts_of = {
        d.id: [s for s in others[d.problem_id] if s.id != d.id][:BEST_OF] for d in drafts
    }
    rest = {d.id: [s for s in others[d.problem_id] if s.id != d.id][BEST_OF:] for d in drafts}
    earlier = other_attempts(drafts, rest, window, ctx.seed)
    found = [
        *first_turns(attempts, ctx.seed),
        *next_turns(drafts, attempts_of, ctx.seed, earlier),
    ]
    ctx.write(found, TurnExample)
    _count_examples(ctx, found)


def _stated(ctx: StageContext, solutions: Sequence[Solution]) -> list[Solution]:
    """The solutions as targets: right ones end in the answer line, as in expert iteration."""
    merge = ctx.config.task.merge_answer_line
    return [
        dataclasses.replace(s, steps=with_answer_line(s.steps, merge))
        if s.correct == "right"
        else s
        for s in solutions
    ]


def _count_examples(ctx: StageContext, found: Sequence[TurnExample]) -> None:
    ctx.count(
        examples=len(found),
        first_turns=sum(e.turn == 1 for e in found),
        right_drafts=sum(e.draft_correct == "right" for e in found),
        right_targets=sum(e.reward > 0 for e in found),
    )


@declare(
    "rise_own_turns",
    inputs=("rise_1",),
    reads=("reward.questions", *drawn_by("reward"), *SAMPLING),
    opens=lambda _: (ROUND_1,),
    estimate=lambda c: round(2 * BEST_OF * sample_tokens(c) / c.reward.samples),
    checks=(check_engine,),
)
def own_turns(ctx: StageContext, window: int = 1) -> None:
    """Round 2: N first attempts at every training question by the model of round 1, N next ones
    after the first of them, and so on until a turn sees `window` attempts. Parts: `first`, `next`,
    `next_3`, …
    """
    asked = {s.problem_id for s in ctx.read("samples", Solution)}
    known = problems_by_id(ctx, "train")
    reward = ctx.config.reward
    first = sample(
        ctx,
        ctx.model_dir(ROUND_1),
        [p for p in known.values() if p.id in asked],
        source=ROUND_1,
        n=BEST_OF,
        drawn=reward,
        part="first",
    )
    turns = [first_of_each(first, 1)]
    for part in _next_parts(window):
        found = answer_again(
            ctx,
            ROUND_1,
            turns[-1],
            known,
            marked=False,
            drawn=reward,
            n=BEST_OF,
            part=part,
            earlier=attempts_before(turns, window),
        )
        turns.append(first_of_each(found, 1))


def _next_parts(window: int) -> list[str]:
    """The part of each turn from the second on, as long as turns see more attempts."""
    return ["next", *(f"next_{turn}" for turn in range(3, window + 2))]


@declare("rise_examples_2", inputs=("rise_own_turns",), opens=lambda _: ())
def examples_2(ctx: StageContext, window: int = 1) -> None:
    """The examples of round 1 and those of the model's own turns."""
    first = _stated(ctx, ctx.read("rise_own_turns", Solution, "first"))
    turns, own = [first_of_each(first, 1)], first_turns(first, ctx.seed)
    for part in _next_parts(window):
        following: dict[str, list[Solution]] = {}
        found = _stated(ctx, ctx.read("rise_own_turns", Solution, part))
        for solution in found:
            following.setdefault(solution.draft_id or "", []).append(solution)
        own += next_turns(turns[-1], following, ctx.seed, attempts_before(turns, window))
        turns.append(first_of_each(found, 1))
    ctx.write([*ctx.read("rise_examples_1", TurnExample), *own], TurnExample)
    _count_examples(ctx, own)


def _rise_training(
    name: str,
    source: str,
    keeps: Callable[[TurnExample], bool] = lambda e: True,
    weighted: bool = True,
) -> Stage:
    """Fine-tune the student on as many examples as the run's refiner had pairs."""

    def run(ctx: StageContext) -> None:
        found = [e for e in ctx.read(source, TurnExample) if keeps(e)]
        questions = {i: p.question for i, p in problems_by_id(ctx, "train").items()}
        n = len(ctx.read("pairs", RefinementPair))
        keys = [f"{i}/{e.problem_id}/{e.turn}" for i, e in enumerate(found)]
        chosen = subsample(found, keys, n, ctx.seed)
        ctx.count(examples=len(chosen), right_targets=sum(e.reward > 0 for e in chosen))

        def targets(layout: PromptLayout) -> list[tuple[Steps, Steps]]:
            return as_targets(chosen, questions, layout, weighted)

        train_lm(ctx, name, targets, "refiner.train", ctx.model_dir("student"))

    return Stage(
        name,
        run,
        inputs=(source, "pairs", "student"),
        reads=("refiner.train",),
        uses=TRAINING,
        models=(name,),
        opens=lambda _: ("student",),
        estimate=refiner_tokens,
        checks=(check_training("refiner.train"),),
    )


def _run_glore_right(ctx: StageContext) -> None:
    """GLoRe's refiner with right drafts among its pairs, which it is to leave alone; as many pairs
    as the run's refiner had.
    """
    pairs = ctx.read("pairs", RefinementPair)
    samples = ctx.read("samples", Solution)
    right = kept_right(first_of_each(samples, ctx.config.reward.draft_samples))
    everything = [*pairs, *(dataclasses.replace(p, marked_step=global_mark(ctx)) for p in right)]
    keys = [f"{i}/{p.draft_id}/{p.kind}" for i, p in enumerate(everything)]
    chosen = subsample(everything, keys, len(pairs), ctx.seed)
    ctx.count(examples=len(chosen), right_drafts=sum(p.kind == "right" for p in chosen))
    train_refiner(ctx, GLORE_RIGHT, chosen)


glore_right = Stage(
    GLORE_RIGHT,
    _run_glore_right,
    inputs=("pairs", "student", "base"),
    reads=(*("refiner.train", "refiner.init", "refiner.global_mark", "reward.draft_samples"),),
    uses=TRAINING,
    models=(GLORE_RIGHT,),
    opens=refiner_opened,
    estimate=refiner_tokens,
    checks=(check_training("refiner.train"),),
)


def turns_of(variant: Variant, window: int = 1) -> Stage:
    """Five turns of a variant on the test questions, greedy and sampled. GLoRe's refiner learned
    from one draft, so it always sees one.

    Parts: `greedy_tN` and `sampled_tN`, N from 2; turn 1 is `…_t1` if it is the model's own, else
    the run's drafts or samples.
    """

    def run(ctx: StageContext) -> None:
        problems = problems_by_id(ctx, "test")
        marked = variant.marked and global_mark(ctx) is not None
        for mode, drawn in (("greedy", None), ("sampled", ctx.config.evaluation)):
            first = first_attempts(ctx, variant, mode)
            play_turns(
                ctx,
                variant.model,
                first_of_each(first, 1),
                problems,
                n_turns=N_TURNS,
                marked=marked,
                drawn=drawn,
                part=mode,
                window=window if variant.has_own_first else 1,
            )

    return Stage(
        turns_name(variant),
        run,
        inputs=("test_drafts", "test_samples", variant.model),
        reads=("refiner.global_mark", *drawn_by("evaluation"), *SAMPLING),
        opens=lambda _: (variant.model,),
        estimate=lambda c: draft_tokens(c) * (2 * N_TURNS + PARALLEL),
        checks=(check_engine,),
        own=_own(window) if variant.has_own_first else {},
    )


def _own(window: int) -> dict[str, object]:
    """What the results of a stage depend on besides the run's settings."""
    return {"window": window} if window > 1 else {}


def _windowed(stage: Stage, window: int) -> Stage:
    """A stage whose function takes the window, with this one."""
    run = cast("Callable[[StageContext, int], None]", stage.run)
    return dataclasses.replace(stage, run=lambda ctx: run(ctx, window), own=_own(window))


def turns_name(variant: Variant) -> str:
    """The stage that plays the turns of a variant."""
    return f"{variant.name}_turns"


def first_attempts(ctx: StageContext, variant: Variant, mode: str) -> list[Solution]:
    """Turn 1 of a variant; `sampled`: several attempts at each question."""
    if not variant.has_own_first:
        return ctx.read("test_drafts" if mode == "greedy" else "test_samples", Solution)
    return sample(
        ctx,
        ctx.model_dir(variant.model),
        ctx.read("problems", Problem, "test"),
        source=variant.name,
        n=1 if mode == "greedy" else PARALLEL,
        drawn=None if mode == "greedy" else ctx.config.evaluation,
        part=f"{mode}_t1",
    )


def rise_stages(config: RunConfig, window: int = 1) -> tuple[Stage, ...]:
    """All of them but the results, in order. `window`: how many of the last attempts RISE's turns
    see.
    """
    return (
        _windowed(examples_1, window),
        _rise_training(ROUND_1, examples_1.name),
        dataclasses.replace(
            _windowed(own_turns, window),
            estimate=lambda c: round((window + 1) * BEST_OF * sample_tokens(c) / c.reward.samples),
        ),
        _windowed(examples_2, window),
        _rise_training(RISE, examples_2.name),
        glore_right,
        _rise_training(
            ONLY_WRONG,
            examples_1.name,
            lambda e: e.turn == 1 or (e.draft_correct == "wrong" and not e.holds_right),
        ),
        _rise_training(ONLY_TARGETS, examples_1.name, lambda e: e.reward > 0, weighted=False),
        *(turns_of(variant, window) for variant in VARIANTS),
    )
