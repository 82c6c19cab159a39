"""Plausible made-up records of a run, so that tables and pages can be tested without training
anything.
"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import yaml

from glore.evaluation import EvaluationInputs
from glore.pipeline.folder import write_json, write_text
from glore.pipeline.marks import DoneMark
from glore.records import PrefixTrials, Problem, Solution, StepLabels, StepScores, write_records

HOSTILE = (
    'Tom & Ana\'s "pens" </script><script>document.title="owned"</script>'
    "<img src=x onerror=alert(1)> \u2028 ünï"
)


def solution(
    problem_id, name, steps, correct, source="student", draft_id=None, answer="7", **more
) -> Solution:
    values = {"n_tokens": 12 * len(steps), "stop": "eos", "seed": 1, "temperature": 0.0, **more}
    return Solution(
        f"{problem_id}/{name}",
        problem_id,
        tuple(steps),
        answer,
        correct,
        source,
        draft_id,
        **values,
    )


def scores(item: Solution, model: str, *p: float) -> StepScores:
    return StepScores(item.id, model, tuple(p))


class _Fake:
    """Draws one run; every draw comes from one seeded generator."""

    def __init__(self, seed: int, n_samples: int) -> None:
        self.rng = random.Random(seed)
        self.n_samples = n_samples
        self.scores: list[StepScores] = []

    def attempt(
        self,
        problem: Problem,
        name: str,
        p_step: float,
        *,
        source="student",
        draft_id=None,
        temperature=1.0,
    ):
        """A solution with its step truths; an error stays an error (mostly)."""
        n = self.rng.randint(3, 6)
        truth, alive = [], True
        for _ in range(n):
            alive = alive and self.rng.random() < p_step
            truth.append(alive)
        steps = [f"Ana: Tom + {i} = {12 + i} + {i} = {12 + 2 * i}" for i in range(n - 1)]
        answer = problem.answer if alive else str(self.rng.randint(1, 9))
        steps.append(f"#### {answer}")
        correct = (
            "right"
            if answer == problem.answer
            else ("unknown" if self.rng.random() < 0.02 else "wrong")
        )
        made = solution(
            problem.id, name, steps, correct, source, draft_id, answer, temperature=temperature
        )
        self.score(made, truth)
        return made, truth

    def score(self, made: Solution, truth: list[bool]) -> None:
        right = made.correct == "right"
        for model, base, sharp in (
            ("orm", right, 0.16),
            ("balanced_orm", right, 0.13),
            ("sorm", None, 0.22),
        ):
            p = [
                min(
                    0.99,
                    max(
                        0.01,
                        0.5
                        + (sharp if (base if base is not None else t) else -sharp) * (i + 2) / 4
                        + self.rng.gauss(0, 0.18),
                    ),
                )
                for i, t in enumerate(truth)
            ]
            self.scores.append(StepScores(made.id, model, tuple(p)))


def fake_inputs(
    n_problems: int = 40, n_samples: int = 8, seed: int = 0, hostile: bool = False
) -> EvaluationInputs:
    """A run on `n_problems` questions whose effects point the way the paper says."""
    fake = _Fake(seed, n_samples)
    out: dict[str, list] = {
        f.name: [] for f in dataclasses.fields(EvaluationInputs) if f.name != "name"
    }
    for i in range(n_problems):
        question = (
            f"Story {seed}-{i}: Ana has {i} more pens than Tom. Tom has 12 pens. "
            "How many pens does Ana have?"
        )
        problem = Problem(
            f"test-{i}",
            question + (HOSTILE if hostile and i == 0 else ""),
            str(i % 10),
            None,
            "test",
        )
        out["problems"].append(problem)
        p_step = fake.rng.choice((0.95, 0.9, 0.8, 0.7))
        for key, p, name in (("sft", p_step - 0.06, "sft"), ("", p_step, "ei")):
            draft, truth = fake.attempt(problem, f"{name}-draft", p, temperature=0.0)
            samples = [fake.attempt(problem, f"{name}-s{k}", p - 0.05)[0] for k in range(n_samples)]
            out[f"{key}_drafts" if key else "drafts"].append(draft)
            out[f"{key}_samples" if key else "samples"].extend(samples)
        if hostile and i == 0:
            draft = dataclasses.replace(draft, steps=(HOSTILE, *draft.steps[1:]))
            out["drafts"][-1] = draft
        out["draft_labels"].append(
            _labels(draft, [t if fake.rng.random() < 0.95 else not t for t in truth], "sorm")
        )
        out["draft_truth"].append(_labels(draft, truth, "truth"))
        out["test_trials"].extend(_full_counts(fake, draft, truth))
        for source in ("global", "local_orm", "local_sorm"):
            if source != "global" and fake.rng.random() < 0.1:
                continue
            p = 0.97 if draft.correct == "right" else p_step - 0.04
            out["refinements"].append(
                fake.attempt(problem, source, p, source=source, draft_id=draft.id, temperature=0.0)[
                    0
                ]
            )
        _train(fake, out, i)
    out["scores"] = _by_own_orm(fake.scores, out["sft_samples"])
    return EvaluationInputs(name=f"fake-{seed}", **{k: tuple(v) for k, v in out.items()})


def _by_own_orm(made: list[StepScores], sft_samples: list[Solution]) -> list[StepScores]:
    """The SFT student's samples are scored by its own ORM, and by nothing else."""
    sft = {s.id for s in sft_samples}
    others = [s for s in made if s.solution_id not in sft]
    return others + [
        dataclasses.replace(s, model="sft_orm")
        for s in made
        if s.solution_id in sft and s.model == "orm"
    ]


