"""Inference (method 5): draft → when → where → how → rerank. Every intermediate value goes back to
the caller.

All candidates are made for every question, also where the ORM finds the draft good enough
(`needs_work` says so): the reranker decides. A draft in which no step falls to the threshold has no
local refinement, an empty draft none at all.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from glore.config import EngineSettings, EvaluationSettings
from glore.engines.protocol import Engine, Request, SamplingParams, check_scores
from glore.errors import DataError, ModelError, RunError, has_lone_surrogate, shown
from glore.how import refine_request
from glore.pipeline.marks import check_belongs_together, makers
from glore.pipeline.recorded import made_with
from glore.prompts import MAX_QUESTION_CHARS, solve_segments
from glore.records import Refinement
from glore.rerank import aggregate, choose
from glore.seeds import stable_seed
from glore.solutions import completion_steps
from glore.tasks.grading.grade import find_answer, normalise_gold
from glore.when import needs_work
from glore.where import first_bad_step

__all__ = ["RefineOptions", "Refiner", "Scorer"]

Steps = tuple[str, ...]
Scores = tuple[float, ...]


class Scorer(Protocol):
    """A reward model: (question, steps) → probability after every step."""

    def score(self, items: Sequence[tuple[str, Steps]]) -> list[Scores]:
        """One tuple of L probabilities per item, in their order."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class RefineOptions:
    """What inference can be asked for."""

    threshold: float = EvaluationSettings().threshold
    """A step with SORM at most this is bad; a draft with ORM at most this needs work."""
    aggregate: str = EvaluationSettings().aggregate
    """Step scores to one score (`glore.rerank`)."""
    mark_global: bool = True
    """Whether the refiner was trained with `[BAD]` before the first step for global refinement."""
    max_new_tokens: int = 300


