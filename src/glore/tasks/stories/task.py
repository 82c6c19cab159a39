"""`Stories`: the built-in task, from settings and a seed."""

from __future__ import annotations

import functools
import json
import random
import re
from collections.abc import Sequence

from glore.config import StoriesSettings, StoriesTaskSettings
from glore.errors import DataError
from glore.prompts import refine_segments, solve_segments, step_text
from glore.records import Problem
from glore.seeds import stable_seed
from glore.tasks.documents import problem_pieces, verdict
from glore.tasks.grading.grade import grade_number_answer
from glore.tasks.protocol import Document, Grade
from glore.tasks.stories.drills import corrected, drill, lookup, perturbed_line
from glore.tasks.stories.generate import draw_story
from glore.tasks.stories.oracle import is_true
from glore.tasks.stories.perturb import perturbed_story
from glore.tasks.stories.render import render_story
from glore.tasks.stories.solve import derive_all, solve
from glore.tasks.stories.story import CHECK, Story

__all__ = ["Stories", "open_stories"]

_EASY = {"distractors": 0, "extra_relations": 0, "shuffled": 0.0}
"""Plainer stories, for the short ones in the first part of training."""
DOCUMENTS = ("look up", "sums", "drills", "work out", "solve", "copy", "mend", "check")
SHARES = (
    (0.05, (100, 0, 0, 0, 0, 0, 0, 0)),
    (0.2, (25, 75, 0, 0, 0, 0, 0, 0)),
    (0.32, (12, 10, 20, 28, 18, 0, 12, 0)),
    (1.0, (5, 4, 7, 26, 27, 2, 19, 10)),
)
"""Shares of the kinds of base documents up to a share of training. Drills first: looking up and
judging are only learnt where they are much of what there is to learn, and looking up is forgotten
where it is not kept up.
"""
EASY_UNTIL, HARD_FROM = SHARES[2][0], 0.5
"""Stories are plain and short up to the one share of training; from the other on, most are as hard
as the recipe's.
"""
PERTURBED = {"mend": 1.0, "check": 0.75}
"""Share of drafts with a slip in them."""
ONE_NUMBER = 0.6
"""Share of drafts to mend that are a single number found."""
ONLY_ONE_LINE = 0.25
"""Share of slips that are a wrong number with nothing that follows from it."""
PAIRS = 0.7
"""Share of short stories' questions that are about two people, where the recipe has such: what is
rare in training is not learnt.
"""
CONTINUED = 0.4
"""Share of drafts to judge that are only gone on with, to the answer that follows: or the student
would end in a verdict.
"""
ENDS_AT_CHECK = 0.5
"""Share of judged drafts that end where a number has just been tried."""
MAX_REPEATS = 1000
"""Draws in a row that give no new question until there count as none left."""


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
        self._unbiased = settings.model_copy(
            update={"told_second": 0.0}
        )  # what the base model reads
        draw_story(random.Random(stable_seed(seed, "stories", "check")), settings, settings.steps)

    def problems(self, split: str) -> list[Problem]:
        """Problems of a split; a question of an earlier split (test, dev, train in this order) is
        never drawn again.

        Raises DataError where the settings don't yield that many different questions.
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
                    raise self._exhausted(
                        f"only {len(out)} of {n} {name} questions are different from all others"
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
            solution = tuple(self._merged(solve(rng, story)))
        meta = json.dumps({"values": story.readings, "asked": story.asked}, separators=(",", ":"))
        return Problem(
            f"stories-{split}-{number:05d}",
            render_story(rng, story, self.settings),
            str(story.answer),
            solution,
            split,
            meta,
        )

    def _exhausted(self, what: str) -> DataError:
        s = self.settings
        return DataError(
            f"task.stories: {what} with people={list(s.people)}, steps={list(s.steps)}, "
            f"max_number={s.max_number}, distractors={s.distractors}; lower n_test, n_dev or "
            "n_train, or raise one of the others"
        )

    def _merged(self, steps: list[str]) -> list[str]:
        return (
            [*steps[:-2], f"{steps[-2]} {steps[-1]}"]
            if self.merge_answer_line and len(steps) > 1
            else steps
        )

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        """The number after the last `####` against the story's answer."""
        return grade_number_answer(problem.answer, steps)

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> tuple[bool, ...]:
        """L flags: is this step's statement true? Exact; a line that can't be read is false."""
        facts = json.loads(problem.meta)
        return tuple(
            is_true(step, facts["values"], facts["asked"], problem.answer) for step in steps
        )

    def base_document(self, rng: random.Random, progress: float) -> Document:
        """Drills; stories to work out as a whole (short ones first, the recipe's later); short ones
        to solve, copy, mend or check.

        Short stories have three people at most. A recipe whose stories are longer leaves answering
        their questions to fine-tuning and expert iteration; the quickstart's are as short.
        """
        (kind,) = rng.choices(
            DOCUMENTS, next(shares for until, shares in SHARES if progress <= until)
        )
        if kind == "look up" and self.settings.options[1] > 1:
            return lookup(rng, self._unbiased)
        if kind in ("look up", "sums", "drills"):
            return tuple(
                piece
                for _ in range(8)
                for piece in drill(rng, self._unbiased, finding=kind == "drills")
            )
        if kind == "mend" and rng.random() < ONE_NUMBER:
            return corrected(rng, self._unbiased)
        everyone = kind == "work out"
        hard = everyone and rng.random() < 0.8 * min(
            1.0, max(0.0, (progress - EASY_UNTIL) / (HARD_FROM - EASY_UNTIL))
        )
        settings = self._unbiased if hard else self._short(progress)
        for _ in range(MAX_REPEATS):
            story = draw_story(
                rng, settings, (1, self._unbiased.steps[1] if hard else settings.people[1] + 1)
            )
            question = render_story(rng, story, settings, ask_everyone=everyone)
            if question not in self._held_out and any(fact.kind != "given" for fact in story.facts):
                break
        else:
            raise self._exhausted(
                "nearly all short questions belong to dev or test, so none are left for the base "
                "model"
            )
        if everyone:
            return problem_pieces(solve_segments(question), derive_all(rng, story))
        steps = self._merged(solve(rng, story))
        wrong = (
            perturbed_story(rng, story)
            if kind in ("mend", "check") and rng.random() < PERTURBED[kind]
            else None
        )
        draft = self._merged(solve(rng, wrong)) if wrong else steps
        scribble = wrong is not None and rng.random() < ONLY_ONE_LINE
        if scribble:
            at = rng.randrange(len(steps))
            draft = [*steps[:at], perturbed_line(rng, steps[at]), *steps[at + 1 :]]
        if kind == "check":
            read = problem_pieces(solve_segments(question), ())
            if not scribble and rng.random() < CONTINUED:
                return (*read, *_draft_pieces(draft[:-1]), (step_text(draft[-1]), True))
            tried = [i + 1 for i, step in enumerate(draft) if step.startswith(CHECK)]
            draft = draft[
                : rng.choice(tried)
                if tried and rng.random() < ENDS_AT_CHECK
                else rng.randint(1, len(draft))
            ]
            told = (
                tuple((step_text(step), False) for step in draft)
                if scribble
                else _draft_pieces(draft)
            )
            return (*read, *told, (verdict(all(self._truth(story, draft))), True))
        if kind == "solve":
            return problem_pieces(solve_segments(question), steps)
        truth = self._truth(story, draft)
        mark = rng.choice((0, truth.index(False))) if False in truth else None
        return problem_pieces(refine_segments(question, draft, mark), steps)

    def _short(self, progress: float) -> StoriesSettings:
        """Settings of short stories: two people and nothing irrelevant at first."""
        pairs = PAIRS if self._unbiased.pairs else 0.0
        if progress < EASY_UNTIL:
            return self._unbiased.model_copy(update=_EASY | {"people": (2, 2), "pairs": pairs})
        return self._unbiased.model_copy(
            update={
                "people": (2, min(3, self._unbiased.people[1])),
                "shuffled": 0.0,
                "pairs": pairs,
            }
        )

    @staticmethod
    def _truth(story: Story, steps: Sequence[str]) -> list[bool]:
        readings = story.readings
        return [is_true(step, readings, story.asked, str(story.answer)) for step in steps]

    @functools.cached_property
    def _held_out(self) -> frozenset[str]:
        """Questions of dev and test: no base document tells one of them."""
        return frozenset(p.question for split in ("dev", "test") for p in self.problems(split))


def _draft_pieces(draft: Sequence[str]) -> Document:
    """A draft's steps, read; learnt is which number is tried (where its letter is told) and what
    comes of it, as it is: a check that always agreed would not be one.
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
