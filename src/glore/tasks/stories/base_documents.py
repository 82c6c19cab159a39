"""Documents for a base model that is trained from nothing on stories: drills first, then stories.

Short stories have three people at most. A recipe with longer stories leaves their questions to
fine-tuning and expert iteration; the quickstart's are as short.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from glore.config import StoriesSettings
from glore.prompts import refine_segments, solve_segments, step_text
from glore.tasks.documents import problem_pieces, verdict
from glore.tasks.protocol import Document
from glore.tasks.stories.drills import corrected, drill, lookup, perturbed_line
from glore.tasks.stories.generate import draw_story, too_few_questions
from glore.tasks.stories.oracle import is_true
from glore.tasks.stories.perturb import perturbed_story
from glore.tasks.stories.render import render_story
from glore.tasks.stories.solve import derive_all, solve
from glore.tasks.stories.story import CHECK, Story

__all__ = ["BaseDocuments"]

_EASY = {"distractors": 0, "extra_relations": 0, "shuffled": 0.0}
"""Settings of the short stories in the first part of training."""
KINDS = ("look up", "sums", "drills", "derive", "solve", "copy", "correct", "check")
SHARES = (
    (0.05, (100, 0, 0, 0, 0, 0, 0, 0)),
    (0.2, (25, 75, 0, 0, 0, 0, 0, 0)),
    (0.32, (12, 10, 20, 28, 18, 0, 12, 0)),
    (1.0, (5, 4, 7, 26, 27, 2, 19, 10)),
)
"""Share of training done → shares of the kinds up to there. Drills come first: the model learns to
look up and to check only if these are a large part of the documents, and forgets to look up without
practice.
"""
EASY_UNTIL, HARD_FROM = SHARES[2][0], 0.5
"""Stories are easy and short up to the first share of training. From the second on, most are as
hard as the recipe's.
"""
PERTURBED = {"correct": 1.0, "check": 0.75}
"""Share of drafts with an error."""
ONE_NUMBER = 0.6
"""Share of drafts to correct that are a single unknown number."""
ONLY_ONE_LINE = 0.25
"""Share of errors that don't affect later steps."""
PAIRS = 0.7
"""Share of questions about two people in short stories, if the recipe has such questions. The model
doesn't learn what is rare in training.
"""
CONTINUED = 0.4
"""Share of drafts to check that are only continued to their answer. Otherwise the student would end
solutions with a verdict.
"""
ENDS_AT_CHECK = 0.5
"""Share of checked drafts that end after a line that checks a number."""
MAX_DRAWS = 1000
"""Draws of a story in a row without a usable question until there count as none left."""


class BaseDocuments:
    """Draws documents. `merge` joins the answer line to the step before it, and `held_out` returns
    the questions of dev and test, which no document has.
    """

    def __init__(
        self, settings: StoriesSettings, merge: bool, held_out: Callable[[], frozenset[str]]
    ) -> None:
        self._settings = settings.model_copy(update={"told_second": 0.0})
        self._merge, self._held_out = merge, held_out

    def draw(self, rng: random.Random, progress: float) -> Document:
        """A drill; a long or short story with everyone's number derived; or a short story to solve,
        copy, correct or check. `progress` is the share of training done. Raises DataError if all
        short questions belong to dev or test.
        """
        (kind,) = rng.choices(KINDS, next(shares for until, shares in SHARES if progress <= until))
        if kind == "look up" and self._settings.options[1] > 1:
            return lookup(rng, self._settings)
        if kind in ("look up", "sums", "drills"):
            drills = (drill(rng, self._settings, finding=kind == "drills") for _ in range(8))
            return tuple(piece for pieces in drills for piece in pieces)
        if kind == "correct" and rng.random() < ONE_NUMBER:
            return corrected(rng, self._settings)
        story, question = self._story(rng, progress, everyone=kind == "derive")
        if kind == "derive":
            return problem_pieces(solve_segments(question), derive_all(rng, story))
        steps = solve(rng, story, self._merge)
        if kind == "solve":
            return problem_pieces(solve_segments(question), steps)
        share = PERTURBED.get(kind)
        wrong = perturbed_story(rng, story) if share and rng.random() < share else None
        draft = solve(rng, wrong, self._merge) if wrong else steps
        only_one = wrong is not None and rng.random() < ONLY_ONE_LINE
        if only_one:
            at = rng.randrange(len(steps))
            draft = [*steps[:at], perturbed_line(rng, steps[at]), *steps[at + 1 :]]
        if kind == "check":
            return self._checked(rng, story, question, draft, only_one)
        truth = _truth(story, draft)
        mark = rng.choice((0, truth.index(False))) if False in truth else None
        return problem_pieces(refine_segments(question, draft, mark), steps)

    def _story(self, rng: random.Random, progress: float, everyone: bool) -> tuple[Story, str]:
        """A story and its question, which asks for `everyone` or is not held out."""
        hard = everyone and rng.random() < 0.8 * min(
            1.0, max(0.0, (progress - EASY_UNTIL) / (HARD_FROM - EASY_UNTIL))
        )
        settings = self._settings if hard else self._short(progress)
        for _ in range(MAX_DRAWS):
            most_steps = self._settings.steps[1] if hard else settings.people[1] + 1
            story = draw_story(rng, settings, (1, most_steps))
            question = render_story(rng, story, settings, ask_everyone=everyone)
            if question not in self._held_out() and any(f.kind != "given" for f in story.facts):
                return story, question
        raise too_few_questions(
            self._settings,
            "nearly all short questions belong to dev or test, so none are left for the base model",
        )

    def _short(self, progress: float) -> StoriesSettings:
        """Settings of short stories: at first two people and no irrelevant sentences."""
        pairs = PAIRS if self._settings.pairs else 0.0
        if progress < EASY_UNTIL:
            return self._settings.model_copy(update=_EASY | {"people": (2, 2), "pairs": pairs})
        people = (2, min(3, self._settings.people[1]))
        return self._settings.model_copy(update={"people": people, "shuffled": 0.0, "pairs": pairs})

    def _checked(
        self, rng: random.Random, story: Story, question: str, draft: list[str], only_one: bool
    ) -> Document:
        """A draft that is cut somewhere and followed by a verdict, or only continued."""
        prompt = problem_pieces(solve_segments(question), ())
        if not only_one and rng.random() < CONTINUED:
            return (*prompt, *_draft_pieces(draft[:-1]), (step_text(draft[-1]), True))
        checks = [i + 1 for i, step in enumerate(draft) if step.startswith(CHECK)]
        at_check = checks and rng.random() < ENDS_AT_CHECK
        draft = draft[: rng.choice(checks) if at_check else rng.randint(1, len(draft))]
        pieces = (
            tuple((step_text(step), False) for step in draft) if only_one else _draft_pieces(draft)
        )
        return (*prompt, *pieces, (verdict(all(_truth(story, draft))), True))


def _truth(story: Story, steps: Sequence[str]) -> list[bool]:
    readings = story.readings
    return [is_true(step, readings, story.asked, str(story.answer)) for step in steps]


def _draft_pieces(draft: Sequence[str]) -> Document:
    """The steps of a draft without a loss, except after the number that a check tries (if it has a
    letter): the model learns to compute a check as it is, right or wrong.
    """
    pieces: list[tuple[str, bool]] = []
    for step in draft:
        tried = re.match(rf"{CHECK}: \w+ \w+", step)
        pieces += (
            [(tried.group(), False), (step_text(step[tried.end() :]), True)]
            if tried
            else [(step_text(step), False)]
        )
    return tuple(pieces)
