"""`Stories`: the built-in task, from settings and a seed."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence

from glore.config import StoriesSettings, StoriesTaskSettings
from glore.records import Problem
from glore.seeds import stable_seed
from glore.tasks.grading.grade import grade_number_answer
from glore.tasks.protocol import Document, Grade
from glore.tasks.stories.base_documents import BaseDocuments
from glore.tasks.stories.generate import draw_story, too_few_questions
from glore.tasks.stories.oracle import is_true
from glore.tasks.stories.render import render_story
from glore.tasks.stories.solve import solve

__all__ = ["Stories", "open_stories"]

MAX_REPEATS = 1000
"""Draws in a row without a new question until there count as none left."""


def open_stories(settings: StoriesTaskSettings, seed: int) -> Stories:
    """The stories of this seed. Raises ConfigError for settings that no story meets."""
    return Stories(settings.stories, seed, merge_answer_line=settings.merge_answer_line)


class Stories:
    """The built-in task (`Task`, `OracleTask` and `ScratchTask`). Raises ConfigError for settings
    that no story meets.
    """

    name = "stories"

    def __init__(
        self, settings: StoriesSettings, seed: int, merge_answer_line: bool = False
    ) -> None:
        self.settings = settings
        self.seed = seed
        self.merge_answer_line = merge_answer_line
        draw_story(random.Random(stable_seed(seed, "stories", "check")), settings, settings.steps)

    def problems(self, split: str) -> list[Problem]:
        """Problems of a split. No question of an earlier split (test, dev, train in this order) is
        repeated. Raises DataError if the settings don't yield enough different questions.
        """
        seen: set[str] = set()
        out: list[Problem] = []
        for name in ("test", "dev", "train"):
            out, n = [], getattr(self.settings, f"n_{name}")
            index = repeats = 0
            while len(out) < n:
                problem = self._problem(name, index, len(out))
                index += 1
                repeats = repeats + 1 if problem.question in seen else 0
                if repeats == MAX_REPEATS:
                    raise too_few_questions(
                        self.settings,
                        f"only {len(out)} of {n} {name} questions are different from all others",
                    )
                if not repeats:
                    seen.add(problem.question)
                    out.append(problem)
            if name == split:
                break
        return out

    def _problem(self, split: str, index: int, number: int) -> Problem:
        rng = random.Random(stable_seed(self.seed, "stories", split, index))
        story = draw_story(rng, self.settings, self.settings.steps)
        solution = None
        if split == "train" and rng.random() < self.settings.worked_share:
            solution = tuple(solve(rng, story, self.merge_answer_line))
        meta = json.dumps({"values": story.readings, "asked": story.asked}, separators=(",", ":"))
        return Problem(
            f"stories-{split}-{number:05d}",
            render_story(rng, story, self.settings),
            str(story.answer),
            solution,
            split,
            meta,
        )

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        """Compare the number after the last `####` with the story's answer."""
        return grade_number_answer(problem.answer, steps)

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> tuple[bool, ...]:
        """L flags: whether each step is true. Exact; a line that can't be parsed is false."""
        facts = json.loads(problem.meta)
        return tuple(
            is_true(step, facts["values"], facts["asked"], problem.answer) for step in steps
        )

    def base_document(self, rng: random.Random, progress: float) -> Document:
        """One document for a base model, which is never one of dev's or test's questions."""
        return self._documents.draw(rng, progress)

    @functools.cached_property
    def _documents(self) -> BaseDocuments:
        return BaseDocuments(self.settings, self.merge_answer_line, lambda: self._held_out)

    @functools.cached_property
    def _held_out(self) -> frozenset[str]:
        return frozenset(p.question for split in ("dev", "test") for p in self.problems(split))