class Refiner:
    """Drafts with the student, finds the first bad step, refines, and lets the ORM choose."""

    def __init__(
        self,
        student: Engine,
        refiner: Engine,
        orm: Scorer,
        sorm: Scorer,
        options: RefineOptions | None = None,
    ) -> None:
        self.student, self.refiner, self.orm, self.sorm = student, refiner, orm, sorm
        self.options = options or RefineOptions()

    @classmethod
    def from_run(cls, path: str | Path, engine: EngineSettings | None = None) -> Refiner:
        """The models and settings of a finished run. Raises RunError where a model is missing, or
        was not made with the others.
        """
        run_dir = Path(os.path.expanduser(path))
        if not (run_dir / "config.yaml").is_file():
            raise RunError(
                f"{run_dir} is no run folder: it holds no config.yaml; give the folder that glore "
                "run made"
            )
        folders = {
            name: run_dir / "models" / name for name in ("student", "refiner", "orm", "sorm")
        }
        missing = [name for name, folder in folders.items() if not folder.is_dir()]
        if missing:
            raise RunError(
                f"run {run_dir} has no {' and no '.join(missing)} yet; finish it first with glore "
                "run"
            )
        stages = makers(run_dir, tuple(folders))
        check_belongs_together(run_dir, stages)
        config = made_with(run_dir, stages)
        options = RefineOptions(
            threshold=config.evaluation.threshold,
            aggregate=config.evaluation.aggregate,
            mark_global=config.refiner.global_mark == "first",
            max_new_tokens=config.student.max_new_tokens,
        )
        return cls.from_models(**folders, engine=engine or config.engine, options=options)

    @classmethod
    def from_models(
        cls,
        student: str | Path,
        refiner: str | Path,
        orm: str | Path,
        sorm: str | Path,
        engine: EngineSettings | None = None,
        options: RefineOptions | None = None,
    ) -> Refiner:
        """Load the four models from their folders or Hub names. Raises ModelError where one can't
        be loaded.
        """
        from glore.engines.local.scorer import StepScorer
        from glore.engines.open import open_engine

        settings = engine or EngineSettings()
        return cls(
            open_engine(student, settings),
            open_engine(refiner, settings),
            StepScorer(orm, settings),
            StepScorer(sorm, settings),
            options,
        )

    def __call__(self, question: str) -> Refinement:
        """Refine one question."""
        return self.refine([question])[0]

    def refine(self, questions: Sequence[str]) -> list[Refinement]:
        """Refine questions in one batch, results in their order; `problem_id` is `q0`, `q1`, …

        Raises DataError for a question that is empty, oversized or no Unicode, before anything is
        sampled; EngineError where one does not fit into a model's context; TypeError for one that
        is no string, or a single string, whose letters would be questions.
        """
        if isinstance(questions, str):
            raise TypeError(
                f"refine takes several questions, got the string {shown(questions)}; call the "
                "refiner itself, or give a list"
            )
        begin = time.monotonic()
        alone = len(questions) == 1
        asked = {
            f"q{n}": _checked(question, "the question" if alone else f"question {n}")
            for n, question in enumerate(questions)
        }
        options = self.options

        drafts = _Answers.of(
            self.student, [self._draft_request(q, text) for q, text in asked.items()]
        )
        items = [(text, drafts.steps[q]) for q, text in asked.items()]
        orm = dict(zip(asked, _scores("ORM", self.orm, items), strict=True))
        sorm = dict(zip(asked, _scores("SORM", self.sorm, items), strict=True))

        when = {q: needs_work(orm[q], options.threshold) for q in asked}
        where = {q: first_bad_step(sorm[q], options.threshold) for q in asked}
        how = _Answers.of(
            self.refiner,
            [
                r
                for q, text in asked.items()
                for r in self._refine_requests(q, text, drafts.steps[q], where[q])
            ],
        )

        candidates = {q: _candidates(q, drafts.steps[q], how.steps) for q in asked}
        new = [(q, kind) for q in asked for kind in candidates[q] if kind != "draft"]
        new_scores = _scores("ORM", self.orm, [(asked[q], candidates[q][kind]) for q, kind in new])
        score = {
            key: aggregate(p, options.aggregate) for key, p in zip(new, new_scores, strict=True)
        }
        score |= {(q, "draft"): aggregate(orm[q], options.aggregate) for q in asked}

        seconds = (time.monotonic() - begin) / max(1, len(asked))
        refinements = []
        for q, text in asked.items():
            kinds = tuple(candidates[q])
            scores = tuple(score[q, kind] for kind in kinds)
            chosen = choose(scores)
            refinements.append(
                Refinement(
                    problem_id=q,
                    question=text,
                    draft=drafts.steps[q],
                    orm_scores=orm[q],
                    sorm_scores=sorm[q],
                    needs_work=when[q],
                    marked_step=where[q],
                    candidate_kinds=kinds,
                    candidates=tuple(candidates[q].values()),
                    candidate_scores=scores,
                    chosen=chosen,
                    answer=_answer(candidates[q][kinds[chosen]]),
                    n_tokens=drafts.n_tokens[q]
                    + sum(how.n_tokens.get(f"{q}/{kind}", 0) for kind in kinds),
                    seconds=seconds,
                )
            )
        return refinements

    def _draft_request(self, q: str, question: str) -> Request:
        params = SamplingParams(temperature=0.0, max_new_tokens=self.options.max_new_tokens)
        return Request(
            id=q, segments=solve_segments(question), seeds=(stable_seed("draft", q),), params=params
        )

    def _refine_requests(
        self, q: str, question: str, draft: Steps, bad_step: int | None
    ) -> list[Request]:
        """Global for every draft with steps, local where there is a bad step."""
        marks = {"global": 0 if self.options.mark_global else None} if draft else {}
        if bad_step is not None:
            marks["local"] = bad_step
        return [
            refine_request(f"{q}/{kind}", question, draft, mark, self.options.max_new_tokens, 0)
            for kind, mark in marks.items()
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class _Answers:
    """Steps and generated tokens by request id."""

    steps: dict[str, Steps]
    n_tokens: dict[str, int]

    @classmethod
    def of(cls, engine: Engine, requests: Sequence[Request]) -> _Answers:
        completions = {result.request.id: result.completions[0] for result in engine.run(requests)}
        return cls(
            {i: completion_steps(c.text) for i, c in completions.items()},
            {i: c.n_tokens for i, c in completions.items()},
        )


def _scores(name: str, scorer: Scorer, items: Sequence[tuple[str, Steps]]) -> list[Scores]:
    """What a reward model says, checked: it may be anybody's. Raises ModelError."""
    scores = scorer.score(items)
    for (question, steps), values in zip(items, scores, strict=True):
        if len(values) != len(steps):
            raise ModelError(
                f"the {name} gave {len(values)} scores for {len(steps)} steps of "
                f"{shown(question, 60)}; it must give one for each"
            )
        check_scores(name, question, values)
    return scores


def _candidates(q: str, draft: Steps, refined: Mapping[str, Steps]) -> dict[str, Steps]:
    """Kind → steps: the draft, then what the refiner made of it."""
    made = {
        kind: refined[f"{q}/{kind}"] for kind in ("global", "local") if f"{q}/{kind}" in refined
    }
    return {"draft": draft, **made}


def _checked(question: object, name: str) -> str:
    """The text of a question that models can read. `name` is what errors call it."""
    if not isinstance(question, str):
        raise TypeError(
            f"{name} must be a string, got {shown(question)}; give the text of a problem"
        )
    text = question.strip()
    if not text:
        raise DataError(f"{name} is empty; give the text of a problem")
    if has_lone_surrogate(text):
        raise DataError(
            f"{name} holds half a Unicode character (a lone surrogate): {shown(text, 40)}; write "
            "the text again as UTF-8"
        )
    if len(text) > MAX_QUESTION_CHARS:
        raise DataError(
            f"{name} has {len(text):,} characters ({shown(text, 40)}), at most "
            f"{MAX_QUESTION_CHARS:,} are read; shorten it"
        )
    return text


def _answer(steps: Steps) -> str | None:
    """The final answer, in the graders' spelling where it is a number or a formula."""
    found = find_answer(steps, boxed=True)
    return None if found is None else normalise_gold(found) or found
