"""Settings of the task: where problems come from."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field, model_validator

from glore.config.section import LocalPath, Revision, Settings, TwoNumbers
from glore.errors import shown

__all__ = ["StoriesSettings", "TaskSettings"]


class StoriesSettings(Settings):
    """Difficulty knobs of the built-in task."""

    people: TwoNumbers = (3, 5)
    """Smallest and largest number of people in a story."""
    steps: TwoNumbers = (2, 4)
    """Fewest and most quantities that a solution works out (lines that check one and the answer
    line not counted).
    """
    all_needed: bool = False
    """Whether the answer depends on every person, so that no sentence but the irrelevant ones can
    be left out.
    """
    max_number: int = Field(60, ge=10, le=999)
    """No quantity of a story is larger."""
    unknown: TwoNumbers = (0, 1)
    """Fewest and most people whose number the story doesn't tell, only what some changes would make
    of it: easier to check than to find.
    """
    unknown_changes: TwoNumbers = (2, 3)
    """Fewest and most such changes."""
    options: TwoNumbers = (0, 0)
    """Fewest and most numbers, the true one among them, that the story offers for such a person;
    below 2: none.
    """
    told_second: float = Field(0.0, ge=0, le=1)
    """Share of the numbers to be found that are told second among those offered; the others stand
    anywhere. The base model's documents don't have this habit, so a student has to learn it.
    """
    changes: TwoNumbers = (1, 2)
    """Fewest and most changes of a stated number."""
    extra_relations: int = Field(1, ge=0, le=3)
    """Redundant relations: they give more than one way to a quantity."""
    shuffled: float = Field(0.5, ge=0, le=1)
    """Share of stories whose sentences stand in any order; in the others, what is needed first is
    told first.
    """
    turned: float = Field(0.15, ge=0, le=1)
    """Share of relations told the other way round, with the person who is known already as the
    subject.
    """
    pairs: float = Field(0.5, ge=0, le=1)
    """Share of questions about two people together, where their numbers allow one: a total or a
    difference.
    """
    distractors: int = Field(1, ge=0, le=3)
    """Most irrelevant sentences in a story."""
    n_train: int = Field(3000, ge=1)
    n_dev: int = Field(300, ge=1)
    n_test: int = Field(600, ge=1)
    worked_share: float = Field(0.1, ge=0, le=1)
    """Share of the training questions that come with a worked solution."""

    @model_validator(mode="after")
    def _ordered(self) -> StoriesSettings:
        if not 2 <= self.people[0] <= self.people[1] <= 8:
            raise ValueError(
                "people must be two numbers with 2 <= smallest <= largest <= 8, got "
                f"{list(self.people)}"
            )
        if not 1 <= self.steps[0] <= self.steps[1] <= self.people[1] + 1:
            raise ValueError(
                "steps must be two numbers with 1 <= fewest <= most <= the largest number of "
                f"people + 1, got {list(self.steps)}"
            )
        if not 0 <= self.unknown[0] <= self.unknown[1] < self.people[0]:
            raise ValueError(
                "unknown must be two numbers with 0 <= fewest <= most < the smallest number of "
                f"people, got {list(self.unknown)}"
            )
        for name, low_high in (
            ("unknown_changes", self.unknown_changes),
            ("changes", self.changes),
        ):
            if not 1 <= low_high[0] <= low_high[1] <= 4:
                raise ValueError(
                    f"{name} must be two numbers with 1 <= fewest <= most <= 4, got "
                    f"{list(low_high)}"
                )
        if not 0 <= self.options[0] <= self.options[1] <= 5:
            raise ValueError(
                "options must be two numbers with 0 <= fewest <= most <= 5, got "
                f"{list(self.options)}"
            )
        return self


class TaskSettings(Settings):
    """Where problems come from."""

    kind: Literal["stories", "gsm8k", "svamp", "math", "jsonl"] = "stories"
    path: LocalPath | None = None
    """A file or folder with the data: train.jsonl, test.jsonl and perhaps dev.jsonl, the same as
    JSON, CSV, Parquet or packed, what `save_to_disk` wrote, or a clone of a Hub dataset. `svamp`:
    also SVAMP.json; `math`, `jsonl`, `svamp`: also one file, which is split.
    """
    hub: str | None = None
    """A dataset name on the Hugging Face Hub, instead of `path` (a recipe's is dropped with
    `task.hub=null`). None of both: the task's usual Hub name.
    """
    config: str | None = Field(None, min_length=1, max_length=200)
    """The configuration of a dataset on the Hub, or of a clone, that has several (`main` of GSM8K).
    """
    revision: Revision | None = None
    """Commit, tag or branch of a dataset on the Hub; none: what its main branch holds when it is
    read.
    """
    n_dev: int = Field(500, ge=1)
    """Questions held out of *train* for the stopping rule and for tuning (real data without a dev
    split).
    """
    max_train: int | None = Field(None, ge=1)
    max_test: int | None = Field(None, ge=1)
    """Use only the first so many questions (order fixed by a hash, so it is a random subset)."""
    keep_annotations: bool = True
    """GSM8K: keep `<<48/2=24>>` in worked solutions, or strip them as a whole."""
    merge_answer_line: bool = False
    """Let the answer line `#### N` be part of the step before (method, notation)."""
    boxed: bool = True
    """`gsm8k`, `svamp`, `jsonl`: the last `\\boxed{}` is the answer of a solution without a `####`,
    and one that contradicts the `####` makes the verdict unknown. `math` always does so.
    """
    scratch_path: LocalPath | None = None
    """`svamp`: the MAWPS/ASDiv-A CSV that a base model trained from nothing learns from."""
    stories: StoriesSettings = StoriesSettings()

    @model_validator(mode="after")
    def _fits_kind(self) -> TaskSettings:
        for name, kinds in _FIELD_KINDS.items():
            default = type(self).model_fields[name].get_default()
            if self.kind not in kinds and getattr(self, name) != default:
                mend = "{}" if isinstance(default, Settings) else json.dumps(default)
                raise ValueError(
                    f"{name} is for tasks of kind {' or '.join(kinds)}, got kind {self.kind}; "
                    f"remove it (on the command line task.{name}={mend}) or change kind"
                )
        if self.path is not None and self.hub is not None:
            raise ValueError(
                "path and hub are both set; keep the one to read from (task.hub=null drops the "
                "recipe's)"
            )
        if self.path is not None and self.revision is not None:
            raise ValueError(
                f"revision {shown(self.revision)} pins a dataset on the Hub, but path is set, "
                "whose content is noted anyway; drop the revision (task.revision=null)"
            )
        return self


_GIVEN = ("gsm8k", "svamp", "math", "jsonl")
_FIELD_KINDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("path", "hub", "config", "revision", "n_dev", "max_train", "max_test"), _GIVEN
    ),
    "keep_annotations": ("gsm8k",),
    "merge_answer_line": ("stories", "gsm8k", "math", "jsonl"),
    "boxed": ("gsm8k", "svamp", "jsonl"),
    "scratch_path": ("svamp",),
    "stories": ("stories",),
}
"""Which kinds read a setting: elsewhere it must keep its default, so that none is set in vain."""
