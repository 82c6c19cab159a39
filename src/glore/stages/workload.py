"""How much there is to do: questions per split, and tokens per question and per solution.

Counted in the data where it lies on this machine, else assumed (`TaskSettings.expected_questions`).
For estimates alone: no result depends on it.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from glore.chat_template import prompt_layout, step_format
from glore.config import RunConfig
from glore.config.training import is_local
from glore.errors import GloreError
from glore.prompts import PromptLayout, StepFormat
from glore.records import Problem
from glore.statistics import mean
from glore.tasks.open import open_task

__all__ = ["PIECES", "Workload", "n_pieces", "workload"]

PIECES = re.compile(r"\n| ?\d| ?[^\W\d_]+| ?(?:[^\s\w]|_)+|\s")
"""Words, digits and marks of a text. As `glore.training.scratch.PIECES`: no token of a base trained
from nothing spans more than one. Tokens of pretrained models are about as many.
"""
SAMPLED = 500
"""Questions and solutions whose tokens are counted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """Sizes of a task, as far as they are known."""

    questions: Mapping[str, int]
    """Of `train`, `dev` and `test`."""
    n_worked: int
    """Training questions with a worked solution."""
    question_tokens: float
    """Of a prompt, on average."""
    solution_tokens: float
    """Of a solution, on average."""
    solution_steps: float
    """Of a solution, its answer line counted, on average."""
    is_counted: bool
    """Whether these were counted in the data; else they are assumed."""


def workload(config: RunConfig) -> Workload:
    """The sizes of the run's task. Reads local data, once in a process; asks no network."""
    return _workload(_Key(config.model_dump_json(), config))


@dataclasses.dataclass(frozen=True, slots=True)
class _Key:
    """A config under the text that says all of it: a config itself has no hash."""

    text: str
    config: RunConfig = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=8)
def _workload(key: _Key) -> Workload:
    config = key.config
    assumed = {split: config.task.expected_questions(split) for split in ("train", "dev", "test")}
    usual = Workload(
        assumed,
        round(assumed["train"] * config.task.expected_worked_share),
        50.0,
        config.student.max_new_tokens / 3,
        4.0,
        is_counted=False,
    )
    local = config.task.local_data()
    if config.task.kind != "stories" and not any(Path(path).exists() for path in local.values()):
        return usual
    try:
        task = open_task(config.task, config.seed, step_format(config.prompt))
        problems = {split: task.problems(split) for split in assumed}
    except GloreError:  # the stage `problems` reports it
        return usual
    count, layout = _counter(config), _layout(config)
    sample = [p for split in ("train", "test") for p in problems[split][: SAMPLED // 2]]
    worked = [p for p in problems["train"] if p.solution is not None]
    texts = [_solution_text(p, layout.steps) for p in worked[:SAMPLED]]
    return Workload(
        {split: len(found) for split, found in problems.items()},
        len(worked),
        mean([count("".join(layout.solve(p.question))) for p in sample], usual.question_tokens),
        mean([count(text) for text in texts], usual.solution_tokens),
        mean([len(p.solution or ()) for p in worked[:SAMPLED]], usual.solution_steps),
        is_counted=True,
    )


def n_pieces(text: str) -> int:
    """Words, digits and marks of a text."""
    return len(PIECES.findall(text))


def _solution_text(problem: Problem, steps: StepFormat) -> str:
    return "".join(map(steps.text, problem.solution or ()))


def _layout(config: RunConfig) -> PromptLayout:
    """How prompts look: with the chat template of a base model on this machine, else plain."""
    folder = _tokenizer_folder(config)
    plain = PromptLayout(step_format(config.prompt))
    if config.prompt.style == "plain" or folder is None:
        return plain
    try:
        return prompt_layout(config.prompt, folder)
    except GloreError:  # the check of the stage `sft` reports it
        return plain


def _tokenizer_folder(config: RunConfig) -> Path | None:
    """The folder of the base model's tokenizer, if it is on this machine."""
    base = config.base
    made = config.run_dir / "models" / "base"
    folder = made if base.is_made_here else Path(base.model or "").expanduser()
    is_here = base.is_made_here or is_local(base.model or "")
    return folder if is_here and (folder / "tokenizer.json").is_file() else None


def _counter(config: RunConfig) -> Callable[[str], int]:
    """Tokens of a text: by the tokenizer of a base model on this machine, else its pieces."""
    folder = _tokenizer_folder(config)
    if folder is not None:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception:  # damaged: the check of the stage `base` reports it
            return n_pieces
        return lambda text: len(tokenizer.encode(text).ids)
    return n_pieces
