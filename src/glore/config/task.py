"""Settings of the task, which supplies the problems: what all kinds share (`task_kinds` has each).

Besides its settings, a class has what the rest of glore needs to know about its kind: the function
that opens it, the local files it reads, the expected number of questions, and whether it supplies
text to train a base model.
"""

from __future__ import annotations

from typing import ClassVar

from glore.config.kinds import KindSettings

__all__ = ["TaskSettings"]


class TaskSettings(KindSettings):
    """Where problems come from: `stories`, `gsm8k`, `svamp`, `math`, `jsonl`, `reasoning_gym`, or a
    kind of an installed package (entry points in `glore.tasks`).

    `opener` takes the settings and the run's seed, and returns a `glore.tasks.Task`.
    """

    kind: str = "stories"
    merge_answer_line: bool = False
    """Let the answer line `#### N` be part of the step before (method, notation)."""

    takes_form: ClassVar[bool] = False
    """Whether `opener` also takes how worked solutions are cut into steps
    (`glore.prompts.StepFormat`).
    """
    regrader: ClassVar[str | None] = None
    """`module:function` that takes the settings, the run's seed and problems read earlier, and
    returns a task that grades them without the data they came from; none: `opener` does.
    """

    def local_data(self, *, base_text: bool = False) -> dict[str, str]:
        """Files and folders whose content the problems depend on, by the name of the setting. With
        `base_text` also those that the documents for a base model come from.
        """
        return {}

    def expected_questions(self, split: str) -> int:
        """About how many questions `train`, `dev` or `test` has, for estimates alone."""
        return {"train": 1000, "dev": 300, "test": 300}[split]

    @property
    def expected_worked_share(self) -> float:
        """About what share of the training questions has a worked solution, for estimates alone."""
        return 1.0

    def check_base_text(self) -> None:
        """Raise ValueError where the task has no text to train a base model from nothing."""
        raise ValueError(
            f"task.kind: {self.kind} has no text to train a base model from nothing; set "
            "base.model to a model name or folder"
        )

    def check_worked_solutions(self) -> None:
        """Raise ValueError where it is certain that no training question has a worked solution."""