def _full_counts(fake: _Fake, draft: Solution, truth: list[bool]) -> list[PrefixTrials]:
    """Four rollouts from every prefix. Half of those from a good one arrive, so that a few good
    ones fail four times.
    """
    out = []
    for n_kept in range(1, len(truth)):
        verdict = tuple(
            "right" if truth[n_kept - 1] and fake.rng.random() < 0.5 else "wrong" for _ in range(4)
        )
        out.append(PrefixTrials(draft.id, n_kept, ("#### 1",) * 4, verdict, (True,) * 4, 40, True))
    return out


def _train(fake: _Fake, out: dict[str, list], i: int) -> None:
    problem = Problem(f"train-{i}", f"Train story {i}", str(i % 10), None, "train")
    draft, truth = fake.attempt(problem, "d0", 0.85)
    # Propagated as a lazy scan leaves it: the last good prefix has one success, later ones have
    # none.
    last_good = max((k for k, t in enumerate(truth) if t), default=-1)
    labels = [k <= last_good for k in range(len(truth))]
    labels[-1] = draft.correct == "right"
    out["train_drafts"].append(draft)
    out["train_truth"].append(_labels(draft, truth, "truth"))
    if draft.correct == "unknown":
        out["train_labels"].append(StepLabels(draft.id, None, None, None, "sorm"))
    else:
        out["train_labels"].append(
            _labels(draft, labels, "sorm", kept=[fake.rng.random() < 0.7 for _ in labels])
        )
    if draft.correct != "wrong":
        return
    for n_kept in range(len(truth) - 1, 0, -1):
        good = labels[n_kept - 1]
        rest = "\n".join((*draft.steps[:n_kept], f"#### {problem.answer}"))
        completions = (rest,) if good else (f"#### {problem.answer}",) * 4
        verdict = ("right",) * len(completions)
        out["train_trials"].append(
            PrefixTrials(
                draft.id, n_kept, completions, verdict, (good,) * len(completions), 40, not good
            )
        )
        if good:
            break


def _labels(
    made: Solution, labels: list[bool], rule: str, kept: list[bool] | None = None
) -> StepLabels:
    first = labels.index(False) if False in labels else None
    return StepLabels(made.id, tuple(labels), tuple(kept or [True] * len(labels)), first, rule)


def write_run(folder: Path, inputs: EvaluationInputs) -> Path:
    """A finished-looking run folder with these records, as the stages lay it out."""
    run_dir = folder / inputs.name
    recipe = {
        "name": inputs.name,
        "runs_dir": str(folder),
        "evaluation": {"bootstrap_samples": 100},
    }
    write_text(run_dir / "config.yaml", yaml.safe_dump(recipe))
    drafts, refined = {d.id for d in inputs.drafts}, {s.id for s in inputs.refinements}
    samples, sft = {s.id for s in inputs.samples}, {s.id for s in inputs.sft_samples}
    parts: list[tuple[str, str, type, list]] = [
        ("problems", "test", Problem, list(inputs.problems)),
        ("test_drafts", "part", Solution, list(inputs.drafts)),
        ("test_samples", "part", Solution, list(inputs.samples)),
        ("sft_test_drafts", "part", Solution, list(inputs.sft_drafts)),
        ("sft_test_samples", "part", Solution, list(inputs.sft_samples)),
        ("test_rollouts", "part", PrefixTrials, list(inputs.test_trials)),
        ("test_labels", "part", StepLabels, list(inputs.draft_labels)),
        ("test_labels", "truth", StepLabels, list(inputs.draft_truth)),
        ("test_refinements", "truth", StepLabels, []),
        ("samples", "part", Solution, list(inputs.train_drafts)),
        ("rollouts", "part", PrefixTrials, list(inputs.train_trials)),
        ("labels", "part", StepLabels, list(inputs.train_labels)),
        ("labels", "truth", StepLabels, list(inputs.train_truth)),
        ("test_scores", "sft_orm", StepScores, [s for s in inputs.scores if s.solution_id in sft]),
    ]
    for source in ("global", "local_orm", "local_sorm"):
        parts.append(
            (
                "test_refinements",
                source,
                Solution,
                [s for s in inputs.refinements if s.source == source],
            )
        )
    for model in ("orm", "balanced_orm", "sorm"):
        mine = [s for s in inputs.scores if s.model == model]
        parts.append(
            ("test_draft_scores", model, StepScores, [s for s in mine if s.solution_id in drafts])
        )
        parts.append(
            (
                "test_scores",
                f"samples_{model}",
                StepScores,
                [s for s in mine if s.solution_id in samples],
            )
        )
        parts.append(
            (
                "test_scores",
                f"refined_{model}",
                StepScores,
                [s for s in mine if s.solution_id in refined],
            )
        )
    for stage, part, kind, records in parts:
        write_records(run_dir / "stages" / stage / f"{part}-00000.parquet", kind, records)
    return run_dir


def finish_stage(
    run_dir: Path, stage: str, *, seconds: float, tokens: int, counts: dict[str, float]
) -> None:
    """A `done.json` for one stage."""
    mark = DoneMark(
        stage, "f", {}, {}, 1, 1, counts, seconds, tokens, {}, {}, {}, "2026-01-01T00:00:00+00:00"
    )
    write_json(run_dir / "stages" / stage / "done.json", dataclasses.asdict(mark))
