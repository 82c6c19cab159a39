"""Inference (method 5): draft → when → where → how → rerank. Returns every intermediate value.

All candidates are made for every question, even if the ORM accepts the draft (`needs_work`): the
reranker decides. A draft without a step at or below the threshold has no local refinement. An empty
draft has no refinement at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from glore.cascade import N_SAMPLES, Cascaded, CascadeModels, CascadeQuestion, run_cascade
from glore.chat_template import prompt_layout
from glore.config import EngineSettings, PromptSettings
from glore.decisions import CANDIDATES, Decisions, mark_drafts, refine_drafts
from glore.engines.lifetime import ClosedAtExit
from glore.engines.protocol import Engine, Request, SamplingParams
from glore.errors import EngineError, RunError
from glore.pipeline.integrity import check_belongs_together, makers
from glore.pipeline.recorded import made_with
from glore.prompts import PLAIN, PromptLayout, lines_of
from glore.questions import checked_questions
from glore.records import Refinement
from glore.scorer import Scorer, checked_scores
from glore.seeds import stable_seed
from glore.solutions import completion_text
from glore.tasks.grading.grade import find_answer, normalise_gold

__all__ = ["RefineOptions", "Refiner", "Scorer"]

Steps = tuple[str, ...]
Scores = tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class RefineOptions(Decisions):
    """Options of inference, besides threshold and aggregate."""

    mark_global: bool = True
    """Whether the refiner was trained with `[BAD]` before the first step for global refinement."""
    max_new_tokens: int = 300
    temperature: float = 1.0
    """Of a cascade's samples, as `top_p` and `top_k`; drafts and refinements are greedy."""
    top_p: float = 1.0
    top_k: int = 0

    @property
    def greedy(self) -> SamplingParams:
        """How drafts are drawn."""
        return SamplingParams(temperature=0.0, max_new_tokens=self.max_new_tokens)

    @property
    def sampled(self) -> SamplingParams:
        """How a cascade's samples are drawn."""
        return SamplingParams(self.temperature, self.top_p, self.top_k, self.max_new_tokens)

    @property
    def global_mark(self) -> int | None:
        """The 0-based step that `[BAD]` precedes for global refinement; none: no mark."""
        return 0 if self.mark_global else None


