"""What glore does, as text, and the beginning of that text while it is being done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from glore.engines.protocol import Completion
from glore.prompts import BAD_MARK
from glore.records import Refinement
from glore.refiner import Refiner, Scorer
from glore.serve.work import Job, Sampling
from glore.solutions import completion_text

__all__ = ["Progress", "Tell", "scores_text", "tells_of", "work_text"]

Tell = Callable[[str], None]
"""Is told the work on one choice so far: always the beginning of its final text."""
Steps = tuple[str, ...]
Scores = tuple[float, ...]


def tells_of(jobs: Sequence[Job]) -> list[Tell | None]:
    """Who is told the work, for every choice of every job; none: nobody."""
    found: list[Tell | None] = []
    for job in jobs:
        work, on_text = job.work, job.on_text
        assert isinstance(work, Sampling)
        n_choices = len(work.prompts) * work.n
        found += [None if on_text is None else partial(on_text, c) for c in range(n_choices)]
    return found


class Heard:
    """A reward model that remembers what it scored first: the drafts of a batch."""

    def __init__(self, model: Scorer) -> None:
        self._model = model
        self.drafts: list[tuple[Steps, Scores]] = []

    def score(self, items: Sequence[tuple[str, Steps]]) -> list[Scores]:
        """As the model."""
        scores = self._model.score(items)
        if not self.drafts:
            steps = (steps for _, steps in items)
            self.drafts = list(zip(steps, scores, strict=True))
        return scores


class Progress:
    """Tells the work on one batch of refinements: each draft when both reward models have scored
    it, then each refinement. Give the batch `orm` and `sorm` as its reward models.

    `before`: what stands before the work on each question, such as that of earlier rounds.
    """

    def __init__(
        self, models: Refiner, tells: Sequence[Tell | None], before: Sequence[str] | None = None
    ) -> None:
        self.orm, self.sorm = Heard(models.orm), Heard(models.sorm)
        self._models, self._tells = models, tells
        self._texts = ["" for _ in tells] if before is None else list(before)
        self._drawn: list[dict[str, Steps]] = [{} for _ in tells]

    def begin(self) -> None:
        """Tell the drafts. To be called when all of them have been scored and checked."""
        options = self._models.options
        for n, ((steps, orm), (_, sorm)) in enumerate(
            zip(self.orm.drafts, self.sorm.drafts, strict=True)
        ):
            self._texts[n] += _draft_text(
                steps, orm, sorm, options.needs_work(orm), options.first_bad_step(sorm)
            )
            self._tell(n)

    def refined(self, n: int, kind: str, completion: Completion) -> None:
        """Tell a refinement of the n-th question, `global` or `local`; the local one comes last."""
        drawn = self._drawn[n]
        drawn[kind] = completion_text(completion.text, self._models.layout.steps).steps
        if "global" not in drawn:
            return
        for name in ("global", "local") if kind == "global" else ("local",):
            if name in drawn:
                self._texts[n] += _refinement_text(name, drawn[name])
        self._tell(n)

    def _tell(self, n: int) -> None:
        tell = self._tells[n]
        if tell is not None:
            tell(self._texts[n])


def work_text(refinement: Refinement) -> str:
    """Draft, mark, refinements and the scores to choose by, as text for people."""
    r = refinement
    return "".join(
        (
            _draft_text(r.draft, r.orm_scores, r.sorm_scores, r.needs_work, r.marked_step),
            *(
                _refinement_text(kind, steps)
                for kind, steps in zip(r.candidate_kinds, r.candidates, strict=True)
                if kind != "draft"
            ),
            f"\n\n{scores_text(r.candidate_kinds, r.candidate_scores, r.chosen)}",
        )
    )


def scores_text(names: Sequence[str], scores: Sequence[float], chosen: int) -> str:
    """The scores to choose by, in a line. `chosen`: an index."""
    found = [
        f"{name} {score:.3f}{' (chosen)' if i == chosen else ''}"
        for i, (name, score) in enumerate(zip(names, scores, strict=True))
    ]
    return f"Scores: {', '.join(found)}"


def _draft_text(
    steps: Steps, orm: Scores, sorm: Scores, needs_work: bool, marked_step: int | None
) -> str:
    verdict = "needs work" if needs_work else "looks right"
    lines = [f"Draft ({verdict}; ORM and SORM of every step)"]
    for i, (step, p, q) in enumerate(zip(steps, orm, sorm, strict=True)):
        mark = f"{BAD_MARK} " if i == marked_step else ""
        lines.append(f"{p:.2f} {q:.2f}  {mark}{step}")
    return "\n".join(lines)


def _refinement_text(kind: str, steps: Steps) -> str:
    return "\n".join((f"\n\n{kind.capitalize()} refinement", *steps))
