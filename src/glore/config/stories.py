"""Settings of the built-in stories: their difficulty and number."""

from __future__ import annotations

from pydantic import Field, model_validator

from glore.config.section import Settings, TwoNumbers

__all__ = ["StoriesSettings"]


class StoriesSettings(Settings):
    """Difficulty and number of the stories."""

    people: TwoNumbers = (3, 5)
    """Smallest and largest number of people in a story."""
    steps: TwoNumbers = (2, 4)
    """Fewest and most quantities that a solution derives. Lines that check one and the answer line
    don't count.
    """
    all_needed: bool = False
    """Whether the answer depends on every person, so that only irrelevant sentences can be left
    out.
    """
    max_number: int = Field(60, ge=10, le=999)
    """The largest quantity of a story."""
    unknown: TwoNumbers = (0, 1)
    """Fewest and most people whose number the story doesn't state. It states what some changes
    would make of the number, so the number is easier to check than to find.
    """
    unknown_changes: TwoNumbers = (2, 3)
    """Fewest and most such changes."""
    options: TwoNumbers = (0, 0)
    """Fewest and most numbers, the true one among them, that the story offers for such a person;
    below 2: none.
    """
    told_second: float = Field(0.0, ge=0, le=1)
    """Share of the unknown numbers that are second among those offered; the others are at any
    place. The base model's documents lack this bias, so a student has to learn it.
    """
    changes: TwoNumbers = (1, 2)
    """Fewest and most changes of a stated number."""
    extra_relations: int = Field(1, ge=0, le=3)
    """Redundant relations, which give more than one derivation of a quantity."""
    shuffled: float = Field(0.5, ge=0, le=1)
    """Share of stories whose sentences are shuffled. The others state first what is needed first.
    """
    turned: float = Field(0.15, ge=0, le=1)
    """Share of relations whose subject is the person who is known already."""
    pairs: float = Field(0.5, ge=0, le=1)
    """Share of questions about two people, a total or a difference, if their numbers allow one."""
    distractors: int = Field(1, ge=0, le=3)
    """Largest number of irrelevant sentences in a story."""
    n_train: int = Field(3000, ge=1)
    """Training questions."""
    n_dev: int = Field(300, ge=1)
    """Dev questions."""
    n_test: int = Field(600, ge=1)
    """Test questions."""
    worked_share: float = Field(0.1, ge=0, le=1)
    """Share of the training questions with a worked solution."""

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