class Refiner(ClosedAtExit):
    """Drafts with the student, finds the first bad step, refines, and chooses by the ORM.

    A context manager. Closing it closes the models that `from_run` and `from_models` opened, and
    leaves engines and scorers that were given to it open. A closed one refuses to refine.
    """

    def __init__(
        self,
        student: Engine,
        refiner: Engine,
        orm: Scorer,
        sorm: Scorer,
        options: RefineOptions | None = None,
        layout: PromptLayout = PLAIN,
    ) -> None:
        self.student, self.refiner, self.orm, self.sorm = student, refiner, orm, sorm
        self.options = options or RefineOptions()
        self._opened = contextlib.ExitStack()
        self._is_closed = False
        self.layout = layout

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
            temperature=config.evaluation.temperature,
            top_p=config.evaluation.top_p,
            top_k=config.evaluation.top_k,
        )
        return cls.from_models(
            **folders, engine=engine or config.engine, options=options, prompt=config.prompt
        )

    @classmethod
    def from_models(
        cls,
        student: str | Path,
        refiner: str | Path,
        orm: str | Path,
        sorm: str | Path,
        engine: EngineSettings | None = None,
        options: RefineOptions | None = None,
        prompt: PromptSettings | None = None,
    ) -> Refiner:
        """Load the four models from their folders or Hub names. `prompt`: how they were trained to
        be prompted; none: plain. Raises ModelError where one can't be loaded.
        """
        from glore.engines.auto import chosen_for
        from glore.engines.open import open_engine
        from glore.reward_models.open import open_model_of_run

        settings = chosen_for(student, engine or EngineSettings())
        layout = prompt_layout(prompt or PromptSettings(), student)
        with contextlib.ExitStack() as opened:  # closes what is open if the next can't be loaded
            shared = settings.shared_by(2)
            made = cls(
                opened.enter_context(open_engine(student, shared)),
                opened.enter_context(open_engine(refiner, shared)),
                opened.enter_context(open_model_of_run(orm, settings, layout)),
                opened.enter_context(open_model_of_run(sorm, settings, layout)),
                options,
                layout,
            )
            made._opened = opened.pop_all()
        return made

    def close(self) -> None:
        """Close the models that `from_run` or `from_models` opened. Closing again does nothing."""
        self._is_closed = True
        self._opened.close()

    def __call__(self, question: str) -> Refinement:
        """Refine one question."""
        return self.refine([question])[0]

    def refine(
        self, questions: Sequence[str], drafts: Sequence[Steps] | None = None
    ) -> list[Refinement]:
        """Refine questions in one batch, results in their order; `problem_id` is `q0`, `q1`, …
        `drafts`: the steps to begin with, for each question; none: the student draws them.

        Raises DataError for a question that is empty, oversized or no Unicode, before anything is
        sampled; EngineError where one does not fit into a model's context, and after `close`;
        TypeError for one that is no string, or a single string, whose letters would be questions.
        """
        begin = time.monotonic()
        asked = self._asked("refine", questions)
        options = self.options

        n_tokens = dict.fromkeys(asked, 0)
        if drafts is None:
            requests = [self._draft_request(q, text) for q, text in asked.items()]
            drawn = {r.request.id: r.completions[0] for r in self.student.run(requests)}
            n_tokens |= {q: completion.n_tokens for q, completion in drawn.items()}
            drafts = [self._steps(drawn[q].text) for q in asked]
        begun = [_Draft(q, q, tuple(steps)) for q, steps in zip(asked, drafts, strict=True)]
        items = [(asked[d.id], d.steps) for d in begun]
        orm = dict(zip(asked, checked_scores("ORM", self.orm, items), strict=True))
        sorm = dict(zip(asked, checked_scores("SORM", self.sorm, items), strict=True))

        when = {q: options.needs_work(orm[q]) for q in asked}
        where = {q: options.first_bad_step(sorm[q]) for q in asked}
        marked = {
            kind: mark_drafts(begun, kind, sorm, options, mark_global=options.mark_global)
            for kind in CANDIDATES
        }
        how = refine_drafts(
            self.refiner,
            marked,
            asked,
            max_new_tokens=options.max_new_tokens,
            seed=0,
            layout=self.layout,
        )

        candidates = {d.id: [_Candidate("draft", d.steps, orm[d.id])] for d in begun}
        for kind, found in how.items():
            refined = [self._steps(completion.text) for completion in found]
            owners = [m.draft.id for m in marked[kind]]
            rescored = [(asked[q], steps) for q, steps in zip(owners, refined, strict=True)]
            scores = checked_scores("ORM", self.orm, rescored)
            for q, steps, values, completion in zip(owners, refined, scores, found, strict=True):
                candidates[q].append(_Candidate(kind.partition("_")[0], steps, values))
                n_tokens[q] += completion.n_tokens

        seconds = (time.monotonic() - begin) / max(1, len(asked))
        refinements = []
        for draft in begun:
            q, found_of = draft.id, candidates[draft.id]
            chosen = options.choose([c.orm_scores for c in found_of])
            refinements.append(
                Refinement(
                    problem_id=q,
                    question=asked[q],
                    draft=draft.steps,
                    orm_scores=orm[q],
                    sorm_scores=sorm[q],
                    needs_work=when[q],
                    marked_step=where[q],
                    candidate_kinds=tuple(c.kind for c in found_of),
                    candidates=tuple(c.steps for c in found_of),
                    candidate_scores=tuple(options.score(c.orm_scores) for c in found_of),
                    chosen=chosen,
                    answer=_answer(found_of[chosen].steps),
                    n_tokens=n_tokens[q],
                    seconds=seconds,
                )
            )
        return refinements

    def cascade(
        self, questions: Sequence[str], most: int = N_SAMPLES, seed: int = 0
    ) -> list[Refinement]:
        """Answer questions with fewer tokens: draft, its global refinement, then samples, one by
        one until the ORM accepts one; at most `most` samples. The best by the ORM is the answer.

        Results as of `refine`, but candidates are `draft`, `global` and `sample`, and the SORM does
        not read: no `sorm_scores`. The samples of a question depend on it and the seed alone.
        Raises as `refine`, and ValueError for a negative `most`.
        """
        if most < 0:
            raise ValueError(f"most is the number of samples, at least 0, got {most}")
        begin = time.monotonic()
        asked, options = self._asked("cascade", questions), self.options
        greedy, sampled = options.greedy, options.sampled
        todo = [
            CascadeQuestion(
                text,
                greedy,
                stable_seed("draft", name),
                sampled,
                tuple(stable_seed(seed, "cascade", text, k) for k in range(most)),
            )
            for name, text in asked.items()
        ]
        models = CascadeModels(
            self.student, self.refiner, self.orm, options, options.global_mark, self.layout
        )
        found = sorted(run_cascade(models, todo), key=lambda c: c.index)
        seconds = (time.monotonic() - begin) / max(1, len(asked))
        return [
            _cascaded(name, asked[name], result, options, seconds)
            for name, result in zip(asked, found, strict=True)
        ]

    def _asked(self, method: str, questions: Sequence[str]) -> dict[str, str]:
        """Names `q0`, `q1`, … → questions, checked. Raises as `refine`."""
        if self._is_closed:
            raise EngineError("this Refiner is closed and can't be used; open another one")
        return {f"q{n}": text for n, text in enumerate(checked_questions(method, questions))}

    def _steps(self, text: str) -> Steps:
        return completion_text(text, self.layout.steps).steps

    def _draft_request(self, q: str, question: str) -> Request:
        seeds = (stable_seed("draft", q),)
        segments = self.layout.solve(question)
        return Request(id=q, segments=segments, seeds=seeds, params=self.options.greedy)


class _Draft(NamedTuple):
    """A draft of one question; each question is a problem of its own."""

    id: str
    problem_id: str
    steps: Steps


class _Candidate(NamedTuple):
    """A solution to choose from."""

    kind: str
    steps: Steps
    orm_scores: Scores


def _cascaded(
    name: str, question: str, result: Cascaded, options: RefineOptions, seconds: float
) -> Refinement:
    attempts, draft = result.attempts, result.attempts[0]
    return Refinement(
        problem_id=name,
        question=question,
        draft=draft.steps,
        orm_scores=draft.scores,
        sorm_scores=(),
        needs_work=options.needs_work(draft.scores),
        marked_step=None,
        candidate_kinds=tuple(a.kind for a in attempts),
        candidates=tuple(a.steps for a in attempts),
        candidate_scores=tuple(options.score(a.scores) for a in attempts),
        chosen=result.chosen,
        answer=_answer(attempts[result.chosen].steps),
        n_tokens=result.n_tokens,
        seconds=seconds,
    )


def _answer(steps: Steps) -> str | None:
    """The final answer, in the graders' spelling where it is a number or a formula."""
    found = find_answer(lines_of(steps), boxed=True)
    return None if found is None else normalise_gold(found) or found
