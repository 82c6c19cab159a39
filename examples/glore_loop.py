"""The whole method as one flat script, to read from top to bottom and to run.

    python examples/glore_loop.py [FOLDER]

It takes one to two minutes on one core. Models stay in FOLDER, if one is given.

A small model is trained from nothing on easy stories ("Leo owns 9 stamps. Gus owns either A 9 or B
10 stamps. Had Gus lost as many as Leo has, there would be 1. …") and taken through GLoRe (arXiv
2402.10963). Trainings and sampling are the real ones. Left out: resuming, the choice of the best
round, the Balanced ORM, tables and report. `glore run` has them. Each part names its section of
docs/method.md, which follows the paper, and the files below src/glore/ that do it in full.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from glore.config import (
    EngineSettings,
    LabelSettings,
    ScratchModelSettings,
    StoriesSettings,
    TrainSettings,
)
from glore.decisions import CANDIDATES, Decisions, mark_drafts, refine_drafts
from glore.engines.open import open_engine, open_scorer
from glore.engines.protocol import SamplingParams
from glore.how import global_pairs, local_pairs, mixed_pairs
from glore.progress import SilentProgress
from glore.prompts import refine_segments, solve_segments, step_text
from glore.records import Solution, StepLabels
from glore.solutions import by_problem, first_of_each, graded_solution
from glore.student import capped, new_right, sample_solutions
from glore.tasks.stories import Stories
from glore.training.examples import LMExample, StepExample
from glore.training.finetune import train_causal_lm, train_step_classifier
from glore.training.scratch import train_scratch_base
from glore.training.training_setup import TrainingSetup
from glore.when import orm_labels
from glore.where import good_traces, label_drafts, verify_prefixes

Steps = tuple[str, ...]  # a step is one line of a solution; the last one states the answer

SEED = 0
SIZE = float(os.environ.get("GLORE_LOOP_SIZE", "1"))  # below 1: less data, to test this script
K = 4  # solutions sampled of every training question
DRAFTS = 2  # of these, drafts that get step labels
MAX_NEW_TOKENS = 64
STORIES = StoriesSettings(
    people=(2, 2), steps=(2, 2), max_number=10, unknown=(1, 1), unknown_changes=(1, 1),
    options=(2, 2), told_second=0.3, changes=(1, 1), extra_relations=0, pairs=0.0, distractors=0,
    shuffled=0.0, turned=0.0, n_train=round(600 * SIZE), n_dev=1, n_test=round(200 * SIZE),
    worked_share=0.3,
)  # fmt: skip
TRAIN = TrainSettings(optimizer="muon", learning_rate=1e-3, batch_size=16, epochs=2, max_length=256)
VERIFY = TRAIN.model_copy(update={"batch_size": 8, "epochs": 4})
REFINE = TRAIN.model_copy(update={"learning_rate": 2e-3, "batch_size": 8})
BASE = ScratchModelSettings(
    hidden_size=64, n_layers=2, n_heads=2, intermediate_size=192, vocab_size=400, max_positions=256,
    n_tokens=round(1_200_000 * SIZE),
    train=TRAIN.model_copy(update={"learning_rate": 4e-3, "epochs": 1}),
)  # fmt: skip
LABELS = LabelSettings(rollouts=4, max_new_tokens=MAX_NEW_TOKENS, balance=False)
DECIDE = Decisions(threshold=0.5, aggregate="mean")
ENGINE = EngineSettings()


def main(folder: Path) -> None:
    """Every part of the method, in order. Models are saved as FOLDER/NAME."""
    silent = SilentProgress()
    torch.set_num_threads(1)  # several threads hardly help models of this size

    def setup(name: str) -> TrainingSetup:
        work = folder / "work" / name
        return TrainingSetup(out_dir=folder / name, work_dir=work, seed=SEED, progress=silent)

    def train_lm(
        start: str, name: str, pairs: Sequence[tuple[Steps, Steps]], settings: TrainSettings = TRAIN
    ) -> None:
        """A language model on (prompt, target) pairs; the loss is on the target."""
        examples = [LMExample(prompt, tuple(map(step_text, target))) for prompt, target in pairs]
        train_causal_lm(folder / start, examples, settings, setup(name))

    def train_reward_model(name: str, drafts: list[Solution], labels: list[StepLabels]) -> None:
        """A classifier (0 bad, 1 good) at the last token of every step that has a label."""
        examples = [
            StepExample(
                prompt=solve_segments(question[d.problem_id]),
                steps=tuple(map(step_text, d.steps)),
                labels=r.labels,
                kept=r.kept,
            )
            for d, r in zip(drafts, labels, strict=True)
            if r.labels is not None and r.kept is not None
        ]
        train_step_classifier(folder / "base", examples, VERIFY, setup(name))

    def sample(name: str, ids: list[str], n: int, temperature: float) -> list[Solution]:
        """n graded solutions of every problem; temperature 0 is greedy."""
        params = SamplingParams(temperature=temperature, max_new_tokens=MAX_NEW_TOKENS)
        with open_engine(folder / name, ENGINE) as engine:
            return sample_solutions(
                engine, task, [problem[i] for i in ids], n=n, params=params,
                seed=SEED, stage=f"{name}-{n}", source=name, progress=silent,
            )  # fmt: skip

    def score(name: str, solutions: list[Solution]) -> dict[str, tuple[float, ...]]:
        """Solution id → the reward model's probability of "good" after every step."""
        items = [(question[s.problem_id], s.steps) for s in solutions]
        with open_scorer(folder / name, ENGINE) as scorer:
            scores = scorer.score(items)
        return {s.id: p for s, p in zip(solutions, scores, strict=True)}

    # Problems with checkable answers; some for training have a worked solution. [tasks/]
    task = Stories(STORIES, SEED)
    train, test = task.problems("train"), task.problems("test")
    problem = {p.id: p for p in (*train, *test)}
    question = {i: p.question for i, p in problem.items()}
    train_ids, test_ids = [p.id for p in train], [p.id for p in test]
    worked = [(p.id, p.solution) for p in train if p.solution is not None]
    print(f"{len(train)} training questions ({len(worked)} solved), {len(test)} test questions")
    print(f"a question: {train[0].question}")

    # The base: tokenizer and model from nothing. [training/scratch.py]
    report = train_scratch_base(task.base_document, BASE, setup("base"))
    print(f"base: {report.n_tokens:,} tokens, loss {report.final_loss:.2f}")

    # 1 The student: fine-tuning, then a round of expert iteration. Sample, keep what is right and
    # new, fine-tune the base again on everything kept. [student.py, stages/expert_iteration.py]
    train_lm("base", "sft", [(solve_segments(question[i]), steps) for i, steps in worked])
    found = sample("sft", train_ids, K, 1.0)
    data = capped(worked, new_right(found, worked), 0, SEED)
    train_lm("base", "student", [(solve_segments(question[i]), steps) for i, steps in data])
    print(f"student: {share(found)} samples of the SFT model right, {len(data)} distinct solutions")

    # 2 When: the ORM learns from samples; every step has the label of the final answer, so it
    # says how likely the student ends right. [when.py, stages/reward.py]
    samples = sample("student", train_ids, K, 1.0)
    train_reward_model("orm", samples, orm_labels(samples))
    print(f"ORM: {share(samples)} samples of the student right")

    # 3 Where: a step is good if one of several rollouts after it comes to the right answer. The
    # SORM learns these labels. [where/scan.py, where/labels.py, stages/reward.py]
    drafts = first_of_each(samples, DRAFTS)
    with open_engine(folder / "student", ENGINE) as student:
        trials = verify_prefixes(student, task, problem, drafts, LABELS, seed=SEED, progress=silent)
    labels, counts = label_drafts(drafts, trials, LABELS, seed=SEED)
    train_reward_model("sorm", drafts, labels)
    print(f"SORM: {counts.n_rollouts} rollouts: {counts.n_positive} good, {counts.n_negative} bad")

    # 4 How: a wrong draft with [BAD] before its first bad step (local) or its first step (global)
    # is paired with a right solution. [how.py, stages/refining.py]
    draft_of = {d.id: d for d in drafts}
    traces = {
        (t.solution_id, t.n_steps_kept): good_traces(draft_of[t.solution_id], t, LABELS)
        for t in trials
    }
    right: dict[str, list[Steps]] = {i: [steps] for i, steps in worked}
    for s in samples:
        if s.correct == "right" and s.steps not in right.setdefault(s.problem_id, []):
            right[s.problem_id].append(s.steps)
    local = local_pairs(drafts, labels, traces, right, seed=SEED)
    pairs = mixed_pairs(local, global_pairs(drafts, right, seed=SEED), seed=SEED)
    prompts = [refine_segments(question[p.problem_id], p.draft_steps, p.marked_step) for p in pairs]
    targets = [p.target_steps for p in pairs]
    if not pairs:
        raise SystemExit("no wrong draft has a right solution to learn from: nothing to refine")
    train_lm("student", "refiner", list(zip(prompts, targets, strict=True)), REFINE)
    print(f"refiner: {len(pairs)} pairs, half of them local")

    # 5 Test time: draft; ask when and where; refine globally and locally; the ORM chooses among
    # draft and refinements. [refiner.py, decisions.py, rerank.py]
    greedy = sample("student", test_ids, 1, 0.0)
    orm, sorm = score("orm", greedy), score("sorm", greedy)
    marked = {k: mark_drafts(greedy, k, sorm, DECIDE, mark_global=True) for k in CANDIDATES}
    with open_engine(folder / "refiner", ENGINE) as refiner:
        made = refine_drafts(refiner, marked, question, max_new_tokens=MAX_NEW_TOKENS, seed=SEED)
    refined = [
        graded_solution(
            task, problem[m.draft.problem_id], completion, solution_id=f"{m.draft.id}/{kind}",
            source=kind, temperature=0.0, draft_id=m.draft.id,
        )
        for kind in CANDIDATES
        for m, completion in zip(marked[kind], made[kind], strict=True)
    ]  # fmt: skip
    orm |= score("orm", refined)
    candidates = by_problem([*greedy, *refined])
    chosen = [group[DECIDE.choose([orm[s.id] for s in group])] for group in candidates.values()]

    # 6 What came of it. [evaluation/]
    n_work = sum(DECIDE.needs_work(orm[d.id]) for d in greedy)
    print(f"the ORM says that {n_work} drafts need work")
    print("refinements:", ", ".join(f"{len(marked[kind])} {kind}" for kind in CANDIDATES))
    print(f"greedy drafts: {share(greedy)} right")
    print(f"chosen among draft, global and local by the ORM: {share(chosen)} right")
    best = [max(group, key=lambda s: s.correct == "right") for group in candidates.values()]
    print(f"a perfect choice among the same: {share(best)} right")


def share(solutions: Sequence[Solution]) -> str:
    """How many of them are right."""
    return f"{sum(s.correct == 'right' for s in solutions)} of {len(solutions)}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))
